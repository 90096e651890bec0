"""Similarity of two maps: Spearman's rank correlation and structural similarity (SSIM)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._blur import gaussian_blur
from jaxviz._pytree import pytree
from jaxviz._types import Array


@pytree
@dataclasses.dataclass(frozen=True)
class Similarity:
    """Program: Spearman's correlation and SSIM of pairs of maps (n, K, H, W)."""

    def __call__(self, items: dict[str, Any]) -> dict[str, Array]:
        one, other = items["one"], items["other"]
        flat = one.shape[0] * one.shape[1]
        pair = one.reshape(flat, *one.shape[2:]), other.reshape(flat, *one.shape[2:])
        found = {"spearman": jax.vmap(spearman)(*pair), "ssim": jax.vmap(ssim)(*pair)}
        finite = jnp.isfinite(one).all((2, 3)) & jnp.isfinite(other).all((2, 3))
        return {name: jnp.where(finite, value.reshape(one.shape[:2]), jnp.nan) for name, value in found.items()}


def spearman(one: Array, other: Array) -> Array:
    """Return the rank correlation of two arrays; ties share their mean rank. NaN if an array is constant."""
    a, b = _centered_ranks(one.reshape(-1)), _centered_ranks(other.reshape(-1))
    size = jnp.sqrt((a * a).sum() * (b * b).sum())
    return jnp.where(size > 0, (a * b).sum() / jnp.where(size > 0, size, 1), jnp.nan)


def _centered_ranks(values: Array) -> Array:
    """Return ranks minus their mean, divided by the number of values."""
    ordered, count = jnp.sort(values), len(values)
    below, up_to = (jnp.searchsorted(ordered, values, side=side, method="sort") for side in ("left", "right"))
    return (below + up_to - count).astype(jnp.float32) / (2 * count)


def ssim(one: Array, other: Array) -> Array:
    """Return the structural similarity of two maps (H, W), each divided by its largest value (Wang et al., 2004).

    It is the mean over all pixels, with a Gaussian window of 1.5 pixels that is renormalized at the border. NaN if a map is 0.
    """
    high = one.max(), other.max()
    x, y = (m / jnp.where(top > 0, top, jnp.nan) for m, top in zip((one, other), high, strict=True))
    means = gaussian_blur(jnp.stack([x, y, x * x, y * y, x * y], axis=-1), 1.5)
    mx, my, xx, yy, xy = jnp.moveaxis(means, -1, 0)
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * (xy - mx * my) + c2) / (xx - mx * mx + yy - my * my + c2)
    return ((2 * mx * my + c1) / (mx * mx + my * my + c1) * structure).mean()
