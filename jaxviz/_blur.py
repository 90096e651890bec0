"""Gaussian blur of one image."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxviz._types import Array


def gaussian_blur(image: Array, sigma: Array | float) -> Array:
    """Return, for each pixel, the mean over the image with weights `exp(-d^2 / (2 sigma^2))`, d: the distance in pixels.

    The weights add up to 1 over what is inside the image, so that nothing outside has to be made up, and a flat image stays
    as it is. A `sigma` of 0 leaves the image alone.

    Args:
        image: (H, W, C).
        sigma: in pixels, at least 0, traced. No cut-off to choose: the sums go over whole rows and columns.
    """
    h, w, _ = image.shape
    # Two products with small matrices: on CPU as fast up to 500 px as sums over 17 shifted copies (whose gradient is slow, or
    # written by hand), far faster than a convolution with a kernel of each image's own, and at home on GPU and TPU.
    channels = jnp.moveaxis(image, -1, 0)
    channels = jnp.matmul(_weights(h, sigma), channels, precision=jax.lax.Precision.HIGHEST)
    channels = jnp.matmul(channels, _weights(w, sigma).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.moveaxis(channels, 0, -1)


def _weights(length: int, sigma: Array | float) -> Array:
    place = jnp.arange(length, dtype=jnp.float32)
    distance = (place[:, None] - place[None, :]) / jnp.maximum(sigma, 1e-6)  # 0 / 0 would be NaN
    weights = jnp.exp(-distance * distance / 2)
    return weights / weights.sum(1, keepdims=True)
