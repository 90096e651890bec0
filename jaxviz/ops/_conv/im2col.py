"""im2col convolution and col2im gradient for CPUs.

im2col gathers the window of every output place and multiplies all windows with the kernel in one matrix product; col2im
multiplies the output's gradient with the kernel and adds the windows up. They are faster where a map has few places and the
kernel many channels: the product takes the kernel as it lies in memory, whereas a convolution first packs it, and its gradient
flips it, which then costs as much as the sums. For a kernel larger than the map, XLA's program is a hundred times slower.
col2im also serves strided convolutions of images, whose few channels would leave vector registers nearly empty.
"""

from __future__ import annotations

from typing import TypeAlias

import jax.numpy as jnp
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Geometry, Pair, map_size, output_size

Taps: TypeAlias = list[list[tuple[int, int]]]

STEM_CHANNELS = 4  # at most as many channels has an image
COL2IM_PLACES = 4  # at most as many places per output channel suit col2im
IM2COL_PLACES = 1  # ... and im2col, where the convolution itself is faster as a product, too


def is_strided_stem(kernel: Array, geometry: Geometry) -> bool:
    """Return whether a convolution is strided and takes an image."""
    return kernel.shape[2] <= STEM_CHANNELS and max(geometry.stride) > 1 and geometry.groups == 1


def suits_col2im(g: Array, kernel: Array, geometry: Geometry) -> bool:
    """Return whether the maps (N, h, w, K) are so small that flipping the kernel would cost more than it saves."""
    n, h, w, k = g.shape
    return geometry.groups == 1 and (n * h * w <= COL2IM_PLACES * k or exceeds_map(kernel, (h, w)))


def suits_im2col(x: Array, kernel: Array, geometry: Geometry) -> bool:
    """Return whether the maps (N, H, W, C) are so small that `im2col_conv` is faster than a convolution."""
    stride, padding, dilation, groups = geometry
    h, w = output_size(map_size(x), (kernel.shape[0], kernel.shape[1]), stride, padding, dilation)
    is_small = len(x) * h * w <= IM2COL_PLACES * kernel.shape[3] or exceeds_map(kernel, map_size(x))
    return groups == 1 and min(h, w) > 0 and is_small


def exceeds_map(kernel: Array, size: Pair) -> bool:
    """Return whether a kernel is larger than a map; XLA then slides the map over the kernel."""
    return kernel.shape[0] * kernel.shape[1] > size[0] * size[1]


def im2col_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Return the convolution (N, h, w, K) of maps (N, H, W, C) with a kernel (kh, kw, C, K)."""
    stride, padding, dilation, _ = geometry
    (down, across), (below, beside) = stride, dilation
    kh, kw, c, k = kernel.shape
    size = map_size(x)
    h, w = output_size(size, (kh, kw), stride, padding, dilation)
    rows, columns = (_used_weights(*side) for side in zip((kh, kw), size, (h, w), stride, dilation, padding, strict=True))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)))
    shifted = [
        x[:, u * below : u * below + (h - 1) * down + 1 : down, v * beside : v * beside + (w - 1) * across + 1 : across]
        for u in rows
        for v in columns
    ]
    windows = lax.optimization_barrier(jnp.concatenate(shifted, axis=3).reshape(-1, len(shifted) * c))
    used = kernel[rows.start : rows.stop, columns.start : columns.stop]
    return (windows @ used.reshape(-1, k)).reshape(len(x), h, w, k)


def _used_weights(length: int, size: int, outputs: int, stride: int, dilation: int, padding: Pair) -> range:
    """Return which weights along one side ever meet more than padding: one of three where the map's size is 1."""
    used = [u for u in range(length) if any(0 <= o * stride + u * dilation - padding[0] < size for o in range(outputs))]
    return range(used[0], used[-1] + 1) if used else range(1)


def col2im_gradient(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, given that of the output (N, h, w, K) and the kernel (kh, kw, C, K)."""
    (down, across), padding, dilation, _ = geometry
    rows, columns = (_taps(kernel.shape[axis], geometry.stride[axis], padding[axis][0], dilation[axis]) for axis in (0, 1))
    cells = (-(-size[0] // down), -(-size[1] // across))
    phases = (_stem_phases if is_strided_stem(kernel, geometry) else _map_phases)(g, kernel, rows, columns, cells)
    y = phases.transpose(2, 3, 0, 4, 1, 5).reshape(-1, cells[0] * down, cells[1] * across, kernel.shape[2])
    return y[:, : size[0], : size[1]]


def _taps(length: int, stride: int, low: int, dilation: int) -> Taps:
    """Return for each phase a < stride the pairs (u, d): pixel stride q + a receives weight u times the gradient at q + d.

    For output o meets, through weight u, the pixel stride o + dilation u - padding.
    """
    return [
        [(u, (a + low - u * dilation) // stride) for u in range(length) if (a + low - u * dilation) % stride == 0]
        for a in range(stride)
    ]


def _map_phases(g: Array, kernel: Array, rows: Taps, columns: Taps, cells: Pair) -> Array:
    """Return the gradient of the pixels of each phase, (down, across, N, *cells, C)."""
    n, h, w, k = g.shape
    kh, kw, c, _ = kernel.shape
    products = lax.dot_general(g.reshape(-1, k), kernel.reshape(-1, k), (((1,), (1,)), ((), ())))
    # The barrier keeps XLA from computing the products again for every sum.
    products = lax.optimization_barrier(products).reshape(n, h, w, kh, kw, c)

    def shifted(u: int, i: int, v: int, j: int) -> Array:
        border = ((0, 0, 0), (-i, cells[0] + i - h, 0), (-j, cells[1] + j - w, 0), (0, 0, 0))
        return lax.pad(products[:, :, :, u, v], jnp.zeros((), g.dtype), border)

    zero = jnp.zeros((n, *cells, c), g.dtype)  # for phases without a weight, where the stride exceeds the kernel
    phases = [[sum((shifted(u, i, v, j) for u, i in r for v, j in s), zero) for s in columns] for r in rows]
    return jnp.stack([jnp.stack(row) for row in phases])


def _stem_phases(g: Array, kernel: Array, rows: Taps, columns: Taps, cells: Pair) -> Array:
    """Return what `_map_phases` does, with one plane per weight and channel, so that sums run along full vectors."""
    kh, kw, c, k = kernel.shape
    weights = lax.optimization_barrier(kernel.reshape(-1, k))
    (top, bottom), (left, right) = (
        (max(0, -min(shifts)), max(0, max(shifts) + cell - length))
        for taps, cell, length in zip((rows, columns), cells, g.shape[1:3], strict=True)
        for shifts in ([d for phase in taps for _, d in phase],)
    )

    def image_phases(g: Array) -> Array:
        g = jnp.pad(g, ((top, bottom), (left, right), (0, 0)))
        planes = lax.dot_general(weights, g.reshape(-1, k), (((1,), (1,)), ((), ())))
        planes = lax.optimization_barrier(planes).reshape(kh, kw, c, *g.shape[:2])

        def shifted(u: int, i: int, v: int, j: int) -> Array:
            return planes[u, v, :, i + top : i + top + cells[0], j + left : j + left + cells[1]]

        zero = jnp.zeros((c, *cells), g.dtype)
        phases = [sum((shifted(u, i, v, j) for u, i in r for v, j in s), zero) for r in rows for s in columns]
        return lax.optimization_barrier(jnp.stack(phases))

    phases = lax.map(image_phases, g)  # one image at a time: its planes stay in the cache
    return phases.reshape(-1, len(rows), len(columns), c, *cells).transpose(1, 2, 0, 4, 5, 3)
