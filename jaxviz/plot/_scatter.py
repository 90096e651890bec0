"""Scatter plots: thumbnails where there is room, dots elsewhere, a color for each class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageDraw

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import Color, Font, Theme, fit, font, line_height, theme, tiles
from jaxviz.plot._categories import category_colors

Arrangement: TypeAlias = Literal["grid", "free", "dots"]

_FEW = 20  # at most as many classes have fixed colors
_LISTED = 30  # at most as many classes in the legend
_SMOOTH = 3  # factor of supersampling for dots: Pillow's circles have no smooth edges


def scatter(
    points: ArrayLike,
    images: ArrayLike | None = None,
    *,
    labels: Sequence[str] = (),
    classes: Sequence[str] = (),
    arrange: Arrangement = "grid",
    size: int = 1600,
    tile: int = 40,
    title: str | None = None,
    legend: bool = True,
    dark: bool = False,
) -> np.ndarray:
    """Return a picture of points, at one scale for both axes, with thumbnails and class-colored borders.

    Args:
        points: float (N, 2), such as a t-SNE or two principal components.
        images: thumbnails (N, H, W, 1 or 3), floats in [0, 1] or uint8; without them all points are dots.
        labels: N classes, or none; "" has no color.
        classes: all classes, in the order of their colors and of the legend; alphabetical by default.
        arrange: "grid" moves thumbnails to the cells of a grid, the nearest to each cell's center; none overlap, and those
            without a cell are left out. "free" keeps thumbnails in place and draws those that would cover another as dots.
            "dots" draws no thumbnails.
        size: pixels of the longer side of the plane.
        tile: pixels of a thumbnail's longer side, including its border.
        title: a line at the top.
        legend: whether to list the classes with their colors and numbers of points on the right; the 30 most frequent.
        dark: white on black.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ArgumentError: wrong shapes, points that are not finite, or an unknown arrangement.

    >>> scatter(np.random.default_rng(0).normal(size=(9, 2)), labels=list("aaabbbccc"), size=200).shape[-1]
    3
    """
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not len(array) or not np.isfinite(array).all():
        raise ArgumentError(f"Expected finite points (N, 2) with at least one; got an array of shape {array.shape}.")
    if arrange not in get_args(Arrangement) or size < 32 or not 4 <= tile <= size / 2:
        raise ArgumentError(
            f"Expected an arrangement of {', '.join(get_args(Arrangement))}, a size of at least 32 and tiles from 4 to half of "
            f"it; got {arrange!r}, {size} and {tile}."
        )
    if (labels and len(labels) != len(array)) or (images is not None and len(images) != len(array)):
        counts = f"{len(labels)} and {'none' if images is None else len(images)}"
        raise ArgumentError(f"Expected {len(array)} labels and {len(array)} images, or none; got {counts}.")
    paper, color = theme(dark), _colors_of(labels, classes, len(array), theme(dark))
    at, width, height = _placed(array, size, tile)
    canvas = Image.new("RGB", (width, height), paper.paper)
    if images is None or arrange != "grid":  # on a grid, thumbnails would hide every dot
        _draw_dots(canvas, at, color, radius=max(1.5, size / 640))
    if images is not None and arrange != "dots":
        chosen = list((_on_grid if arrange == "grid" else _where_they_are)(at, tile, width, height))
        border = max(1, tile // 16) if any(labels) else 0
        rows = [row for row, _, _ in chosen]
        shown = _thumbnails(np.asarray(images)[rows], tile - 2 * border - (arrange == "grid"))
        for picture, (row, x, y) in zip(shown, chosen, strict=True):
            high, wide = picture.shape[:2]
            left, top = round(x - wide / 2), round(y - high / 2)
            box = (left - border, top - border, left + wide + border, top + high + border)
            canvas.paste(color[row], box)
            canvas.paste(Image.fromarray(picture), (left, top))
    return np.asarray(_with_legend(canvas, labels if legend else (), classes, title, paper, size))


def label_colors(labels: Sequence[str], classes: Sequence[str] = ()) -> dict[str, Color]:
    """Return the color of each class except "", in order.

    Up to 20 `classes` keep their colors whichever of them occur; more would need too many colors.
    """
    there = set(labels) - {""}
    names = [name for name in dict.fromkeys(classes) if name in there or len(classes) <= _FEW]
    names += sorted(there - set(names), key=lambda name: (name.casefold(), name))
    colors = [(int(r), int(g), int(b)) for r, g, b in category_colors(len(names))]
    return {name: color for name, color in zip(names, colors, strict=True) if name in there}


def _colors_of(labels: Sequence[str], classes: Sequence[str], count: int, paper: Theme) -> list[Color]:
    known = label_colors(labels, classes)
    return [known.get(name, paper.faint) for name in labels] if labels else [paper.faint] * count


def _placed(points: np.ndarray, size: int, tile: int) -> tuple[np.ndarray, int, int]:
    """Return the points in pixels (N, 2), y downwards, and the plane's width and height; thumbnails fit within its border."""
    low, high = points.min(0), points.max(0)
    extent = (high - low).max()
    scale = (size - 2 * tile) / extent if extent > 0 else 1.0
    width, height = (max(math.ceil(part * scale), 0) + 2 * tile for part in high - low)
    middle = np.array([width, height]) / 2
    return (points - (low + high) / 2) * [scale, -scale] + middle, width, height


