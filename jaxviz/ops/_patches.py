"""Operations on maps of which a part has changed: what lies around it is taken from the map as it was.

A covered window of the image changes a small part of the lower maps, which is all that is computed anew; where most of a
map has changed, the whole of it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Pair, Pairs, places
from jaxviz.ops._table import EXACT, Ops

LARGE = 0.6  # share of a map from which on the whole of it is computed

NONE: Pairs = ((0, 0), (0, 0))


class UnknownMap(Exception):
    """A part of a map that no tap has seen, so that what lies around it is not known."""


class Axis(NamedTuple):
    """Along one side of a map: place i sees the pixels from i * step - before to i * step + after of the image."""

    size: int  # of the map
    window: int  # pixels that changed
    step: int = 1
    before: int = 0
    after: int = 0

    @property
    def length(self) -> int:
        """How many places may have changed."""
        return min(self.size, (self.window - 1 + self.before + self.after) // self.step + 1)

    def begin(self, at: Array) -> Array:
        """Return the first place of as many as may have changed, where the window begins `at` a pixel."""
        return jnp.clip(-((self.after - at) // self.step), 0, self.size - self.length)

    def through(self, window: int, stride: int, padding: Pair, dilation: int) -> Axis:
        """Return the axis of what a convolution or pooling makes of the map."""
        low, reach = padding[0], (window - 1) * dilation
        return Axis(
            places(self.size, window, stride, padding, dilation),
            self.window,
            self.step * stride,
            self.before + self.step * low,
            self.after + self.step * (reach - low),
        )


Axes: TypeAlias = tuple[Axis, Axis]


@dataclass(frozen=True)
class Part:
    """The changed part of maps (s * n, H, W, C), of s versions of n images; exists only while a program is traced."""

    values: Array  # (s * n, h, w, C)
    at: Array  # int32 (s, n, 2): where the windows of the image begin
    axes: Axes
    name: str | None  # of the map, under which it is found as it was

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole maps."""
        return (len(self.values), *(axis.size for axis in self.axes), self.values.shape[-1])


def is_large(axes: Axes) -> bool:
    """Say whether so much of a map has changed that it is quicker to compute the whole."""
    return axes[0].length * axes[1].length > LARGE * axes[0].size * axes[1].size


def _begins(axes: Axes, at: Array) -> Array:
    """Return the first row and column of what may have changed, int32 (s, n, 2)."""
    return jnp.stack([axis.begin(at[..., i]) for i, axis in enumerate(axes)], -1)


def sliced(maps: Array, at: Array, size: Pair) -> Array:
    """Return of maps (n, H, W, C) what begins at the places int32 (s, n, 2) and is of this size: (s * n, *size, C)."""

    def of_one(one: Array, at: Array) -> Array:
        return lax.dynamic_slice(one, (at[0], at[1], 0), (*size, one.shape[-1]))

    of_images = jax.vmap(of_one)
    found = of_images(maps, at[0])[None] if len(at) == 1 else jax.vmap(of_images, (None, 0))(maps, at)
    return found.reshape(-1, *found.shape[2:])


def cut(part: Part, base: Array, at: Array, size: Pair, padding: Pairs = NONE, fill: float = 0.0) -> Array:
    """Return maps with the part put in, (s * n, *size, C): what begins at places int32 (s, n, 2) of the padded maps.

    Args:
        part: what has changed.
        base: (n, H, W, C), the maps as they were.
        at, size: which places; no farther than the padding.
        padding, fill: of what is around the maps.
    """
    s, n, _ = part.at.shape
    around = sliced(jnp.pad(base, ((0, 0), *padding, (0, 0)), constant_values=fill), at, size)
    begins = _begins(part.axes, part.at) + jnp.array([padding[0][0], padding[1][0]]) - at
    lengths = [axis.length for axis in part.axes]

    def of_one(around: Array, values: Array, begin: Array) -> Array:
        wide = lax.pad(values, jnp.zeros((), values.dtype), (*((k, k, 0) for k in size), (0, 0, 0)))
        moved = lax.dynamic_slice(wide, (*(k - b for k, b in zip(size, begin, strict=True)), 0), around.shape)
        rows, columns = (
            (jnp.arange(k) >= b) & (jnp.arange(k) < b + length) for k, b, length in zip(size, begin, lengths, strict=True)
        )
        return jnp.where((rows[:, None] & columns)[..., None], moved, around)

    return jax.vmap(of_one)(around, part.values, begins.reshape(s * n, 2))


