"""Color maps without matplotlib: sequential ones, and one for signed numbers that is neutral at 0. All in RGB."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from jaxviz._errors import ArgumentError, near_matches
from jaxviz._types import ArrayLike

Colors: TypeAlias = Literal["inferno", "viridis", "turbo", "gray", "blue_red"]
Limits: TypeAlias = tuple[ArrayLike | float, ArrayLike | float]

NOT_A_NUMBER = (150, 150, 150)  # occurs in no map except gray

# Evenly spaced anchors for interpolation: inferno and viridis (van der Walt, Smith, Firing; public domain) and turbo
# (Mikhailov, Google) within 7 of 255 of the published tables. Lightness rises evenly along the first two. blue_red was computed
# in OKLab: it is equally light at -v and v, and lightest at 0.
_ANCHORS: dict[str, str] = {
    "inferno": "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69"
    " fcffa4",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c 1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219"
    " fde725",
    "turbo": "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c cdec34 eecf3a fdac34 fb7e21 eb500e d02f05 a91601"
    " 7a0403",
    "gray": "000000 ffffff",
    "blue_red": "0767c6 0977e3 2889f6 4d9cfd 71affd 92c1fe b2d3fe d1e5fe f5f5f5 fdd9d4 febeb6 fea297 f9867b f06b60 e45048"
    " d63430 c4111a",
}
COLORS = tuple(_ANCHORS)


def color_table(colors: Colors) -> np.ndarray:
    """Return the 256 colors of a color map, uint8 (256, 3) in RGB.

    Raises:
        ArgumentError: an unknown name.

    >>> color_table("gray")[[0, 128, 255]].tolist()
    [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    """
    if colors not in _ANCHORS:
        raise ArgumentError(f"There is no color map {colors!r}.{near_matches(str(colors), COLORS)} Known: {', '.join(COLORS)}.")
    anchors = np.array([list(bytes.fromhex(word)) for word in _ANCHORS[colors].split()], float)
    at = np.linspace(0, len(anchors) - 1, 256)
    table = np.stack([np.interp(at, np.arange(len(anchors)), channel) for channel in anchors.T], -1)
    return np.floor(table + 0.5).astype(np.uint8)


def colorize(values: ArrayLike, colors: Colors = "inferno", limits: Limits = (0.0, 1.0)) -> np.ndarray:
    """Return the colors of numbers, uint8 (..., 3) in RGB.

    Args:
        values: numbers of any shape (...), clipped to the limits; NaN becomes mid gray.
        colors: `"inferno"`, `"viridis"`, `"turbo"` or `"gray"`; `"blue_red"` for signed numbers, with limits of -v and v.
        limits: the numbers of the first and the last color, each one number or an array that broadcasts.

    Raises:
        ArgumentError: an unknown color map.

    >>> colorize(np.array([-1.0, 1.0]), "gray", (-1, 1)).tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    table = color_table(colors)
    values = np.asarray(values, np.float64)
    low, high = (np.asarray(limit, np.float64) for limit in limits)
    with np.errstate(invalid="ignore"):
        position = (values - low) / np.where(high > low, high - low, 1)
    index = np.floor(np.clip(np.nan_to_num(position, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.where(np.isnan(values)[..., None], np.array(NOT_A_NUMBER, np.uint8), table[index])
