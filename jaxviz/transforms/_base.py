"""The protocol of a transform, and shared checks, random amounts and whole numbers."""

from __future__ import annotations

import dataclasses
import operator
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike


class Transform(Protocol):
    """A random transform of one image: `(key, image (H, W, C)) -> image`; a pytree whose amounts are traced leaves.

    The engine calls it under `vmap`: every image has its own draw.
    """

    def __call__(self, key: Array, image: Array, /) -> Array: ...


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Amount:
    """A uniform random number: between the two ends of `values`, or one of `values`."""

    values: Array
    between: bool = dataclasses.field(metadata=dict(static=True))

    def draw(self, key: Array) -> Array:
        drawn = jax.random.uniform(key, (), jnp.float32)
        if self.between:
            return self.values[0] + drawn * (self.values[1] - self.values[0])
        return jnp.asarray(self.values)[whole(drawn, self.values.shape[0])]


def amount(
    low: Any, high: Any, what: str, *, least: float | None = None, most: float | None = None, positive: bool = False
) -> Amount:
    """Return the `Amount` of two numbers, one number or a list; errors call it `what`."""
    values = low if np.ndim(low) else [low, low if high is None else high]
    if np.ndim(low) and (high is not None or np.ndim(low) > 1 or len(low) == 0):
        raise ArgumentError(f"{what} takes two numbers or one list of at least one, got {low!r} and {high!r}.")
    leaves = [leaf(value, what, low=0 if positive else least, high=most) for value in values]
    if any(not isinstance(value, np.ndarray) for value in leaves):  # traced
        return Amount(jnp.stack(leaves), not np.ndim(low))
    if positive and min(leaves) <= 0:
        raise ArgumentError(f"{what} must be positive, got {low!r}" + ("." if high is None else f" and {high!r}."))
    if not np.ndim(low) and leaves[0] > leaves[1]:
        raise ArgumentError(f"The lower end of {what} must not be above the upper, got {low!r} and {high!r}.")
    return Amount(cast(Array, np.stack(leaves)), not np.ndim(low))


def whole(uniform: Array, count: ArrayLike | int) -> Array:
    """Return whole numbers from 0 to count - 1. (`jax.random.randint` draws twice and doubles the time to compile.)"""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)


def checked(image: Array) -> Array:
    """Return `image`; raise `ArgumentError` unless it is one image (H, W, C)."""
    if image.ndim != 3:
        raise ArgumentError(f"A transform takes one image (H, W, C), got shape {image.shape}; use jax.vmap for a batch.")
    return image


def checked_fill(value: float, what: str = "fill") -> float:
    """Return a gray value as a static number."""
    return float(leaf(value, what))


def pixels(value: int, what: str, least: int) -> int:
    """Return a static number of pixels; raise `ArgumentError` unless it is whole and at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{what} must be a whole number, got {value!r}.") from None
    if number < least:
        raise ArgumentError(f"{what} must be at least {least}, got {number}.")
    return number
