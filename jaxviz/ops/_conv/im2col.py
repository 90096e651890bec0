"""A convolution as one matrix product of what each place sees, and its gradient as one of what each place gives, added up.

On CPUs, where a map has few places and the kernel many channels: products take the kernel as it lies. A convolution would have
it packed first, and its gradient turned, which then cost as much as the sums; and of a kernel that is larger than the map, XLA
makes a sum that is a hundred times slower. The gradient also of a strided convolution of images, whose few channels would leave
vectors nearly empty.
"""

from __future__ import annotations

from typing import TypeAlias

import jax.numpy as jnp
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Geometry, Pair, output_size

Taps: TypeAlias = list[list[tuple[int, int]]]

FEW_CHANNELS = 4  # of an image
FEW_PLACES = 4  # for each channel that the convolution gives
FEWER_PLACES = 1  # so few that the convolution itself is faster as a product, too


def has_few_channels(kernel: Array, geometry: Geometry) -> bool:
    """Say whether the convolution is strided and of images."""
    return kernel.shape[2] <= FEW_CHANNELS and max(geometry[0]) > 1 and geometry[3] == 1


def has_few_places(g: Array, kernel: Array, geometry: Geometry) -> bool:
    """Say whether the maps (N, h, w, K) are so small that turning the kernel would cost more than what it saves."""
    n, h, w, k = g.shape
    return geometry[3] == 1 and (n * h * w <= FEW_PLACES * k or is_larger(kernel, (h, w)))


def sees_few_places(x: Array, kernel: Array, geometry: Geometry) -> bool:
    """Say whether the maps (N, H, W, C) are so small that a convolution is faster by `conv_by_products`."""
    stride, padding, dilation, groups = geometry
    size = (x.shape[1], x.shape[2])
    h, w = output_size(size, (kernel.shape[0], kernel.shape[1]), stride, padding, dilation)
    is_small = len(x) * h * w <= FEWER_PLACES * kernel.shape[3] or is_larger(kernel, size)
    return groups == 1 and min(h, w) > 0 and is_small


def is_larger(kernel: Array, size: Pair) -> bool:
    """Say whether a kernel is larger than a map, which XLA takes as a reason to slide the map over the kernel."""
    return kernel.shape[0] * kernel.shape[1] > size[0] * size[1]


def conv_by_products(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Return the convolution (N, h, w, K) of images (N, H, W, C) with a kernel (kh, kw, C, K)."""
    stride, padding, dilation, _ = geometry
    (down, across), (below, beside) = stride, dilation
    kh, kw, c, k = kernel.shape
    size = (x.shape[1], x.shape[2])
    h, w = output_size(size, (kh, kw), stride, padding, dilation)
    rows, columns = (_seen(*each) for each in zip((kh, kw), size, (h, w), stride, dilation, padding, strict=True))
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0)))
    seen = [
        x[:, u * below : u * below + (h - 1) * down + 1 : down, v * beside : v * beside + (w - 1) * across + 1 : across]
        for u in rows
        for v in columns
    ]
    places = lax.optimization_barrier(jnp.concatenate(seen, axis=3).reshape(-1, len(seen) * c))
    used = kernel[rows.start : rows.stop, columns.start : columns.stop]
    return (places @ used.reshape(-1, k)).reshape(len(x), h, w, k)


def _seen(length: int, size: int, outputs: int, stride: int, dilation: int, padding: Pair) -> range:
    """Return which weights see more than padding: one of three where the size is 1."""
    seen = [u for u in range(length) if any(0 <= o * stride + u * dilation - padding[0] < size for o in range(outputs))]
    return range(seen[0], seen[-1] + 1) if seen else range(1)


def gradient_by_products(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, from that of the output (N, h, w, K) and the kernel (kh, kw, C, K)."""
    (down, across), padding, dilation, _ = geometry
    rows, columns = (_taps(kernel.shape[axis], geometry[0][axis], padding[axis][0], dilation[axis]) for axis in (0, 1))
    cells = (-(-size[0] // down), -(-size[1] // across))
    phases = (_of_images if has_few_channels(kernel, geometry) else _of_maps)(g, kernel, rows, columns, cells)
    y = phases.transpose(2, 3, 0, 4, 1, 5).reshape(-1, cells[0] * down, cells[1] * across, kernel.shape[2])
    return y[:, : size[0], : size[1]]


def _taps(length: int, stride: int, low: int, dilation: int) -> Taps:
    """Return for each a below the stride s the (u, d): by the weight u, pixels s q + a are given what is at places q + d.

    For the output o sees through the weight u the pixel s o + dilation u - padding.
    """
    return [
        [(u, (a + low - u * dilation) // stride) for u in range(length) if (a + low - u * dilation) % stride == 0]
        for a in range(stride)
    ]


def _of_maps(g: Array, kernel: Array, rows: Taps, columns: Taps, cells: Pair) -> Array:
    """Return what pixels s q + a get, (down, across, N, *cells, C), channels last as they are."""
    n, h, w, k = g.shape
    kh, kw, c, _ = kernel.shape
    given = lax.dot_general(g.reshape(-1, k), kernel.reshape(-1, k), (((1,), (1,)), ((), ())))
    # The barrier keeps XLA from computing products again for every sum.
    given = lax.optimization_barrier(given).reshape(n, h, w, kh, kw, c)

    def moved(u: int, i: int, v: int, j: int) -> Array:
        border = ((0, 0, 0), (-i, cells[0] + i - h, 0), (-j, cells[1] + j - w, 0), (0, 0, 0))
        return lax.pad(given[:, :, :, u, v], jnp.zeros((), g.dtype), border)

    none = jnp.zeros((n, *cells, c), g.dtype)  # of a stride larger than the kernel
    phases = [[sum((moved(u, i, v, j) for u, i in r for v, j in s), none) for s in columns] for r in rows]
    return jnp.stack([jnp.stack(row) for row in phases])


def _of_images(g: Array, kernel: Array, rows: Taps, columns: Taps, cells: Pair) -> Array:
    """Return what `_of_maps` does; each weight and channel has a plane of its own, along which sums run in full vectors."""
    kh, kw, c, k = kernel.shape
    weights = lax.optimization_barrier(kernel.reshape(-1, k))
    (top, bottom), (left, right) = (
        (max(0, -min(shifts)), max(0, max(shifts) + cell - length))
        for taps, cell, length in zip((rows, columns), cells, g.shape[1:3], strict=True)
        for shifts in ([d for of_phase in taps for _, d in of_phase],)
    )

    def of_one(g: Array) -> Array:
        g = jnp.pad(g, ((top, bottom), (left, right), (0, 0)))
        planes = lax.dot_general(weights, g.reshape(-1, k), (((1,), (1,)), ((), ())))
        planes = lax.optimization_barrier(planes).reshape(kh, kw, c, *g.shape[:2])

        def moved(u: int, i: int, v: int, j: int) -> Array:
            return planes[u, v, :, i + top : i + top + cells[0], j + left : j + left + cells[1]]

        none = jnp.zeros((c, *cells), g.dtype)
        phases = [sum((moved(u, i, v, j) for u, i in r for v, j in s), none) for r in rows for s in columns]
        return lax.optimization_barrier(jnp.stack(phases))

    found = lax.map(of_one, g)  # one image at a time: its planes stay in the cache
    return found.reshape(-1, len(rows), len(columns), c, *cells).transpose(1, 2, 0, 4, 5, 3)
