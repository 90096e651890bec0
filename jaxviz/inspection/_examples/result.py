"""Top-activating images of each unit, with crops and pictures of them, and their files."""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from jaxviz import plot
from jaxviz._atomic import names_in
from jaxviz._errors import ArgumentError, ImageError, SaveError, UnitError
from jaxviz._image_files import Skipped
from jaxviz._result_files import ADVICE
from jaxviz._types import ArrayLike, StrPath
from jaxviz.image import load, to_uint8
from jaxviz.inspection._examples import histogram as _histogram
from jaxviz.inspection._examples.files import ARRAYS, LayerExamples, ReadFile, SavedExamples, read, write

_NOTEBOOK = 8  # units shown in a notebook
_TILE = 224  # height of a crop in a picture at most
_SHEET = 12e6  # pixels of all crops in a contact sheet at most
_MARKED = 96  # height from which a frame does not hide the crop
_PAPER = 232  # light gray beyond the border of an image


@dataclass(frozen=True, eq=False, repr=False)
class TopExamples(LayerExamples):
    """The k top-activating images of each of U units, and a histogram of the scores of all images.

    Attributes:
        layer: name of the layer, as given.
        scores: float32 (U, k), descending; ties in the order of the images; -inf if fewer than k scores are finite.
        indices: int32 (U, k), image indices into `files`; -1 where the score is -inf.
        positions: int32 (U, k, 2), row and column of the map's maximum; zeros in layers without positions.
        counts: int32 (U, bins), number of images with a score between two `edges`.
        low, high: float32 (U,), minimum and maximum score of all images.
        shape: (h, w) of the layer's maps; () without positions.
        image_size: (H, W) of the images as the network's input.
        receptive_field: of one unit; None if unknown.
        score: `"max"` or `"mean"` over positions.
        files: paths of the images in order; () for an array.
        skipped: files that could not be read, with the reason.
        images: the array (N, H, W, C) of the images, if they are not files; not saved.
    """

    files: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    images: ArrayLike | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        of = f"{len(self.files)} files" if self.files or self.images is None else f"{len(self.images)} images"
        return f"TopExamples({self.layer}: {len(self)} units x {self.scores.shape[1]} of {of}, {self.score})"

    @functools.cached_property
    def edges(self) -> np.ndarray:
        """The edges of the histogram's bins, float64 (U, bins + 1), equally spaced for each unit.

        The bin width is the smallest power of two with which the bins cover all scores; at least half of the bins are used.
        """
        return _histogram.edges(self.low, self.high)

    def windows(self, unit: int, *, extent: int | None = None) -> np.ndarray:
        """Return the windows of a unit's crops in its k images, int (k, 4): top, left, bottom, right (exclusive).

        A window is the receptive field of the strongest position, or `extent` pixels around its center. It may extend beyond
        the image; along an axis where it would be as large as the image, it is the whole image.
        """
        if extent is not None and extent < 1:
            raise ArgumentError(f"Expected an extent of at least 1 pixel; got {extent!r}.")
        unit = self._units(unit)[0]
        windows = np.zeros((self.scores.shape[1], 4), int)
        for row, at in zip(windows, self.positions[unit], strict=True):
            row[2:] = self.image_size
            if self.shape and self.receptive_field is not None:
                box = self.receptive_field.box(int(at[0]), int(at[1]))
                for axis, whole in enumerate(self.image_size):
                    start, stop = box[axis], box[axis + 2]
                    size = extent or stop - start
                    if size < whole:
                        row[axis] = (start + stop - size) // 2
                        row[axis + 2] = row[axis] + size
        return windows

    def crops(self, units: int | Sequence[int] | None = None, *, extent: int | None = None) -> np.ndarray:
        """Return the crops of units' k images: the receptive field at the strongest position.

        Each file is read again once. Crops are light gray beyond the border of an image.

        Args:
            units: one or several units; all by default.
            extent: side of a crop in pixels, centered on the receptive field, which is the crop by default. Receptive fields
                of deep layers cover the image, but units respond to smaller patterns.

        Returns:
            float32 (k, h, w, C) in [0, 1] for one unit, (n, k, h, w, C) for several; see `windows`.

        Raises:
            UnitError: a unit that the layer does not have.
            ImageError: a file is missing or has changed.
        """
        pictures = self._pictures(units, extent)
        crops = pictures.astype(np.float32) / np.float32(255) if pictures.dtype == np.uint8 else pictures
        return crops[0] if isinstance(units, int | np.integer) else crops

    def picture(
        self,
        units: int | Sequence[int] | None = None,
        *,
        extent: int | None = None,
        tile: int | None = None,
        dark: bool = False,
    ) -> np.ndarray:
        """Draw a row of crops for each unit, strongest image first, with the scores below.

        If a crop is the whole image, a frame marks the strongest position: the cell of the map, centered on its receptive
        field.

        Args:
            units: one or several units; all by default.
            extent: see `crops`.
            tile: height of a crop in pixels.
            dark: white on black.

        Returns:
            uint8 (height, width, 3).

        Raises:
            UnitError, ImageError: see `crops`.
        """
        chosen = self._units(units)
        return plot.table(
            self._pictures(chosen, extent, mark=True, most=tile or _TILE),
            columns=[str(i + 1) for i in range(self.scores.shape[1])],
            rows=[f"{self.layer}:{unit}" for unit in chosen],
            captions=[[f"{score:.3g}" for score in self.scores[unit]] for unit in chosen],
            tile=tile,
            dark=dark,
        )

    def contact_sheet(self, *, extent: int | None = None, tile: int | None = None, dark: bool = False) -> np.ndarray:
        """Draw the crops of all units on one page, with unit numbers and highest scores; uint8 (height, width, 3)."""
        names = [str(unit) for unit in range(len(self))]
        notes = [f"{scores[0]:.3g}" for scores in self.scores]
        if tile is None:
            tile = max(16, min(112, math.isqrt(int(_SHEET / max(1, self.scores.size)))))
        heading = f"{self.layer}: {self.scores.shape[1]} top-activating images of {int(self.counts[0].sum())} for each unit"
        section = plot.Section(heading, self._pictures(None, extent, mark=tile >= _MARKED, most=tile), names, notes)
        return plot.contact_sheet([section], tile=tile, dark=dark)

    def save(self, folder: StrPath, *, overwrite: bool = False) -> Path:
        """Write `examples.npz` (arrays), which `load_examples` reads, and `examples.json` (for people); return the folder.

        Raises:
            SaveError: the folder cannot be written, or holds examples and `overwrite` is False.
        """
        return save_examples({self.layer: self}, folder, overwrite=overwrite)

    def _repr_png_(self) -> bytes | None:
        buffer = io.BytesIO()
        try:
            Image.fromarray(self.picture(range(min(len(self), _NOTEBOOK)), tile=96)).save(buffer, "PNG")
        except ImageError:  # the files are missing
            return None
        return buffer.getvalue()

    def _units(self, units: int | Sequence[int] | None) -> list[int]:
        chosen = list(range(len(self))) if units is None else [int(unit) for unit in np.atleast_1d(np.asarray(units))]
        if not chosen or min(chosen) < 0 or max(chosen) >= len(self):
            raise UnitError(f"{self.layer} has the units 0 to {len(self) - 1}; got {units!r}.")
        return chosen

    def _pictures(
        self, units: int | Sequence[int] | None, extent: int | None, *, mark: bool = False, most: int | None = None
    ) -> np.ndarray:
        """Return the crops of units (n, k, h, w, C): uint8 from files, float32 from an array. Each file is read once.

        Args:
            units: one or several units; all by default.
            extent: see `crops`.
            mark: frame the strongest position if the crop is the whole image.
            most: height in pixels at most; the crops are then uint8.
        """
        chosen = self._units(units)
        windows = np.stack([self.windows(unit, extent=extent) for unit in chosen])
        top, left, bottom, right = (int(side) for side in windows[0, 0])  # all windows have one size
        size = (bottom - top, right - left)
        scale = 1.0 if most is None else min(1.0, most / size[0])
        final = (round(size[0] * scale), max(1, round(size[1] * scale)))
        indices = self.indices[chosen]
        crops: np.ndarray | None = None
        for index in (i for i in np.unique(indices) if i >= 0):
            image = self._image(int(index))
            image = image if most is None else to_uint8(image)
            paper = _PAPER if image.dtype == np.uint8 else _PAPER / 255
            if crops is None:
                crops = np.full((*indices.shape, *final, image.shape[-1]), paper, image.dtype)
            for row, column in zip(*np.nonzero(indices == index), strict=True):
                crop = np.full((*size, image.shape[-1]), paper, image.dtype)
                _paste(crop, image, windows[row, column, :2])
                crop = crop if size == final else plot.resized(crop, final)
                if mark and self.shape and size == self.image_size:
                    crop = _framed(crop, self._cell(self.positions[chosen[row], column]))
                crops[row, column] = crop
        return np.full((*indices.shape, *final, 3), _PAPER, np.uint8) if crops is None else crops

    def _cell(self, position: np.ndarray) -> list[float]:
        """Return top, left, bottom and right of a position's cell as shares of the image: one stride, centered on its field.

        With padding, the center of the first field is at the edge of the image, not in the middle of a first cell.
        """
        sides = np.zeros((2, 2))
        for axis, (at, cells, whole) in enumerate(zip(position, self.shape, self.image_size, strict=True)):
            middle, step = (at + 0.5) * whole / cells, whole / cells
            if self.receptive_field is not None and not self.receptive_field.whole:
                field = self.receptive_field
                middle, step = field.start[axis] + at * field.stride[axis] + field.size[axis] / 2, field.stride[axis]
            sides[:, axis] = np.clip(middle / whole, 0, 1) + np.array([-0.5, 0.5]) * step / whole
        return sides.ravel().tolist()

    def _image(self, index: int) -> np.ndarray:
        """Return an image at the network's input size (H, W, C)."""
        if self.files:
            return to_uint8(load(self.files[index], self.image_size))
        if self.images is None:
            raise ImageError(
                "These examples came from an array, which is not saved; set it: dataclasses.replace(examples, images=array)."
            )
        return np.asarray(self.images[index], np.float32)


