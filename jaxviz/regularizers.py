"""Penalties on an image: `(image (H, W, C)) -> scalar`, subtracted from what is maximised."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._static import as_tree, leaf
from jaxviz._types import Array


class Regularizer(Protocol):
    """A penalty: float32 image (H, W, C) in [0, 1] to a scalar, larger is worse. A pytree whose weights are traced leaves."""

    def __call__(self, image: Array, /) -> Array: ...


def function(fn: Callable[[Array], Any]) -> Regularizer:
    """Return any function `image (H, W, C) -> scalar` as a regulariser; those that are pytrees already come back as they are.

    The function itself is static: define it once, outside the call, or every call compiles again.

    Raises:
        ArgumentError: `fn` cannot be called.
    """
    return as_tree(fn)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class L1:
    """Made by `l1`."""

    weight: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        return self.weight * jnp.sum(jnp.abs(image - self.center))


def l1(weight: float, center: float = 0.0) -> L1:
    """Penalise `weight * sum |x - center|`.

    Args:
        weight: strength, traced.
        center: the value without penalty, traced; 0.5 pulls towards grey.

    Example:
        >>> float(l1(2.0)(jnp.full((1, 2, 1), 0.5)))
        2.0
    """
    return L1(leaf(weight, "weight"), leaf(center, "center"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class L2:
    """Made by `l2`."""

    weight: Array
    center: Array

    def __call__(self, image: Array) -> Array:
        return self.weight * jnp.sum(jnp.square(image - self.center))


def l2(weight: float, center: float = 0.0) -> L2:
    """Penalise `weight * sum (x - center)^2`, the lambda |x|^2 of Simonyan et al. (2014).

    Args:
        weight: strength, traced.
        center: the value without penalty, traced; 0.5 pulls towards grey.

    Example:
        >>> float(l2(2.0)(jnp.full((1, 2, 1), 0.5)))
        1.0
    """
    return L2(leaf(weight, "weight"), leaf(center, "center"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class TotalVariation:
    """Made by `total_variation`."""

    weight: Array

    def __call__(self, image: Array) -> Array:
        dy = jnp.diff(image, axis=0, append=image[-1:])
        dx = jnp.diff(image, axis=1, append=image[:, -1:])
        squared = dx * dx + dy * dy
        # The derivative of sqrt at 0 is infinite, and 0 times it is NaN: keep flat places away from it.
        flat = squared == 0
        return self.weight * jnp.sum(jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, squared))))


def total_variation(weight: float) -> TotalVariation:
    """Penalise the isotropic total variation, `weight * sum sqrt(dx^2 + dy^2)` (Rudin, Osher and Fatemi 1992).

    `dx = x[i, j + 1] - x[i, j]` and `dy = x[i + 1, j] - x[i, j]`, 0 beyond the last column and row; summed over
    pixels and channels. The gradient at a flat place is 0.

    Args:
        weight: strength, traced.

    Example:
        >>> float(total_variation(1.0)(jnp.array([[0.0, 3.0], [4.0, 0.0]])[..., None]))
        12.0
    """
    return TotalVariation(leaf(weight, "weight"))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class FrequencyPenalty:
    """Made by `frequency_penalty`."""

    weight: Array
    power: Array

    def __call__(self, image: Array) -> Array:
        h, w, _ = image.shape
        rows, columns = np.fft.fftfreq(h).astype(np.float32), np.fft.rfftfreq(w).astype(np.float32)
        frequency = jnp.hypot(rows[:, None], columns[None, :])
        mean = frequency == 0
        factor = jnp.where(mean, (self.power == 0).astype(jnp.float32), jnp.where(mean, 1, frequency) ** self.power)
        # The spectrum of a real image is symmetric: rfft2 leaves out the mirror images of all columns but 0 and W / 2.
        twice = np.full(columns.shape, 2, np.float32)
        twice[0] = 1
        if w % 2 == 0:
            twice[-1] = 1
        spectrum = jnp.fft.rfft2(image, axes=(0, 1), norm="ortho")
        energy = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        return self.weight * jnp.sum(energy * (factor * twice)[:, :, None])


def frequency_penalty(weight: float, power: float = 0.0) -> FrequencyPenalty:
    """Penalise the energy of the spectrum, `weight * sum |F(x)|^2 f^power`, with the orthonormal discrete Fourier transform F.

    `f = sqrt(fx^2 + fy^2)` in cycles per pixel (0 to about 0.71); the sum is over the full spectrum and the channels.
    With power 0 it equals `l2(weight)` (Parseval); larger powers leave the mean and slow changes alone and punish
    fine noise.

    Args:
        weight: strength, traced.
        power: exponent of the frequency, at least 0, traced.

    Example:
        >>> float(frequency_penalty(1.0, power=2.0)(jnp.ones((4, 4, 3))))
        0.0
    """
    return FrequencyPenalty(leaf(weight, "weight"), leaf(power, "power", low=0))
