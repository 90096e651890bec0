"""A contact sheet: the images and names of all units, by layer, on one page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import fit, font, line_height, theme, tiles

_PIXELS = 24e6  # at most, of all tiles together: thousands of units get smaller tiles
_ASPECT = 1.3  # width to height of a page that suits a screen


@dataclass(frozen=True)
class Section:
    """Units under one heading: `images` (K, S, H, W, 1 or 3), K captions, and K notes (scores, say) or none."""

    heading: str
    images: ArrayLike
    captions: Sequence[str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class _Layout:
    tile: tuple[int, int]  # height, width of one image
    samples: int
    columns: int
    gap: int  # between units
    seam: int  # between the samples of a unit
    line: int  # height of a caption; 0 where tiles are too small for one

    @property
    def cell(self) -> int:
        return self.samples * (self.tile[1] + self.seam) - self.seam

    @property
    def step(self) -> tuple[int, int]:
        return self.tile[0] + self.line + self.gap, self.cell + self.gap


def contact_sheet(
    sections: Sequence[Section],
    *,
    title: str | None = None,
    columns: int | None = None,
    tile: int | None = None,
    dark: bool = False,
) -> np.ndarray:
    """Return a page of sections of units, with a heading per section and a caption below each unit's samples.

    Args:
        sections: At least one; all with images of one size and the same number of samples.
        title: A line at the top.
        columns: Units per row; chosen for a good aspect of the page by default.
        tile: Height of one image in pixels. By default, small images grow to 112 and large ones shrink to 224, or less if
            there are thousands.
        dark: White on black instead of black on white.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ArgumentError: Wrong or different shapes, or a wrong number of captions.

    >>> contact_sheet([Section("layer1", np.zeros((4, 2, 8, 8, 3)), ["0", "1", "2", "3"])]).shape[-1]
    3
    """
    sections = [s for s in sections if len(s.captions) or len(s.images)]
    _check(sections)
    counts = [len(s.captions) for s in sections]
    layout = _layout(counts, np.shape(sections[0].images), columns, tile)
    colors, small, large = theme(dark), font(12), font(17)
    if layout.tile[0] >= 160:
        small, large = font(14), font(19)
    headings = [s.heading for s in sections]
    head = line_height(large) + 14 if any(headings) else 0
    margin = max(24, 2 * layout.gap)
    top = margin + (line_height(large) + 16 if title else 0)
    rows = [math.ceil(n / layout.columns) for n in counts]
    width = 2 * margin + layout.columns * layout.step[1] - layout.gap
    height = top + sum(head + r * layout.step[0] for r in rows) + (len(rows) - 1) * layout.gap + margin - layout.gap
    canvas = Image.new("RGB", (width, height), colors.paper)
    draw = ImageDraw.Draw(canvas)
    if title:
        draw.text((margin, margin - 4), fit(title, large, width - 2 * margin), fill=colors.ink, font=large)
    y = top
    for section, count, lines in zip(sections, counts, rows, strict=True):
        if section.heading:
            draw.text((margin, y - 2), fit(section.heading, large, width - 2 * margin), fill=colors.ink, font=large)
        y += head
        for i in range(count):
            row, column = divmod(i, layout.columns)
            x0, y0 = margin + column * layout.step[1], y + row * layout.step[0]
            for s, image in enumerate(tiles(np.asarray(section.images[i]), layout.tile[0])):
                canvas.paste(Image.fromarray(image), (x0 + s * (layout.tile[1] + layout.seam), y0))
            if layout.line:
                note = section.notes[i] if section.notes else ""
                room = layout.cell - (math.ceil(small.getlength(note)) + 8 if note else 0)
                caption = fit(section.captions[i], small, room)
                if note and caption != " ".join(section.captions[i].split()):  # the name matters more than the note
                    note, caption = "", fit(section.captions[i], small, layout.cell)
                below = y0 + layout.tile[0] + 4
                draw.text((x0, below), caption, fill=colors.ink, font=small)
                if note:
                    draw.text((x0 + layout.cell, below), note, fill=colors.faint, font=small, anchor="ra")
        y += lines * layout.step[0] + layout.gap
    return np.asarray(canvas)


def _check(sections: Sequence[Section]) -> None:
    if not sections:
        raise ArgumentError("Expected at least one section with at least one unit, got none.")
    for s in sections:
        shape = np.shape(s.images)
        if len(shape) != 5 or shape[0] != len(s.captions) or (s.notes and len(s.notes) != len(s.captions)):
            raise ArgumentError(
                f"Expected images (K, S, H, W, C) with K captions and K notes or none in section '{s.heading}', "
                f"got {shape}, {len(s.captions)} captions and {len(s.notes)} notes."
            )
        if shape[1:] != np.shape(sections[0].images)[1:]:
            raise ArgumentError(
                f"Expected images of one shape in all sections, got {np.shape(sections[0].images)[1:]} and {shape[1:]}."
            )


def _layout(counts: list[int], shape: tuple[int, ...], columns: int | None, tile: int | None) -> _Layout:
    """Choose the size of the tiles and the columns, so that the page has a good aspect and few empty places."""
    _, samples, height, width, _ = shape
    if (columns is not None and columns < 1) or (tile is not None and tile < 1):
        raise ArgumentError(f"Expected columns >= 1 and tile >= 1, got {columns} and {tile}.")
    if tile is None:
        most = math.sqrt(_PIXELS / (sum(counts) * samples) * height / width)
        tile = max(8, int(min(max(112, min(height, 224)), most)))
    size = (tile, max(1, round(width * tile / height)))
    gap, seam = max(2, tile // (10 if samples == 1 else 6)), max(1, tile // 64)
    line = line_height(font(14 if tile >= 160 else 12)) + 6 if size[1] * samples >= 40 and tile >= 40 else 0
    if columns is None:

        def cost(n: int) -> float:
            page = _Layout(size, samples, n, gap, seam, line)
            rows = [math.ceil(c / n) for c in counts]
            lines = sum(rows) * page.step[0] + len(rows) * 40
            empty = sum(r * n - c for r, c in zip(rows, counts, strict=True)) / sum(r * n for r in rows)
            return abs(math.log(n * page.step[1] / lines / _ASPECT)) + 2 * empty

        columns = min(range(1, max(counts) + 1), key=cost)
    return _Layout(size, samples, min(columns, max(counts)), gap, seam, line)
