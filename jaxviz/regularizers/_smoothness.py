"""Roughness of an image: total variation, spectrum, distance to the blurred image, border."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._blur import gaussian_blur
from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class TotalVariation:
    """Returned by `total_variation`."""

    weight: Array

    def __call__(self, image: Array) -> Array:
        dy = jnp.diff(image, axis=0, append=image[-1:])
        dx = jnp.diff(image, axis=1, append=image[:, -1:])
        squared = dx * dx + dy * dy
        # The derivative of sqrt at 0 is infinite, and 0 times infinity is NaN: replace 0 before the root.
        flat = squared == 0
        return self.weight * jnp.sum(jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, squared))))


def total_variation(weight: float) -> TotalVariation:
    """Penalize the isotropic total variation, `weight * sum sqrt(dx^2 + dy^2)` (Rudin, Osher and Fatemi 1992).

    `dx = x[i, j + 1] - x[i, j]` and `dy = x[i + 1, j] - x[i, j]`, 0 beyond the last column and row; summed over
    pixels and channels. The gradient at a flat place is 0.

    Args:
        weight: strength, traced.

    Example:
        >>> float(total_variation(1.0)(jnp.array([[0.0, 3.0], [4.0, 0.0]])[..., None]))
        12.0
    """
    return TotalVariation(leaf(weight, "weight"))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class FrequencyPenalty:
    """Returned by `frequency_penalty`."""

    weight: Array
    power: Array

    def __call__(self, image: Array) -> Array:
        h, w, _ = image.shape
        rows, columns = np.fft.fftfreq(h).astype(np.float32), np.fft.rfftfreq(w).astype(np.float32)
        frequency = jnp.hypot(rows[:, None], columns[None, :])
        mean = frequency == 0
        factor = jnp.where(mean, (self.power == 0).astype(jnp.float32), jnp.where(mean, 1, frequency) ** self.power)
        # The spectrum of a real image is symmetric: rfft2 omits the mirror images of all columns except 0 and W / 2.
        twice = np.full(columns.shape, 2, np.float32)
        twice[0] = 1
        if w % 2 == 0:
            twice[-1] = 1
        spectrum = jnp.fft.rfft2(image, axes=(0, 1), norm="ortho")
        energy = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
        return self.weight * jnp.sum(energy * (factor * twice)[:, :, None])


def frequency_penalty(weight: float, power: float = 0.0) -> FrequencyPenalty:
    """Penalize the energy of the spectrum, `weight * sum |F(x)|^2 f^power`, with the orthonormal discrete Fourier transform F.

    `f = sqrt(fx^2 + fy^2)` in cycles per pixel (0 to about 0.71); the sum is over the full spectrum and the channels.
    With power 0 it equals `l2(weight)` (Parseval); larger powers ignore the mean and slow changes and penalize fine noise.

    Args:
        weight: strength, traced.
        power: exponent of the frequency, at least 0, traced.

    Example:
        >>> float(frequency_penalty(1.0, power=2.0)(jnp.ones((4, 4, 3))))
        0.0
    """
    return FrequencyPenalty(leaf(weight, "weight"), leaf(power, "power", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Blur:
    """Returned by `blur`."""

    weight: Array
    sigma: Array

    def __call__(self, image: Array) -> Array:
        blurred = jax.lax.stop_gradient(gaussian_blur(image, self.sigma))
        return self.weight * jnp.sum(jnp.square(image - blurred)) / 2


def blur(weight: float, sigma: float = 0.77) -> Blur:
    """Penalize `weight * 0.5 * sum (x - b)^2`, with b the image blurred with a Gaussian, as a constant.

    A step of plain gradient descent on it replaces the image by `(1 - weight) * image + weight * blurred`. So it blurs in every
    step, with any optimizer (Lucid's `blur_input_each_step`, whose 3 x 3 kernel has the variance of the default sigma). At the
    border, weights are scaled to sum to 1 over the pixels inside.

    Args:
        weight: strength, traced.
        sigma: in pixels, at least 0, traced.

    Raises:
        ArgumentError: a negative sigma.

    Example:
        >>> float(blur(1.0)(jnp.ones((4, 5, 3))).round(6))
        0.0
    """
    return Blur(leaf(weight, "weight"), leaf(sigma, "sigma", low=0))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class BoundaryComplexity:
    """Returned by `boundary_complexity`."""

    weight: Array
    width: Array
    center: Array
    sigma: Array
    mask: Array | None

    def __call__(self, image: Array) -> Array:
        h, w, _ = image.shape
        if self.mask is None:
            rows, columns = np.minimum(np.arange(h), np.arange(h)[::-1]), np.minimum(np.arange(w), np.arange(w)[::-1])
            mask = (np.minimum(rows[:, None], columns[None, :]) < self.width).astype(jnp.float32)
        elif self.mask.shape == (h, w):
            mask = self.mask
        else:
            raise ArgumentError(
                f"The mask of a boundary has shape {self.mask.shape}, the image {image.shape}: expected ({h}, {w})."
            )
        rough = jnp.square(gaussian_blur(image, self.sigma) - image) + 0.8 * jnp.square(image - self.center)
        return self.weight * jnp.sum(rough * mask[:, :, None])


def boundary_complexity(
    weight: float = 1.0, width: int = 20, *, center: float = 0.5, sigma: float = 1.28, mask: ArrayLike | None = None
) -> BoundaryComplexity:
    """Penalize detail and color near the border: `weight * sum mask * ((b - x)^2 + 0.8 (x - center)^2)`.

    `b` is the image blurred with a Gaussian (with its gradient), and `mask` is 1 within `width` pixels of the border. This is
    Lucid's `penalize_boundary_complexity`, used for the icons of activation atlases with width 5; its 5 x 5 kernel has the
    variance of the default sigma.

    Args:
        weight: strength, traced.
        width: pixels from the border, at least 0, traced.
        center: the value without penalty, traced; 0.5 is gray.
        sigma: of the blur in pixels, at least 0, traced.
        mask: float (H, W), usually in [0, 1]: the weight of each pixel, instead of `width`; traced.

    Raises:
        ArgumentError: a negative width or sigma; here or when called, a mask that is not (H, W).

    Example:
        >>> float(boundary_complexity(1.0, 1)(jnp.full((3, 3, 1), 0.5)))
        0.0
    """
    if mask is not None:
        if np.ndim(mask) != 2:
            raise ArgumentError(f"The mask of a boundary is float (H, W), got shape {np.shape(mask)}.")
        mask = jnp.asarray(mask, jnp.float32)
    return BoundaryComplexity(
        leaf(weight, "weight"),
        leaf(width, "width", low=0, dtype=np.int32),
        leaf(center, "center"),
        leaf(sigma, "sigma", low=0),
        mask,
    )
