"""Thumbnails of embedded images, read from their files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxviz import image
from jaxviz._errors import ArgumentError, ImageError
from jaxviz._types import ArrayLike
from jaxviz.image import to_uint8
from jaxviz.inspection._embeddings.embeddings import Embeddings

THREADS = 4
AHEAD = 64  # pictures read ahead
MISSING = 160  # gray level for a missing file


def pictures(embeddings: Embeddings, rows: Sequence[int], size: int, images: ArrayLike | None = None) -> Iterator[np.ndarray]:
    """Yield square pictures uint8 (size, size, 3) of some rows; a file that can no longer be read is gray.

    Args:
        embeddings: their files are read.
        rows: rows of the embeddings.
        size: side in pixels; the longer side is cropped at both ends.
        images: the images (N, H, W, C), floats in [0, 1] or uint8, if they are not files.

    Raises:
        ArgumentError: another number of images.
    """
    if images is not None:
        if len(images) != len(embeddings):
            raise ArgumentError(f"Expected {len(embeddings)} images, as many as vectors; got {len(images)}.")
        yield from (_square(to_uint8(np.asarray(images[row])), size) for row in rows)
        return

    def read(row: int) -> np.ndarray:
        try:
            return to_uint8(image.load(embeddings.files[row], size))
        except (ImageError, ValueError):  # a NUL in a file name raises ValueError
            return np.full((size, size, 3), MISSING, np.uint8)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="jaxviz-thumbnails") as pool:
        for first in range(0, len(rows), AHEAD):  # map alone would read all files at once
            yield from pool.map(read, rows[first : first + AHEAD])


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    side = min(picture.shape[:2])
    square = image.crop(picture, side)
    square = np.broadcast_to(square, (side, side, 3))
    return to_uint8(np.asarray(image.resize(square.astype(np.float32) / 255, size)))
