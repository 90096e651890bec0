"""Pointing game, energy inside a mask and rank accuracy: does a map look where the object is?"""

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
    """Whether the highest pixel of a map is on or near a mask: a program of the engine."""

    tolerance: Array
    ties: Ties = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> Array:
        maps, masks = items["maps"], items["masks"]  # (n, K, H, W)
        highest = maps == maps.max((2, 3), keepdims=True)
        near = jax.lax.map(lambda one: jax.vmap(squared_distance)(one), masks) <= self.tolerance**2
        hit = highest & near
        share = hit.sum((2, 3)) / highest.sum((2, 3)) if self.ties == "mean" else hit.any((2, 3)).astype(jnp.float32)
        return jnp.where(jnp.isfinite(maps).all((2, 3)) & masks.any((2, 3)), share, jnp.nan)


@pytree
@dataclasses.dataclass(frozen=True)
class Inside:
    """The share of a map's positive part, and of its highest pixels, that is in a mask: a program of the engine."""

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
        # Of the pixels that tie for the last places, as many as are left, each equally likely.
        left = (count - above.sum((2, 3))) * (equal & masks).sum((2, 3)) / equal.sum((2, 3))
        rank = ((above & masks).sum((2, 3)) + left) / count
        return {name: jnp.where(defined, value, jnp.nan) for name, value in (("energy", energy), ("rank", rank))}


def squared_distance(mask: Array) -> Array:
    """Return each pixel's squared Euclidean distance to the nearest pixel of a mask (H, W); infinite where that is empty."""
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
    """Return whether the highest pixel of each map lies in the object's mask, 1 or 0 (Zhang et al., 2016).

    Args:
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C). Smaller maps are enlarged to the masks.
        masks: bool (N, H, W), or (N, K, H, W) where each of K targets has its own.
        tolerance: how many pixels from the mask still count, Euclidean; the paper takes 15 on images of about 224.
        ties: of several highest pixels, `"mean"` gives the share that hits: a constant map hits as often as chance. `"any"` is
            Quantus's: one is enough.
        reduce: of maps with colours, `"sum"`, `"max_abs"` or `"sum_abs"`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        float32 (N,), or (N, K), from 0 to 1. NaN where the mask is empty (no hit: there is nothing to point at) or the map not
        finite; take `np.nanmean`.

    Raises:
        ArgumentError: shapes that do not fit each other.

    >>> pointing_game(np.eye(4)[None], np.ones((1, 4, 4), bool))
    array([1.], dtype=float32)
    """
    if ties not in ("mean", "any"):
        raise ArgumentError(f"ties is 'mean' or 'any', not {ties!r}.")
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Point(leaf(tolerance, "tolerance", low=0.0), ties), items, **run), many)


def localisation(maps: Maps, masks: ArrayLike, *, reduce: Reduction = "sum", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return which share of a map's positive part lies in the object's mask, from 0 to 1.

    Also known as relevance mass, or the energy-based pointing game.

    Args and shape as for `pointing_game`. NaN where the mask is empty, the map not finite or nowhere positive.
    """
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Inside(), items, **run)["energy"], many)


def rank_accuracy(maps: Maps, masks: ArrayLike, *, reduce: Reduction = "sum", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return which share of the M highest pixels lies in the object's mask of M pixels, from 0 to 1 (Arras et al., 2022).

    Where pixels tie for the last places, the expected value. Args and shape as for `pointing_game`; NaN where the mask is empty
    or the map not finite.
    """
    items, many = _with_masks(maps, masks, reduce)
    return shaped(engine.map_images(Inside(), items, **run)["rank"], many)


def _with_masks(maps: Maps, masks: ArrayLike, reduce: Reduction) -> tuple[dict[str, np.ndarray], bool]:
    made, given = as_attribution(maps), np.asarray(masks)
    if not (given.dtype == bool or np.isin(given, (0, 1)).all()):
        raise ArgumentError(f"Expected masks of True and False, or 1 and 0; got {given.dtype} with other values.")
    lead = made.scores.shape
    if given.ndim == 3 and made.many:
        given = np.broadcast_to(given[:, None], (len(given), lead[1], *given.shape[1:]))
    if given.ndim != len(lead) + 2 or given.shape[: len(lead)] != lead:
        wanted = f"({len(made)}, H, W)" + (f" or ({lead[0]}, {lead[1]}, H, W)" if made.many else "")
        raise ArgumentError(f"Expected masks {wanted}, one for each map; got {given.shape}.")
    size = (given.shape[-2], given.shape[-1])
    flat = given.astype(bool).reshape(len(made), -1, *size)
    return {"maps": pixel_maps(made, reduce, size), "masks": flat}, made.many
