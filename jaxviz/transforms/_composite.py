"""Images with opacity on a background."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz.param import fourier
from jaxviz.param._fourier import Fourier
from jaxviz.transforms._base import checked


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Composite:
    """Returned by `composite`."""

    color: Array | None  # of a plain background; None for a random one
    noise: Fourier | None  # None for one random color

    def __call__(self, key: Array, image: Array) -> Array:
        if checked(image).shape[-1] < 2:
            raise ArgumentError(f"The last channel is the opacity: expected (H, W, C + 1), got shape {image.shape}.")
        picture, opacity = image[..., :-1], image[..., -1:]
        if self.color is not None:
            background = self.color
        elif self.noise is not None:
            noise = self.noise.with_shape(picture.shape)
            background = noise.decode(noise.init(key))
        else:
            background = jax.random.uniform(key, picture.shape[-1:], jnp.float32)
        return background + opacity * (picture - background)


def composite(background: Literal["noise", "random"] | float = "noise", *, sd: float = 0.2, decay: float = 1.5) -> Composite:
    """Put an image, whose last channel is its opacity, on a background: (H, W, C + 1) becomes (H, W, C).

    `opacity * image + (1 - opacity) * background`. Every image and step has another background, so an image scores well only
    where it is opaque (Mordvintsev et al. 2018, "Differentiable Image Parameterizations"). Put it first in a list of
    transforms: padding would fill the opacity too.

    Args:
        background: "noise" for smooth colored noise, as `jv.param.fourier(sd=sd, decay=decay)` starts (Lucid's
            `collapse_alpha_random`); "random" for one random color; or a number for that gray, traced.
        sd: strength of the noise, at least 0, traced.
        decay: smoothness of the noise: larger for larger clouds, traced.

    Raises:
        ArgumentError: another background, or an image with a single channel.

    Example:
        >>> composite()(jax.random.key(0), jnp.ones((6, 5, 4))).shape
        (6, 5, 3)
    """
    if background == "noise":
        return Composite(None, fourier(sd=sd, decay=decay))
    if background == "random":
        return Composite(None, None)
    if isinstance(background, str):
        raise ArgumentError(f"A background is 'noise', 'random' or a number, got {background!r}.")
    return Composite(leaf(background, "background"), None)
