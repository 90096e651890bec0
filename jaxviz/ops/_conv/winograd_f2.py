"""3 x 3 convolutions of stride 1, on CPUs with fewer multiplications where no digit is lost: Winograd's F(2 x 2, 3 x 3).

Values and gradients are as near to the exact sums as those of the direct sum are, so that all networks compute with it as they
are. The kernel is transformed in every call, which pays where it serves enough places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.ops._conv.direct import conv_on_cpu, gradient_on_cpu, plain_conv, turned, xla_gradient
from jaxviz.ops._conv.geometry import Geometry, Pair, Pairs
from jaxviz.ops._conv.winograd import F2, across, has_tiles, in_one_batch, padded, transformed, winograd

# Where it was measured to be faster than the direct sum (2 cores with AVX-512): maps no wider than there are channels, and ...
_LEAST_SIDE = 5
_LEAST_PLACES = 700  # ... in all images of a batch: fewer do not pay for the transform of the kernel
_LEAST_TILED = 150  # ... with a transformed one: fewer do not pay for reading it, almost twice as large


@pytree
@dataclass(frozen=True)
class TiledKernel:
    """A kernel, and its transforms for `straight_conv` and for its gradient: made once for many steps of a loop."""

    plain: Array  # (3, 3, C, K)
    forward: Array  # (16, C, K)
    turned: Array  # (16, C, K), of half a turn of it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plain.shape


def tiled_kernel(kernel: Array) -> TiledKernel:
    """Return a kernel (3, 3, C, K) with its transforms; in traced code, those that nothing uses cost nothing."""
    forward, back = (lax.optimization_barrier(transformed(kernel, F2, turn=turn)) for turn in (False, True))
    return TiledKernel(kernel, forward, back)


def is_straight(x: Array, kernel: Array, geometry: Geometry) -> bool:
    """Say whether a convolution is one of those that `straight_conv` computes faster than `direct_conv`."""
    stride, padding, dilation, groups = geometry
    if not has_tiles(kernel, stride, dilation, groups) or max(map(max, padding)) > 2:
        return False
    sides = (*x.shape[1:3], *_size(x, padding))
    is_wide_enough = min(sides) >= _LEAST_SIDE and max(sides) <= min(kernel.shape[2:])
    return is_wide_enough and x.dtype in ("float32", "float64")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def straight_conv(x: Array, kernel: Array, padding: Pairs, turn: bool = False) -> Array:
    """Cross-correlate x (N, H, W, C) with a kernel (3, 3, C, K); with `turn`, x (N, H, W, K) with half a turn of it.

    Each is the other's gradient with respect to x, so that there are gradients of any order.
    """
    return _computed(x, kernel, padding, turn)


def _forward(x: Any, kernel: Any, padding: Pairs, turn: bool) -> tuple[Array, tuple[Any, Array]]:
    return straight_conv(x.value, kernel.value, padding, turn), (x.value if kernel.perturbed else None, kernel.value)


def _backward(padding: Pairs, turn: bool, residual: tuple[Any, Array], g: Any) -> tuple[Array | None, Array | None]:
    x, kernel = residual
    if isinstance(g, SymbolicZero):
        return None, None
    of_images: Any = straight_conv(g, kernel, across(padding), not turn)
    if x is None:
        return of_images, None
    return of_images, jax.linear_transpose(lambda kernel: _plain(x, kernel, padding, turn), kernel)(g)[0]


straight_conv.defvjp(_forward, _backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def tiled_conv(x: Array, kernel: TiledKernel, padding: Pairs, turn: bool = False) -> Array:
    """Return what `straight_conv` does. Only `x` has a gradient."""
    return _computed(x, kernel, padding, turn)


def _forward_tiled(x: Array, kernel: TiledKernel, padding: Pairs, turn: bool) -> tuple[Array, TiledKernel]:
    return tiled_conv(x, kernel, padding, turn), kernel


def _backward_tiled(padding: Pairs, turn: bool, kernel: TiledKernel, g: Array) -> tuple[Array, None]:
    return tiled_conv(g, kernel, across(padding), not turn), None


tiled_conv.defvjp(_forward_tiled, _backward_tiled)


def _size(x: Array, padding: Pairs) -> Pair:
    (top, bottom), (left, right) = padding
    return x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2


def _plain(x: Array, kernel: Array, padding: Pairs, turn: bool) -> Array:
    return plain_conv(x, turned(kernel) if turn else kernel, ((1, 1), padding, (1, 1), 1))


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _computed(x: Array, kernel: Array | TiledKernel, padding: Pairs, turn: bool) -> Array:
    size = _size(x, padding)

    def in_tiles(x: Array, kernel: Array | TiledKernel) -> Array:
        if isinstance(kernel, TiledKernel):
            tiled = kernel.turned if turn else kernel.forward
        else:
            tiled = lax.optimization_barrier(transformed(kernel, F2, turn=turn))
        return winograd(padded(x, padding), tiled, F2, "ptk,pck->ptc" if turn else "ptc,pck->ptk")

    def directly(conv: Callable[..., Array], gradient: Callable[..., Array], x: Array, kernel: Array | TiledKernel) -> Array:
        kernel = kernel.plain if isinstance(kernel, TiledKernel) else kernel
        if turn:
            return gradient(x, kernel, geometry=((1, 1), across(padding), (1, 1), 1), size=size)
        return conv(x, kernel, geometry=((1, 1), padding, (1, 1), 1))

    def on_cpu(x: Array, kernel: Array | TiledKernel) -> Array:
        least = _LEAST_TILED if isinstance(kernel, TiledKernel) else _LEAST_PLACES
        if len(x) * size[0] * size[1] >= least:
            return in_tiles(x, kernel)
        return directly(conv_on_cpu, gradient_on_cpu, x, kernel)

    default = partial(directly, plain_conv, xla_gradient)
    return lax.platform_dependent(x, kernel, cpu=in_one_batch(on_cpu), default=default)
