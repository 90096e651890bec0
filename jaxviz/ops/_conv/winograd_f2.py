"""Winograd's F(2 x 2, 3 x 3) for 3 x 3 convolutions of stride 1 on CPUs: fewer multiplications, no digit lost.

Rounding errors of values and gradients are those of the direct sum, so that every network uses it. The kernel is transformed in
every call, which pays where there are enough places.
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
from jaxviz.ops._conv.direct import conv_on_cpu, flip_kernel, gradient_on_cpu, xla_conv, xla_gradient
from jaxviz.ops._conv.geometry import Geometry, Pair, Pairs
from jaxviz.ops._conv.winograd import (
    F2,
    flatten_vmap,
    gradient_padding,
    pad,
    suits_winograd,
    transform_kernel,
    winograd_conv,
)

# Measured to be faster than the direct sum (2 cores with AVX-512) for maps no wider than there are channels, from ...
_LEAST_SIDE = 5
_LEAST_PLACES = 700  # ... over all images of a batch: fewer do not pay for the transform of the kernel
_LEAST_PLACES_HOISTED = 150  # ... with a hoisted kernel: fewer do not pay for reading it, which is almost twice as large


@pytree
@dataclass(frozen=True)
class HoistedKernel:
    """A kernel with its transforms for `winograd_f2_conv` and its gradient, computed once outside a loop over steps."""

    plain: Array  # (3, 3, C, K)
    forward: Array  # (16, C, K)
    flipped: Array  # (16, C, K), transform of the kernel rotated by 180 degrees

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, 3, C, K)."""
        return self.plain.shape


def hoist_kernel(kernel: Array) -> HoistedKernel:
    """Return a kernel (3, 3, C, K) with its transforms; in traced code, unused ones cost nothing."""
    forward, flipped = (lax.optimization_barrier(transform_kernel(kernel, F2, flip=flip)) for flip in (False, True))
    return HoistedKernel(kernel, forward, flipped)


def suits_winograd_f2(x: Array, kernel: Array, geometry: Geometry) -> bool:
    """Return whether `winograd_f2_conv` is faster than `direct_conv`."""
    stride, padding, dilation, groups = geometry
    if not suits_winograd(kernel, stride, dilation, groups) or max(map(max, padding)) > 2:
        return False
    sides = (*x.shape[1:3], *_output_size(x, padding))
    is_wide_enough = min(sides) >= _LEAST_SIDE and max(sides) <= min(kernel.shape[2:])
    return is_wide_enough and x.dtype in ("float32", "float64")


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def winograd_f2_conv(x: Array, kernel: Array, padding: Pairs, flip: bool = False) -> Array:
    """Cross-correlate x (N, H, W, C) with a kernel (3, 3, C, K); with `flip`, x (N, H, W, K) with the flipped kernel.

    Each is the other's gradient with respect to x, so that gradients of any order exist.
    """
    return _computed(x, kernel, padding, flip)


def _forward(x: Any, kernel: Any, padding: Pairs, flip: bool) -> tuple[Array, tuple[Any, Array]]:
    return winograd_f2_conv(x.value, kernel.value, padding, flip), (x.value if kernel.perturbed else None, kernel.value)


def _backward(padding: Pairs, flip: bool, residual: tuple[Any, Array], g: Any) -> tuple[Array | None, Array | None]:
    x, kernel = residual
    if isinstance(g, SymbolicZero):
        return None, None
    image_gradient: Any = winograd_f2_conv(g, kernel, gradient_padding(padding), not flip)
    if x is None:
        return image_gradient, None
    return image_gradient, jax.linear_transpose(lambda kernel: _xla_conv(x, kernel, padding, flip), kernel)(g)[0]


winograd_f2_conv.defvjp(_forward, _backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def hoisted_conv(x: Array, kernel: HoistedKernel, padding: Pairs, flip: bool = False) -> Array:
    """Return `winograd_f2_conv` with a hoisted kernel. Only `x` has a gradient."""
    return _computed(x, kernel, padding, flip)


def _forward_hoisted(x: Array, kernel: HoistedKernel, padding: Pairs, flip: bool) -> tuple[Array, HoistedKernel]:
    return hoisted_conv(x, kernel, padding, flip), kernel


def _backward_hoisted(padding: Pairs, flip: bool, kernel: HoistedKernel, g: Array) -> tuple[Array, None]:
    return hoisted_conv(g, kernel, gradient_padding(padding), not flip), None


hoisted_conv.defvjp(_forward_hoisted, _backward_hoisted)


def _output_size(x: Array, padding: Pairs) -> Pair:
    (top, bottom), (left, right) = padding
    return x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2


def _xla_conv(x: Array, kernel: Array, padding: Pairs, flip: bool) -> Array:
    return xla_conv(x, flip_kernel(kernel) if flip else kernel, Geometry(padding=padding))


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _computed(x: Array, kernel: Array | HoistedKernel, padding: Pairs, flip: bool) -> Array:
    size = _output_size(x, padding)

    def by_winograd(x: Array, kernel: Array | HoistedKernel) -> Array:
        if isinstance(kernel, HoistedKernel):
            transform = kernel.flipped if flip else kernel.forward
        else:
            transform = lax.optimization_barrier(transform_kernel(kernel, F2, flip=flip))
        return winograd_conv(pad(x, padding), transform, F2, "ptk,pck->ptc" if flip else "ptc,pck->ptk")

    def directly(conv: Callable[..., Array], gradient: Callable[..., Array], x: Array, kernel: Array | HoistedKernel) -> Array:
        kernel = kernel.plain if isinstance(kernel, HoistedKernel) else kernel
        if flip:
            return gradient(x, kernel, geometry=Geometry(padding=gradient_padding(padding)), size=size)
        return conv(x, kernel, geometry=Geometry(padding=padding))

    def on_cpu(x: Array, kernel: Array | HoistedKernel) -> Array:
        least = _LEAST_PLACES_HOISTED if isinstance(kernel, HoistedKernel) else _LEAST_PLACES
        if len(x) * size[0] * size[1] >= least:
            return by_winograd(x, kernel)
        return directly(conv_on_cpu, gradient_on_cpu, x, kernel)

    default = partial(directly, xla_conv, xla_gradient)
    return lax.platform_dependent(x, kernel, cpu=flatten_vmap(on_cpu), default=default)
