"""Random transforms of an image, `(key, image (H, W, C)) -> image`, so that what is optimised survives being moved about.

Padding, jitter, scaling and rotation move an image on an endless canvas of one fill colour, seen through a window of
fixed size (static
shapes: nothing is compiled again when an amount changes). In `compose`, neighbours among them with the same fill
colour are multiplied into one motion, so that the image is interpolated once, bilinearly, or not at all where it only
moves by whole pixels.

Positions are (row, column) with pixel (0, 0) at the top left; the centre of an image is ((H - 1) / 2, (W - 1) / 2).
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._static import as_tree, leaf
from jaxviz._types import Array
from jaxviz._warp import shift, warp


class Transform(Protocol):
    """A random transform of one image: `(key, image (H, W, C)) -> image`; a pytree whose amounts are traced leaves.

    The engine calls it under `vmap`, so that every image has its own draw.
    """

    def __call__(self, key: Array, image: Array, /) -> Array: ...


@dataclasses.dataclass(frozen=True, eq=False)
class _Geometric:
    """A motion on the endless canvas: a window that grows by `grow` on each side, and a random similarity."""

    fill: float = dataclasses.field(metadata=dict(static=True))

    grow = 0  # pixels added to each side of the window
    rigid = False  # whether it only moves by whole pixels

    def bounds(self) -> tuple[Array | float, Array | float]:
        """Return the largest factor of enlargement and the largest angle in degrees, the same for every draw."""
        return 1.0, 0.0

    def motion(self, key: Array) -> tuple[Array, Array]:
        """Draw `(matrix (2, 2), offset (2,))`: a point at p from the centre goes to `matrix @ p + offset`, in (row, column)."""
        raise NotImplementedError

    def __call__(self, key: Array, image: Array) -> Array:
        return _move([self], [key], _checked(image))


_STILL = cast(Array, np.eye(2, dtype=np.float32))
_HERE = cast(Array, np.zeros(2, np.float32))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Pad(_Geometric):
    """Made by `pad`."""

    grow: int = dataclasses.field(metadata=dict(static=True))  # pyright: ignore[reportIncompatibleVariableOverride]
    rigid = True

    def motion(self, key: Array) -> tuple[Array, Array]:
        return _STILL, _HERE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Jitter(_Geometric):
    """Made by `jitter`."""

    distance: Array
    rigid = True

    def motion(self, key: Array) -> tuple[Array, Array]:
        drawn = _whole(jax.random.uniform(key, (2,), jnp.float32), self.distance + 1)
        return _STILL, (drawn - self.distance // 2).astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Scale(_Geometric):
    """Made by `scale`."""

    amount: _Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return jnp.max(self.amount.values), 0.0

    def motion(self, key: Array) -> tuple[Array, Array]:
        return _STILL * self.amount.draw(key), _HERE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Rotate(_Geometric):
    """Made by `rotate`."""

    amount: _Amount

    def bounds(self) -> tuple[Array | float, Array | float]:
        return 1.0, jnp.max(jnp.abs(self.amount.values))

    def motion(self, key: Array) -> tuple[Array, Array]:
        angle = self.amount.draw(key) * np.float32(np.pi / 180)
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        # Counter-clockwise as seen, where rows point down: what is right of the centre (column +1) goes up (row -1).
        return jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])]), _HERE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Amount:
    """A number drawn uniformly: between the two ends of `values`, or one of `values`."""

    values: Array
    between: bool = dataclasses.field(metadata=dict(static=True))

    def draw(self, key: Array) -> Array:
        drawn = jax.random.uniform(key, (), jnp.float32)
        if self.between:
            return self.values[0] + drawn * (self.values[1] - self.values[0])
        return jnp.asarray(self.values)[_whole(drawn, self.values.shape[0])]


def _whole(uniform: Array, count: Array | int) -> Array:
    """Return whole numbers from 0 to count - 1. (`jax.random.randint` would draw twice, and doubles the time to compile.)"""
    return jnp.minimum((uniform * count).astype(jnp.int32), count - 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Compose:
    """Made by `compose`."""

    parts: tuple[Transform, ...]

    def __call__(self, key: Array, image: Array) -> Array:
        image = _checked(image)
        run: list[_Geometric] = []
        keys: list[Array] = []
        for position, part in enumerate(self.parts):
            own = jax.random.fold_in(key, position)
            if run and not (isinstance(part, _Geometric) and part.fill == run[0].fill):
                image = _move(run, keys, image)
                run, keys = [], []
            if isinstance(part, _Geometric):
                run.append(part)
                keys.append(own)
            else:
                image = part(own, image)
        return _move(run, keys, image) if run else image


def _checked(image: Array) -> Array:
    if image.ndim != 3:
        raise ArgumentError(f"A transform takes one image (H, W, C), got shape {image.shape}; use jax.vmap for a batch.")
    return image


def _move(run: Sequence[_Geometric], keys: Sequence[Array], image: Array) -> Array:
    """Apply one motion after the other as a single one."""
    grow = sum(part.grow for part in run)
    h, w, _ = image.shape
    size = (h + 2 * grow, w + 2 * grow)
    matrix, offset = _STILL, _HERE
    for part, key in zip(run, keys, strict=True):
        m, o = part.motion(key)
        matrix, offset = _product(m, matrix), _product(m, offset[:, None])[:, 0] + o
    if all(part.rigid for part in run):
        return shift(image, jnp.asarray(offset).astype(jnp.int32) + grow, size, run[0].fill)
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


def _fill(value: float, what: str = "fill") -> float:
    return float(leaf(value, what))


def pad(width: int, value: float = 0.5) -> Pad:
    """Add `width` pixels of colour `value` on each side: (H, W, C) becomes (H + 2 width, W + 2 width, C).

    Args:
        width: pixels on each side, at least 0; static, for the shape depends on it.
        value: the colour of all channels; static.

    Raises:
        ArgumentError: a width that is no whole number or negative.

    Example:
        >>> pad(2)(jax.random.key(0), jnp.ones((4, 5, 3))).shape
        (8, 9, 3)
    """
    try:
        width = operator.index(width)
    except TypeError:
        raise ArgumentError(f"The width of padding must be a whole number, got {width!r}.") from None
    if width < 0:
        raise ArgumentError(f"The width of padding must be at least 0, got {width}.")
    return Pad(_fill(value, "value"), width)


def jitter(distance: int, *, fill: float = 0.5) -> Jitter:
    """Move by a whole number of pixels, each axis alone, uniformly over `distance + 1` positions around where it was.

    Those are Lucid's positions of a random crop by `distance`; but the size is kept, and what comes into view is
    `fill`. Pad by half of what Lucid's jitters crop less for the same picture (`standard` does).

    Args:
        distance: pixels between the outermost positions, at least 0; traced.
        fill: colour of what comes into view; static.

    Raises:
        ArgumentError: a distance that is no whole number or negative.

    Example:
        >>> jitter(8)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    return Jitter(_fill(fill), leaf(distance, "distance", low=0, dtype=np.int32))


