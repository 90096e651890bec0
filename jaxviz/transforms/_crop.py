"""Crops: of fixed size, and boxes of random size resized to a fixed one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz._warp import Size
from jaxviz.transforms._base import Amount, amount, checked, checked_fill, pixels, whole
from jaxviz.transforms._geometry import STILL, Geometric


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Crop(Geometric):
    """Returned by `crop`."""

    size: Size = dataclasses.field(metadata=dict(static=True))
    random: bool = dataclasses.field(metadata=dict(static=True))
    rigid = True
    ends = True

    def window(self, size: Size) -> Size:
        return self.size

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        spare = np.subtract(size, self.size)
        before = np.where(spare > 0, spare // 2, -(-spare // 2))  # pixels cut off at the top and left; added if negative
        if self.random:
            drawn = whole(jax.random.uniform(key, (2,), jnp.float32), np.maximum(spare, 0) + 1)
            before = jnp.where(spare > 0, drawn, before)
        return STILL, cast(Array, spare.astype(np.float32) / 2 - before)


def crop(height: int, width: int | None = None, *, at: Literal["random", "center"] = "random", fill: float = 0.5) -> Crop:
    """Cut out `height` by `width` pixels, at a random place or the center: (H, W, C) becomes (height, width, C).

    All places inside are equally likely, independently for each axis: cropping to H - d, W - d is Lucid's jitter by d. An axis
    that is too short is padded with `fill`, equally before and after (one pixel less before if that is odd), as Lucid's
    `crop_or_pad_to`. Pixels are never interpolated.

    Args:
        height: pixels, at least 1; static.
        width: pixels; None for a square.
        at: "random" or "center" (rounded up and to the left).
        fill: gray of added pixels; static.

    Raises:
        ArgumentError: a size that is not a whole number of at least 1, or another `at`.

    Example:
        >>> crop(8, 10)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (8, 10, 3)
    """
    if at not in ("random", "center"):
        raise ArgumentError(f"A crop is at 'random' or 'center', got {at!r}.")
    height = pixels(height, "The height of a crop", 1)
    width = height if width is None else pixels(width, "The width of a crop", 1)
    return Crop(checked_fill(fill), (height, width), at == "random")


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class RandomResizedCrop:
    """Returned by `random_resized_crop`."""

    side: Amount
    center_sd: Array | None
    size: Size = dataclasses.field(metadata=dict(static=True))

    def __call__(self, key: Array, image: Array) -> Array:
        h, w, channels = checked(image).shape
        side_key, center_key = jax.random.split(key)
        side = self.side.draw(side_key)
        if self.center_sd is None:
            start = (1 - side) * jax.random.uniform(center_key, (2,), jnp.float32)
        else:
            center = 0.5 + self.center_sd * jax.random.normal(center_key, (2,), jnp.float32)
            start = jnp.clip(center - side / 2, 0, 1 - side)
        sides = np.array([h, w], np.float32)
        scale = np.array(self.size, np.float32) / (side * sides)
        offset = -start * sides * scale
        # One matrix for rows and one for columns: small boxes are enlarged a lot, and a gather would read each pixel often.
        # Antialiased, so that every pixel of a large box has a gradient.
        return jax.image.scale_and_translate(image, (*self.size, channels), (0, 1), scale, offset, "linear", antialias=True)


def random_resized_crop(
    size: int | Sequence[int], scale: float | tuple[float, float] = (0.2, 0.5), *, center_sd: float | None = 0.15
) -> RandomResizedCrop:
    """Cut out a box of random size at a random place and resize it to `size`: the crops of MACO (Fel et al. 2023).

    The side of the box is a fraction of the image's, uniform from `scale`, the same for height and width. Its center is normal
    around the image's, N(0.5, center_sd^2) of each side, and moved so that the box lies inside. Resizing is bilinear with
    half-pixel centers, and antialiased if the box is larger than `size`.

    MACO averages the gradient over several such crops in each step, with `noise` added to each.

    Args:
        size: (height, width) of the result in pixels, or one number for a square; static.
        scale: smallest and largest side of the box as a fraction of the image's, above 0 and at most 1, or one number for both;
            traced.
        center_sd: standard deviation of the center as a fraction of the image's side, at least 0, traced. 0 is always the
            middle; None makes all places inside equally likely.

    Raises:
        ArgumentError: a size below 1, `scale` not in (0, 1] or its ends in the wrong order, a negative `center_sd`.

    Example:
        >>> random_resized_crop(8, (0.2, 0.5))(jax.random.key(0), jnp.ones((32, 48, 3))).shape
        (8, 8, 3)
    """
    sides = (size, size) if np.ndim(size) == 0 else tuple(cast(Sequence[int], size))
    ends = (scale, scale) if np.ndim(scale) == 0 else tuple(cast(Sequence[float], scale))
    if len(sides) != 2 or len(ends) != 2:
        raise ArgumentError(f"Expected a size (height, width) and a scale (low, high), or one number, got {size!r}, {scale!r}.")
    h, w = (pixels(cast(int, side), "The size of a resized crop", 1) for side in sides)
    side = amount(ends[0], ends[1], "scale", most=1, positive=True)
    return RandomResizedCrop(side, None if center_sd is None else leaf(center_sd, "center_sd", low=0), (h, w))
