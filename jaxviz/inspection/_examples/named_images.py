"""Images by their names, so that a run that was stopped knows which of them it has done: files in folders, or an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, ImageError
from jaxviz._image_files import Skipped, find_files, read_batches, stamp
from jaxviz._types import ArrayLike, StrPath
from jaxviz.image import Size, as_pair
from jaxviz.models import Model

Images: TypeAlias = StrPath | Sequence[StrPath] | ArrayLike
Labels: TypeAlias = Mapping[str, str] | Sequence[str] | None


class Part(NamedTuple):
    """Some images that were read, which of all they are, and the files between them that could not be read."""

    rows: Sequence[int]
    images: np.ndarray
    skipped: Sequence[Skipped]


class NamedImages(NamedTuple):
    """N images by name: their labels, what tells that one has changed, and how some of them are read in batches."""

    keys: Sequence[str]
    labels: Sequence[str]
    size: tuple[int, int]
    stamp: Callable[[int], Any]
    read: Callable[[Sequence[int], int], Iterator[Part]]
    skipped: Sequence[Skipped] = ()


def named_images(model: Model, images: Images, size: Size | None, labels: Labels, out: StrPath | None) -> NamedImages:
    """Return the images of folders and files, but not of the folder `out`, or of an array.

    Raises:
        ArgumentError: an empty array, a size for one, or labels that do not fit.
        ImageError: there are no files.
    """
    if isinstance(images, np.ndarray | jax.Array):
        return _of_array(model, images, size, labels)
    return _of_files(model, images, size, labels, out)


def _of_array(model: Model, images: ArrayLike, size: Size | None, labels: Labels) -> NamedImages:
    if not images.ndim or not len(images) or size is not None:
        given = f"shape {images.shape}" + (" and a size; resize them with jaxviz.image.resize" if size is not None else "")
        raise ArgumentError(f"Expected images (N, H, W, C) with at least one; got {given}.")
    model.check_images(images[:1])
    if labels is not None and (isinstance(labels, Mapping) or len(labels) != len(images)):
        raise ArgumentError(f"Expected {len(images)} labels, one for each image; got {labels!r:.80}.")
    classes = [str(one) for one in labels] if labels is not None else [""] * len(images)

    def read(rows: Sequence[int], batch: int) -> Iterator[Part]:
        for first in range(0, len(rows), batch):
            part = rows[first : first + batch]
            yield Part(part, np.asarray(model.check_images(images[np.asarray(part)])), ())

    def stamp_of(i: int) -> str:
        return engine.digest(images[i])

    return NamedImages([str(i) for i in range(len(images))], classes, (images.shape[1], images.shape[2]), stamp_of, read)


def _of_files(
    model: Model, images: StrPath | Sequence[StrPath], size: Size | None, labels: Labels, out: StrPath | None
) -> NamedImages:
    if labels is not None and not isinstance(labels, Mapping):
        raise ArgumentError("Expected labels as a mapping from names of folders to classes: files may be skipped.")
    pixels = model.input_size if size is None else as_pair(size)
    files, skipped = find_files(images, out)
    if not files:
        raise ImageError(
            "There are no files in what was given." if not skipped else f"'{skipped[0].path}': {skipped[0].reason}"
        )
    files = [path.absolute() for path in files]
    rows_of = {path: i for i, path in enumerate(files)}
    folders = [path.parent.name for path in files]
    classes = [str(labels.get(name, name)) for name in folders] if labels is not None else folders

    def read(rows: Sequence[int], batch: int) -> Iterator[Part]:
        for part in read_batches([files[i] for i in rows], batch, pixels, model.in_channels):
            yield Part([rows_of[Path(path)] for path in part.paths], part.images, part.skipped)

    def stamp_of(i: int) -> list[int] | None:
        try:
            return stamp(files[i])
        except OSError:
            return None

    return NamedImages([str(path) for path in files], classes, pixels, stamp_of, read, skipped)
