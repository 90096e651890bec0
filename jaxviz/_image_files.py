"""Image files: find them in folders, and decode one batch while the batch before is computed; unreadable files are reported."""

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

THREADS = 8  # at most, for decoding; Pillow releases Python's lock meanwhile


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be read as an image, and the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Batch:
    """Images with their files, and the files between them that could not be read."""

    paths: Sequence[Path]
    images: np.ndarray  # (N, H, W, C) in [0, 1]
    skipped: Sequence[Skipped]


def find_files(paths: Sequence[StrPath] | StrPath, out: StrPath | None = None) -> tuple[list[Path], list[Skipped]]:
    """Return the files among the paths and in their folders, in order, each once; and the folders that cannot be listed.

    Inside folders, names that begin with a dot are skipped, and so is the folder `out`.
    """
    starts = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    files: dict[str, Path] = {}
    unlisted: list[Skipped] = []
    excluded = None if out is None else os.path.realpath(out)

    def note(error: OSError) -> None:
        unlisted.append(Skipped(Path(error.filename or "?"), error.strerror or str(error)))

    for start in starts:
        if not start.is_dir():
            files.setdefault(os.path.realpath(start), start)
            continue
        for folder, inner, names in os.walk(start, onerror=note):
            inner[:] = sorted(n for n in inner if not n.startswith(".") and os.path.realpath(Path(folder, n)) != excluded)
            for name in sorted(names):
                if not name.startswith("."):
                    files.setdefault(os.path.realpath(Path(folder, name)), Path(folder, name))
    return list(files.values()), unlisted


def stamp(path: Path) -> list[int]:
    """Return a file's size in bytes and time in nanoseconds, by which a resumed run knows that it has not changed.

    Raises:
        OSError: the file does not exist.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def read_batches(files: Sequence[Path], chunk: int, size: tuple[int, int], channels: int = 3) -> Iterator[Batch]:
    """Yield batches of `chunk` images, the last with fewer or none; threads decode one batch ahead.

    Args:
        files: their paths.
        chunk: images at a time.
        size: (height, width) to which they are scaled and cropped.
        channels: 3, or 1 for a network of gray images.
    """
    rest = iter(files)
    ahead: deque[tuple[Path, Future[np.ndarray | Skipped]]] = deque()
    pool = ThreadPoolExecutor(min(THREADS, _cores()), thread_name_prefix="jaxviz-decode")

    def fill() -> None:
        while len(ahead) < chunk and (path := next(rest, None)) is not None:
            ahead.append((path, pool.submit(_read_or_skip, path, size, channels)))

    try:
        fill()
        while ahead:
            paths: list[Path] = []
            images: list[np.ndarray] = []
            skipped: list[Skipped] = []
            while ahead and len(images) < chunk:
                path, future = ahead.popleft()
                decoded = future.result()
                if isinstance(decoded, Skipped):
                    skipped.append(decoded)
                else:
                    paths.append(path)
                    images.append(decoded)
                fill()
            stacked = np.stack(images) if images else np.zeros((0, *size, channels), np.float32)
            yield Batch(paths, stacked, skipped)
    finally:  # also if the caller stops early
        pool.shutdown(cancel_futures=True)


def _read_or_skip(path: Path, size: tuple[int, int], channels: int) -> np.ndarray | Skipped:
    try:
        return _read(path, size, channels)
    except ImageError as error:
        return Skipped(path, _reason(path, error))


def _read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    if path.exists() and not path.is_file():
        raise ImageError("not a regular file.")  # reading a pipe would wait
    photo = image.load(path, size)
    if not 0 <= photo.min() <= photo.max() <= 1:
        raise ImageError("values outside [0, 1].")
    return photo if channels == 3 else photo.mean(-1, keepdims=True)


def _reason(path: Path, error: ImageError) -> str:
    text = str(error).removeprefix(f"Cannot read the image '{path}': ")
    return text.replace(f" '{path}'", "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
