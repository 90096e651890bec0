"""PyTorch's weight files without PyTorch: the zip archive (since 1.6) and the older stream of pickles and raw data."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxviz._errors import CheckpointError
from jaxviz.models._files import unpickle as _unpickle
from jaxviz.models._files.pickle_allowlist import StorageRef, TensorRef

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MAX_PICKLE = 64 * 2**20

Select = Callable[[Any], dict[str, TensorRef]]


def read_zip(path: Path, select: Select) -> dict[str, np.ndarray]:
    """Read a `.pth` file that is a zip archive; `select` picks the named tensors out of the object that it holds.

    The archive is stored without compression and its records may not overlap, so that nothing unpacks to more than the
    file's size; a CRC-32 guards every record. Arrays are read-only and may share memory, as the tensors did.
    """
    with zipfile.ZipFile(path) as archive:
        records: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            if info.filename in records:
                raise CheckpointError(f"the archive holds {info.filename[:80]!r} twice")
            records[info.filename] = info
        mains = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(mains) != 1:
            raise CheckpointError(f"a zip archive, but not of PyTorch: {len(mains)} records are called data.pkl, not one")
        root = mains[0].removesuffix("data.pkl")
        left = path.stat().st_size
        if f"{root}constants.pkl" in records:
            raise CheckpointError(
                "a TorchScript archive (torch.jit.save), which holds code; save the weights: "
                "torch.save(torch.jit.load(path).state_dict(), other_path)"
            )

        def record(name: str, limit: int) -> bytes:
            info = records.get(root + name)
            if info is None:
                raise CheckpointError(f"the archive has no record {name[:80]!r}")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise CheckpointError(f"record {name[:80]!r} is compressed; torch.save stores records as they are")
            if info.file_size > limit:
                raise CheckpointError(f"record {name[:80]!r} has {info.file_size} bytes; at most {limit} were expected")
            nonlocal left
            left -= info.file_size
            if left < 0:
                raise CheckpointError("the records are larger than the file, or overlap")
            return archive.read(info)

        order = record("byteorder", 16) if f"{root}byteorder" in records else b"little"
        if order not in (b"little", b"big"):
            raise CheckpointError(f"unknown byte order {order!r}")
        storages: dict[str, StorageRef] = {}
        chosen = select(_unpickle.load(io.BytesIO(record("data.pkl", _MAX_PICKLE)), storages))
        data: dict[str, bytes] = {}
        for tensor in chosen.values():
            key = tensor.storage.key
            if key not in data:
                data[key] = _checked(storages[key], record(f"data/{key}", _nbytes(storages[key])))
        return {name: _array(tensor, data[tensor.storage.key], order == b"big") for name, tensor in chosen.items()}


def read_legacy(path: Path, select: Select) -> dict[str, np.ndarray]:
    """Read a `.pth` file in the format before PyTorch 1.6: five pickles, then every storage with its length.

    The format has no checksum, so a changed byte inside the raw data goes unnoticed here; a download is checked as a
    whole against its hash.
    """
    with path.open("rb") as file:
        magic, protocol, system = (_unpickle.load(file, {}) for _ in range(3))
        if type(magic) is not int or magic != _MAGIC:
            raise CheckpointError("a pickle, but not one of torch.save")
        if type(protocol) is not int or protocol != _PROTOCOL:
            raise CheckpointError(f"unknown version of PyTorch's old format; {_PROTOCOL} was expected")
        little = system.get("little_endian", True) if type(system) is dict else None
        if type(little) is not bool:
            raise CheckpointError("the file does not say in which byte order it was written")
        storages: dict[str, StorageRef] = {}
        chosen = select(_unpickle.load(file, storages))
        keys = _unpickle.load(file, {})
        if type(keys) is not list or not all(type(key) is str and key in storages for key in keys):
            raise CheckpointError("the list of storages does not agree with the tensors")
        if len(set(keys)) != len(keys):
            raise CheckpointError("the list of storages names one of them twice")
        wanted = {tensor.storage.key for tensor in chosen.values()}
        data: dict[str, bytes] = {}
        end = path.stat().st_size
        for key in keys:
            size = _nbytes(storages[key])
            count = int.from_bytes(_exactly(file, 8), "little" if little else "big")
            if count != storages[key].size:
                raise CheckpointError(f"storage {key[:40]!r} has {count} elements, not {storages[key].size} as announced")
            if file.tell() + size > end:
                raise CheckpointError(f"the file is cut off: {file.tell() + size - end} bytes are missing, or more")
            if key in wanted:
                data[key] = _exactly(file, size)
            else:
                file.seek(size, io.SEEK_CUR)
        missing = wanted - data.keys()
        if missing:
            raise CheckpointError(f"the data of {len(missing)} storages is not in the file")
        return {name: _array(tensor, data[tensor.storage.key], not little) for name, tensor in chosen.items()}


def _nbytes(storage: StorageRef) -> int:
    return storage.size * storage.dtype.itemsize


def _checked(storage: StorageRef, data: bytes) -> bytes:
    if len(data) != _nbytes(storage):
        raise CheckpointError(f"storage {storage.key[:40]!r} has {len(data)} bytes, not {_nbytes(storage)} as announced")
    return data


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise CheckpointError(f"the file is cut off: {size - len(data)} bytes are missing, or more")
    return data


def _array(tensor: TensorRef, data: bytes, big_endian: bool) -> np.ndarray:
    """View the bytes of a storage as a tensor; `np.ndarray` checks once more that nothing reaches outside them."""
    dtype, size = tensor.dtype, tensor.dtype.itemsize
    if big_endian and size > 1:  # swap as plain integers: bfloat16 knows no byte order
        data = np.frombuffer(data[: len(data) // size * size], f"u{size}").byteswap().tobytes()
    if dtype.kind == "b":  # any byte may be in the file, but a NumPy bool is only 0 or 1
        data = (np.frombuffer(data, np.uint8) != 0).tobytes()
    start = tensor.storage.start * tensor.storage.dtype.itemsize + tensor.offset * size
    if 0 in tensor.shape:
        return np.empty(tensor.shape, dtype)
    strides = tuple(size * stride for stride in tensor.strides)
    return np.ndarray(tensor.shape, dtype, buffer=data, offset=start, strides=strides)
