"""A plain grid of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.plot._canvas import fit, font, line_height, theme, tiles


def grid(
    images: ArrayLike,
    *,
    columns: int | None = None,
    captions: Sequence[str] | None = None,
    title: str | None = None,
    pad: int = 2,
    scale: float = 1,
    dark: bool = False,
) -> np.ndarray:
    """Return images side by side, row by row.

    Args:
        images: (N, H, W, 3), (N, H, W, 1) or (N, H, W); floats in [0, 1] (others are clipped) or uint8.
        columns: Images per row; by default, the grid is as square as possible.
        captions: N texts, one below each image, shortened to its width.
        title: A line above the grid.
        pad: Pixels between images and around the grid.
        scale: Factor on the size of the images (Lanczos filter).
        dark: White on black instead of black on white.

    Returns:
        uint8 (height, width, 3).

    Raises:
        ArgumentError: A wrong shape, or a wrong number of captions.

    >>> grid(np.zeros((6, 8, 8, 3)), columns=3, pad=1).shape
    (19, 28, 3)
    """
    if not scale > 0 or pad < 0:
        raise ArgumentError(f"Expected scale > 0 and pad >= 0, got {scale} and {pad}.")
    shown = tiles(images, max(1, round(np.shape(images)[1] * scale)) if np.ndim(images) > 1 else None)
    count, height, width, _ = shown.shape
    if captions is not None and len(captions) != count:
        raise ArgumentError(f"Expected one caption per image, {count}, got {len(captions)}.")
    if columns is None:
        columns = math.ceil(math.sqrt(count * height / width))
    elif columns < 1:
        raise ArgumentError(f"Expected columns >= 1, got {columns}.")
    across = min(count, columns)

    colors, face = theme(dark), font(min(16, max(9, height // 9)))
    line = line_height(face) + 4
    step_y = height + pad + (line if captions is not None else 0)
    top = pad if title is None else line + 2 * pad
    size = (across * (width + pad) + pad, top + math.ceil(count / across) * step_y)
    canvas = Image.new("RGB", size, colors.paper)
    draw = ImageDraw.Draw(canvas)
    if title is not None:
        draw.text((pad, pad), fit(title, face, size[0] - 2 * pad), fill=colors.ink, font=face)
    for i, tile in enumerate(shown):
        x, y = pad + i % across * (width + pad), top + i // across * step_y
        canvas.paste(Image.fromarray(tile), (x, y))
        if captions is not None:
            draw.text((x, y + height + 1), fit(captions[i], face, width), fill=colors.ink, font=face)
    return np.asarray(canvas)
