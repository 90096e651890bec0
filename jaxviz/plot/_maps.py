"""Attribution maps as pictures: color maps, overlays on photographs, outlines. All uint8 (..., H, W, 3) in RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.image import resize, to_uint8
from jaxviz.plot._canvas import Color
from jaxviz.plot._colors import Colors, colorize

Style: TypeAlias = Literal["heat", "signed", "gray", "color"]
COLORS_OF: dict[str, Colors] = {"heat": "inferno", "signed": "blue_red", "gray": "gray"}

_HATCH = 8  # pixels from stripe to stripe where a map has no value
_STRIPES = np.array([[212] * 3, [226] * 3], np.uint8)


def clip_limits(
    maps: ArrayLike, percentile: float = 99, *, signed: bool = False, shared: Sequence[int] = (), channels: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the first and last color of each map, each float64 (..., 1, 1), so that they broadcast.

    The upper limit is a percentile of the map's pixels, so that a few extreme ones do not leave the rest dark; it is the
    maximum where that percentile is 0, for maps that are 0 nearly everywhere. The lower limit is the minimum, or 0 if that is
    negative. For signed maps the limits are -v and v, with v a percentile of the absolute values. Non-finite pixels do not
    count.

    Args:
        maps: (..., H, W).
        percentile: above 0, at most 100.
        signed: whether the sign matters.
        shared: axes in front of (H, W) along which maps share their limits: `[1]` makes the maps (N, K, H, W) of an image's K
            targets comparable.
        channels: whether the maps are (..., H, W, C); the channels share limits of shape (..., 1, 1, 1).

    Raises:
        ArgumentError: a wrong percentile or axis.
    """
    values = np.asarray(maps, np.float64)
    inner = 3 if channels else 2
    if values.ndim < inner or not all(-values.ndim <= axis < values.ndim - inner for axis in shared) or not values.size:
        form = "(..., H, W, C)" if channels else "(..., H, W)"
        raise ArgumentError(f"Expected maps {form} and shared axes in front of those; got {values.shape} and {list(shared)}.")
    if not 0 < percentile <= 100:
        raise ArgumentError(f"Expected a percentile above 0 and at most 100; got {percentile!r}.")
    values = np.where(np.isfinite(values), np.abs(values) if signed else values, np.nan)
    axes = tuple({axis % values.ndim for axis in shared} | set(range(values.ndim - inner, values.ndim)))
    empty = np.isnan(values).all(axes, keepdims=True)
    values = np.where(empty, 0.0, values)
    high = np.nanpercentile(values, percentile, axis=axes, keepdims=True)
    low = np.zeros_like(high) if signed else np.maximum(np.nanmin(values, axis=axes, keepdims=True), 0)
    high = np.where(high > low, high, np.nanmax(values, axis=axes, keepdims=True))
    high = np.where(high > low, high, low + 1)
    shape = (*values.shape[:-inner], *[1] * inner)
    return np.broadcast_to(-high if signed else low, shape), np.broadcast_to(high, shape)


def draw_maps(
    maps: ArrayLike,
    style: Style = "heat",
    *,
    colors: Colors | None = None,
    percentile: float = 99,
    shared: Sequence[int] = (),
) -> np.ndarray:
    """Return pictures of maps, uint8 (..., H, W, 3).

    Args:
        maps: float (..., H, W); for `style="color"` (..., H, W, 3).
        style: `"heat"`, from black (lowest) to light yellow (highest); `"signed"`, negative in blue, 0 in white, positive in
            red; `"gray"`, absolute values from black to white; `"color"`, for maps with three channels, each brighter than mid
            gray where it is positive and darker where it is negative.
        colors: a color map other than the style's, see `colorize`.
        percentile: see `clip_limits`.
        shared: axes along which maps share their limits.

    Maps that are 0 everywhere and non-finite pixels are hatched: they have no value.

    Raises:
        ArgumentError: an unknown style or a wrong shape.

    >>> draw_maps(np.eye(2), "gray", percentile=100)[..., 0].tolist()
    [[255, 0], [0, 255]]
    """
    values = np.asarray(maps, np.float64)
    if style not in (*COLORS_OF, "color"):
        raise ArgumentError(f"A style is 'heat', 'signed', 'gray' or 'color'; got {style!r}.")
    if style == "color":
        if values.shape[-1:] != (3,):
            raise ArgumentError(f"Expected maps (..., H, W, 3) for the style 'color'; got {values.shape}.")
        _, high = clip_limits(values, percentile, signed=True, shared=shared, channels=True)
        picture = to_uint8(0.5 + np.clip(np.nan_to_num(values) / high, -1, 1) / 2)
        return _hatched(picture, np.asarray(_nothing(values).any(-1)))
    if style == "gray":
        values = np.abs(values)
    low, high = clip_limits(values, percentile, signed=style == "signed", shared=shared)
    return _hatched(colorize(values, colors or COLORS_OF[style], (low, high)), _nothing(values, inner=2))


