"""Pointing game, localization and rank accuracy: whether a map is high inside the mask of an object."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_attribution, pixel_maps, shaped

Ties = Literal["mean", "any"]


@pytree
@dataclasses.dataclass(frozen=True)
class Point:
    """Program: whether the highest pixel of a map is in or near a mask."""

    tolerance: Array
    ties: Ties = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> Array:
        maps, masks = items["maps"], items["masks"]  # (n, K, H, W)
        highest = maps == maps.max((2, 3), keepdims=True)
        near = jax.lax.map(jax.vmap(squared_distance), masks) <= self.tolerance**2
        hit = highest & near
        share = hit.sum((2, 3)) / highest.sum((2, 3)) if self.ties == "mean" else hit.any((2, 3)).astype(jnp.float32)
        return jnp.where(jnp.isfinite(maps).all((2, 3)) & masks.any((2, 3)), share, jnp.nan)


@pytree
@dataclasses.dataclass(frozen=True)
class Inside:
    """Program: the share of a map's positive part, and of its highest pixels, inside a mask."""

    def __call__(self, items: dict[str, Any]) -> dict[str, Array]:
        maps, masks = items["maps"], items["masks"]
        defined = jnp.isfinite(maps).all((2, 3)) & masks.any((2, 3))
        positive = jnp.maximum(maps, 0)
        total = positive.sum((2, 3))
        energy = jnp.where(masks, positive, 0).sum((2, 3)) / jnp.where(total > 0, total, jnp.nan)
        count = masks.sum((2, 3))
        ordered = jnp.sort(maps.reshape(*maps.shape[:2], -1), axis=-1, descending=True)
        limit = jnp.take_along_axis(ordered, jnp.maximum(count - 1, 0)[..., None], axis=-1)[..., None]
        above, equal = maps > limit, maps == limit
        # Pixels that tie for the last places count by chance.
        by_chance = (count - above.sum((2, 3))) * (equal & masks).sum((2, 3)) / equal.sum((2, 3))
        rank = ((above & masks).sum((2, 3)) + by_chance) / count
        return {name: jnp.where(defined, value, jnp.nan) for name, value in (("energy", energy), ("rank", rank))}


def squared_distance(mask: Array) -> Array:
    """Return each pixel's squared Euclidean distance to the nearest pixel of a mask (H, W); infinite for an empty mask."""
    far = jnp.inf
    rows, columns = (jnp.arange(n, dtype=jnp.float32) for n in mask.shape)
    across = jnp.where(mask[:, None, :], (columns[:, None] - columns[None, :])[None] ** 2, far).min(-1)  # in its row
    return ((rows[:, None] - rows[None, :])[..., None] ** 2 + across[None]).min(1)


def pointing_game(
    maps: Maps,
    masks: ArrayLike,
    *,
    tolerance: float = 0.0,
    ties: Ties = "mean",
    reduce: Reduction = "sum",
    **run: Unpack[RunOptions],
) -> np.ndarray:
    """Return 1 if the highest pixel of a map lies in the object's mask, else 0 (Zhang et al., 2016).

    Args:
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C). Smaller maps are resized to the masks.
        masks: bool (N, H, W), or (N, K, H, W) if each of K targets has its own mask.
        tolerance: Euclidean distance from the mask, in pixels, that still counts as a hit; 15 in the paper, for images of
            about 224 pixels.
        ties: with several highest pixels, `"mean"` gives the share of them that hit, so a constant map hits by chance;
            `"any"`, as in Quantus, gives 1 if any of them hits.
        reduce: how maps with color channels are reduced, `"sum"`, `"max_abs"` or `"sum_abs"`.
        **run: see `jaxviz.RunOptions`.

    Returns:
        float32 (N,), or (N, K), in [0, 1]. NaN if the mask is empty or the map is not finite; `np.nanmean` skips these.

    Raises:
        ArgumentError: shapes that do not fit each other.

    >>> jv.metrics.pointing_game(np.eye(4)[None], np.ones((1, 4, 4), bool))
    array([1.], dtype=float32)
    """
    if ties not in ("mean", "any"):
        raise ArgumentError(f"ties is 'mean' or 'any', not {ties!r}.")
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Point(leaf(tolerance, "tolerance", low=0.0), ties), items, **run), many)


def localization(maps: Maps, masks: ArrayLike, *, reduce: Reduction = "sum", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return the share of a map's positive part inside the object's mask, in [0, 1].

    Also known as relevance mass accuracy, or the energy-based pointing game.

    Args and shape as for `pointing_game`. NaN if the mask is empty, or the map is not finite or nowhere positive.
    """
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Inside(), items, **run)["energy"], many)


def rank_accuracy(maps: Maps, masks: ArrayLike, *, reduce: Reduction = "sum", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return the share of the M highest pixels inside the object's mask of M pixels, in [0, 1] (Arras et al., 2022).

    Ties give the expected value. Args and shape as for `pointing_game`; NaN if the mask is empty or the map is not finite.
    """
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Inside(), items, **run)["rank"], many)


def _with_masks(maps: Maps, masks: ArrayLike, reduce: Reduction) -> tuple[dict[str, np.ndarray], bool]:
    attribution, array = as_attribution(maps), np.asarray(masks)
    if not (array.dtype == bool or np.isin(array, (0, 1)).all()):
        raise ArgumentError(f"Expected masks of True and False, or 1 and 0; got {array.dtype} with other values.")
    lead = attribution.scores.shape
    if array.ndim == 3 and attribution.many:
        array = np.broadcast_to(array[:, None], (len(array), lead[1], *array.shape[1:]))
    if array.ndim != len(lead) + 2 or array.shape[: len(lead)] != lead:
        expected = f"({len(attribution)}, H, W)" + (f" or ({lead[0]}, {lead[1]}, H, W)" if attribution.many else "")
        raise ArgumentError(f"Expected masks {expected}, one for each map; got {array.shape}.")
    size = (array.shape[-2], array.shape[-1])
    flat = array.astype(bool).reshape(len(attribution), -1, *size)
    return {"maps": pixel_maps(attribution, reduce, size), "masks": flat}, attribution.many
