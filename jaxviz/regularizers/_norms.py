"""Distances of values from a gray value or from an image."""

from __future__ import annotations

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class L1:
    """Returned by `l1`."""

    weight: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        return self.weight * jnp.sum(jnp.abs(image - self.center))


def l1(weight: float, center: float = 0.0) -> L1:
    """Penalize `weight * sum |x - center|`.

    Args:
        weight: strength, traced.
        center: the value without penalty, traced; 0.5 pulls towards gray.

    Example:
        >>> float(l1(2.0)(jnp.full((1, 2, 1), 0.5)))
        2.0
    """
    return L1(leaf(weight, "weight"), leaf(center, "center"))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class L2:
    """Returned by `l2`."""

    weight: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        return self.weight * jnp.sum(jnp.square(image - self.center))


def l2(weight: float, center: float = 0.0) -> L2:
    """Penalize `weight * sum (x - center)^2`, the lambda |x|^2 of Simonyan et al. (2014).

    Args:
        weight: strength, traced.
        center: the value without penalty, traced; 0.5 pulls towards gray.

    Example:
        >>> float(l2(2.0)(jnp.full((1, 2, 1), 0.5)))
        1.0
    """
    return L2(leaf(weight, "weight"), leaf(center, "center"))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class PNorm:
    """Returned by `p_norm`."""

    weight: Array
    p: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        distance = jnp.abs(image - self.center)
        # A power is exp(p log x), and the derivative of log at 0 is infinite: replace 0 before the power.
        zero = distance == 0
        return self.weight * jnp.sum(jnp.where(zero, 0, jnp.where(zero, 1, distance) ** self.p))


def p_norm(weight: float, p: float = 6.0, center: float = 0.5) -> PNorm:
    """Penalize `weight * sum |x - center|^p`, the alpha norm of Mahendran and Vedaldi (2015), who use 6.

    Large powers affect only values far from the center. The gradient at `x = center` is 0.

    Args:
        weight: strength, traced.
        p: the power, at least 1, traced.
        center: the value without penalty, traced; 0.5 is gray.

    Raises:
        ArgumentError: a power below 1.

    Example:
        >>> float(p_norm(64.0)(jnp.ones((1, 2, 1))))
        2.0
    """
    return PNorm(leaf(weight, "weight"), leaf(p, "p", low=1), leaf(center, "center"))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class LInfinity:
    """Returned by `l_infinity`."""

    weight: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        return self.weight * jnp.max(jnp.abs(image - self.center))


def l_infinity(weight: float, center: float = 0.5) -> LInfinity:
    """Penalize `weight * max |x - center|`: only the furthest value has a gradient (equal values share it).

    Args:
        weight: strength, traced.
        center: the value without penalty, traced; 0.5 is gray.

    Example:
        >>> float(l_infinity(2.0)(jnp.array([0.5, 0.25, 0.625]).reshape(1, 3, 1)))
        0.5
    """
    return LInfinity(leaf(weight, "weight"), leaf(center, "center"))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Near:
    """Returned by `near`."""

    image: Array
    weight: Array

    def __call__(self, image: Array) -> Array:
        if image.shape != self.image.shape:
            raise ArgumentError(
                f"The image to stay near has shape {self.image.shape}, the optimized one {image.shape}: resize it."
            )
        return self.weight * jnp.mean(jnp.square(image - self.image))


def near(image: ArrayLike, weight: float = 1.0) -> Near:
    """Penalize the mean squared distance to an image, `weight * mean (x - image)^2`.

    Keeps the optimized image near a photo: Lucid's `input_diff`, and the penalty in image space of feature accentuation
    (Hamblin et al. 2024). It is a mean, not a sum like the norms: the same weight for every image size.

    Args:
        image: float (H, W, C) in [0, 1], of the size of the optimized image, traced. NumPy or JAX.
        weight: strength, traced.

    Raises:
        ArgumentError: not such an image; when called, an image of another shape.

    Example:
        >>> float(near(np.zeros((2, 2, 3)), 4.0)(jnp.full((2, 2, 3), 0.5)))
        1.0
    """
    expected = "Expected an image to stay near, float (H, W, C) in [0, 1], channels last"
    if not hasattr(image, "dtype"):
        raise ArgumentError(f"{expected}; got {type(image).__name__}. Convert with np.asarray(image) first.")
    came = f"got {image.dtype.name} {image.shape}"
    if image.ndim != 3 or not jnp.issubdtype(image.dtype, jnp.floating) or 0 in image.shape:
        raise ArgumentError(f"{expected}; {came}.")
    try:
        array = np.asarray(image, np.float32)
    except jax.errors.TracerArrayConversionError:
        return Near(jnp.asarray(image, jnp.float32), leaf(weight, "weight"))
    # Written so that NaN fails too. Resampling overshoots a little, so allow that.
    if not (array.min() >= -0.01 and array.max() <= 1.01):
        raise ArgumentError(f"{expected}; {came} with values from {array.min():.4g} to {array.max():.4g}.")
    return Near(cast(Array, array), leaf(weight, "weight"))