def from_saved(saved: SavedExamples, images: ArrayLike | None = None) -> dict[str, TopExamples]:
    """Return the examples by layer."""
    files, skipped = saved.files, saved.skipped
    return {
        name: TopExamples(**vars(layer), files=files, skipped=skipped, images=images) for name, layer in saved.layers.items()
    }


def load_examples(folder: StrPath) -> dict[str, TopExamples]:
    """Read the examples by layer that `top_examples(..., out=folder)`, `save_examples` or `TopExamples.save` wrote.

    Raises:
        SaveError: the folder holds no examples, damaged ones, or a run that is not finished.
    """
    saved = read(Path(folder))
    if saved is None:
        raise SaveError(f"There are no top examples in '{folder}': '{ARRAYS}' is missing.")
    if not saved.is_finished:
        raise SaveError(f"The run in '{folder}' is not finished: the same call again continues it.")
    return from_saved(saved)


def save_examples(layers: Mapping[str, TopExamples], folder: StrPath, *, overwrite: bool = False) -> Path:
    """Write the examples of some layers of one run, for `load_examples`; return the folder.

    Raises:
        SaveError: the folder cannot be written, or holds examples and `overwrite` is False.
    """
    folder, first = Path(folder), next(iter(layers.values()))
    if not overwrite and ARRAYS in names_in(folder):
        raise SaveError(f"The folder '{folder}' holds top examples already: {ADVICE}.")
    read_files = [ReadFile(path, None) for path in first.files]
    read_files += [ReadFile(str(skipped.path), None, skipped.reason) for skipped in first.skipped]
    write(folder, SavedExamples(layers, None, read_files, len(first.files), is_finished=True))
    return folder


def _paste(canvas: np.ndarray, image: np.ndarray, corner: np.ndarray) -> None:
    """Copy the part of an image that begins at a corner, which may lie outside the image."""
    top, left = (int(at) for at in corner)
    bottom, right = top + canvas.shape[0], left + canvas.shape[1]
    rows, columns = slice(max(top, 0), min(bottom, image.shape[0])), slice(max(left, 0), min(right, image.shape[1]))
    if rows.start < rows.stop and columns.start < columns.stop:
        canvas[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = image[rows, columns]


def _framed(crop: np.ndarray, sides: Sequence[float]) -> np.ndarray:
    """Return an image with a frame, uint8; its top, left, bottom and right are shares of the height and the width."""
    height, width = crop.shape[:2]
    top, left, bottom, right = (round(at * side) for at, side in zip(sides, (height, width) * 2, strict=True))
    line = max(1, round(min(height, width) / 70))
    masks = np.zeros((2, height, width), bool)
    masks[0, max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = True
    masks[1, max(0, top) : bottom, max(0, left) : right] = True
    dark = plot.outline(crop[None], masks[:1], width=line + 2, color=(0, 0, 0))  # visible on any photo
    return plot.outline(dark, masks[1:], width=line)[0][..., : crop.shape[-1]]
