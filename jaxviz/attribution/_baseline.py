"""Baselines: reference images in [0, 1] that attributions compare with."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._blur import gaussian_blur
from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model

Baseline: TypeAlias = str | float | ArrayLike
BLUR = 1 / 20  # the standard deviation of "blur", of the longer side

_NAMED = ("mean", "black", "white", "blur", "uniform")


def as_baselines(model: Model, baseline: Baseline, images: ArrayLike, *, seed: int = 0, sets: bool = False) -> Array:
    """Return the baseline of each image, float32 (N, H, W, C) in [0, 1].

    Args:
        model: the network.
        baseline: `"mean"`, the network's mean color, which is 0 after its normalization; `"black"`; `"white"`; `"blur"`, the
            image without detail (Gaussian of a twentieth of its longer side); `"uniform"`, random pixels, the same for every
            image; one number; a color (C,); an image (H, W, C); or N images (N, H, W, C), one for each.
        images: float32 (N, H, W, C) in [0, 1].
        seed: of `"uniform"`.
        sets: whether (B, H, W, C) are B baselines for every image instead of one for each; they are returned as they are.

    Raises:
        ArgumentError: another name or shape, or values outside [0, 1].

    >>> as_baselines(model, "black", images).shape == images.shape
    True
    """
    shape = tuple(images.shape)
    if isinstance(baseline, str):
        if baseline not in _NAMED:
            raise ArgumentError(f"A baseline is {', '.join(map(repr, _NAMED))}, a number, a color or images; got {baseline!r}.")
        if baseline == "blur":
            return _blurred(jnp.asarray(images, jnp.float32), BLUR * max(shape[1:3]))
        if baseline == "uniform":
            row = jax.random.uniform(jax.random.key(seed), (int(np.prod(shape[1:])),))
            return jnp.broadcast_to(row.reshape(shape[1:]), shape)
        color = {"mean": model.mean, "black": 0.0, "white": 1.0}[baseline]
        return jnp.broadcast_to(jnp.asarray(color, jnp.float32), shape)
    array = np.asarray(baseline, np.float32)
    if not array.size or not np.isfinite(array).all() or array.min() < -0.01 or array.max() > 1.01:
        raise ArgumentError("Expected a baseline with values in [0, 1], as of the images, before any normalization.")
    if sets and array.ndim == 4 and array.shape[1:] == shape[1:]:
        return jnp.asarray(array)
    if array.shape not in ((), (shape[3],), shape[1:], shape):
        raise ArgumentError(
            f"Expected a baseline that is a number, a color ({shape[3]},), an image {shape[1:]}, or "
            f"{shape[0]} images {shape}, one for each; got shape {array.shape}."
        )
    return jnp.broadcast_to(jnp.asarray(array), shape)


@jax.jit
def _blurred(images: Array, sigma: float) -> Array:
    return jax.vmap(gaussian_blur, (0, None))(images, sigma)
