"""What the score loses when a part of the image is covered: sliding windows, or parts that a mask names.

Each covered image is one forward pass, for all targets, of which only what the part changes is computed anew. Only scores
leave the device; maps are put together from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._methods.occlusion_program import Groups, Windows, covered
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model

Extent = int | Sequence[int]  # of height and width, or (height, width, channels)


def occlusion(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    window: Extent | None = None,
    stride: Extent | None = None,
    baseline: Baseline = "mean",
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return how much of the score a window takes away that covers a place (Zeiler and Fergus, 2014).

    Windows begin every `stride` pixels, ceil((side - window) / stride) + 1 along a side; the last is cut at the edge. A pixel's
    value is the mean of score - score when covered over the windows that cover it, as in Captum's `Occlusion` with windows over
    all channels. One forward pass a window, of which only what the window changes is computed: lower maps stay as they were
    around it. Other strides and baselines compile nothing new, nor do windows of nearly the same size.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        window: pixels of a side, (height, width), or (height, width, channels) for windows that cover some channels only; a
            seventh of each side unless given.
        stride: pixels, for one or each axis of the window; half a window unless given. At most the window, so that no pixel is
            left out. For windows over some channels: 1 along the channels unless given.
        baseline: what covers, see `attribute`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), signed, or (N, K, H, W) for K targets; with a third axis, (..., C), where `window` has one.
        `extra`: `"window_scores"` float32 (N, rows, columns) or (N, K, rows, columns), the scores when covered; where the
        target is a function of the logits, `"window_classes"` int32 (N, rows, columns), the top class when covered.

    Raises:
        ArgumentError: images, target or baseline that do not fit; a window larger than the image or smaller than the stride.

    >>> occlusion(model, images, "church", window=32, stride=16).maps.shape
    (2, 128, 128)
    """
    images = model.check_images(images)
    size = tuple(int(side) for side in images.shape[1:])
    extent, step, by_channel = _extents(window, stride, size)
    grid = tuple(-(-(side - w) // s) + 1 for side, w, s in zip(size, extent, step, strict=True))
    made, index = as_target(model, target, images)
    parts = Windows(*(jnp.asarray(x, jnp.int32) for x in (extent, step, grid)))
    items = {"images": images, "baseline": as_baselines(model, baseline, images), "index": index}
    program = covered(model, made, parts, (extent[0], extent[1]), (size[0], size[1]))
    found, told = engine.map_steps(program, items, int(np.prod(grid)), **run)
    shape = grid if by_channel else grid[:2]
    lost = _lost(found, told).reshape(*found["scores"].shape, *grid)
    covers = [_covers(*axis) for axis in zip(size, extent, step, grid, strict=True)]
    covers[2] = covers[2] if by_channel else covers[2][:, :1]
    maps = np.einsum("nkijl,ih,jw,lc->nkhwc", lost, *covers, optimize=True)
    maps = (maps / np.einsum("ih,jw,lc->hwc", *covers, optimize=True)).astype(np.float32)
    found["maps"] = maps if by_channel else maps[..., 0]
    settings = {"window": extent[: 2 + by_channel], "stride": step[: 2 + by_channel], "baseline": baseline}
    return finished(
        "occlusion",
        model,
        made,
        found,
        spatial=not by_channel,
        settings=settings,
        extra=_extra(made, told, "window", shape),
    )


def feature_ablation(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    mask: ArrayLike | None = None,
    baseline: Baseline = "mean",
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return how much of the score each part of the image takes away when the baseline stands in its place.

    The parts are those of `mask`: superpixels, a segmentation, objects. Every value of a part gets the part's score, as in
    Captum's `FeatureAblation`. One forward pass a part, of which only what may change is computed.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        mask: whole numbers that name the parts: (H, W) for all images, (N, H, W) for each its own, or with channels,
            (H, W, C) or (N, H, W, C), where a part may be in some channels only. A board of 8 x 8 fields unless given.
        baseline: what stands in the place of a part, see `attribute`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), signed, or (N, K, H, W) for K targets; (..., C) where `mask` has channels.
        `extra`: `"part_scores"` float32 (N, parts) or (N, K, parts), the scores without each part, the parts in the order of
        their numbers in `mask`; where the target is a function of the logits, `"part_classes"` int32 (N, parts).

    Raises:
        ArgumentError: images, target, mask or baseline that do not fit.
    """
    images = model.check_images(images)
    mask = _board(images.shape[1], images.shape[2]) if mask is None else np.asarray(mask)
    groups, count, by_channel = _groups(mask, tuple(images.shape))
    made, index = as_target(model, target, images)
    corners, largest = _boxes(groups, count)
    items = {"images": images, "baseline": as_baselines(model, baseline, images), "index": index}
    items |= {"groups": groups, "corners": corners}
    program = covered(model, made, Groups(), largest, (images.shape[1], images.shape[2]))
    found, told = engine.map_steps(program, items, count, **run)
    lost, flat = _lost(found, told), groups.reshape(len(groups), 1, -1)
    values = np.take_along_axis(lost, np.broadcast_to(flat, (*lost.shape[:2], flat.shape[2])), axis=-1)
    found["maps"] = values.reshape(*lost.shape[:2], *groups.shape[1 : 4 if by_channel else 3]).astype(np.float32)
    return finished(
        "feature_ablation",
        model,
        made,
        found,
        spatial=not by_channel,
        settings={"mask": mask, "baseline": baseline},
        extra=_extra(made, told, "part", (count,)),
    )


def _lost(found: dict[str, np.ndarray], told: dict[str, np.ndarray]) -> np.ndarray:
    """Return score - score when covered, float64 (N, K, parts)."""
    return np.moveaxis(found["scores"][:, None].astype(np.float64) - told["scores"], 1, 2)


def _extra(target: Target, told: dict[str, Any], part: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    scores = np.moveaxis(told["scores"], 1, 2)
    scores = scores.reshape(*scores.shape[:2], *shape)
    extra = {f"{part}_scores": scores if target.many else scores[:, 0]}
    if told["predicted"] is not None:
        extra[f"{part}_classes"] = told["predicted"].reshape(-1, *shape)
    return extra


def _extents(
    window: Extent | None, stride: Extent | None, size: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return window and stride along height, width and channels, and whether the windows cover some channels only."""
    asked = _listed(tuple(max(1, side // 7) for side in size[:2]) if window is None else window)
    by_channel = len(asked) == 3
    usual = (*(max(1, -(-int(side) // 2)) for side in asked[:2]), 1)[: len(asked)]
    steps = usual if stride is None else _listed(stride)
    if by_channel and len(steps) == 2:
        steps = (*steps, 1)
    if len(asked) not in (2, 3) or len(steps) != len(asked) or any(x != int(x) or x < 1 for x in (*asked, *steps)):
        raise ArgumentError(
            "Expected a window and a stride of whole numbers above 0, one for both sides, (height, width) or (height, width, "
            f"channels); got window={window!r} and stride={stride!r}."
        )
    if any(w > side or s > w for side, w, s in zip(size, asked, steps, strict=False)):
        raise ArgumentError(
            f"Expected a window of at most the image, {size[: len(asked)]}, and a stride of at most the window, so that every "
            f"pixel is covered; got a window of {asked} and a stride of {steps}."
        )
    asked, steps = tuple(map(int, asked)), tuple(map(int, steps))
    return (asked, steps, True) if by_channel else ((*asked, size[2]), (*steps, size[2]), False)


def _listed(extent: Extent) -> tuple[Any, ...]:
    return (extent, extent) if isinstance(extent, int | float | np.number) else tuple(extent)


def _covers(length: int, window: int, stride: int, count: int) -> np.ndarray:
    """Return which places along a side which windows cover, float64 (count, length), 0 or 1."""
    begin, place = np.arange(count)[:, None] * stride, np.arange(length)
    return ((place >= begin) & (place < begin + window)).astype(np.float64)


def _board(h: int, w: int) -> np.ndarray:
    """Return 8 x 8 fields numbered in row-major order, int (h, w)."""
    return np.arange(h)[:, None] * 8 // h * 8 + np.arange(w)[None] * 8 // w


def _groups(mask: ArrayLike, shape: tuple[int, ...]) -> tuple[np.ndarray, int, bool]:
    """Return the parts numbered from 0, int32 (N, H, W, 1 or C), how many there are, and whether the mask has channels."""
    given, (n, h, w, c) = np.asarray(mask), shape
    with_channels = given.shape in ((h, w, c), shape)
    if not (with_channels or given.shape in ((h, w), (n, h, w))) or given.dtype.kind not in "iub":
        raise ArgumentError(
            f"Expected a mask of whole numbers of shape {(h, w)}, {(n, h, w)}, {(h, w, c)} or {shape}; got {given.dtype} "
            f"{given.shape}."
        )
    names, numbers = np.unique(given, return_inverse=True)
    numbers = numbers.reshape(given.shape).astype(np.int32)
    numbers = numbers if with_channels else numbers[..., None]
    return np.broadcast_to(numbers, (n, h, w, c if with_channels else 1)), len(names), with_channels


def _boxes(groups: np.ndarray, count: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Return where the groups of an image begin, int32 (n, count, 2), and the height and width of the largest."""
    n, h, w, _ = groups.shape
    first, last = np.full((2, n, count), max(h, w)), np.zeros((2, n, count), int)
    images = np.arange(n)[:, None, None, None]
    for axis, place in enumerate((np.arange(h)[:, None, None], np.arange(w)[:, None])):
        where = np.broadcast_arrays(images, groups, place)
        np.minimum.at(first[axis], (where[0], where[1]), where[2])
        np.maximum.at(last[axis], (where[0], where[1]), where[2])
    heights, widths = last - first + 1  # below 1 for a group that an image does not have
    return np.moveaxis(first, 0, -1).astype(np.int32), (max(1, int(heights.max())), max(1, int(widths.max())))
