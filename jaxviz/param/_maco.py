"""Images with a fixed spectrum: only the phase is free, the magnitudes are those of natural images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.param._base import Shape, check_image, check_shape, known_shape, logit, normal
from jaxviz.param._color import correlate, decorrelate

# The three decorrelated channels of 400 photos of Imagenette's validation set, cut to squares and scaled to 128 pixels: the
# log-log slope of the mean magnitude between 0.01 and 0.4 cycles per pixel, and the spread without the mean color.
SLOPES = (1.52, 2.18, 1.94)
SPREADS = (0.395, 0.354, 0.341)
_EPSILON = np.float32(1e-5)

Phase = dict[str, Array]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Maco:
    """Returned by `maco`; parameters are `{"phase": (H, W // 2 + 1, C), "mean": (), "spread": ()}`, the last two constant."""

    contrast: Array
    spread: Array
    slopes: Array | None
    magnitude: Array | None
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Maco:
        checked = check_shape(shape)
        _check_channels(checked, slopes=self.slopes, magnitude=self.magnitude)
        return dataclasses.replace(self, shape=checked)

    def init(self, key: Array) -> Phase:
        h, w, c = known_shape(self)
        return {"phase": normal(key, (h, w // 2 + 1, c)), "mean": jnp.zeros(()), "spread": jnp.asarray(self.spread)}

    def decode(self, params: Phase) -> Array:
        h, w, _ = known_shape(self)
        mean, spread = jax.lax.stop_gradient((params["mean"], params["spread"]))
        phase = mean + spread * _standard(params["phase"])
        magnitude = self._magnitude()
        spectrum = jax.lax.complex(magnitude * jnp.cos(phase), magnitude * jnp.sin(phase))
        signal = _standard(jnp.fft.irfft2(spectrum, s=(h, w), axes=(0, 1)))
        return jax.nn.sigmoid(self.contrast * correlate(signal))

    def project(self, params: Phase) -> Phase:
        return params

    def encode(self, image: Array) -> Phase:
        signal = decorrelate(logit(check_image(image, known_shape(self))))
        phase = jnp.angle(jnp.fft.rfft2(signal, axes=(0, 1)))
        return {"phase": phase, "mean": phase.mean(), "spread": _size(phase - phase.mean())}

    def _magnitude(self) -> Array:
        h, w, c = known_shape(self)
        if self.magnitude is None:
            return _power_law(h, w, c, self.slopes)
        rows, columns, _ = self.magnitude.shape
        if (rows, columns) == (h, w // 2 + 1):
            return self.magnitude
        down = _between(np.fft.fftfreq(rows), np.fft.fftfreq(h))
        across = _between(np.fft.rfftfreq(2 * columns - 2 or 1), np.fft.rfftfreq(w))
        return jnp.einsum("hi,ijc,wj->hwc", down, self.magnitude, across, precision="highest")


def maco(
    shape: Sequence[int] | None = None,
    *,
    contrast: float = 3.0,
    spread: float = 1.8,
    slopes: float | Sequence[float] | None = None,
    magnitude: ArrayLike | None = None,
) -> Maco:
    """Parameterize an image by the phase of its spectrum alone, at the magnitudes of natural images.

    Fel et al. 2023, "Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization":

        phase = spread * standardized(params)                params ~ N(0, 1), (H, W // 2 + 1, C)
        image = sigmoid(contrast * correlate(standardized(irfft2(magnitude * exp(i * phase)))))

    where `standardized` subtracts the mean and divides by the standard deviation, over all channels. Detail cannot pile up, so
    deep layers and classes get coherent pictures. Steps are in radians of phase, and their effect shrinks as the parameters
    grow. With the authors' `optimizer=optax.nadam, learning_rate=1.0`, 64 steps are enough on the bundled network (layer4 and
    logits at 128 pixels); Adam, and rates from 0.1 to 1, reach similar scores.

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        contrast: factor before the sigmoid, at least 0. With 3, the standard deviation of pictures is about that of photos
            (0.29; 0.28 in 400 photos). The paper's 1 gives 0.1; the authors then stretch the range.
        spread: standard deviation of the phases in radians, at least 0. Uniform angles have 1.8; with the authors' 1 they are
            so similar that images start with a bright spot, cut in four by the corners.
        slopes: how steeply the magnitude falls, `f ** -slope` at f cycles per pixel, one number or C of them. None for the
            slopes of photos: 1.52, 2.18 and 1.94 in decorrelated colors, else 1.52. The authors' ImageNet spectrum has 2.11,
            2.34 and 2.19, and gives smoother pictures. The mean has magnitude 0.
        magnitude: float (h, w // 2 + 1, C), any h and w, instead of the power law: see `spectrum`.

    `encode` keeps only the phase of an image: it decodes to the magnitudes of this spectrum.

    Raises:
        ArgumentError: a wrong shape, contrast, spread, slopes or magnitude; also from `init`, if no shape is set.

    Example:
        >>> import jax
        >>> param = maco((6, 7, 3))
        >>> params = param.init(jax.random.key(0))
        >>> params["phase"].shape, param.decode(params).shape
        ((6, 4, 3), (6, 7, 3))
    """
    checked = check_shape(shape)
    if slopes is not None and magnitude is not None:
        raise ArgumentError("Expected slopes or magnitude, not both: magnitude replaces the power law.")
    law = None if slopes is None else _numbers(slopes, "slopes", "() or (C,)", (0, 1))
    measured = None if magnitude is None else _numbers(magnitude, "magnitude", "(h, w // 2 + 1, C)", (3,))
    _check_channels(checked, slopes=law, magnitude=measured)
    return Maco(leaf(contrast, "contrast", low=0), leaf(spread, "spread", low=0), law, measured, checked)


def spectrum(images: ArrayLike) -> Array:
    """Return the mean magnitude of the spectra of images, in decorrelated colors, for `maco(magnitude=...)`.

    Args:
        images: float (N, H, W, C) in [0, 1]. A few hundred photos give a smooth spectrum.

    Returns:
        float32 (H, W // 2 + 1, C): the mean over images of `|rfft2(decorrelate(image - 0.5))|`.

    Example:
        >>> import numpy as np
        >>> spectrum(np.random.default_rng(0).uniform(size=(5, 8, 6, 3))).shape
        (8, 4, 3)
    """
    images = jnp.asarray(images, jnp.float32)
    if images.ndim != 4 or 0 in images.shape:
        raise ArgumentError(f"Expected images (N, H, W, C) with values in [0, 1], got the shape {images.shape}.")
    return jnp.abs(jnp.fft.rfft2(decorrelate(images - 0.5), axes=(1, 2))).mean(0)


def _power_law(h: int, w: int, c: int, slopes: Array | None) -> Array:
    """Return the magnitudes (H, W // 2 + 1, C) of a power law, scaled to the spreads of photos."""
    f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None, :])[..., None].astype(np.float32)
    if slopes is None:
        slopes = jnp.asarray(SLOPES if c == 3 else SLOPES[0], jnp.float32)
    law = jnp.where(f == 0, 0, np.where(f == 0, np.float32(1), f) ** -slopes) * jnp.ones(c, jnp.float32)
    mirrored = np.where((np.arange(w // 2 + 1) == 0) | (2 * np.arange(w // 2 + 1) == w), 1, 2)[:, None]
    power = (mirrored.astype(np.float32) * law**2).sum((0, 1))
    return law * (np.asarray(SPREADS if c == 3 else 1, np.float32) / jnp.sqrt(power + _EPSILON))


def _between(few: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Return the matrix of linear interpolation from the frequencies `few` to `many`."""
    return np.stack([np.interp(many, few, row, period=1) for row in np.eye(len(few))], -1).astype(np.float32)


def _size(centered: Array) -> Array:
    # The epsilon keeps the gradient finite where all values are equal.
    return jnp.sqrt((centered**2).mean() + _EPSILON**2)


def _standard(values: Array) -> Array:
    centered = values - values.mean()
    return centered / _size(centered)


def _numbers(values: Any, name: str, shape: str, axes: tuple[int, ...]) -> Array:
    try:
        array = np.asarray(values, np.float32)
        fine = bool(np.isfinite(array).all() and (array >= 0).all())
    except jax.errors.TracerArrayConversionError:
        array, fine = jnp.asarray(values, jnp.float32), True
    except (TypeError, ValueError):
        raise ArgumentError(f"{name} must be numbers {shape}, got {values!r}.") from None
    if array.ndim not in axes or 0 in array.shape or not fine:
        which = f"the shape {array.shape}" if fine else "a negative number or one that is not finite"
        raise ArgumentError(f"{name} must be finite numbers of at least 0, of shape {shape}; got {which}.")
    return cast(Array, array)


def _check_channels(shape: Shape | None, **arrays: Array | None) -> None:
    for name, array in arrays.items():
        if shape is not None and array is not None and array.ndim and array.shape[-1] != shape[2]:
            raise ArgumentError(f"{name} has {array.shape[-1]} channels, and the image {shape[2]}.")
