"""Feature maps of images, and the pages that show them."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw

from jaxviz import plot
from jaxviz._errors import ArgumentError, UnitError
from jaxviz._types import ArrayLike
from jaxviz.image import to_uint8
from jaxviz.models._layer_table import ReceptiveField
from jaxviz.plot._canvas import fit, font, line_height, theme, tiles

Order: TypeAlias = Literal["max", "mean"]
View: TypeAlias = Literal["map", "smooth", "overlay"]

_BARS = 40  # bars on a page at most
_FRAME = (255, 214, 10)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMaps:
    """Feature maps of K channels of a layer, for N images.

    Attributes:
        layer: name of the layer.
        maps: float32 (N, K, h, w), K channels per image; (N, K) for a layer without positions.
        channels: int32 (N, K), channel numbers.
        strengths: float32 (N, K), maximum or mean of each map, or the value itself without positions; the maps are ordered
            by it.
        order: "max" or "mean".
        images: float32 (N, H, W, C) in [0, 1].
        receptive_field: of one unit, or None if the layer is not computed through `ops`.
        labels: names of the layer's channels, such as class names; may be empty.
    """

    layer: str
    maps: np.ndarray
    channels: np.ndarray
    strengths: np.ndarray
    order: Order
    images: np.ndarray
    receptive_field: ReceptiveField | None
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def is_spatial(self) -> bool:
        """Whether the layer has positions."""
        return self.maps.ndim == 4

    def draw(self, image: int = 0, *, view: View = "map", side: int | None = None) -> np.ndarray:
        """Draw all maps of an image on one color scale.

        Args:
            image: number of the image.
            view: "map" draws each position as a square; "smooth" interpolates; "overlay" blends the map with the image.
            side: width in pixels; the width of the image by default.

        Returns:
            uint8 (K, height, side, 3).

        Raises:
            ArgumentError: an unknown view, or a layer without positions.
        """
        if view not in get_args(View):
            raise ArgumentError(f"A view is 'map', 'smooth' or 'overlay'; got {view!r}.")
        if not self.is_spatial:
            raise ArgumentError(f"Layer {self.layer!r} has no positions, and so no maps; `picture` draws its values as bars.")
        values = self.maps[image].astype(np.float64)
        signed = bool(values.min() < 0)
        photo = tiles(self.images[image][None], side)
        if view == "overlay":
            return plot.overlay(photo, values[None], signed=signed, shared=[1], fade=0.7)[0]
        size = photo.shape[1:3]
        if view == "smooth":
            values = plot.fitted(values, size)
        else:  # enlarge before coloring, so that hatching has the resolution of the picture
            rows, columns = (np.arange(n) * k // n for n, k in zip(size, values.shape[1:], strict=True))
            values = values[:, rows][:, :, columns]
        return plot.draw_maps(values, "signed" if signed else "heat", shared=[0], percentile=99.9)

    def picture(
        self, image: int = 0, *, view: View = "map", columns: int | None = None, tile: int = 112, dark: bool = False
    ) -> np.ndarray:
        """Draw a page: the image, then its maps with channel numbers and strengths; a bar chart without positions.

        Args:
            image: number of the image.
            view: see `draw`.
            columns: maps per row; chosen for a well-shaped page by default.
            tile: height of a map in pixels.
            dark: white on black.

        Returns:
            uint8 (height, width, 3).

        Raises:
            ArgumentError: an unknown view, or an image number out of range.
        """
        if not -len(self) <= image < len(self):
            raise ArgumentError(f"There are {len(self)} images; got number {image}.")
        if not self.is_spatial:
            return self._bars(image, tile, dark)
        pictures = np.concatenate([tiles(self.images[image][None], tile), self.draw(image, view=view, side=tile)])
        notes = ["", *(f"{value:.3g}" for value in self.strengths[image])]
        names = self._names(image)
        h, w = self.maps.shape[2:]
        statistic = "maximum" if self.order == "max" else "mean"
        title = f"{self.layer}: {len(names)} channels of {h} x {w}, {statistic} of each"
        section = plot.Section("", pictures[:, None], ["image", *names], notes)
        return plot.contact_sheet([section], title=title, columns=columns, tile=tile, dark=dark)

    def draw_receptive_field(self, y: int, x: int, image: int = 0, *, side: int = 256, width: int = 3) -> np.ndarray:
        """Frame the receptive field of position (y, x) in the image, and darken the rest.

        Where the frame extends beyond the image, the unit sees padding.

        Args:
            y, x: row and column in the map, from 0; see `strongest_position`.
            image: number of the image.
            side: height of the picture in pixels.
            width: width of the frame in pixels.

        Returns:
            uint8 (side, width, 3).

        Raises:
            ArgumentError: a layer without positions, or with an unknown receptive field.
            UnitError: a position outside the map.
        """
        if not self.is_spatial or self.receptive_field is None:
            raise ArgumentError(f"Layer {self.layer!r} has no positions with a known receptive field.")
        h, w = self.maps.shape[2:]
        if not (0 <= y < h and 0 <= x < w):
            raise UnitError(f"Layer {self.layer!r} has positions (y, x) from (0, 0) to ({h - 1}, {w - 1}); got ({y}, {x}).")
        return _frame_box(self.images[image], self.receptive_field.box(y, x), side, width)

    def strongest_position(self, image: int = 0, rank: int = 0) -> tuple[int, int]:
        """Return the row and column of the maximum of map number `rank` of an image.

        Raises:
            ArgumentError: a layer without positions.
        """
        if not self.is_spatial:
            raise ArgumentError(f"Layer {self.layer!r} has no positions.")
        values = self.maps[image, rank]
        y, x = np.unravel_index(int(values.argmax()), values.shape)
        return int(y), int(x)

    def _names(self, image: int) -> list[str]:
        return [self.labels[c] if self.labels else str(c) for c in self.channels[image]]

    def _bars(self, image: int, tile: int, dark: bool) -> np.ndarray:
        """Draw the values of a layer without positions: a bar per channel, to the left of 0 if negative."""
        values = self.maps[image][:_BARS].astype(np.float64)
        names = self._names(image)[: len(values)]
        colors, small, large = theme(dark), font(12), font(16)
        photo = tiles(self.images[image][None], max(tile, 112))[0]
        line, length, margin = line_height(small) + 5, 320, 20
        room = min(180, math.ceil(max(map(small.getlength, names)))) + 10
        left = margin + photo.shape[1] + 24 + room
        low, high = min(values.min(), 0), max(values.max(), 0)
        unit = length / ((high - low) or 1)
        zero, numbers = left - low * unit, 64
        top = margin + line_height(large) + 14
        height = top + max(photo.shape[0], line * len(values)) + margin
        canvas = Image.new("RGB", (round(left + length + numbers + margin), height), colors.paper)
        pen = ImageDraw.Draw(canvas)
        more = "" if len(values) == self.maps.shape[1] else f", the first {len(values)} of {self.maps.shape[1]}"
        title = fit(f"{self.layer}{more}", large, canvas.width - 2 * margin)
        pen.text((margin, margin - 4), title, fill=colors.ink, font=large)
        canvas.paste(Image.fromarray(photo), (margin, top))
        table = plot.color_table("blue_red")
        for i, (value, name) in enumerate(zip(values, names, strict=True)):
            y = top + i * line
            pen.text((left - 8, y + line / 2), fit(name, small, room - 8), fill=colors.ink, font=small, anchor="rm")
            ends = sorted((zero, zero + value * unit)) if np.isfinite(value) else (zero, zero)
            fill = tuple(table[224 if value > 0 else 32])
            pen.rectangle((ends[0], y + 2, max(ends[1], ends[0] + 1), y + line - 3), fill=fill)
            pen.text((left + length + 8, y + line / 2), f"{value:.3g}", fill=colors.faint, font=small, anchor="lm")
        pen.line((zero, top, zero, top + line * len(values)), fill=colors.faint)
        return np.asarray(canvas)


def _frame_box(image: ArrayLike, box: tuple[int, int, int, int], side: int, width: int, dim: float = 0.45) -> np.ndarray:
    """Draw an image `side` pixels high with a frame around a box (top, left, bottom, right); darken the outside by `dim`."""
    photo = tiles(np.asarray(image)[None], side)[0]
    scale = np.array(photo.shape[:2]) / np.shape(image)[:2]
    (top, left), (bottom, right) = (np.round(np.array(corner) * scale) for corner in (box[:2], box[2:]))
    ys, xs = np.arange(photo.shape[0])[:, None], np.arange(photo.shape[1])[None]

    def within(by: int) -> np.ndarray:
        return (ys >= top - by) & (ys < bottom + by) & (xs >= left - by) & (xs < right + by)

    inside = within(0)
    photo = np.where(inside[..., None], photo, to_uint8(photo * np.float32((1 - dim) / 255)))
    photo[within(width) & ~inside] = _FRAME
    # A frame that would lie outside the image is drawn along its border.
    photo[inside & ~((ys >= width) & (ys < len(photo) - width) & (xs >= width) & (xs < photo.shape[1] - width))] = _FRAME
    return photo
