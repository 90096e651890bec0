"""Color: brightness, contrast, saturation and hue, and a random change of each channel."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.transforms._base import checked

_LUMA = np.array([0.2989, 0.587, 0.114], np.float32)


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ColorJitter:
    """Returned by `color_jitter`."""

    brightness: Array | None
    contrast: Array | None
    saturation: Array | None
    hue: Array | None

    def __call__(self, key: Array, image: Array) -> Array:
        channels = checked(image).shape[-1]
        if channels != 3 and not (self.saturation is None and self.hue is None):
            raise ArgumentError(f"Saturation and hue need RGB images (H, W, 3), got shape {image.shape}.")
        drawn = jax.random.uniform(key, (4,), jnp.float32)
        if self.brightness is not None:
            image = jnp.clip(image * _factor(self.brightness, drawn[0]), 0, 1)
        if self.contrast is not None:
            image = _blend(image, _gray(image).mean(), _factor(self.contrast, drawn[1]))
        if self.saturation is not None:
            image = _blend(image, _gray(image), _factor(self.saturation, drawn[2]))
        return image if self.hue is None else _rotate_hue(image, self.hue * (2 * drawn[3] - 1))


def color_jitter(
    brightness: float | None = None, contrast: float | None = None, saturation: float | None = None, hue: float | None = None
) -> ColorJitter:
    """Change brightness, contrast, saturation and hue by random amounts, with torchvision's formulas, in this order.

        brightness: clip(f x)
        contrast:   clip(f x + (1 - f) m)      m: mean of the gray image
        saturation: clip(f x + (1 - f) g)      g: the gray image, 0.2989 R + 0.587 G + 0.114 B
        hue:        the hue rotated by t of the circle

    with `f` uniform from max(0, 1 - amount) to 1 + amount, `t` uniform from -hue to hue, and values clipped to [0, 1].
    (torchvision's `ColorJitter` also draws the order.) A clipped value has gradient 0. A gray pixel has no hue; its gradient
    is that of its brightness.

    Args:
        brightness: at least 0, traced. None for no change, and no code in the program; so for the others.
        contrast: at least 0, traced. Without three channels, gray is their mean.
        saturation: at least 0, traced; RGB images only.
        hue: from 0 to 0.5, traced; RGB images only.

    Raises:
        ArgumentError: an amount out of range; saturation or hue of an image that is not RGB.

    Example:
        >>> color_jitter(0.2, 0.2, 0.2, 0.05)(jax.random.key(0), jnp.full((6, 5, 3), 0.5)).shape
        (6, 5, 3)
    """
    amounts = (
        ("brightness", brightness, None),
        ("contrast", contrast, None),
        ("saturation", saturation, None),
        ("hue", hue, 0.5),
    )
    return ColorJitter(*(None if value is None else leaf(value, what, low=0, high=high) for what, value, high in amounts))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class ColorShift:
    """Returned by `color_shift`."""

    shift: Array
    gain: Array

    def __call__(self, key: Array, image: Array) -> Array:
        shift, gain = jax.random.uniform(key, (2 * checked(image).shape[-1],), jnp.float32, -1, 1).reshape(2, -1)
        return 0.5 + (image - 0.5) * jnp.exp(self.gain * gain) + self.shift * shift


def color_shift(shift: float, gain: float) -> ColorShift:
    """Change the mean and the contrast of every channel alone: `0.5 + (x - 0.5) exp(g) + s`.

    `s` is uniform from -shift to shift and `g` from -gain to gain, for each channel; the result is not clipped. This is the
    ColorShift of Plug-In Inversion (Ghiasi et al. 2022), which uses 1 for both in units of normalized images: a shift of about
    0.23 here, ImageNet's standard deviation.

    Args:
        shift: the largest change of a channel's values, at least 0, traced.
        gain: the largest logarithm of the factor, at least 0, traced.

    Raises:
        ArgumentError: a negative amount.

    Example:
        >>> color_shift(0.2, 0.5)(jax.random.key(0), jnp.ones((6, 5, 3))).shape
        (6, 5, 3)
    """
    return ColorShift(leaf(shift, "shift", low=0), leaf(gain, "gain", low=0))


def _factor(amount: Array, drawn: Array) -> Array:
    low = jnp.maximum(1 - amount, 0)
    return low + drawn * (1 + amount - low)


def _blend(image: Array, other: Array, factor: Array) -> Array:
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def _gray(image: Array) -> Array:
    if image.shape[-1] != 3:
        return image.mean(-1, keepdims=True)
    return (image * _LUMA).sum(-1, keepdims=True)


def _rotate_hue(image: Array, turn: Array) -> Array:
    """Rotate the hue of an RGB image by a fraction of the circle; the largest and smallest value of each pixel stay."""
    # The product with the identity prevents fusion with the code before it. Fused with brightness or contrast, saturation, and
    # the gradient of a network, jaxlib 0.10.2 on CPU took the wrong sector in a seventh of the pixels.
    image = jnp.einsum("hwc,cd->hwd", image, np.eye(3, dtype=np.float32), precision="highest")
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    high = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = high - jnp.minimum(jnp.minimum(red, green), blue)
    width = jnp.where(chroma == 0, 1, chroma)  # gray: no hue, and no infinite gradient
    sector = jnp.where(high == green, 2 + (blue - red) / width, 4 + (red - green) / width)
    hue = jnp.where(high == red, (green - blue) / width, sector) + 6 * turn  # in sixths of the circle

    def channel(place: Array) -> Array:
        place = place - 6 * jnp.floor(place / 6)  # several times as fast as `% 6` on CPU
        return high - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return jnp.stack([channel(hue + 5), channel(hue + 3), channel(hue + 1)], -1)
