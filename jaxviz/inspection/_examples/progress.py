"""How far a run has come through its images, which it reads in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxviz._errors import SaveError
from jaxviz._fingerprint import describe
from jaxviz._result_files import ADVICE
from jaxviz.inspection._examples.files import ReadFile
from jaxviz.inspection._image_source import ImagePart, ImageSource


class ReadingProgress:
    """Reads a source in order and records the files it has read.

    Attributes:
        source: the images.
        total: number of files, or of images in an array.
        position: how many of them have been read.
        image_count: how many of these are images.
    """

    def __init__(self, source: ImageSource) -> None:
        self.source = source
        self.total, self.position, self.image_count = len(source.keys), 0, 0
        self._files: list[ReadFile] = []  # of folders; an array has none

    def settings(self) -> dict[str, Any]:
        """Return what identifies the images, except for files, which `files` lists."""
        return {} if self.source.array is None else {"images": describe(self.source.array)}

    def parts(self, chunk: int) -> Iterator[ImagePart]:
        """Yield the images that have not been read; call `advance` for each part."""
        yield from self.source.read(range(self.position, self.total), chunk)

    def advance(self, part: ImagePart) -> None:
        """Record a part as read."""
        stop = self.position + len(part.rows) + len(part.skipped)
        if self.source.array is None:
            reasons = {str(skipped.path): skipped.reason for skipped in part.skipped}
            for row in range(self.position, stop):
                key = self.source.keys[row]
                self._files.append(ReadFile(key, self._stamp(row), reasons.get(key)))
        self.position = stop
        self.image_count += len(part.rows)

    def files(self, image_count: int) -> list[ReadFile]:
        """Return the files before image number `image_count`, and the folders that could not be listed."""
        files: list[ReadFile] = []
        count = 0
        for file in self._files:
            count += file.reason is None
            if count > image_count:
                break
            files.append(file)
        return files + [ReadFile(str(folder.path), None, folder.reason) for folder in self.source.skipped]

    def resume(self, files: Sequence[ReadFile], image_count: int, folder: Path) -> None:
        """Continue after the files that an earlier run has read.

        Raises:
            SaveError: they are not the first files of the source, or have changed.
        """
        self.image_count = self.position = image_count
        if self.source.array is not None:
            return
        self._files = [file for file in files if file.stamp is not None]
        self.position = len(self._files)
        for row, file in enumerate(self._files):
            if row >= self.total or self.source.keys[row] != file.path:
                raise SaveError(
                    f"The folder '{folder}' holds a run over other files: it saw '{file.path}', which is not here now, or "
                    f"elsewhere in their order: {ADVICE}."
                )
            if self._stamp(row) != file.stamp:
                raise SaveError(f"'{file.path}' has changed since the run in '{folder}' saw it: {ADVICE}.")

    def _stamp(self, row: int) -> list[int]:
        """Return a file's size and time; an empty list if it is missing."""
        return self.source.stamp(row) or []
