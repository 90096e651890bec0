"""Winograd's convolutions F(m x m, 3 x 3): fewer multiplications, as matrix products between transformed tiles.

Per pair of channels, the m x m outputs of a tile cost 9 m^2 multiplications as direct sums, and (m + 2)^2 between transformed
tiles (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015): 4 per output for m = 2, 2.25 for m = 4. The
transforms of m = 2 only add, subtract and halve, so that rounding errors are those of the direct sum. Those of m = 4 multiply
by up to 8, and lose a digit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Pair, Pairs


@dataclass(frozen=True)
class Scheme:
    """The transforms of m + 2 pixels, of 3 weights, and back to m outputs, each for one side of a tile."""

    pixels: np.ndarray  # (m + 2, m + 2)
    weights: np.ndarray  # (m + 2, 3)
    outputs: np.ndarray  # (m, m + 2)


# For the points 0, 1, -1 and infinity.
F2 = Scheme(
    np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]),
    np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
    np.array([[1, 1, 1, 0], [0, 1, -1, 1]]),
)

# For the points 0, 1, -1, 2, -2 and infinity.
F4 = Scheme(
    np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
    ),
    np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
    np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
)


LEAST_CHANNELS = 64  # with fewer, no scheme was measured to be faster than the direct sum


def suits_winograd(kernel: Any, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Return whether a convolution is 3 x 3 with stride 1, and has enough channels for Winograd to pay."""
    is_dense = stride == dilation == (1, 1) and groups == 1
    return is_dense and kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= LEAST_CHANNELS


def gradient_padding(padding: Pairs) -> Pairs:
    """Return the padding with which the gradient of a 3 x 3 convolution is a 3 x 3 convolution."""
    (top, bottom), (left, right) = padding
    return (2 - top, 2 - bottom), (2 - left, 2 - right)


def transform_kernel(kernel: Any, scheme: Scheme, *, flip: bool = False) -> Any:
    """Return the transform ((m + 2)^2, C, K) of a kernel (3, 3, C, K), or of the kernel rotated by 180 degrees.

    NumPy in, NumPy out; JAX in, JAX out.
    """
    side = scheme.weights[:, ::-1] if flip else scheme.weights
    both = np.kron(side, side).astype(kernel.dtype)
    return (both @ kernel.reshape(9, -1)).reshape(len(both), *kernel.shape[2:])


def winograd_conv(x: Array, kernel: Array, scheme: Scheme, product: str = "ptc,pck->ptk") -> Array:
    """Return the cross-correlation (N, H - 2, W - 2, K) of x (N, H, W, C) with a transformed kernel.

    Args:
        x: without padding; see `pad`.
        kernel: from `transform_kernel`.
        scheme: F2 or F4.
        product: einsum of the tiles (points, tiles, C) and the kernel.
    """
    tile, points = scheme.outputs.shape
    n, h, w, c = x.shape
    rows, columns = -(-(h - 2) // tile), -(-(w - 2) // tile)
    # Barriers: fused into its neighbors, each of the three steps would be computed again for every use.
    x = lax.optimization_barrier(pad(x, ((0, tile * rows + 2 - h), (0, tile * columns + 2 - w))))
    lines = _combine(scheme.pixels, [x[:, i : i + tile * (rows - 1) + 1 : tile] for i in range(points)])
    lines = lax.optimization_barrier(jnp.stack(lines))
    tiles = _combine(scheme.pixels, [lines[:, :, :, j : j + tile * (columns - 1) + 1 : tile] for j in range(points)])
    tiles = lax.optimization_barrier(jnp.stack(tiles, axis=1)).reshape(points**2, n * rows * columns, c)
    products = jnp.einsum(product, tiles, kernel)
    back = jnp.asarray(np.kron(scheme.outputs, scheme.outputs), x.dtype)
    outputs = lax.optimization_barrier(back @ lax.optimization_barrier(products).reshape(points**2, -1))
    y = outputs.reshape(tile, tile, n, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, rows * tile, columns * tile, -1)[:, : h - 2, : w - 2]


def pad(x: Array, padding: Pairs) -> Array:
    """Return maps (N, H, W, C) with zeros around them."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def flatten_vmap(fn: Callable[[Array, Any], Array]) -> Callable[[Array, Any], Array]:
    """Return `fn(images (N, ...), kernel)` with a vmap that concatenates the images of all units, for larger products.

    The kernel may be a pytree. Where the kernel is mapped too, the units run one after the other.
    """
    flat = jax.custom_batching.custom_vmap(fn)

    def flatten(size: int, is_batched: Any, x: Array, kernel: Any) -> tuple[Array, bool]:
        if any(jax.tree.leaves(is_batched[1])):
            units = jax.tree.map(lambda b, a: a if b else jnp.broadcast_to(a, (size, *a.shape)), tuple(is_batched), (x, kernel))
            return lax.map(lambda unit: flat(*unit), units), True
        y = flat(x.reshape(-1, *x.shape[2:]), kernel)
        return y.reshape(size, -1, *y.shape[1:]), True

    flat.def_vmap(flatten)
    return flat


def _combine(matrix: np.ndarray, values: list[Array]) -> list[Array]:
    """Return a matrix times a list of arrays; zeros of the matrix cost nothing."""
    return [sum(value * float(weight) for weight, value in zip(row, values, strict=True) if weight) for row in matrix]  # type: ignore[misc]
