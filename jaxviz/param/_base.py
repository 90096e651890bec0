"""The protocol of a parameterisation, and what every one of them checks."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, PyTree

Squash = Literal["clip", "sigmoid"]
Shape = tuple[int, int, int]


@runtime_checkable
class Param(Protocol):
    """A parameterisation of one image; a pytree, so that it can be an argument of a compiled program.

    `shape` is the image's (H, W, C), or None where the caller is to set it with `with_shape`.
    """

    @property
    def shape(self) -> Shape | None: ...

    def with_shape(self, shape: Sequence[int]) -> Param:
        """Return the same parameterisation for images of `shape` (H, W, C)."""
        ...

    def init(self, key: Array) -> PyTree:
        """Return real float32 parameters to start from, drawn from `key`."""
        ...

    def decode(self, params: PyTree) -> Array:
        """Return the image, float32 (H, W, C) in [0, 1], that the parameters stand for."""
        ...

    def project(self, params: PyTree) -> PyTree:
        """Return the nearest parameters whose image is in [0, 1]; called after every step of the optimiser."""
        ...

    def encode(self, image: Array) -> PyTree:
        """Return parameters whose image is `image`, (H, W, C) in [0, 1]."""
        ...


def check_shape(shape: Sequence[int] | None) -> Shape | None:
    """Return `shape` as three ints (H, W, C), or None; raise `ArgumentError` for anything else."""
    if shape is None:
        return None
    try:
        sizes = tuple(operator.index(size) for size in shape)
    except TypeError:
        sizes = ()
    if len(sizes) != 3 or min(sizes) < 1:
        raise ArgumentError(f"The shape of an image is three positive integers (height, width, channels), got {shape!r}.")
    return sizes[0], sizes[1], sizes[2]


def known_shape(param: Param) -> Shape:
    """Return `param.shape`; raise `ArgumentError` where it is not set."""
    if param.shape is None:
        raise ArgumentError("The parameterisation has no shape yet: call with_shape((height, width, channels)) first.")
    return param.shape


def check_squash(squash: str) -> Squash:
    """Return `squash`; raise `ArgumentError` unless it is one of the two known."""
    if squash not in ("clip", "sigmoid"):
        raise ArgumentError(f"squash must be 'clip' or 'sigmoid', got {squash!r}.")
    return squash


def check_image(image: Array, shape: Shape | None) -> Array:
    """Return `image` as float32 (H, W, C); raise `ArgumentError` where its shape is another."""
    image = jnp.asarray(image, jnp.float32)
    if image.ndim != 3 or (shape is not None and image.shape != shape):
        raise ArgumentError(f"Expected an image (H, W, C) of shape {shape or '(H, W, C)'}, got {image.shape}.")
    return image


def logit(image: Array) -> Array:
    """Return the inverse of the sigmoid; values within 1e-4 of 0 and 1 are moved there, since theirs is infinite."""
    image = jnp.clip(image, 1e-4, 1 - 1e-4)
    return jnp.log(image) - jnp.log1p(-image)


def clip_through(image: Array) -> Array:
    """Clip to [0, 1] with the gradient of the identity, so that a pixel at the border can come back."""
    return image + jax.lax.stop_gradient(jnp.clip(image, 0, 1) - image)


def normal(key: Array, shape: Sequence[int]) -> Array:
    """Draw float32 normal numbers of `shape`.

    Drawn in a row and reshaped: XLA's CPU compiler takes many seconds over random numbers of four axes, and none over one.
    """
    return jax.random.normal(key, (math.prod(shape),), jnp.float32).reshape(shape)


def enlarge(old: Param, new: Param, params: PyTree) -> PyTree:
    """Return the parameters of `new` whose image is that of `params` of `old`, resized."""
    image = jax.image.resize(old.decode(params), known_shape(new), "cubic")
    return new.encode(jnp.clip(image, 0, 1))
