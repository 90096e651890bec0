"""Where images come from: files in folders or an array, with names by which a run that continues knows them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxviz._errors import ArgumentError, ImageError, JaxvizError
from jaxviz._fingerprint import digest
from jaxviz._image_files import Skipped, find_files, read_batches, stamp
from jaxviz._types import ArrayLike, StrPath
from jaxviz.image import Size, as_pair
from jaxviz.models import Model

ImageInput: TypeAlias = StrPath | Sequence[StrPath] | ArrayLike
Labels: TypeAlias = Mapping[str, str] | Sequence[str] | None

CHUNK = 64  # images read at a time by default


class ImagePart(NamedTuple):
    """Images that were read, their rows in the source, and the files among them that could not be read."""

    rows: Sequence[int]
    images: np.ndarray
    skipped: Sequence[Skipped]


@dataclass(frozen=True)
class ImageSource:
    """N images with names.

    Attributes:
        keys: absolute paths, or row numbers for an array.
        labels: class of each image; "" if unknown.
        size: (height, width) of the images as read.
        stamp: called with a row; returns a JSON value that changes when the image does, or None for a missing file.
        read: called with rows and a chunk size; yields the images of these rows in order.
        skipped: folders that could not be listed.
        array: the array; None for files.
    """

    keys: Sequence[str]
    labels: Sequence[str]
    size: tuple[int, int]
    stamp: Callable[[int], Any]
    read: Callable[[Sequence[int], int], Iterator[ImagePart]]
    skipped: Sequence[Skipped] = ()
    array: ArrayLike | None = None

    def no_image_error(self, skipped: Sequence[Skipped]) -> JaxvizError:
        """Return the error of a run that could read no image."""
        first = f" '{skipped[0].path}': {skipped[0].reason}" if skipped else ""
        return ImageError(f"None of {len(self.keys)} files could be read as an image.{first}")


def reading_chunk(chunk: int | None) -> int:
    """Return how many images to read at a time.

    Raises:
        ArgumentError: not a positive integer.
    """
    if chunk is None:
        return CHUNK
    if chunk != int(chunk) or chunk < 1:
        raise ArgumentError(f"chunk must be a whole number of at least 1; got {chunk!r}.")
    return int(chunk)


def image_source(
    model: Model, images: ImageInput, size: Size | None, *, labels: Labels = None, out: StrPath | None = None
) -> ImageSource:
    """Return the images of an array, or of files and folders without the folder `out`.

    Args:
        model: decides the number of channels, and the size of files by default.
        images: folders with everything in them, files, or an array (N, H, W, C).
        size: (H, W) to which files are scaled and cropped.
        labels: for files, the class of each folder name; for an array, the class of each image.
        out: folder of the run.

    Raises:
        ArgumentError: an empty array, an array of another size, or unsuitable labels.
        ImageError: no files.
    """
    if isinstance(images, np.ndarray | jax.Array):
        return _from_array(model, images, size, labels)
    return _from_files(model, images, size, labels, out)


def _from_array(model: Model, images: ArrayLike, size: Size | None, labels: Labels) -> ImageSource:
    if not images.ndim or not len(images):
        raise ArgumentError(f"Expected images (N, H, W, C) with at least one; got shape {images.shape}.")
    model.check_images(images[:1])
    shape = (int(images.shape[1]), int(images.shape[2]))
    if size is not None and as_pair(size) != shape:
        raise ArgumentError(f"size is for files: these images are {shape}, size is {size!r}. Use jaxviz.image.resize.")
    if labels is not None and (isinstance(labels, Mapping) or len(labels) != len(images)):
        raise ArgumentError(f"Expected {len(images)} labels, one for each image; got {labels!r:.80}.")
    classes = [""] * len(images) if labels is None else [str(label) for label in labels]

    def read(rows: Sequence[int], chunk: int) -> Iterator[ImagePart]:
        for first in range(0, len(rows), chunk):
            part = rows[first : first + chunk]
            yield ImagePart(part, np.asarray(model.check_images(images[np.asarray(part)])), ())

    keys = [str(row) for row in range(len(images))]
    return ImageSource(keys, classes, shape, lambda row: digest(images[row]), read, array=images)


def _from_files(
    model: Model, paths: StrPath | Sequence[StrPath], size: Size | None, labels: Labels, out: StrPath | None
) -> ImageSource:
    if labels is not None and not isinstance(labels, Mapping):
        raise ArgumentError("Expected labels as a mapping from names of folders to classes: files may be skipped.")
    pixels = model.input_size if size is None else as_pair(size)
    files, skipped = find_files(paths, out)
    if not files:
        note = f" '{skipped[0].path}': {skipped[0].reason}" if skipped else ""
        raise ImageError(f"There are no files in the given paths.{note}")
    files = [path.absolute() for path in files]
    row_of = {path: row for row, path in enumerate(files)}
    folders = [path.parent.name for path in files]
    classes = folders if labels is None else [str(labels.get(name, name)) for name in folders]

    def read(rows: Sequence[int], chunk: int) -> Iterator[ImagePart]:
        for batch in read_batches([files[row] for row in rows], chunk, pixels, model.in_channels):
            yield ImagePart([row_of[Path(path)] for path in batch.paths], batch.images, batch.skipped)

    def stamp_of(row: int) -> list[int] | None:
        try:
            return stamp(files[row])
        except OSError:
            return None

    return ImageSource([str(path) for path in files], classes, pixels, stamp_of, read, skipped)
