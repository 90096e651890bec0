"""Colors of categories, such as classes and groups, and their legend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import fit, font, line_height, theme

# Ten of Tableau's colors (as in matplotlib's "tab10"), reordered so that the first few differ most; gray last.
_TEN = ("1f77b4", "ff7f0e", "2ca02c", "d62728", "9467bd", "e7c01d", "17becf", "e377c2", "8c564b", "7f7f7f")
_FEW = 20
_SWATCH = 14  # pixels of a side


def category_colors(count: int) -> np.ndarray:
    """Return distinct colors, uint8 (count, 3) in RGB; beyond ten, hues by the golden angle in OKLCH.

    Raises:
        ArgumentError: a negative count.

    >>> category_colors(2).tolist()
    [[31, 119, 180], [255, 127, 14]]
    """
    if count < 0:
        raise ArgumentError(f"Expected a number of colors of at least 0; got {count}.")
    first = np.array([list(bytes.fromhex(word)) for word in _TEN[:count]], np.uint8).reshape(-1, 3)
    more = np.arange(max(0, count - len(_TEN)))
    hues, lightness = np.deg2rad(40 + 137.508 * more), np.array([0.62, 0.82, 0.44, 0.72, 0.53])[more % 5]
    return np.concatenate([first, _from_oklch(lightness, 0.13, hues)])


def class_colors(classes: ArrayLike, count: int) -> np.ndarray:
    """Return a color for each of some different classes, uint8 (K, 3); up to 20 classes keep their colors on every picture.

    Args:
        classes: int (K,), class indices.
        count: the number of all classes; beyond 20, colors follow the order of `classes`.
    """
    indices = np.asarray(classes)
    return category_colors(count)[indices] if count <= _FEW else category_colors(len(indices))


def legend(names: Sequence[str], colors: ArrayLike, *, width: int = 480, dark: bool = False) -> np.ndarray:
    """Return swatches with names, in as many columns as fit, uint8 (height, width, 3).

    Args:
        names: one for each color; shortened if too long.
        colors: uint8 (K, 3), RGB.
        width: in pixels.
        dark: white on black.

    Raises:
        ArgumentError: the numbers of names and colors differ, or are 0.
    """
    swatches = np.asarray(colors)
    if not len(names) or swatches.shape != (len(names), 3):
        raise ArgumentError(f"Expected as many colors (K, 3) as names, at least one; got {swatches.shape} and {len(names)}.")
    color, face = theme(dark), font(13)
    step = max(line_height(face), _SWATCH) + 6
    cell = min(width, math.ceil(max(map(face.getlength, names))) + _SWATCH + 24)
    across = max(1, min(len(names), width // cell))
    canvas = Image.new("RGB", (width, step * -(-len(names) // across)), color.paper)
    pen = ImageDraw.Draw(canvas)
    for i, (name, swatch) in enumerate(zip(names, swatches, strict=True)):
        x, y = i % across * cell, i // across * step
        pen.rectangle((x, y + 2, x + _SWATCH - 1, y + 1 + _SWATCH), fill=tuple(int(v) for v in swatch))
        pen.text((x + _SWATCH + 7, y + 2 + _SWATCH / 2), fit(name, face, cell - _SWATCH - 9), color.ink, face, anchor="lm")
    return np.asarray(canvas)


def _from_oklch(lightness: np.ndarray, chroma: float, hue: np.ndarray) -> np.ndarray:
    """Return uint8 RGB of colors in OKLCH (Ottosson, 2020), clipped to sRGB."""
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    lms = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ],
        -1,
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(lms**3 @ to_rgb.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.floor(encoded * 255 + 0.5).astype(np.uint8)
