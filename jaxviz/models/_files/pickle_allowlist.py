"""What a weight file's pickle may name, and what each name stands for: the allow-list, and plain descriptions of tensors."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

DTYPES = {
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint8": np.dtype("u1"),
    "uint16": np.dtype("<u2"),
    "uint32": np.dtype("<u4"),
    "uint64": np.dtype("<u8"),
    "bool": np.dtype("bool"),
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


@dataclass(frozen=True, slots=True)
class StorageRef:
    """A storage that the file holds: `size` elements of `dtype` under `key`; `start` is not 0 for an old-style view."""

    key: str
    dtype: np.dtype
    size: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor as the file describes it: elements of a storage by offset, shape and strides, all checked to be inside."""

    storage: StorageRef
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """What a permitted global stands for."""

    kind: str  # a key of the interpreter's _BUILDERS, or "storage" or "dtype"
    dtype: np.dtype | None = None


_BYTES = DTYPES["uint8"]
GLOBALS: dict[tuple[str, str], Token] = {
    ("collections", "OrderedDict"): Token("dict"),
    ("torch._utils", "_rebuild_tensor"): Token("tensor"),
    ("torch._utils", "_rebuild_tensor_v2"): Token("tensor"),
    ("torch._utils", "_rebuild_tensor_v3"): Token("tensor_v3"),
    ("torch._utils", "_rebuild_parameter"): Token("parameter"),
    ("torch", "Size"): Token("size"),
    ("torch", "device"): Token("device"),
    ("torch.storage", "UntypedStorage"): Token("storage", _BYTES),
    ("torch", "UntypedStorage"): Token("storage", _BYTES),
    **{("torch", name): Token("storage", DTYPES[dtype]) for name, dtype in _STORAGES.items()},
    **{("torch", name): Token("dtype", dtype) for name, dtype in DTYPES.items()},
}
