"""Color decorrelation: channels in which natural images are uncorrelated, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._types import Array
from jaxviz.param._base import Squash, clip_through, logit

# Square root (by SVD) of the covariance of ImageNet's colors, as published with Lucid.
_SQRT_COVARIANCE = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_CORRELATE = (_SQRT_COVARIANCE / np.linalg.norm(_SQRT_COVARIANCE, axis=0).max()).T
CORRELATE = _CORRELATE.astype(np.float32)
DECORRELATE = np.linalg.inv(_CORRELATE).astype(np.float32)


def _mix(image: Array, matrix: np.ndarray) -> Array:
    # Not a matrix product: this is full float32 on every device, and fuses with its neighbors.
    # By single channels: sums over axes of 3 are twenty times slower with XLA's CPU compiler.
    channels = [image[..., i] for i in range(3)]
    mixed = [sum(channel * float(weight) for channel, weight in zip(channels, column, strict=True)) for column in matrix.T]
    return jnp.stack(mixed, axis=-1)  # type: ignore[arg-type]


def correlate(image: Array) -> Array:
    """Turn decorrelated colors into RGB, without any offset (Olah et al. 2017, "Feature Visualization").

    The matrix is Lucid's: the square root of ImageNet's color covariance over its largest column norm. A step in one
    decorrelated channel moves R, G and B together, as in natural images.

    Args:
        image: float32 (..., C). Returned unchanged unless C is 3.

    Example:
        >>> import jax.numpy as jnp
        >>> print(correlate(jnp.array([1.0, 0.0, 0.0])).round(2))
        [0.56 0.58 0.58]
    """
    return _mix(jnp.asarray(image), CORRELATE) if image.shape[-1] == 3 else image


def decorrelate(image: Array) -> Array:
    """Turn RGB without offset into decorrelated colors; the inverse of `correlate`.

    Args:
        image: float32 (..., C). Returned unchanged unless C is 3.
    """
    return _mix(jnp.asarray(image), DECORRELATE) if image.shape[-1] == 3 else image


def to_image(signal: Array, decorrelated: bool, squash: Squash) -> Array:
    """Return the image in [0, 1] of a signal around 0: `sigmoid(signal)`, or `0.5 + signal` clipped; colors first."""
    signal = correlate(signal) if decorrelated else signal
    return jax.nn.sigmoid(signal) if squash == "sigmoid" else clip_through(signal + 0.5)


def to_signal(image: Array, decorrelated: bool, squash: Squash) -> Array:
    """Return the signal whose image is `image`; the inverse of `to_image`."""
    signal = logit(image) if squash == "sigmoid" else image - 0.5
    return decorrelate(signal) if decorrelated else signal
