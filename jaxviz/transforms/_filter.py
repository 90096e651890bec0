"""Blur and noise."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxviz._blur import gaussian_blur
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.transforms._base import Amount, amount, checked


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Blur:
    """Returned by `blur`."""

    sigma: Amount

    def __call__(self, key: Array, image: Array) -> Array:
        return gaussian_blur(checked(image), self.sigma.draw(key))


def blur(low: float, high: float | None = None) -> Blur:
    """Blur with a Gaussian whose sigma is uniform from `low` to `high`.

    At the border, weights are scaled to sum to 1 over the pixels inside the image.

    Args:
        low: smallest sigma in pixels, at least 0 (no blur); traced. Or a list of equally likely values.
        high: largest sigma; None for `low` itself. Traced.

    Raises:
        ArgumentError: a negative sigma, or `high` below `low`.

    Example:
        >>> blur(0.5, 2.0)(jax.random.key(0), jnp.ones((6, 5, 3))).shape
        (6, 5, 3)
    """
    return Blur(amount(low, high, "sigma", least=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Noise:
    """Returned by `noise`."""

    sd: Array
    uniform: Array | None

    def __call__(self, key: Array, image: Array) -> Array:
        shape = checked(image).shape
        normal_key, uniform_key = jax.random.split(key)
        # Drawn on one axis and reshaped: XLA's CPU compiler takes many seconds for random numbers of four axes (vmap adds one).
        count = math.prod(shape)
        image = image + self.sd * jax.random.normal(normal_key, (count,), jnp.float32).reshape(shape)
        if self.uniform is None:
            return image
        drawn = jax.random.uniform(uniform_key, (count,), jnp.float32, -1, 1)
        return image + self.uniform * drawn.reshape(shape)


def noise(sd: float, uniform: float | None = None) -> Noise:
    """Add normal noise to every value, and optionally uniform noise. The result is not clipped.

    MACO (Fel et al. 2023) adds both to every crop.

    Args:
        sd: standard deviation of the normal noise, at least 0, on the scale of images in [0, 1]; traced.
        uniform: the largest uniform noise, drawn from -uniform to uniform, at least 0; traced. None
            for no uniform noise, and no code for it in the program.

    Raises:
        ArgumentError: a negative amount.

    Example:
        >>> noise(0.05)(jax.random.key(0), jnp.ones((6, 5, 3))).shape
        (6, 5, 3)
    """
    return Noise(leaf(sd, "sd", low=0), None if uniform is None else leaf(uniform, "uniform", low=0))
