"""Image files: found in folders, decoded in batches while the batch before is computed; what cannot be read is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxviz import image
from jaxviz._errors import ImageError
from jaxviz._types import StrPath


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


def read_batches(files: Sequence[Path], batch: int, size: tuple[int, int], channels: int = 3) -> Iterator[Batch]:
    """Yield batches of `batch` images, the last one of fewer or none; a thread decodes one batch ahead.

    Args:
        files: their paths.
        batch: images at a time.
        size: (height, width) to which they are cut and scaled.
        channels: 3, or 1 for a network of grey images.
    """
    rest = iter(files)

    def read() -> Batch:
        good: list[Path] = []
        images: list[np.ndarray] = []
        skipped: list[Skipped] = []
        for path in rest:
            try:
                images.append(_read(path, size, channels))
                good.append(path)
            except ImageError as error:
                skipped.append(Skipped(path, _reason(path, error)))
            if len(good) == batch:
                break
        stacked = np.stack(images) if images else np.zeros((0, *size, channels), np.float32)
        return Batch(good, stacked, skipped)

    with ThreadPoolExecutor(1, thread_name_prefix="jaxviz-decode") as pool:
        ahead = pool.submit(read)
        while (part := ahead.result()).paths or part.skipped:
            ahead = pool.submit(read)
            yield part


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
