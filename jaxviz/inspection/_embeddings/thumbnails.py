"""Small pictures of embedded images, read from their files."""

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
AHEAD = 64  # pictures that are read before they are asked for
MISSING = 160  # the grey of a file that is gone


def pictures(embeddings: Embeddings, rows: Sequence[int], size: int, images: ArrayLike | None = None) -> Iterator[np.ndarray]:
    """Yield square pictures uint8 (size, size, 3) of some rows; a file that has gone, or cannot be read any more, is grey.

    Args:
        embeddings: whose files are read.
        rows: which of them.
        size: pixels of a side; what is longer is cut at both ends.
        images: the images themselves (N, H, W, C) where they are no files; floats in [0, 1] or uint8.

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
        except (ImageError, ValueError):  # a NUL in a name is a ValueError
            return np.full((size, size, 3), MISSING, np.uint8)

    with ThreadPoolExecutor(THREADS, thread_name_prefix="jaxviz-thumbnails") as pool:
        for first in range(0, len(rows), AHEAD):  # map alone would read all of them at once
            yield from pool.map(read, rows[first : first + AHEAD])


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    side = min(picture.shape[:2])
    cut = image.crop(picture, side)
    cut = np.broadcast_to(cut, (side, side, 3))
    return to_uint8(np.asarray(image.resize(cut.astype(np.float32) / 255, size)))