def scale(low: float | Sequence[float], high: float | None = None, *, fill: float = 0.5) -> Scale:
    """Enlarge about the centre by a factor drawn uniformly from `low` to `high`, or from a list; the size is kept.

    Args:
        low: smallest factor, positive; or a list of factors, each as likely as the others (then `high` is not given).
            Traced.
        high: largest factor; None for always `low`. Traced.
        fill: colour of what comes into view; static.

    Raises:
        ArgumentError: factors that are not positive, or `high` below `low`.

    Example:
        >>> scale(0.9, 1.1)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (16, 16, 3)
    """
    amount = _amount(low, high, "scale", positive=True)
    return Scale(_fill(fill), amount)


def rotate(degrees: float | Sequence[float], *, fill: float = 0.5) -> Rotate:
    """Turn about the centre by an angle drawn uniformly from -degrees to degrees, or from a list; the size is kept.

    Args:
        degrees: largest angle, at least 0; or a list of angles, each as likely as the others, positive ones
            counter-clockwise as seen. Traced.
        fill: colour of what comes into view; static.

    Raises:
        ArgumentError: no finite numbers, or a negative largest angle (a list may hold negative ones).

    Example:
        >>> rotate([90.0])(jax.random.key(0), jnp.arange(4.0).reshape(2, 2, 1))[..., 0].round().tolist()
        [[1.0, 3.0], [0.0, 2.0]]
    """
    if np.ndim(degrees) == 0:
        largest = leaf(degrees, "degrees", low=0)
        return Rotate(_fill(fill), _amount(-largest, largest, "degrees"))
    return Rotate(_fill(fill), _amount(degrees, None, "degrees"))


