"""Pickles and weight files written by hand, instruction by instruction."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path


class Raw(bytes):
    """Instructions to put into a pickle as they are."""


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tuple_(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage(kind: str, key: str, size: int, view: tuple[str, int, int] | None = None) -> bytes:
    extra = [] if view is None else [tuple_(text(view[0]), number(view[1]), number(view[2]))]
    return tuple_(text("storage"), global_("torch", kind), text(key), text("cpu"), number(size), *extra) + b"Q"


def tensor(stored: bytes, offset: int = 0, shape=(2,), strides=None) -> bytes:
    strides = (1,) * len(shape) if strides is None else strides
    numbers = [tuple_(*map(number, shape)), tuple_(*map(number, strides))]
    hooks = global_("collections", "OrderedDict") + b")R"
    return global_("torch._utils", "_rebuild_tensor_v2") + tuple_(stored, number(offset), *numbers, b"\x89", hooks) + b"R"


def dumped(state: dict[str, Raw]) -> bytes:
    return b"\x80\x02}(" + b"".join(text(k) + v for k, v in state.items()) + b"u."


def zipped(path: Path, main: bytes, data: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", main)
        for key, value in data.items():
            archive.writestr(f"archive/data/{key}", value)
    return path


def legacy(main: bytes, data: dict[str, bytes], sizes: dict[str, int]) -> bytes:
    head = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True}]
    keys = pickle.dumps(sorted(data), 2)
    stored = b"".join(struct.pack("<q", sizes[k]) + data[k] for k in sorted(data))
    return b"".join(pickle.dumps(h, 2) for h in head) + main + keys + stored


def hostile(tmp_path: Path, main: bytes, kind: str, data: bytes = bytes(8)) -> Path:
    path = tmp_path / "hostile.pth"
    if kind == "zip":
        return zipped(path, main, {"0": data})
    path.write_bytes(legacy(main, {"0": data}, {"0": len(data) // 4}))
    return path
