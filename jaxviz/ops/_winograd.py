"""Convolution with fewer multiplications, for CPUs: Winograd's F(4 x 4, 3 x 3), forwards and backwards.

The 4 x 4 outputs of a 3 x 3 kernel cost 144 multiplications a pair of channels; between transformed tiles of 6 x 6 they
cost 36 (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), which are matrix products over the
channels. Rounding errors are some ten times those of the direct sum, a few 1e-6 of the largest value: nothing in a picture,
but attribution, which is compared with other tools to the fifth digit, has it only of networks that were asked to be `fast`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz._static import pytree
from jaxviz._types import Array
from jaxviz.ops._conv import (
    direct_conv,
    direct_gradient,
    is_pointwise,
    plain_conv,
    turned,
    turned_conv,
    xla_gradient,
)
from jaxviz.ops._products import has_few_channels
from jaxviz.ops._windows import Geometry, Pair, Pairs

# The transforms for the points 0, 1, -1, 2, -2 and infinity: of 6 pixels, of 3 weights, and back to 4 outputs.
_PIXELS = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
)
_WEIGHTS = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUTS = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_TILE, _POINTS = _OUTPUTS.shape

# Where it was measured to be faster than the direct sum (2 cores with AVX-512, batches of 2 to 8).
_LEAST_CHANNELS = 64
_SIDES = range(4, 129)


@pytree
@dataclass(frozen=True)
class PreparedKernel:
    """A kernel, and what is made of it once instead of in every step."""

    plain: Array  # (kh, kw, C / groups, K)
    turned: Array  # (kh, kw, K / groups, C), see `turned`
    forward: Array | None  # (36, C, K): transformed, where it is 3 x 3 with stride 1
    backward: Array | None  # (36, K, C): the turned one transformed

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plain.shape


def plain(kernel: Array | PreparedKernel) -> Array:
    """Return a kernel as it was before it was prepared."""
    return kernel.plain if isinstance(kernel, PreparedKernel) else kernel


def prepare_kernel(kernel: Array, *, stride: Pair, dilation: Pair, groups: int) -> PreparedKernel:
    """Return a kernel (kh, kw, C / groups, K) with all that `prepared_conv` needs of it."""
    given = np.asarray(kernel)  # all in NumPy: XLA would compile every operation for every shape of kernel
    back = np.ascontiguousarray(turned(given, groups))
    straight = stride == dilation == (1, 1) and groups == 1
    if not straight or kernel.shape[:2] != (3, 3) or min(kernel.shape[2:]) < _LEAST_CHANNELS:
        return PreparedKernel(kernel, jnp.asarray(back), None, None)
    return PreparedKernel(kernel, jnp.asarray(back), _transformed(given), _transformed(back))


def _transformed(kernel: np.ndarray) -> Array:
    both, rows = np.kron(_WEIGHTS, _WEIGHTS).astype(kernel.dtype), kernel.reshape(9, -1)
    return jnp.asarray((both @ rows).reshape(len(both), *kernel.shape[2:]))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def prepared_conv(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    """Cross-correlate on a CPU by the fastest way; elsewhere as XLA does. Only `x` has a gradient."""
    return _computed(x, kernel, geometry)


@partial(jax.jit, static_argnums=2, inline=True)
def _computed(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    def on_cpu(x: Array, kernel: PreparedKernel) -> Array:
        padding = geometry[1]
        if kernel.forward is not None and _is_worth_it(x, padding):
            return _winograd(_padded(x, padding), kernel.forward)
        return direct_conv(x, kernel.plain, geometry)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=lambda x, kernel: plain_conv(x, kernel.plain, geometry))


def _forward(x: Array, kernel: PreparedKernel, geometry: Geometry) -> tuple[Array, tuple[Array, PreparedKernel]]:
    # Only the size of x is needed below; an array without elements carries it through vmap.
    return prepared_conv(x, kernel, geometry), (jnp.zeros((0, *x.shape[1:]), x.dtype), kernel)


def _backward(geometry: Geometry, residual: tuple[Array, PreparedKernel], g: Array) -> tuple[Array, None]:
    empty, kernel = residual
    return _pulled_back(g, kernel, geometry, (empty.shape[1], empty.shape[2])), None


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _pulled_back(g: Array, kernel: PreparedKernel, geometry: Geometry, size: Pair) -> Array:
    def on_cpu(g: Array, kernel: PreparedKernel) -> Array:
        (top, bottom), (left, right) = geometry[1]
        padding = ((2 - top, 2 - bottom), (2 - left, 2 - right))
        if kernel.backward is not None and min(*padding[0], *padding[1]) >= 0 and _is_worth_it(g, padding):
            return _winograd(_padded(g, padding), kernel.backward)
        if is_pointwise(kernel.plain, geometry) or has_few_channels(kernel.plain, geometry):
            return direct_gradient(g, kernel.plain, geometry=geometry, size=size)
        return turned_conv(g, kernel.turned, geometry, size)

    def elsewhere(g: Array, kernel: PreparedKernel) -> Array:
        return xla_gradient(g, kernel.plain, geometry=geometry, size=size)

    return lax.platform_dependent(g, kernel, cpu=on_cpu, default=elsewhere)


prepared_conv.defvjp(_forward, _backward)


def _is_worth_it(x: Array, padding: Pairs) -> bool:
    return all(n + sum(p) - 2 in _SIDES for n, p in zip(x.shape[1:3], padding, strict=True))


def _padded(x: Array, padding: Pairs) -> Array:
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


@jax.custom_batching.custom_vmap
def _winograd(x: Array, kernel: Array) -> Array:
    """Return the cross-correlation (N, H - 2, W - 2, K) of x (N, H, W, C) with a transformed kernel (36, C, K)."""
    n, h, w, c = x.shape
    rows, columns = -(-(h - 2) // _TILE), -(-(w - 2) // _TILE)
    # Barriers: fused into its neighbours, each of the three steps would be computed again for every use.
    x = lax.optimization_barrier(_padded(x, ((0, _TILE * rows + 2 - h), (0, _TILE * columns + 2 - w))))
    lines = _combined(_PIXELS, [x[:, i : i + _TILE * (rows - 1) + 1 : _TILE] for i in range(_POINTS)])
    lines = lax.optimization_barrier(jnp.stack(lines))
    tiles = _combined(_PIXELS, [lines[:, :, :, j : j + _TILE * (columns - 1) + 1 : _TILE] for j in range(_POINTS)])
    tiles = lax.optimization_barrier(jnp.stack(tiles, axis=1)).reshape(_POINTS**2, n * rows * columns, c)
    product = jnp.einsum("ptc,pck->ptk", tiles, kernel)
    back = jnp.asarray(np.kron(_OUTPUTS, _OUTPUTS), x.dtype)
    outputs = lax.optimization_barrier(back @ lax.optimization_barrier(product).reshape(_POINTS**2, -1))
    y = outputs.reshape(_TILE, _TILE, n, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, rows * _TILE, columns * _TILE, -1)[:, : h - 2, : w - 2]


@_winograd.def_vmap
def _batched(size: int, is_batched: Any, x: Array, kernel: Array) -> tuple[Array, bool]:
    """Make one batch of two, which keeps the products large; kernels of many networks go one after the other."""
    of_x, of_kernel = is_batched
    if of_kernel:
        whole = x if of_x else jnp.broadcast_to(x, (size, *x.shape))
        return lax.map(lambda both: _winograd(*both), (whole, kernel)), True
    y = _winograd(x.reshape(-1, *x.shape[2:]), kernel)
    return y.reshape(size, -1, *y.shape[1:]), True


def _combined(matrix: np.ndarray, values: list[Array]) -> list[Array]:
    """Return the sums of the values by the rows of a matrix, without its zeros."""
    return [sum(value * float(weight) for weight, value in zip(row, values, strict=True) if weight) for row in matrix]  # type: ignore[misc]
