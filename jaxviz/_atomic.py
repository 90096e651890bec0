"""Files that are either whole or absent."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from jaxviz._types import StrPath


def write_atomically(path: StrPath, write: Callable[[IO[bytes]], object], *, durable: bool = False) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it there in one step.

    A reader sees the old file or the whole new one, also after a crash or a full disk. Missing folders are created.

    Args:
        path: Where the file goes.
        write: Called once with the open binary file.
        durable: Wait until the disk has it, so that not even a power cut leaves an empty file of that name.

    Raises:
        OSError: The folder or file cannot be written; the temporary file is gone and an old file is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        # mkstemp makes the file private; give it the rights that open() would have given it.
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    return path


def map_array(path: StrPath, name: str) -> np.ndarray:
    """Return one array of an `.npz` file as a memory map, read-only: they are stored as they are, one after the other.

    Raises:
        OSError, KeyError, ValueError, zipfile.BadZipFile: No such file or array, or a damaged one.
    """
    path = Path(path)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        file.seek(archive.getinfo(f"{name}.npy").header_offset + 26)
        file.seek(sum(struct.unpack("<HH", file.read(4))), io.SEEK_CUR)  # the lengths of the member's name and extra field
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        return np.memmap(path, dtype, "r", file.tell(), shape)


def _umask() -> int:
    # The only way to read the mask without setting it is Linux's /proc; elsewhere the common one is taken, because
    # os.umask() would change it for every thread of the process.
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().split("Umask:")[1].split()[0], 8)
    return 0o022
