"""Sparseness and complexity: does a map mark few pixels, or a little of everything?"""

from __future__ import annotations

import dataclasses
from typing import Unpack

import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_attribution, pixel_maps, shaped


@pytree
@dataclasses.dataclass(frozen=True)
class Concentration:
    """Gini index and entropy of the absolute values of maps: a program of the engine."""

    def __call__(self, maps: Array) -> dict[str, Array]:
        values = jnp.sort(jnp.abs(maps.reshape(*maps.shape[:2], -1)), axis=-1)
        largest = values[..., -1:]
        values = values / jnp.where(largest > 0, largest, jnp.nan)
        shares = values / values.sum(-1, keepdims=True)
        count = shares.shape[-1]
        weights = (2 * jnp.arange(1, count + 1) - count - 1) / count
        entropy = -jnp.where(shares > 0, shares * jnp.log(jnp.where(shares > 0, shares, 1)), 0).sum(-1)
        undefined = ~jnp.isfinite(shares).all(-1)
        return {
            "gini": jnp.where(undefined, jnp.nan, (weights * shares).sum(-1)),
            "entropy": jnp.where(undefined, jnp.nan, entropy),
        }


def sparseness(maps: Maps, *, reduce: Reduction = "sum_abs", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return the Gini index of each map's absolute values (Chalasani et al., 2020).

    From 0, all pixels alike, to almost 1, one pixel alone. With d values in ascending order, sum over k of (2k - d - 1) v_k /
    (d sum v).

    Args:
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C).
        reduce: of maps with colours, `"sum_abs"`, `"max_abs"` or `"sum"`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        float32 (N,), or (N, K) of an `Attribution` with K targets. NaN where a map is 0 everywhere or not finite.
    """
    return _concentration(maps, reduce, run)["gini"]


def complexity(maps: Maps, *, reduce: Reduction = "sum_abs", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return the entropy, in nats, of each map's absolute values as shares of their sum (Bhatt et al., 2020): less is simpler.

    From 0, one pixel alone, to the logarithm of the number of pixels. Args, shape and NaN as for `sparseness`.
    """
    return _concentration(maps, reduce, run)["entropy"]


def _concentration(maps: Maps, reduce: Reduction, run: RunOptions) -> dict[str, np.ndarray]:
    made = as_attribution(maps)
    found = engine.map_images(Concentration(), pixel_maps(made, reduce), **run)
    return {name: shaped(value, made.many) for name, value in found.items()}
