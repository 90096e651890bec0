"""Motions of an image on an endless canvas: padding, jitter, scaling, rotation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._pytree import leaf, pytree
from jaxviz._types import Array
from jaxviz._warp import Size, shift, warp
from jaxviz.transforms._base import Amount, amount, checked, checked_fill, pixels, whole

STILL = cast(Array, np.eye(2, dtype=np.float32))
HERE = cast(Array, np.zeros(2, np.float32))


@dataclasses.dataclass(frozen=True, eq=False)
class Geometric:
    """A motion on the endless canvas: a random similarity, and a window of perhaps another size."""

    fill: float = dataclasses.field(metadata=dict(static=True))

    rigid = False  # whether it moves only by whole pixels
    ends = False  # whether pixels that leave the view are lost for later motions

    def window(self, size: Size) -> Size:
        """Return the size of the window after the motion."""
        return size

    def bounds(self) -> tuple[Array | float, Array | float]:
        """Return the largest factor and the largest angle in degrees over all draws."""
        return 1.0, 0.0

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        """Draw `(matrix (2, 2), offset (2,))` for a window of `size`.

        A point at p from the center of that window moves to `matrix @ p + offset` from the center of the new one, as
        (row, column).
        """
        raise NotImplementedError

    def __call__(self, key: Array, image: Array) -> Array:
        return move([self], [key], checked(image))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Geometric):
    """Returned by `pad`."""

    grow: int = dataclasses.field(metadata=dict(static=True))
    rigid = True

    def window(self, size: Size) -> Size:
        return size[0] + 2 * self.grow, size[1] + 2 * self.grow

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        return STILL, HERE


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Jitter(Geometric):
    """Returned by `jitter`."""

    distance: Array
    rigid = True

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        drawn = whole(jax.random.uniform(key, (2,), jnp.float32), self.distance + 1)
        return STILL, (drawn - self.distance // 2).astype(jnp.float32)


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Geometric):
    """Returned by `scale`."""

    amount: Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return jnp.max(self.amount.values), 0.0

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        return STILL * self.amount.draw(key), HERE


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Rotate(Geometric):
    """Returned by `rotate`."""

    amount: Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return 1.0, jnp.max(jnp.abs(self.amount.values))

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        angle = self.amount.draw(key) * np.float32(np.pi / 180)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # Counter-clockwise on the screen, where rows point down: right of the center (column +1) moves up (row -1).
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]), HERE


def move(run: Sequence[Geometric], keys: Sequence[Array], image: Array) -> Array:
    """Apply a sequence of motions as one."""
    h, w, _ = image.shape
    size = (h, w)
    matrix, offset = STILL, HERE
    for part, key in zip(run, keys, strict=True):
        m, o = part.motion(key, size)
        size = part.window(size)
        matrix, offset = _product(m, matrix), _product(m, offset[:, None])[:, 0] + o
    if all(part.rigid for part in run):
        # From the corner, not from the center, which may lie between two pixels: these are whole numbers.
        corner = offset + np.array([size[0] - h, size[1] - w], np.float32) / 2
        return shift(image, jnp.round(corner).astype(jnp.int32), size, run[0].fill)
    factor, angle = 1.0, 0.0
    for part in run:
        f, a = part.bounds()
        factor, angle = factor * f, angle + a
    angle = jnp.minimum(angle, 45) * np.float32(np.pi / 180)
    # |cos| + |sin| is largest at 45 degrees. A little more, for rounding.
    reach = jnp.float32(1.001) * factor * (jnp.cos(angle) + jnp.sin(angle))
    return warp(image, jnp.asarray(matrix), jnp.asarray(offset), size, run[0].fill, reach)


def _product(a: Array, b: Array) -> Array:
    # Not `@`: a matrix product has reduced precision on some accelerators, too little for positions.
    return (a[:, :, None] * b[None, :, :]).sum(1)


def pad(width: int, value: float = 0.5) -> Pad:
    """Add `width` pixels of gray `value` on each side: (H, W, C) becomes (H + 2 width, W + 2 width, C).

    Args:
        width: pixels on each side, at least 0; static, because the shape depends on it.
        value: of all channels; static.

    Raises:
        ArgumentError: a width that is not a whole number of at least 0.

    Example:
        >>> pad(2)(jax.random.key(0), jnp.ones((4, 5, 3))).shape
        (8, 9, 3)
    """
    return Pad(checked_fill(value, "value"), pixels(width, "The width of padding", 0))


def jitter(distance: int, *, fill: float = 0.5) -> Jitter:
    """Move each axis by a whole number of pixels, uniform over `distance + 1` positions around the start.

    These are the positions of Lucid's random crop by `distance`, but the size stays, and `fill` comes into view. For the same
    picture, pad by half of the total distance less than in Lucid, as `standard` does.

    Args:
        distance: pixels between the outermost positions, at least 0; traced.
        fill: gray of pixels that come into view; static.

    Raises:
        ArgumentError: a distance that is not a whole number of at least 0.

    Example:
        >>> jitter(8)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    return Jitter(checked_fill(fill), leaf(distance, "distance", low=0, dtype=np.int32))


def scale(low: float | Sequence[float], high: float | None = None, *, fill: float = 0.5) -> Scale:
    """Scale about the center by a factor, uniform from `low` to `high` or from a list; the image size stays.

    Args:
        low: smallest factor, positive; or a list of equally likely factors, without `high`. Traced.
        high: largest factor; None for `low` itself. Traced.
        fill: gray of pixels that come into view; static.

    Raises:
        ArgumentError: factors that are not positive, or `high` below `low`.

    Example:
        >>> scale(0.9, 1.1)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    return Scale(checked_fill(fill), amount(low, high, "scale", positive=True))


def rotate(degrees: float | Sequence[float], *, fill: float = 0.5) -> Rotate:
    """Rotate about the center by an angle, uniform from -degrees to degrees or from a list; the image size stays.

    Args:
        degrees: largest angle, at least 0; or a list of equally likely angles, counter-clockwise if positive. Traced.
        fill: gray of pixels that come into view; static.

    Raises:
        ArgumentError: not finite numbers, or a negative largest angle (a list may hold negative angles).

    Example:
        >>> rotate([90.0])(jax.random.key(0), jnp.arange(4.0).reshape(2, 2, 1))[..., 0].round().tolist()
        [[1.0, 3.0], [0.0, 2.0]]
    """
    if np.ndim(degrees) == 0:
        largest = leaf(degrees, "degrees", low=0)
        return Rotate(checked_fill(fill), amount(-largest, largest, "degrees"))
    return Rotate(checked_fill(fill), amount(degrees, None, "degrees"))