def overlay(
    images: ArrayLike,
    maps: ArrayLike,
    *,
    signed: bool = False,
    colors: Colors | None = None,
    alpha: float = 0.8,
    constant: bool = False,
    fade: float = 0.8,
    percentile: float = 99,
    shared: Sequence[int] = (),
) -> np.ndarray:
    """Return maps blended over photographs, uint8 (N, ..., H, W, 3).

    Args:
        images: (N, H, W, 3) or (N, H, W, 1); floats in [0, 1] or uint8.
        maps: float (N, ..., h, w), resized to the images (bilinear).
        signed: whether the sign matters: blue for negative, red for positive; otherwise negative values count as 0.
        colors: a color map other than `"inferno"`, or `"blue_red"` if signed, see `colorize`.
        alpha: opacity of the map at its limit, in [0, 1].
        constant: the same opacity everywhere, instead of one that rises with the map's (absolute) value.
        fade: how far the photographs are desaturated, in [0, 1], so that their colors are not taken for the map's.
        percentile: see `clip_limits`.
        shared: axes of `maps` along which limits are shared.

    Maps that are 0 everywhere and non-finite pixels leave a hatched photograph.

    Raises:
        ArgumentError: shapes that do not match, or numbers out of range.
    """
    if not (0 <= alpha <= 1 and 0 <= fade <= 1):
        raise ArgumentError(f"Expected alpha and fade in [0, 1]; got {alpha!r} and {fade!r}.")
    base = _photographs(images)
    values = np.asarray(maps, np.float64)
    if values.ndim < 3 or len(values) != len(base):
        raise ArgumentError(f"Expected maps ({len(base)}, ..., h, w) for {len(base)} images; got {values.shape}.")
    nothing = _nothing(values, inner=2)
    values = fitted(np.where(np.isfinite(values), values, 0), base.shape[1:3])
    nothing = fitted(nothing.astype(np.float64), base.shape[1:3]) > 0.25
    low, high = clip_limits(np.where(nothing, np.nan, values), percentile, signed=signed, shared=shared)
    if signed:
        tint, size = colorize(values, colors or "blue_red", (low, high)), np.abs(values) / high
    else:
        tint, size = colorize(values, colors or "inferno", (low, high)), (values - low) / (high - low)
    opacity = np.full(values.shape, alpha) if constant else alpha * np.clip(size, 0, 1)
    base = base.reshape(len(base), *[1] * (values.ndim - 3), *base.shape[1:])
    gray = base @ np.array([0.299, 0.587, 0.114])
    base = base + fade * (gray[..., None] - base)
    opacity = np.where(nothing, 0, opacity)[..., None]
    picture = to_uint8((base + opacity * (tint - base)) / 255)
    return _hatched(picture, nothing, over=True)


def outline(images: ArrayLike, masks: ArrayLike, *, width: int = 2, color: Color = (255, 214, 10)) -> np.ndarray:
    """Return images with the outlines of masks, uint8 (N, ..., H, W, 3).

    Args:
        images: (N, H, W, 3) or (N, H, W, 1); floats in [0, 1] or uint8.
        masks: bool (N, ..., H, W), such as `attribution.resize(size).threshold(0.2)`.
        width: pixels of the line, within the mask.
        color: of the line, RGB.

    Raises:
        ArgumentError: masks that do not match the images.
    """
    base, inside = _with_masks(images, masks)
    core = inside
    for _ in range(width):  # erode by a pixel; the image's border is not an edge
        framed = np.pad(core, [(0, 0)] * (core.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
        core = core & framed[..., :-2, 1:-1] & framed[..., 2:, 1:-1] & framed[..., 1:-1, :-2] & framed[..., 1:-1, 2:]
    return np.where((inside & ~core)[..., None], np.array(color, np.uint8), base.astype(np.uint8))


def highlight(images: ArrayLike, masks: ArrayLike, *, dim: float = 0.7) -> np.ndarray:
    """Return images darkened outside the masks, uint8 (N, ..., H, W, 3).

    Args:
        images, masks: see `outline`.
        dim: share of the brightness to remove, in [0, 1]; 1 is black.

    Raises:
        ArgumentError: masks that do not match the images, or a wrong `dim`.
    """
    base, inside = _with_masks(images, masks)
    if not 0 <= dim <= 1:
        raise ArgumentError(f"Expected dim in [0, 1]; got {dim!r}.")
    return to_uint8(base * np.where(inside, 1, 1 - dim)[..., None] / 255)


def fitted(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return maps (..., h, w) resized to (H, W), bilinear."""
    if maps.shape[-2:] == tuple(size):
        return maps
    flat = resize(maps.reshape(-1, *maps.shape[-2:], 1).astype(np.float32), size)
    return np.asarray(flat, np.float64).reshape(*maps.shape[:-2], *size)


def _photographs(images: ArrayLike) -> np.ndarray:
    """Return float64 (N, H, W, 3) in [0, 255]."""
    base = to_uint8(images)
    if base.ndim != 4 or base.shape[-1] not in (1, 3) or 0 in base.shape:
        raise ArgumentError(f"Expected images (N, H, W, 3) or (N, H, W, 1); got {np.shape(images)}.")
    return np.broadcast_to(base, (*base.shape[:3], 3)).astype(np.float64)


def _with_masks(images: ArrayLike, masks: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    base, inside = _photographs(images), np.asarray(masks)
    if inside.dtype != bool or inside.ndim < 3 or (len(inside), *inside.shape[-2:]) != base.shape[:3]:
        size = "x".join(map(str, base.shape[1:3]))
        raise ArgumentError(f"Expected bool masks of {len(base)} images of {size}; got {inside.dtype} {inside.shape}.")
    return base.reshape(len(base), *[1] * (inside.ndim - 3), *base.shape[1:]), inside


def _nothing(values: np.ndarray, inner: int = 3) -> np.ndarray:
    """Return where a map has no value: non-finite pixels, and maps that are 0 everywhere."""
    blank = (values == 0).all(tuple(range(-inner, 0)), keepdims=True)
    return ~np.isfinite(values) | blank


def _hatched(pictures: np.ndarray, where: np.ndarray, *, over: bool = False) -> np.ndarray:
    """Return the pictures with stripes where `where` is true; with `over`, the picture shows between the stripes."""
    if not where.any():
        return pictures
    height, width = pictures.shape[-3:-1]
    stripe = (np.arange(height)[:, None] + np.arange(width)[None]) // (_HATCH // 2) % 2
    return np.where((where & (stripe == 0) if over else where)[..., None], _STRIPES[stripe], pictures)
