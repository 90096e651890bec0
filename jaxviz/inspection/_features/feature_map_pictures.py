"""How feature maps are drawn: pages of maps, bars where there are no positions, a frame where a unit sees."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.image import to_uint8
from jaxviz.plot._canvas import fit, font, line_height, theme, tiles

if TYPE_CHECKING:
    from jaxviz.inspection._features.feature_maps import FeatureMaps

View: TypeAlias = Literal["map", "smooth", "overlay"]
_BARS = 40  # of a layer without positions, at most
FRAME = (255, 214, 10)


def draw(maps: FeatureMaps, image: int, view: View, side: int | None) -> np.ndarray:
    if view not in ("map", "smooth", "overlay"):
        raise ArgumentError(f"A view is 'map', 'smooth' or 'overlay'; got {view!r}.")
    if not maps.is_spatial:
        raise ArgumentError(f"Layer {maps.layer!r} has no positions, and so no maps; `picture` draws its values as bars.")
    values = maps.maps[image].astype(np.float64)
    signed = bool(values.min() < 0)
    photo = tiles(maps.images[image][None], side)
    if view == "overlay":
        return plot.overlay(photo, values[None], signed=signed, shared=[1], fade=0.7)[0]
    size = photo.shape[1:3]
    if view == "smooth":
        values = plot.fitted(values, size)
    else:  # each unit a square, before colours, so that hatching has the picture's size
        rows, columns = (np.arange(n) * k // n for n, k in zip(size, values.shape[1:], strict=True))
        values = values[:, rows][:, :, columns]
    return plot.draw_maps(values, "signed" if signed else "heat", shared=[0], percentile=99.9)


def page(maps: FeatureMaps, image: int, view: View, columns: int | None, tile: int, dark: bool) -> np.ndarray:
    if not -len(maps) <= image < len(maps):
        raise ArgumentError(f"There are {len(maps)} images; got number {image}.")
    if not maps.is_spatial:
        return bars(maps, image, tile, dark)
    shown = np.concatenate([tiles(maps.images[image][None], tile), draw(maps, image, view, tile)])
    names = [maps.labels[c] if maps.labels else str(c) for c in maps.channels[image]]
    notes = ["", *(f"{value:.3g}" for value in maps.strengths[image])]
    h, w = maps.maps.shape[2:]
    title = f"{maps.layer}: {len(names)} channels of {h} x {w}, {'maximum' if maps.order == 'max' else 'mean'} of each"
    section = plot.Section("", shown[:, None], ["image", *names], notes)
    return plot.contact_sheet([section], title=title, columns=columns, tile=tile, dark=dark)


def bars(maps: FeatureMaps, image: int, tile: int, dark: bool) -> np.ndarray:
    """Draw the values of a layer without positions: a bar for each channel, to the left of 0 where negative."""
    values = maps.maps[image][:_BARS].astype(np.float64)
    names = [maps.labels[c] if maps.labels else str(c) for c in maps.channels[image][: len(values)]]
    colours, small, large = theme(dark), font(12), font(16)
    photo = tiles(maps.images[image][None], max(tile, 112))[0]
    line, length, margin = line_height(small) + 5, 320, 20
    room = min(180, math.ceil(max(map(small.getlength, names)))) + 10
    left = margin + photo.shape[1] + 24 + room
    low, high = min(values.min(), 0), max(values.max(), 0)
    unit = length / ((high - low) or 1)
    zero, numbers = left - low * unit, 64
    top = margin + line_height(large) + 14
    height = top + max(photo.shape[0], line * len(values)) + margin
    canvas = Image.new("RGB", (round(left + length + numbers + margin), height), colours.paper)
    pen = ImageDraw.Draw(canvas)
    more = "" if len(values) == maps.maps.shape[1] else f", the first {len(values)} of {maps.maps.shape[1]}"
    pen.text((margin, margin - 4), fit(f"{maps.layer}{more}", large, canvas.width - 2 * margin), fill=colours.ink, font=large)
    canvas.paste(Image.fromarray(photo), (margin, top))
    table = plot.colour_table("blue_red")
    for i, (value, name) in enumerate(zip(values, names, strict=True)):
        y = top + i * line
        words = fit(name, small, room - 8)
        pen.text((left - 8, y + line / 2), words, fill=colours.ink, font=small, anchor="rm")
        ends = sorted((zero, zero + value * unit)) if np.isfinite(value) else (zero, zero)
        pen.rectangle((ends[0], y + 2, max(ends[1], ends[0] + 1), y + line - 3), fill=tuple(table[224 if value > 0 else 32]))
        pen.text((left + length + 8, y + line / 2), f"{value:.3g}", fill=colours.faint, font=small, anchor="lm")
    pen.line((zero, top, zero, top + line * len(values)), fill=colours.faint)
    return np.asarray(canvas)


def framed(image: ArrayLike, box: tuple[int, int, int, int], side: int, width: int, dim: float = 0.45) -> np.ndarray:
    """Draw an image `side` pixels high with a frame around a box (top, left, bottom, right) of it; darken what is outside."""
    photo = tiles(np.asarray(image)[None], side)[0]
    scale = np.array(photo.shape[:2]) / np.shape(image)[:2]
    (top, left), (bottom, right) = (np.round(np.array(corner) * scale) for corner in (box[:2], box[2:]))
    ys, xs = np.arange(photo.shape[0])[:, None], np.arange(photo.shape[1])[None]

    def within(by: int) -> np.ndarray:
        return (ys >= top - by) & (ys < bottom + by) & (xs >= left - by) & (xs < right + by)

    seen = within(0)
    photo = np.where(seen[..., None], photo, to_uint8(photo * np.float32((1 - dim) / 255)))
    photo[within(width) & ~seen] = FRAME
    # At the image's border, where the frame would be outside, it is drawn inside.
    photo[seen & ~((ys >= width) & (ys < len(photo) - width) & (xs >= width) & (xs < photo.shape[1] - width))] = FRAME
    return photo