def _amount(low: Any, high: Any, what: str, *, positive: bool = False) -> _Amount:
    values = low if np.ndim(low) else [low, low if high is None else high]
    if np.ndim(low) and (high is not None or np.ndim(low) > 1 or len(low) == 0):
        raise ArgumentError(f"{what} takes two numbers or one list of at least one, got {low!r} and {high!r}.")
    leaves = [leaf(value, what, low=0 if positive else None) for value in values]
    if any(isinstance(value, jax.Array) for value in leaves):  # traced
        return _Amount(jnp.stack(leaves), not np.ndim(low))
    if positive and min(leaves) <= 0:
        raise ArgumentError(f"{what} must be positive, got {low!r}" + ("." if high is None else f" and {high!r}."))
    if not np.ndim(low) and leaves[0] > leaves[1]:
        raise ArgumentError(f"The lower end of {what} must not be above the upper, got {low!r} and {high!r}.")
    return _Amount(cast(Array, np.stack(leaves)), not np.ndim(low))


def compose(*transforms: Callable[[Array, Array], Array]) -> Compose:
    """Apply transforms one after the other, each with a key of its own: `fold_in(key, its position)`.

    Neighbours among `pad`, `jitter`, `scale` and `rotate` with the same fill colour are one motion on an endless
    canvas, interpolated once: what one of them moves out of view the next may bring back. Compositions inside are
    opened up, and count as their parts.

    Args:
        transforms: transforms, or any functions `(key, image) -> image`. A plain function is static: define it once,
            outside the call, or every call compiles again; one that is a pytree may have traced leaves.

    Raises:
        ArgumentError: one that cannot be called.

    Example:
        >>> brighten = lambda key, image: image * jax.random.uniform(key, minval=0.8, maxval=1.2)
        >>> compose(pad(4), rotate(10), brighten)(jax.random.key(0), jnp.ones((16, 16, 3))).shape
        (24, 24, 3)
    """
    parts: list[Transform] = []
    for transform in transforms:
        parts.extend(transform.parts if isinstance(transform, Compose) else [as_tree(transform)])
    return Compose(tuple(parts))


def identity() -> Compose:
    """Leave the image as it is."""
    return compose()


def standard() -> Compose:
    """Lucid's standard transforms: padding, jitter by 8, scaling by 0.9 to 1.1, rotation by up to 10 degrees, jitter by 4.

    The factors (0.9, 0.92, ... 1.1) and angles (-10, -9, ... 10 degrees, 0 six times as likely as each other) are
    Lucid's lists. Lucid pads by 12, and its two jitters crop 8 + 4 again; ours keep the size and so the padding is 6:
    the network sees the same H + 12 by W + 12 pixels. Lucid lets the scaled size vary and fills with grey, then
    black; here the size is fixed and all fill is grey (0.5).

    Example:
        >>> standard()(jax.random.key(0), jnp.ones((32, 32, 3))).shape
        (44, 44, 3)
    """
    return compose(
        pad(6, 0.5),
        jitter(8),
        scale([1 + (i - 5) / 50 for i in range(11)]),
        rotate([*range(-10, 11), 0, 0, 0, 0, 0]),
        jitter(4),
    )
