"""Operations on maps of which only a patch has changed: everything else is taken from the original map.

A covered window of the image changes a small part of the lower maps, and only that part is computed again. Where most of a map
has changed, the whole map is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import NO_PADDING, Geometry, Pair, Pairs, output_length
from jaxviz.ops._table import EXACT, Kernel, Ops

LARGE = 0.6  # share of a map above which the whole map is computed


class UnknownMap(Exception):
    """The original map around a patch is not known, because no tap has named it."""


class Axis(NamedTuple):
    """One side of a map: place i depends on the image's pixels from i * step - before to i * step + after."""

    size: int  # of the map
    window: int  # pixels of the image that changed
    step: int = 1
    before: int = 0
    after: int = 0

    @property
    def length(self) -> int:
        """The number of places that may have changed."""
        return min(self.size, (self.window - 1 + self.before + self.after) // self.step + 1)

    def start(self, at: Array) -> Array:
        """Return the first of the `length` places that may have changed, where the image's window starts at pixel `at`."""
        return jnp.clip(-((self.after - at) // self.step), 0, self.size - self.length)

    def through(self, window: int, stride: int, padding: Pair, dilation: int) -> Axis:
        """Return the axis of the output of a convolution or pooling."""
        low, reach = padding[0], (window - 1) * dilation
        return Axis(
            output_length(self.size, window, stride, padding, dilation),
            self.window,
            self.step * stride,
            self.before + self.step * low,
            self.after + self.step * (reach - low),
        )


Axes: TypeAlias = tuple[Axis, Axis]


@dataclass(frozen=True)
class Patch:
    """The changed part of maps (s * n, H, W, C), for s versions of n images; exists only while a program is traced."""

    values: Array  # (s * n, h, w, C)
    at: Array  # int32 (s, n, 2): where the windows of the image start
    axes: Axes
    name: str | None  # of the original map

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole maps."""
        return (len(self.values), *(axis.size for axis in self.axes), self.values.shape[-1])


MapOrPatch: TypeAlias = Array | Patch
Maps: TypeAlias = Callable[[str], Array]


def is_large(axes: Axes) -> bool:
    """Return whether so much of a map has changed that it is faster to compute the whole map."""
    return axes[0].length * axes[1].length > LARGE * axes[0].size * axes[1].size


def slice_windows(maps: Array, at: Array, size: Pair) -> Array:
    """Return windows of one size (s * n, *size, C) of maps (n, H, W, C), starting at int32 (s, n, 2)."""

    def slice_window(image: Array, at: Array) -> Array:
        return lax.dynamic_slice(image, (at[0], at[1], 0), (*size, image.shape[-1]))

    slice_images = jax.vmap(slice_window)
    windows = slice_images(maps, at[0])[None] if len(at) == 1 else jax.vmap(slice_images, (None, 0))(maps, at)
    return windows.reshape(-1, *windows.shape[2:])


def slice_patched(
    patch: Patch, original: Array, at: Array, size: Pair, padding: Pairs = NO_PADDING, fill: float = 0.0
) -> Array:
    """Return windows (s * n, *size, C) of the maps with the patch inserted.

    Args:
        patch: the changed part.
        original: the original maps (n, H, W, C).
        at: int32 (s, n, 2), where the windows start in the padded maps.
        size: (h, w) of the windows, which must not leave the padded maps.
        padding, fill: width and value of the padding around the maps.
    """
    s, n, _ = patch.at.shape
    around = slice_windows(jnp.pad(original, ((0, 0), *padding, (0, 0)), constant_values=fill), at, size)
    starts = _starts(patch.axes, patch.at) + jnp.array([padding[0][0], padding[1][0]]) - at
    lengths = [axis.length for axis in patch.axes]

    def insert(around: Array, values: Array, start: Array) -> Array:
        wide = lax.pad(values, jnp.zeros((), values.dtype), (*((k, k, 0) for k in size), (0, 0, 0)))
        moved = lax.dynamic_slice(wide, (*(k - b for k, b in zip(size, start, strict=True)), 0), around.shape)
        rows, columns = (
            (jnp.arange(k) >= b) & (jnp.arange(k) < b + length) for k, b, length in zip(size, start, lengths, strict=True)
        )
        return jnp.where((rows[:, None] & columns)[..., None], moved, around)

    return jax.vmap(insert)(around, patch.values, starts.reshape(s * n, 2))


def whole_maps(x: MapOrPatch, maps: Maps) -> Array:
    """Return the whole maps (s * n, H, W, C) of a patch; whole maps are returned unchanged."""
    if not isinstance(x, Patch):
        return x
    return slice_patched(x, _original(x, maps), jnp.zeros_like(x.at), (x.axes[0].size, x.axes[1].size))


def _starts(axes: Axes, at: Array) -> Array:
    """Return the first changed row and column, int32 (s, n, 2)."""
    return jnp.stack([axis.start(at[..., i]) for i, axis in enumerate(axes)], -1)


def _original(patch: Patch, maps: Maps) -> Array:
    if patch.name is None:
        raise UnknownMap
    return maps(patch.name)


class PatchOps:
    """The table of operations of one traced run that takes patches as well as maps, and returns patches while they are small.

    Args:
        maps: returns the original map (n, H, W, C) of a name, from which a patch takes its surroundings.
    """

    def __init__(self, maps: Maps) -> None:
        self._maps = maps

    def ops(self) -> Ops:
        """Return the table."""
        return Ops(
            self.conv,
            self.linear,
            self.batch_norm,
            self.relu,
            self.max_pool,
            self.avg_pool,
            self.add,
            takes_prepared=True,
        )

    def conv(
        self,
        x: MapOrPatch,
        kernel: Kernel,
        bias: Array | None = None,
        *,
        stride: Pair = (1, 1),
        padding: Pairs = NO_PADDING,
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> Any:
        def op(x: Array, padding: Pairs) -> Array:
            return EXACT.conv(x, kernel, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

        return self._windowed(op, x, (kernel.shape[0], kernel.shape[1]), Geometry(stride, padding, dilation), 0.0)

    def max_pool(self, x: MapOrPatch, *, window: Pair, stride: Pair, padding: Pairs = NO_PADDING) -> Any:
        def op(x: Array, padding: Pairs) -> Array:
            return EXACT.max_pool(x, window=window, stride=stride, padding=padding)

        return self._windowed(op, x, window, Geometry(stride, padding), -jnp.inf)

    def _windowed(
        self, op: Callable[[Array, Pairs], Array], x: MapOrPatch, window: Pair, geometry: Geometry, fill: float
    ) -> MapOrPatch:
        """Return `op(maps, padding)`, computed only for the places whose window meets the patch."""
        stride, padding, dilation, _ = geometry
        if not isinstance(x, Patch):
            return op(x, padding)
        rows, columns = (x.axes[i].through(window[i], stride[i], padding[i], dilation[i]) for i in (0, 1))
        if is_large((rows, columns)):
            return op(whole_maps(x, self._maps), padding)
        at = _starts((rows, columns), x.at) * jnp.array(stride)
        h, w = ((axis.length - 1) * stride[i] + (window[i] - 1) * dilation[i] + 1 for i, axis in enumerate((rows, columns)))
        values = op(slice_patched(x, _original(x, self._maps), at, (h, w), padding, fill), NO_PADDING)
        return Patch(values, x.at, (rows, columns), None)

    def relu(self, x: MapOrPatch) -> Any:
        return _pointwise(EXACT.relu, x)

    def batch_norm(self, x: MapOrPatch, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Any:
        return _pointwise(lambda x: EXACT.batch_norm(x, scale, bias, mean, var, epsilon=epsilon), x)

    def add(self, x: MapOrPatch, y: MapOrPatch) -> Any:
        if isinstance(x, Patch) and isinstance(y, Patch) and [a.step for a in x.axes] == [a.step for a in y.axes]:
            rows, columns = (
                a._replace(before=max(a.before, b.before), after=max(a.after, b.after))
                for a, b in zip(x.axes, y.axes, strict=True)
            )
            if not is_large((rows, columns)):
                at = _starts((rows, columns), x.at)
                values = EXACT.add(self._widened(x, (rows, columns), at), self._widened(y, (rows, columns), at))
                return Patch(values, x.at, (rows, columns), None)
        return EXACT.add(whole_maps(x, self._maps), whole_maps(y, self._maps))

    def _widened(self, patch: Patch, axes: Axes, at: Array) -> Array:
        """Return the patch together with its surroundings up to the changed part of other axes."""
        if patch.axes == axes:
            return patch.values
        return slice_patched(patch, _original(patch, self._maps), at, (axes[0].length, axes[1].length))

    def linear(self, x: MapOrPatch, kernel: Array, bias: Array | None = None) -> Array:
        return EXACT.linear(whole_maps(x, self._maps), kernel, bias)

    def avg_pool(self, x: MapOrPatch, *, size: Pair) -> Array:
        return EXACT.avg_pool(whole_maps(x, self._maps), size=size)


def _pointwise(op: Callable[[Array], Array], x: MapOrPatch) -> MapOrPatch:
    return replace(x, values=op(x.values), name=None) if isinstance(x, Patch) else op(x)
