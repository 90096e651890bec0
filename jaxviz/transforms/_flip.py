"""Rearranged pixels: mirror images, and rolling over the edges."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.transforms._base import checked, whole


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Flip:
    """Returned by `flip`."""

    horizontal: Array
    vertical: Array

    def __call__(self, key: Array, image: Array) -> Array:
        drawn = jax.random.uniform(key, (2,), jnp.float32)
        image = jnp.where(drawn[0] < self.horizontal, checked(image)[:, ::-1], image)
        return jnp.where(drawn[1] < self.vertical, image[::-1], image)


def flip(horizontal: float = 0.5, vertical: float = 0.0) -> Flip:
    """Mirror the image: left to right with one probability, upside down with another.

    Args:
        horizontal: probability of a left-right flip, in [0, 1], traced.
        vertical: probability of a top-bottom flip, in [0, 1], traced.

    Raises:
        ArgumentError: a probability outside [0, 1].

    Example:
        >>> flip(1.0)(jax.random.key(0), jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist()
        [2.0, 1.0, 0.0]
    """
    return Flip(leaf(horizontal, "horizontal", low=0, high=1), leaf(vertical, "vertical", low=0, high=1))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Roll:
    """Returned by `roll`."""

    distance: Array

    def __call__(self, key: Array, image: Array) -> Array:
        drawn = whole(jax.random.uniform(key, (2,), jnp.float32), 2 * self.distance + 1) - self.distance
        return cast(Array, _rolled(checked(image), drawn))


def roll(distance: int) -> Roll:
    """Roll each axis by a whole number of pixels, uniform from -distance to distance; pixels reappear on the other side.

    DeepDream's jitter: nothing is lost or filled in. DeepDream rolls the image back after the step; here differentiation rolls
    the gradient back.

    Args:
        distance: the largest shift in pixels, at least 0; traced. May be larger than the image.

    Raises:
        ArgumentError: a distance that is not a whole number of at least 0.

    Example:
        >>> sorted(roll(5)(jax.random.key(0), jnp.arange(3.0).reshape(1, 3, 1))[0, :, 0].tolist())
        [0.0, 1.0, 2.0]
    """
    return Roll(leaf(distance, "distance", low=0, dtype=np.int32))


@jax.custom_vjp
def _rolled(image: Array, offset: Array) -> Array:
    """Return `jnp.roll(image, offset, (0, 1))`; its gradient is a gather, while JAX's own is a scatter."""
    for axis in (0, 1):
        index = (jnp.arange(image.shape[axis]) - offset[axis]) % image.shape[axis]
        image = jnp.take(image, index, axis=axis, mode="clip")
    return image


_rolled.defvjp(
    lambda image, offset: (_rolled(image, offset), offset),
    lambda offset, cotangent: (_rolled(cotangent, -offset), None),
)
