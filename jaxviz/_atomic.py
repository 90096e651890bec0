"""Files that are either whole or absent: written in one step, read with one kind of error, swept after a kill."""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Container, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from jaxviz._errors import SaveError
from jaxviz._types import StrPath

_PREFIX = 40  # characters of a file's name that the name of its temporary file keeps
_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")  # as `tempfile` completes the prefix ".NAME."


class DamagedFile(SaveError):
    """A file that is not whole, or holds something else."""


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
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:_PREFIX]}.", dir=path.parent)
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
    """Return one array of an uncompressed `.npz` file as a read-only memory map.

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


@contextmanager
def reading(path: StrPath, what: str = "file") -> Generator[None, None, None]:
    """Turn every error that a damaged file causes into `DamagedFile`; a missing file stays a `FileNotFoundError`.

    A damaged zip raises many types: zipfile, zlib, struct, NumPy and json all have their own.

    >>> np.savez("result.npz", scores=np.zeros(3))
    >>> with reading("result.npz", "result"):
    ...     scores = np.load("result.npz")["scores"]
    """
    try:
        yield
    except (FileNotFoundError, DamagedFile):
        raise
    except Exception as error:
        raise DamagedFile(f"Cannot read the {what} '{path}': {str(error) or type(error).__name__}") from error


def names_in(folder: Path) -> set[str]:
    """Return the names of all files and folders in a folder; none where there is no such folder."""
    return {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()


def sweep(folder: Path, targets: Container[str] | None = None) -> None:
    """Remove the temporary files that killed writes left in a folder: of the files `targets`, or of all."""
    for name in names_in(folder):
        match = _TEMPORARY.fullmatch(name)
        if match and (targets is None or match[1] in targets):
            path = folder / name
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def temporary_stem(name: str) -> str:
    """Return what the temporary file of `name` is called after, as `sweep` compares it."""
    return name[:_PREFIX]


def remove_matching(folder: Path, pattern: str) -> None:
    """Remove the files below a folder whose relative POSIX path matches, and temporary files; then the folders left empty.

    Symbolic links are removed, never followed.
    """
    if folder.is_symlink():
        folder.unlink()
        return
    for top, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *(name for name in folders if Path(top, name).is_symlink())):
            path = Path(top, name)
            if re.fullmatch(pattern, path.relative_to(folder).as_posix()) or _TEMPORARY.fullmatch(name):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            Path(top).rmdir()


def _umask() -> int:
    # The only way to read the mask without setting it is Linux's /proc; elsewhere the common one is taken, because
    # os.umask() would change it for every thread of the process.
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/status").read_text().split("Umask:")[1].split()[0], 8)
    return 0o022
