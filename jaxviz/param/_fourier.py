"""Images parameterized by their spectrum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.param._base import Shape, Squash, check_image, check_shape, check_squash, known_shape, normal
from jaxviz.param._color import to_image, to_signal


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Fourier:
    """Returned by `fourier`; the parameters are a real array (H, W // 2 + 1, C, 2): real and imaginary parts."""

    sd: Array
    decay: Array
    desaturation: Array
    shape: Shape | None = dataclasses.field(metadata=dict(static=True))
    decorrelate: bool = dataclasses.field(metadata=dict(static=True))
    squash: Squash = dataclasses.field(metadata=dict(static=True))

    def with_shape(self, shape: Sequence[int]) -> Fourier:
        return dataclasses.replace(self, shape=check_shape(shape))

    def init(self, key: Array) -> Array:
        h, w, c = known_shape(self)
        return self.sd * normal(key, (h, w // 2 + 1, c, 2))

    def decode(self, params: Array) -> Array:
        return to_image(self._signal(params), self.decorrelate, self.squash)

    def project(self, params: Array) -> Array:
        return params if self.squash == "sigmoid" else self.encode(self.decode(params))

    def encode(self, image: Array) -> Array:
        image = check_image(image, known_shape(self))
        return self._spectrum(to_signal(image, self.decorrelate, self.squash))

    def enlarged(self, params: Array, new: Fourier) -> Array:
        (h, w, _), (height, width, _) = known_shape(self), known_shape(new)
        rows, columns = _interpolation(h, height), _interpolation(w, width)
        # Full float32: at a GPU's default precision, noise appears in the empty high frequencies.
        signal = jnp.einsum("hi,ijc,wj->hwc", rows, self._signal(params), columns, precision="highest")
        return new.project(new._spectrum(signal))

    def _signal(self, params: Array) -> Array:
        h, w, _ = known_shape(self)
        scaled = params * self._scale()[:, :, None, None]
        signal = jnp.fft.irfft2(jax.lax.complex(scaled[..., 0], scaled[..., 1]), s=(h, w), axes=(0, 1)) / 4
        return self._with_colors(signal, 1 / self.desaturation)

    def _spectrum(self, signal: Array) -> Array:
        spectrum = 4 * jnp.fft.rfft2(self._with_colors(signal, self.desaturation), axes=(0, 1))
        return jnp.stack([spectrum.real, spectrum.imag], -1) / self._scale()[:, :, None, None]

    def _with_colors(self, signal: Array, factor: Array) -> Array:
        if not self.decorrelate or signal.shape[-1] != 3:
            return signal
        return signal * jnp.stack([jnp.ones((), jnp.float32), factor, factor])

    def _scale(self) -> Array:
        h, w, _ = known_shape(self)
        rows, columns = np.fft.fftfreq(h).astype(np.float32), np.fft.rfftfreq(w).astype(np.float32)
        frequency = jnp.hypot(rows[:, None], columns[None, :])
        return jnp.maximum(frequency, np.float32(1 / max(h, w))) ** -self.decay * np.float32(np.sqrt(h * w))


def fourier(
    shape: Sequence[int] | None = None,
    *,
    sd: float = 0.01,
    decay: float = 2.0,
    desaturation: float = 1.0,
    decorrelate: bool = True,
    squash: Squash = "sigmoid",
) -> Fourier:
    """Parameterize an image by its spectrum and decorrelated colors (Olah et al. 2017, "Feature Visualization").

    Steps of one size then change frequencies in the proportions of natural images, and pictures become smooth. The formulas
    are Lucid's:

        scale = max(f, 1 / max(H, W)) ** -decay * sqrt(H * W)      f: frequency in cycles per pixel
        image = sigmoid(correlate(irfft2(scale * params) / 4))     params ~ N(0, sd^2), (H, W // 2 + 1, C, 2)

    with real and imaginary parts on the last axis: parameters are real, so any optimizer works. `desaturation` divides the
    second and third decorrelated channel, so colors change that much less than brightness.

    With decay 1 the image starts almost flat gray, with decay 2 as faint clouds of color. An odd W has exactly W columns
    (Lucid computes one more and cuts it off).

    Args:
        shape: (H, W, C) of the image; None to set it later with `with_shape`, as `visualize` does.
        sd: standard deviation of the initial parameters, at least 0.
        decay: how steeply high frequencies are scaled down: 0 not at all, 1 as 1/f (Lucid's). With 2, units reach higher
            scores than with 1, with half the energy in fine detail, at a lower learning rate (`benchmarks/quality.py`).
        desaturation: above 1 for paler colors, below 1 for stronger ones; at least 0.001. Only for decorrelated colors.
        decorrelate: whether the parameters are decorrelated colors; affects only images with 3 channels.
        squash: `"sigmoid"`, or `"clip"`: the image is 0.5 plus the signal, clipped to [0, 1] after every step.

    Raises:
        ArgumentError: a wrong shape, sd, decay, desaturation or squash; also from `init` and `decode`, if no shape is set.

    Example:
        >>> import jax
        >>> param = fourier((4, 7, 3))
        >>> params = param.init(jax.random.key(0))
        >>> params.shape, param.decode(params).shape
        ((4, 4, 3, 2), (4, 7, 3))
    """
    return Fourier(
        leaf(sd, "sd", low=0),
        leaf(decay, "decay"),
        leaf(desaturation, "desaturation", low=1e-3),
        check_shape(shape),
        bool(decorrelate),
        check_squash(squash),
    )


def _interpolation(few: int, many: int) -> np.ndarray:
    """Return the matrix (many, few) of trigonometric interpolation of a periodic signal from `few` to `many` points.

    This is zero padding of the spectrum, with the highest frequency of an even number shared by both its signs. But samples
    are the centers of equal pixels, as in resizing. If `many` is less, frequencies that no longer fit are cut off.
    """
    at = (np.arange(many)[:, None] + 0.5) / many - (np.arange(few) + 0.5) / few  # in periods
    top = min(few, many) / 2
    k = np.arange(1, int(np.ceil(top)))
    total = 1 + 2 * np.cos(2 * np.pi * at[..., None] * k).sum(-1)
    if top == int(top):
        total += np.cos(2 * np.pi * at * top)
    return (total / few).astype(np.float32)
