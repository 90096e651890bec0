"""Motions of the image on an endless canvas: padding, jitter, scaling, rotation."""

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
    """A motion on the endless canvas: a window of perhaps another size, and a random similarity."""

    fill: float = dataclasses.field(metadata=dict(static=True))

    rigid = False  # whether it only moves by whole pixels
    ends = False  # whether what it puts out of view is gone for the motions after it

    def window(self, size: Size) -> Size:
        """Return the size of the window where it was `size` before."""
        return size

    def bounds(self) -> tuple[Array | float, Array | float]:
        """Return the largest factor of enlargement and the largest angle in degrees, the same for every draw."""
        return 1.0, 0.0

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        """Draw `(matrix (2, 2), offset (2,))`, where the window was `size` before.

        A point at p from the center of that window goes to `matrix @ p + offset` from the center of the new one; (row, column).
        """
        raise NotImplementedError

    def __call__(self, key: Array, image: Array) -> Array:
        return move([self], [key], checked(image))


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Geometric):
    """Made by `pad`."""

    grow: int = dataclasses.field(metadata=dict(static=True))
    rigid = True

    def window(self, size: Size) -> Size:
        return size[0] + 2 * self.grow, size[1] + 2 * self.grow

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        return STILL, HERE


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Jitter(Geometric):
    """Made by `jitter`."""

    distance: Array
    rigid = True

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        drawn = whole(jax.random.uniform(key, (2,), jnp.float32), self.distance + 1)
        return STILL, (drawn - self.distance // 2).astype(jnp.float32)


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Scale(Geometric):
    """Made by `scale`."""

    amount: Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return jnp.max(self.amount.values), 0.0

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        return STILL * self.amount.draw(key), HERE


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Rotate(Geometric):
    """Made by `rotate`."""

    amount: Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return 1.0, jnp.max(jnp.abs(self.amount.values))

    def motion(self, key: Array, size: Size) -> tuple[Array, Array]:
        angle = self.amount.draw(key) * np.float32(np.pi / 180)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # Counter-clockwise as seen, where rows point down: what is right of the center (column +1) goes up (row -1).
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]), HERE


def move(run: Sequence[Geometric], keys: Sequence[Array], image: Array) -> Array:
    """Apply one motion after the other as a single one."""
    h, w, _ = image.shape
    size = (h, w)
    matrix, offset = STILL, HERE
    for part, key in zip(run, keys, strict=True):
        m, o = part.motion(key, size)
        size = part.window(size)
        matrix, offset = _product(m, matrix), _product(m, offset[:, None])[:, 0] + o
    if all(part.rigid for part in run):
        # From the corner, not from the center: whole numbers, also where a center lies between two pixels.
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
    # Not `@`: a matrix product has reduced precision on some accelerators, and these are positions.
    return (a[:, :, None] * b[None, :, :]).sum(1)


def pad(width: int, value: float = 0.5) -> Pad:
    """Add `width` pixels of color `value` on each side: (H, W, C) becomes (H + 2 width, W + 2 width, C).

    Args:
        width: pixels on each side, at least 0; static, for the shape depends on it.
        value: the color of all channels; static.

    Raises:
        ArgumentError: a width that is no whole number or negative.

    Example:
        >>> pad(2)(jax.random.key(0), jnp.ones((4, 5, 3))).shape
        (8, 9, 3)
    """
    return Pad(checked_fill(value, "value"), pixels(width, "The width of padding", 0))


def jitter(distance: int, *, fill: float = 0.5) -> Jitter:
    """Move by a whole number of pixels, each axis alone, uniformly over `distance + 1` positions around where it was.

    Those are Lucid's positions of a random crop by `distance`; but the size is kept, and what comes into view is
    `fill`. Pad by half of what Lucid's jitters crop less for the same picture (`standard` does).

    Args:
        distance: pixels between the outermost positions, at least 0; traced.
        fill: color of what comes into view; static.

    Raises:
        ArgumentError: a distance that is no whole number or negative.

    Example:
        >>> jitter(8)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    return Jitter(checked_fill(fill), leaf(distance, "distance", low=0, dtype=np.int32))


def scale(low: float | Sequence[float], high: float | None = None, *, fill: float = 0.5) -> Scale:
    """Enlarge about the center by a factor drawn uniformly from `low` to `high`, or from a list; the size is kept.

    Args:
        low: smallest factor, positive; or a list of factors, each as likely as the others (then `high` is not given).
            Traced.
        high: largest factor; None for always `low`. Traced.
        fill: color of what comes into view; static.

    Raises:
        ArgumentError: factors that are not positive, or `high` below `low`.

    Example:
        >>> scale(0.9, 1.1)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    return Scale(checked_fill(fill), amount(low, high, "scale", positive=True))


def rotate(degrees: float | Sequence[float], *, fill: float = 0.5) -> Rotate:
    """Turn about the center by an angle drawn uniformly from -degrees to degrees, or from a list; the size is kept.

    Args:
        degrees: largest angle, at least 0; or a list of angles, each as likely as the others, positive ones
            counter-clockwise as seen. Traced.
        fill: color of what comes into view; static.

    Raises:
        ArgumentError: no finite numbers, or a negative largest angle (a list may hold negative ones).

    Example:
        >>> rotate([90.0])(jax.random.key(0), jnp.arange(4.0).reshape(2, 2, 1))[..., 0].round().tolist()
        [[1.0, 3.0], [0.0, 2.0]]
    """
    if np.ndim(degrees) == 0:
        largest = leaf(degrees, "degrees", low=0)
        return Rotate(checked_fill(fill), amount(-largest, largest, "degrees"))
    return Rotate(checked_fill(fill), amount(degrees, None, "degrees"))
