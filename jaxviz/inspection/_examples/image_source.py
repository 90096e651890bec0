"""Where the images of a stream come from: files in folders, which are known again, or an array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxviz._errors import ArgumentError, ImageError, SaveError
from jaxviz._image_files import Batch, find_files, read_batches, stamp
from jaxviz._result_files import ADVICE
from jaxviz._types import ArrayLike, StrPath
from jaxviz.engine import describe
from jaxviz.image import Size, as_pair
from jaxviz.inspection._examples.files import Taken
from jaxviz.inspection._examples.result import TopExamples
from jaxviz.models import Model


class Files:
    """Images in folders, and which of them have been looked at.

    Attributes:
        size: (H, W) of the images as they are read.
        total: files.
        looked_at: files, so far.
        number: of the next image, among those that can be read.
        settings: what tells these images from others, apart from the files' names and times.
    """

    def __init__(self, model: Model, paths: Any, size: Size | None, out: StrPath | None) -> None:
        self.size: tuple[int, int] = model.input_size if size is None else as_pair(size)
        self._channels = model.in_channels
        files, self._closed = find_files(paths, out)
        self._files = [path.absolute() for path in files]
        self._taken: list[Taken] = []
        self.total, self.number = len(self._files), 0
        self.settings: dict[str, Any] = {}

    @property
    def looked_at(self) -> int:
        return len(self._taken)

    def parts(self, batch: int) -> Iterator[Batch]:
        """Yield the images that have not been looked at."""
        yield from read_batches(self._files[self.looked_at :], batch, self.size, self._channels)

    def note(self, part: Batch) -> None:
        """Count a part among what has been looked at."""
        reasons = {str(one.path): one.reason for one in part.skipped}
        stop = self.looked_at + len(part.paths) + len(part.skipped)
        for path in self._files[self.looked_at : stop]:
            self._taken.append(Taken(str(path), _stamp(path), reasons.get(str(path))))
        self.number += len(part.paths)

    def taken(self, images: int) -> list[Taken]:
        """Return the files up to the one that comes after so many images, and the folders that could not be listed."""
        found, count = [], 0
        for one in self._taken:
            count += one.reason is None
            if count > images:
                break
            found.append(one)
        return found + [Taken(str(one.path), None, one.reason) for one in self._closed]

    def resume(self, taken: Sequence[Taken], images: int, folder: Path) -> None:
        """Go on after the files that a run has looked at.

        Raises:
            SaveError: they are not the first ones here, or have changed.
        """
        listed = [one for one in taken if one.stamp is not None]
        for number, one in enumerate(listed):
            if number >= self.total or str(self._files[number]) != one.path:
                raise SaveError(
                    f"The folder '{folder}' holds a run over other files: it saw '{one.path}', which is not here now, or "
                    f"elsewhere in their order: {ADVICE}."
                )
            if _stamp(self._files[number]) != one.stamp:
                raise SaveError(f"'{one.path}' has changed since the run in '{folder}' saw it: {ADVICE}.")
        self._taken, self.number = listed, images

    def attached(self, layer: TopExamples) -> TopExamples:
        return layer

    def nothing(self) -> Exception:
        """Return the error of a run that found no image."""
        skipped = [one for one in self.taken(0) if one.reason is not None]
        first = f" '{skipped[0].path}': {skipped[0].reason}" if skipped else ""
        if not self.total:
            return ImageError(f"There are no files in what was given.{first}")
        return ImageError(f"None of {self.total} files could be read as an image.{first}")


class Images:
    """The images of an array, as `Files`; they are read, and checked, a part at a time."""

    def __init__(self, model: Model, images: ArrayLike, size: Size | None) -> None:
        model.check_images(images[:1])
        self.size = (int(images.shape[1]), int(images.shape[2]))
        if size is not None and self.size != as_pair(size):
            raise ArgumentError(f"size is for files: these images are {self.size}, size is {size!r}. Use jaxviz.image.resize.")
        self._model, self._images = model, images
        self.total, self.number = len(images), 0

    @property
    def settings(self) -> dict[str, Any]:
        return {"images": describe(self._images)}

    @property
    def looked_at(self) -> int:
        return self.number

    def parts(self, batch: int) -> Iterator[Batch]:
        for first in range(self.number, self.total, batch):
            part = np.asarray(self._model.check_images(self._images[first : first + batch]))
            yield Batch([Path(str(first + i)) for i in range(len(part))], part, [])

    def note(self, part: Batch) -> None:
        self.number += len(part.images)

    def taken(self, images: int) -> list[Taken]:
        return []

    def resume(self, taken: Sequence[Taken], images: int, folder: Path) -> None:
        self.number = images

    def attached(self, layer: TopExamples) -> TopExamples:
        return replace(layer, images=self._images)

    def nothing(self) -> Exception:
        return ArgumentError("Expected at least one image; got none.")


def _stamp(path: Path) -> list[int]:
    """Return a file's size and time; nothing where it is gone."""
    try:
        return stamp(path)
    except OSError:
        return []
