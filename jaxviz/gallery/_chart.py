"""The histogram of a unit's page, as coordinates for a template."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from jaxviz.gallery._site import Unit

WIDTH, HEIGHT = 320, 96  # of the bars, in units of the drawing
LETTERS = 30  # width of a number


@dataclass(frozen=True)
class Mark:
    """A mark on the axis at `x`; its text is centered at `at`, clear of other texts and the edges."""

    x: float
    text: str
    kind: str
    at: float = 0.0


@dataclass(frozen=True)
class Chart:
    """Bars (x, y, width, height), marks on the axis, and a description in words."""

    bars: tuple[tuple[float, float, float, float], ...]
    marks: tuple[Mark, ...]
    words: str


def chart(unit: Unit) -> Chart | None:
    """Return the histogram of photos by the unit's activation, with marks at the strongest photo and the first picture.

    Heights are square roots of counts, so that a single photo stays visible. The axis includes the picture's activation.
    """
    if unit.histogram is None or not unit.histogram.counts:
        return None
    h = unit.histogram
    peak = unit.peaks[0] if unit.peaks else h.high
    low, top = min(h.low, 0.0, peak), max(h.high, peak)
    scale = WIDTH / ((top - low) or 1.0)
    wide = (h.high - h.low) * scale / len(h.counts)
    most = max(max(h.counts), 1)
    bars: list[tuple[float, float, float, float]] = []
    for i, count in enumerate(h.counts):
        if count:
            tall = HEIGHT * (count / most) ** 0.5
            x = (h.low - low) * scale + i * wide
            bars.append((round(x, 2), round(HEIGHT - tall, 2), round(max(wide - 0.7, 0.8), 2), round(tall, 2)))
    values = [("photo", unit.examples[0].score)] if unit.examples else []
    values += [("picture", peak)] if unit.peaks else []
    marks = _apart([Mark(round((value - low) * scale, 2), number(value), kind) for kind, value in values])
    if low <= 0 <= top and all(abs(mark.at - -low * scale) > LETTERS for mark in marks):
        marks.insert(0, Mark(round(-low * scale, 2), "0", "zero", round(-low * scale, 2)))
    words = f"{sum(h.counts)} photos by the unit's largest activation in each, from {number(h.low)} to {number(h.high)}"
    words += f"; in its picture it is {number(peak)}" if unit.peaks else ""
    return Chart(tuple(bars), tuple(marks), words)


def _apart(marks: list[Mark]) -> list[Mark]:
    """Place the texts of the marks below them, within the drawing and without overlaps."""
    room, last = WIDTH - LETTERS / 2, float(WIDTH)
    placed: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.x, reverse=True):
        last = round(max(min(mark.x, room), 0.0), 2)
        placed.append(dataclasses.replace(mark, at=last))
        room = last - LETTERS
    return placed[::-1]


def number(value: float) -> str:
    """Format with three significant digits: 1240, 12.4, 1.70, 0.0124, 1.20e-07.

    >>> number(-1.7), number(123456.0)
    ('\\u22121.70', '123456')
    """
    if not math.isfinite(value):
        return str(value)
    large = abs(value)
    text = f"{value:.0f}" if 100 <= large < 1e7 else f"{value:#.3g}" if large == 0 or 1e-3 <= large < 1e7 else f"{value:.2e}"
    return "0" if large == 0 else text.replace("-", "\N{MINUS SIGN}", 1) if text.startswith("-") else text
