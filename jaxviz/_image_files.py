"""Image files: found in folders, decoded in batches while the batch before is computed; what cannot be read is told."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxviz import image
from jaxviz._errors import ImageError
from jaxviz._types import StrPath

THREADS = 8  # that decode, at most; Pillow lets go of Python's lock meanwhile


@dataclass(frozen=True)
class Skipped:
    """A file that is no image that can be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Batch:
    """Some images (N, H, W, C) in [0, 1] with their files, and the files between them that could not be read."""

    paths: Sequence[Path]
    images: np.ndarray
    skipped: Sequence[Skipped]


def find_files(paths: Sequence[StrPath] | StrPath, out: StrPath | None = None) -> tuple[list[Path], list[Skipped]]:
    """Return the files that are given or are in given folders, in order, each once; and the folders that cannot be listed.

    Files and folders whose names begin with a dot are left out of folders, and so is the folder `out`.
    """
    given = [Path(one) for one in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    found: dict[str, Path] = {}
    closed: list[Skipped] = []
    away = None if out is None else os.path.realpath(out)

    def tell(error: OSError) -> None:
        closed.append(Skipped(Path(error.filename or "?"), error.strerror or str(error)))

    for start in given:
        if not start.is_dir():
            found.setdefault(os.path.realpath(start), start)
            continue
        for folder, inner, names in os.walk(start, onerror=tell):
            inner[:] = sorted(n for n in inner if not n.startswith(".") and os.path.realpath(Path(folder, n)) != away)
            for name in sorted(names):
                if not name.startswith("."):
                    found.setdefault(os.path.realpath(Path(folder, name)), Path(folder, name))
    return list(found.values()), closed


def stamp(path: Path) -> list[int]:
    """Return a file's size in bytes and time in nanoseconds, by which a run that goes on sees that it is the same one.

    Raises:
        OSError: it is gone.
    """
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def read_batches(files: Sequence[Path], batch: int, size: tuple[int, int], channels: int = 3) -> Iterator[Batch]:
    """Yield batches of `batch` images, the last one of fewer or none; threads decode one batch ahead.

    Args:
        files: their paths.
        batch: images at a time.
        size: (height, width) to which they are cut and scaled.
        channels: 3, or 1 for a network of grey images.
    """
    rest = iter(files)
    ahead: deque[tuple[Path, Future[np.ndarray | Skipped]]] = deque()
    pool = ThreadPoolExecutor(min(THREADS, _cores()), thread_name_prefix="jaxviz-decode")

    def fill() -> None:
        while len(ahead) < batch and (path := next(rest, None)) is not None:
            ahead.append((path, pool.submit(_read_or_skip, path, size, channels)))

    try:
        fill()
        while ahead:
            paths: list[Path] = []
            images: list[np.ndarray] = []
            skipped: list[Skipped] = []
            while ahead and len(images) < batch:
                path, future = ahead.popleft()
                found = future.result()
                if isinstance(found, Skipped):
                    skipped.append(found)
                else:
                    paths.append(path)
                    images.append(found)
                fill()
            stacked = np.stack(images) if images else np.zeros((0, *size, channels), np.float32)
            yield Batch(paths, stacked, skipped)
    finally:  # also where the reader stops early
        pool.shutdown(cancel_futures=True)


def _read_or_skip(path: Path, size: tuple[int, int], channels: int) -> np.ndarray | Skipped:
    try:
        return _read(path, size, channels)
    except ImageError as error:
        return Skipped(path, _reason(path, error))


def _read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    if path.exists() and not path.is_file():
        raise ImageError("not a regular file.")  # a pipe would be waited for
    photo = image.load(path, size)
    if not 0 <= photo.min() <= photo.max() <= 1:
        raise ImageError("values outside [0, 1].")
    return photo if channels == 3 else photo.mean(-1, keepdims=True)


def _reason(path: Path, error: ImageError) -> str:
    text = str(error).removeprefix(f"Cannot read the image '{path}': ")
    return text.replace(f" '{path}'", "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