def whole(part: Array | Part, maps: Callable[[str], Array]) -> Array:
    """Return the whole maps (s * n, H, W, C) of a part; of whole maps, themselves."""
    if not isinstance(part, Part):
        return part
    return cut(part, _base(part, maps), jnp.zeros_like(part.at), (part.axes[0].size, part.axes[1].size))


def _base(part: Part, maps: Callable[[str], Array]) -> Array:
    if part.name is None:
        raise UnknownMap
    return maps(part.name)


def on_parts(maps: Callable[[str], Array]) -> Ops:
    """Return operations that take parts of maps too, as long as these are small.

    Args:
        maps: given a map's name, returns it (n, H, W, C) as it was: for what stands around a part.
    """

    def windowed(
        op: Callable[[Array, Pairs], Array], x: Any, window: Pair, stride: Pair, padding: Pairs, dilation: Pair, fill: float
    ) -> Any:
        if not isinstance(x, Part):
            return op(x, padding)
        rows, columns = (x.axes[i].through(window[i], stride[i], padding[i], dilation[i]) for i in (0, 1))
        if is_large((rows, columns)):
            return op(whole(x, maps), padding)
        at = _begins((rows, columns), x.at) * jnp.array(stride)
        h, w = ((axis.length - 1) * stride[i] + (window[i] - 1) * dilation[i] + 1 for i, axis in enumerate((rows, columns)))
        values = op(cut(x, _base(x, maps), at, (h, w), padding, fill), NONE)
        return Part(values, x.at, (rows, columns), None)

    def conv(x: Any, kernel: Any, bias: Array | None = None, **options: Any) -> Any:
        stride, dilation = options.pop("stride", (1, 1)), options.get("dilation", (1, 1))
        padding = options.pop("padding", NONE)

        def op(x: Array, padding: Pairs) -> Array:
            return EXACT.conv(x, kernel, bias, stride=stride, padding=padding, **options)

        return windowed(op, x, kernel.shape[:2], stride, padding, dilation, 0.0)

    def max_pool(x: Any, *, window: Pair, stride: Pair, padding: Pairs = NONE) -> Any:
        def op(x: Array, padding: Pairs) -> Array:
            return EXACT.max_pool(x, window=window, stride=stride, padding=padding)

        return windowed(op, x, window, stride, padding, (1, 1), -jnp.inf)

    def at_each_place(op: Callable[..., Array]) -> Callable[..., Any]:
        def of_part(x: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(x, Part):
                return op(x, *arguments, **options)
            return replace(x, values=op(x.values, *arguments, **options), name=None)

        return of_part

    def add(x: Any, y: Any) -> Any:
        alike = isinstance(x, Part) and isinstance(y, Part) and [a.step for a in x.axes] == [a.step for a in y.axes]
        if not alike:
            return EXACT.add(whole(x, maps), whole(y, maps))
        rows, columns = (
            a._replace(before=max(a.before, b.before), after=max(a.after, b.after)) for a, b in zip(x.axes, y.axes, strict=True)
        )
        if is_large((rows, columns)):
            return EXACT.add(whole(x, maps), whole(y, maps))
        at = _begins((rows, columns), x.at)
        size = (rows.length, columns.length)
        wide = [part.values if part.axes == (rows, columns) else cut(part, _base(part, maps), at, size) for part in (x, y)]
        return Part(EXACT.add(*wide), x.at, (rows, columns), None)

    def of_whole(op: Callable[..., Array]) -> Callable[..., Array]:
        return lambda x, *arguments, **options: op(whole(x, maps), *arguments, **options)

    return Ops(
        conv=conv,
        linear=of_whole(EXACT.linear),
        batch_norm=at_each_place(EXACT.batch_norm),
        relu=at_each_place(EXACT.relu),
        max_pool=max_pool,
        avg_pool=of_whole(EXACT.avg_pool),
        add=add,
        prepared=True,
    )
