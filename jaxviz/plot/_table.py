"""A table of pictures: rows of images, columns of methods or classes, with headings, captions and color bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import Color, Font, Theme, fit, font, line_height, theme, tiles
from jaxviz.plot._colors import Colors, color_table

_BAR = 160  # pixels of a color bar's length


@dataclass(frozen=True)
class Bar:
    """A color bar: its name, its color map, and the words at its ends (and in between)."""

    name: str
    colors: Colors
    ends: Sequence[str]


def color_bar(
    colors: Colors = "inferno",
    ends: Sequence[str] = ("0", "1"),
    *,
    name: str = "",
    length: int = _BAR,
    thickness: int = 12,
    dark: bool = False,
) -> np.ndarray:
    """Return a horizontal color bar with words below it, uint8 (height, width, 3).

    Args:
        colors: see `colorize`.
        ends: two or more words, evenly spaced from the first color to the last.
        name: text to the left.
        length, thickness: of the bar, in pixels.
        dark: white on black.

    Raises:
        ArgumentError: fewer than two words, or a length below 2.
    """
    if len(ends) < 2 or length < 2 or thickness < 1:
        raise ArgumentError(f"Expected two words or more and a length of at least 2; got {list(ends)}, {length}x{thickness}.")
    color, face = theme(dark), font(12)
    bar = np.repeat(color_table(colors)[np.linspace(0, 255, length).round().astype(int)][None], thickness, 0)
    label = math.ceil(face.getlength(name)) + 8 if name else 0
    over = [math.ceil(face.getlength(ends[i]) / 2) for i in (0, -1)]  # the words extend beyond the bar at both sides
    left = max(label, over[0])
    canvas = Image.new("RGB", (left + length + over[1], thickness + 3 + line_height(face)), color.paper)
    draw = ImageDraw.Draw(canvas)
    canvas.paste(Image.fromarray(bar), (left, 0))
    if name:
        draw.text((left - 8, thickness / 2), name, fill=color.ink, font=face, anchor="rm")
    for i, word in enumerate(ends):
        at = left + (length - 1) * i / (len(ends) - 1)
        draw.text((at, thickness + 3), word, fill=color.faint, font=face, anchor="ma")
    return np.asarray(canvas)


def table(
    pictures: Sequence[Sequence[ArrayLike]] | ArrayLike,
    *,
    columns: Sequence[str],
    rows: Sequence[str] = (),
    captions: Sequence[Sequence[str]] = (),
    groups: Sequence[tuple[str, int]] = (),
    bars: Sequence[Bar] = (),
    title: str | None = None,
    tile: int | None = None,
    dark: bool = False,
) -> np.ndarray:
    """Lay pictures out as rows and columns with headings.

    Args:
        pictures: (R, Q, H, W, 1, 3 or 4), or R sequences of Q images; floats in [0, 1] or uint8, all of one shape.
        columns: Q headings.
        rows: R names, to the left, or none.
        captions: R sequences of Q texts below the pictures, or none; shortened if too long.
        groups: headings above those of the columns, (text, number of columns it spans), for all columns together.
        bars: color bars at the bottom.
        title: a line at the top.
        tile: height of a picture in pixels; by default its own, but between 96 and 224.
        dark: white on black instead of black on white.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ArgumentError: pictures of different shapes, or a wrong number of headings, names or captions.

    >>> table(np.zeros((2, 3, 96, 96, 3)), columns=["photo", "saliency", "grad_cam"]).shape[-1]
    3
    """
    shown = [tiles(np.stack([np.asarray(picture) for picture in row]), _height(row, tile)) for row in pictures]
    check_table(shown, columns, rows, captions, groups)
    _, height, width, _ = shown[0].shape
    small, large = (font(14), font(18)) if height >= 160 else (font(12), font(16))
    colors, line = theme(dark), line_height(small) + 4
    seam, gap, margin = max(2, height // 32), max(8, height // 10), max(16, height // 6)
    starts = _starts(groups or [("", len(columns))], width + seam, gap)
    below = [[_lines(text, small, width) for text in texts] for texts in captions]
    under = [max(map(len, texts)) * (line - 2) + 4 for texts in below] or [0] * len(shown)
    left = margin + (min(width, max(math.ceil(small.getlength(name)) for name in rows)) + 10 if rows else 0)
    right = left + starts[-1] + width
    top = margin + (line_height(large) + 14 if title else 0) + (line + 4 if groups else 0) + line
    end = top + len(shown) * (height + seam) - seam + sum(under)
    drawn = [color_bar(bar.colors, bar.ends, name=bar.name, dark=dark) for bar in bars]
    foot = _wrap(drawn, right - left, 32, colors.paper) if drawn else None
    right = right if foot is None else max(right, left + foot.shape[1])
    size = (right + margin, end + (0 if foot is None else foot.shape[0] + gap) + margin)
    canvas = Image.new("RGB", size, colors.paper)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((left, margin - 2), fit(title, large, right - left), fill=colors.ink, font=large)
    sizes = [font(n) for n in range(14 if height >= 160 else 12, 8, -1)]  # the largest in which all headings fit
    head = next((face for face in sizes if max(map(face.getlength, columns)) <= width), sizes[-1])
    _heads(draw, colors, head, columns, groups, [left + start for start in starts], width, top - line, line)
    y = top
    for r, row in enumerate(shown):
        if rows:
            draw.text((margin, y + height / 2), fit(rows[r], small, width), fill=colors.ink, font=small, anchor="lm")
        for q, picture in enumerate(row):
            canvas.paste(Image.fromarray(picture), (left + starts[q], y))
            for i, text in enumerate(below[r][q] if below else ()):
                at = (left + starts[q], y + height + 1 + i * (line - 2))
                draw.text(at, text, fill=colors.faint, font=small)
        y += height + seam + under[r]
    if foot is not None:
        canvas.paste(Image.fromarray(foot), (left, end + gap))
    return np.asarray(canvas)


def stack(pictures: Sequence[np.ndarray], *, dark: bool = False) -> np.ndarray:
    """Return pages of any widths, uint8 (height, width, 3), stacked vertically."""
    width, paper = max(page.shape[1] for page in pictures), theme(dark).paper
    pages: list[np.ndarray] = []
    for page in pictures:
        rest = np.full((page.shape[0], width - page.shape[1], 3), paper, np.uint8)
        pages.append(np.concatenate([page, rest], 1))
    return np.concatenate(pages)


def _lines(text: str, face: Font, width: int) -> list[str]:
    """Return the text on one line, or on two if it does not fit on one."""
    words = text.split()
    fitting = [i for i in range(1, len(words) + 1) if face.getlength(" ".join(words[:i])) <= width]
    if not fitting or fitting[-1] == len(words):
        return [fit(text, face, width)]
    return [" ".join(words[: fitting[-1]]), fit(" ".join(words[fitting[-1] :]), face, width)]


def _heads(
    draw: ImageDraw.ImageDraw,
    colors: Theme,
    face: Font,
    columns: Sequence[str],
    groups: Sequence[tuple[str, int]],
    lefts: Sequence[int],
    width: int,
    y: int,
    line: int,
) -> None:
    for x, text in zip(lefts, columns, strict=True):
        draw.text((x, y), fit(text, face, width), fill=colors.ink, font=face)
    at = 0
    for text, count in groups:
        x, end = lefts[at], lefts[at + count - 1] + width
        draw.text((x, y - line - 4), fit(text, face, end - x), fill=colors.ink, font=face)
        if text and count > 1:
            draw.line((x, y - 4, end, y - 4), fill=colors.faint)
        at += count


def _height(row: Sequence[ArrayLike] | ArrayLike, tile: int | None) -> int:
    if tile is not None and tile < 1:
        raise ArgumentError(f"Expected tile >= 1; got {tile}.")
    own = np.shape(row[0])
    return tile or min(224, max(96, own[0] if own else 96))


def _starts(groups: Sequence[tuple[str, int]], step: int, gap: int) -> list[int]:
    """Return the left edge of each column; groups are further apart."""
    starts: list[int] = []
    x = 0
    for _, count in groups:
        starts += [x + i * step for i in range(count)]
        x += count * step + gap
    return starts


def _wrap(pictures: Sequence[np.ndarray], width: int, gap: int, paper: Color) -> np.ndarray:
    """Return pictures of one height side by side, wrapped to a width."""
    lines: list[list[np.ndarray]] = [[]]
    for picture in pictures:
        if lines[-1] and sum(p.shape[1] + gap for p in lines[-1]) + picture.shape[1] > width:
            lines.append([])
        lines[-1].append(picture)
    height = pictures[0].shape[0] + 8
    canvas = np.full((height * len(lines) - 8, max(width, *(p.shape[1] for p in pictures)), 3), paper, np.uint8)
    for i, line in enumerate(lines):
        x = 0
        for picture in line:
            canvas[i * height : i * height + picture.shape[0], x : x + picture.shape[1]] = picture
            x += picture.shape[1] + gap
    return canvas


def check_table(
    shown: Sequence[np.ndarray],
    columns: Sequence[str],
    rows: Sequence[str],
    captions: Sequence[Sequence[str]],
    groups: Sequence[tuple[str, int]],
) -> None:
    """Raise an ArgumentError if the parts of a table do not fit together."""
    shapes = {picture.shape for picture in shown}
    if len(shapes) != 1:
        raise ArgumentError(f"Expected rows of as many pictures of one shape; got {sorted(shapes) or 'none'}.")
    count = len(shown[0])
    if len(columns) != count or (rows and len(rows) != len(shown)):
        raise ArgumentError(f"Expected {count} headings and {len(shown)} names or none; got {len(columns)} and {len(rows)}.")
    if captions and [len(line) for line in captions] != [count] * len(shown):
        raise ArgumentError(f"Expected {len(shown)} x {count} captions or none; got {[len(line) for line in captions]}.")
    if groups and (sum(n for _, n in groups) != count or min(n for _, n in groups) < 1):
        raise ArgumentError(f"Expected groups of {count} columns together, each of 1 or more; got {list(groups)}.")
