"""Less detail, or detail that means nothing: blur and noise."""

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
    """Made by `blur`."""

    sigma: Amount

    def __call__(self, key: Array, image: Array) -> Array:
        return gaussian_blur(checked(image), self.sigma.draw(key))


def blur(low: float, high: float | None = None) -> Blur:
    """Blur with a Gaussian whose sigma is drawn uniformly from `low` to `high`.

    At the border the weights are scaled to add up to 1 over the pixels inside the image.

    Args:
        low: smallest sigma in pixels, at least 0 (no blur); traced. Also a list, each as likely as the others.
        high: largest sigma; None for always `low`. Traced.

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
    """Made by `noise`."""

    sd: Array
    uniform: Array | None

    def __call__(self, key: Array, image: Array) -> Array:
        shape = checked(image).shape
        normal_key, uniform_key = jax.random.split(key)
        # Drawn in a row and reshaped: XLA's CPU compiler takes many seconds over random numbers of four axes (vmap adds one).
        count = math.prod(shape)
        image = image + self.sd * jax.random.normal(normal_key, (count,), jnp.float32).reshape(shape)
        if self.uniform is None:
            return image
        drawn = jax.random.uniform(uniform_key, (count,), jnp.float32, -1, 1)
        return image + self.uniform * drawn.reshape(shape)


def noise(sd: float, uniform: float | None = None) -> Noise:
    """Add noise to every value: normal, and uniform beside it where asked for. The result is not clipped.

    MACO (Fel et al. 2023) adds both to every crop.

    Args:
        sd: standard deviation of the normal noise, at least 0, on the scale of images in [0, 1]; traced.
        uniform: the largest uniform noise, drawn from -uniform to uniform, at least 0; traced. None for none of it, which
            saves drawing it.

    Raises:
        ArgumentError: a negative amount.

    Example:
        >>> noise(0.05)(jax.random.key(0), jnp.ones((6, 5, 3))).shape
        (6, 5, 3)
    """
    return Noise(leaf(sd, "sd", low=0), None if uniform is None else leaf(uniform, "uniform", low=0))