def _on_grid(at: np.ndarray, tile: int, width: int, height: int) -> Iterator[tuple[int, float, float]]:
    """Yield the point nearest to the center of each cell of a grid, and the center."""
    across, down = max(1, width // tile), max(1, height // tile)
    start = np.array([(width - across * tile) / 2, (height - down * tile) / 2])
    cells = np.clip(np.floor((at - start) / tile).astype(int), 0, [across - 1, down - 1])
    centers = start + (cells + 0.5) * tile
    distance = ((at - centers) ** 2).sum(1)
    taken: set[tuple[int, int]] = set()
    for row in np.argsort(distance, kind="stable"):
        cell = int(cells[row, 0]), int(cells[row, 1])
        if cell not in taken:
            taken.add(cell)
            yield int(row), float(centers[row, 0]), float(centers[row, 1])


def _where_they_are(at: np.ndarray, tile: int, width: int, height: int) -> Iterator[tuple[int, float, float]]:
    """Yield points that are at least a tile apart, in order."""
    taken: dict[tuple[int, int], list[np.ndarray]] = {}
    for row, point in enumerate(at):
        i, j = int(point[0] // tile), int(point[1] // tile)
        near = [other for a in (i - 1, i, i + 1) for b in (j - 1, j, j + 1) for other in taken.get((a, b), ())]
        if all(np.abs(point - other).max() >= tile for other in near):
            taken.setdefault((i, j), []).append(point)
            yield row, float(point[0]), float(point[1])


def _thumbnails(images: np.ndarray, longest: int) -> np.ndarray:
    height, width = images.shape[1:3]
    return tiles(images, max(1, round(longest * min(1, height / width))))


def _draw_dots(canvas: Image.Image, at: np.ndarray, colors: Sequence[Color], radius: float) -> None:
    """Draw disks with smooth edges, the last over the first."""
    reach = math.ceil(radius) + 1
    side = np.arange(-reach * _SMOOTH, (reach + 1) * _SMOOTH) / _SMOOTH + 0.5 / _SMOOTH
    masks: dict[tuple[int, int], Image.Image] = {}
    for (x, y), color in zip(at, colors, strict=True):
        # One mask for each of a fine grid of positions within a pixel.
        (left, part_x), (top, part_y) = (divmod(round(v * _SMOOTH), _SMOOTH) for v in (x, y))
        if (part_x, part_y) not in masks:
            inside = (side[:, None] - part_y / _SMOOTH) ** 2 + (side[None] - part_x / _SMOOTH) ** 2 <= radius**2
            covered = inside.reshape(len(side) // _SMOOTH, _SMOOTH, -1, _SMOOTH).mean((1, 3))
            masks[part_x, part_y] = Image.fromarray((covered * 255).astype(np.uint8))
        mask = masks[part_x, part_y]
        canvas.paste(color, (left - reach, top - reach), mask)


def _with_legend(
    plane: Image.Image, labels: Sequence[str], classes: Sequence[str], title: str | None, paper: Theme, size: int
) -> Image.Image:
    """Return the plane with a title above it and the classes beside it."""
    small, large = font(max(11, size // 80)), font(max(14, size // 56))
    counts = Counter(name for name in labels if name)
    margin = max(12, size // 50)
    head = line_height(large) + margin // 2 if title else 0
    side = _legend(counts, label_colors(labels, classes), small, paper, size) if counts else None
    wide = plane.width + 2 * margin + (side.width + margin if side else 0)
    high = max(plane.height, side.height if side else 0) + head + 2 * margin
    page = Image.new("RGB", (wide, high), paper.paper)
    if title:
        ImageDraw.Draw(page).text((margin, margin), fit(title, large, wide - 2 * margin), fill=paper.ink, font=large)
    page.paste(plane, (margin, margin + head + (high - head - 2 * margin - plane.height) // 2))
    if side:
        page.paste(side, (plane.width + 2 * margin, margin + head + (high - head - 2 * margin - side.height) // 2))
    return page


def _legend(counts: Counter[str], colors: dict[str, Color], face: Font, paper: Theme, size: int) -> Image.Image:
    frequent = {name for name, _ in counts.most_common(_LISTED)}
    listed = [name for name in colors if name in frequent]
    rest = len(counts) - len(listed)
    step, mark = round(1.5 * line_height(face)), line_height(face)
    room = max(60, size // 5)
    texts = [fit(name, face, room) for name in listed]
    numbers = [str(counts[name]) for name in listed]
    gap = mark // 2
    last = f"and {rest} more classes" if rest else ""
    left = mark + gap
    right = left + max(math.ceil(face.getlength(text)) for text in (*texts, last)) + 2 * gap
    width = right + max(math.ceil(face.getlength(number)) for number in numbers)
    made = Image.new("RGB", (width, step * (len(listed) + bool(rest))), paper.paper)
    draw = ImageDraw.Draw(made)
    for i, (name, text, number) in enumerate(zip(listed, texts, numbers, strict=True)):
        y = i * step + step // 2
        draw.rectangle((0, y - mark // 2, mark - 1, y + mark // 2 - 1), fill=colors[name])
        draw.text((left, y), text, fill=paper.ink, font=face, anchor="lm")
        draw.text((width, y), number, fill=paper.faint, font=face, anchor="rm")
    if rest:
        draw.text((left, len(listed) * step + step // 2), last, fill=paper.faint, font=face, anchor="lm")
    return made
