"""Sparseness and complexity: whether a map is concentrated on few pixels."""

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
    """Program: Gini index and entropy of the absolute values of maps (n, K, H, W)."""

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

    It is 0 if all pixels are equal, and almost 1 if one pixel has everything. With d values in ascending order it is
    sum_k (2k - d - 1) v_k / (d sum_k v_k).

    Args:
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C).
        reduce: how maps with color channels are reduced, `"sum_abs"`, `"max_abs"` or `"sum"`.
        **run: see `jaxviz.RunOptions`.

    Returns:
        float32 (N,), or (N, K) for an `Attribution` with K targets. NaN if a map is 0 everywhere or not finite.

    Raises:
        ArgumentError: an array of another shape.

    >>> jv.metrics.sparseness(np.ones((1, 4, 4), np.float32))
    array([0.], dtype=float32)
    """
    return _concentration(maps, reduce, run)["gini"]


def complexity(maps: Maps, *, reduce: Reduction = "sum_abs", **run: Unpack[RunOptions]) -> np.ndarray:
    """Return the entropy, in nats, of each map's absolute values as shares of their sum; lower is simpler (Bhatt et al., 2020).

    It is 0 if one pixel has everything, and the logarithm of the number of pixels if all are equal. Args, shape and NaN as for
    `sparseness`.
    """
    return _concentration(maps, reduce, run)["entropy"]


def _concentration(maps: Maps, reduce: Reduction, run: RunOptions) -> dict[str, np.ndarray]:
    attribution = as_attribution(maps)
    values: dict[str, np.ndarray] = engine.map_images(Concentration(), pixel_maps(attribution, reduce), **run)
    return {name: shaped(value, attribution.many) for name, value in values.items()}
