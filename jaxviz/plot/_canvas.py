"""Basics of every picture: colors, fonts, captions that fit, tiles of one size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFont

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.image import to_uint8

_CHECKER = 8  # pixels of a square

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Theme:
    """Colors of a picture: paper, text, and secondary text."""

    paper: Color
    ink: Color
    faint: Color


LIGHT = Theme(paper=(255, 255, 255), ink=(32, 33, 36), faint=(128, 131, 137))
DARK = Theme(paper=(23, 24, 27), ink=(232, 233, 236), faint=(140, 144, 151))


def theme(dark: bool) -> Theme:
    """Return the light or the dark theme."""
    return DARK if dark else LIGHT


def font(size: int) -> Font:
    """Return Pillow's own typeface, which every machine has."""
    return ImageFont.load_default(size)


def line_height(face: Font) -> int:
    """Return the height in pixels of a line of text."""
    _, top, _, bottom = face.getbbox("Ágjy")
    return round(bottom - min(top, 0))


def fit(text: str, face: Font, width: int) -> str:
    """Return the text on one line, shortened with an ellipsis if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if face.getlength(text) <= width:
        return text
    low, high = 0, len(text)  # the longest prefix that fits, by bisection: labels may be very long
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if face.getlength(text[:middle].rstrip() + "…") <= width else (low, middle - 1)
    return text[:low].rstrip() + "…" if low else ""


def _on_checkers(images: np.ndarray) -> np.ndarray:
    _, height, width, _ = images.shape
    rows, columns = np.arange(height)[:, None] // _CHECKER, np.arange(width)[None] // _CHECKER
    ground = np.where((rows + columns) % 2, np.float32(0.8), np.float32(1))[None, :, :, None]
    return ground + images[..., 3:] * (images[..., :3] - ground)


def tiles(images: ArrayLike, height: int | None = None) -> np.ndarray:
    """Return uint8 (N, h, w, 3) from images (N, H, W, 1, 3 or 4) or (N, H, W), scaled to `height` with a Lanczos filter.

    A fourth channel is opacity; such images are blended with a checkerboard.
    """
    array = to_uint8(images)
    if array.ndim == 4 and array.shape[-1] == 4:
        array = to_uint8(_on_checkers(array.astype(np.float32) / 255))
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or 0 in array.shape:
        raise ArgumentError(f"Expected images of shape (N, H, W, C) with at least one image, got {np.shape(images)}.")
    if array.shape[-1] not in (1, 3):
        raise ArgumentError(
            f"Cannot show {array.shape[-1]} channels as colors: expected 1 (gray), 3 (RGB) or 4 (with opacity). "
            "Select channels, for example images[..., :3], or images[..., [i]] for one."
        )
    array = np.broadcast_to(array, (*array.shape[:-1], 3))
    if height is None or height == array.shape[1]:
        return array
    size = (height, max(1, round(array.shape[2] * height / array.shape[1])))
    return np.stack([resized(a, size) for a in array])


def resized(tile: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image uint8 (H, W, 3) or (H, W, 1) resized to (h, w) with a Lanczos filter."""
    picture = Image.fromarray(tile if tile.shape[-1] == 3 else tile[..., 0])
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)).reshape(*size, tile.shape[-1])
