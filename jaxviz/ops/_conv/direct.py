"""Convolution as a direct sum, with a gradient that XLA compiles well for CPUs.

XLA's own gradient of a convolution with respect to the images is five times slower than the convolution where it stands in a
compiled loop. Here it is one more convolution, with the turned kernel, or one matrix product where that is quicker, as it is of
1 x 1 kernels. Only on CPUs: other platforms take XLA's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import Geometry, Pair
from jaxviz.ops._conv.im2col import (
    conv_by_products,
    gradient_by_products,
    has_few_channels,
    has_few_places,
    sees_few_places,
)
from jaxviz.ops._conv.winograd import in_one_batch


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def direct_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """The convolution as a direct sum or, on CPUs, as a product where that is faster; its gradient is `direct_gradient`."""
    is_product = is_pointwise(kernel, geometry) or sees_few_places(x, kernel, geometry)
    return (_by_platform if is_product else plain_conv)(x, kernel, geometry)


def _forward(x: Any, kernel: Any, geometry: Geometry) -> tuple[Array, tuple[Any, Array, Array]]:
    # Only the size of x is needed for its own gradient; an array without elements carries it through vmap.
    empty = jnp.zeros((0, *x.value.shape[1:]), x.value.dtype)
    return direct_conv(x.value, kernel.value, geometry), (x.value if kernel.perturbed else None, empty, kernel.value)


def _backward(geometry: Geometry, residual: tuple[Any, Array, Array], g: Any) -> tuple[Array | None, Array | None]:
    x, empty, kernel = residual
    if isinstance(g, SymbolicZero):
        return None, None
    of_images: Any = direct_gradient(g, kernel, geometry, (empty.shape[1], empty.shape[2]))
    if x is None:
        return of_images, None
    return of_images, jax.linear_transpose(lambda kernel: plain_conv(x, kernel, geometry), kernel)(g)[0]


direct_conv.defvjp(_forward, _backward, symbolic_zeros=True)


def is_pointwise(kernel: Array, geometry: Geometry) -> bool:
    _, padding, _, groups = geometry
    return kernel.shape[:2] == (1, 1) and groups == 1 and padding == ((0, 0), (0, 0))


def plain_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """The convolution as XLA has it: the reference for all others."""
    stride, padding, dilation, groups = geometry
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=stride,
        padding=padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


# Compiled once for a geometry: called outside of any program, a choice by platform would be compiled for every call.
@partial(jax.jit, static_argnums=2, inline=True)
def _by_platform(x: Array, kernel: Array, geometry: Geometry) -> Array:
    cpu, default = partial(conv_on_cpu, geometry=geometry), partial(plain_conv, geometry=geometry)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def conv_on_cpu(x: Array, kernel: Array, *, geometry: Geometry) -> Array:
    if is_pointwise(kernel, geometry):
        (down, across), _, _, _ = geometry
        return x[:, ::down, ::across] @ kernel[0, 0]

    def of_all(x: Array, kernel: Array) -> Array:  # the images of all units, which may not be few
        few = sees_few_places(x, kernel, geometry)
        return (conv_by_products if few else plain_conv)(x, kernel, geometry)

    return in_one_batch(of_all)(x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def direct_gradient(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, from that of the output. Its own gradient is the convolution."""
    return _computed_gradient(g, kernel, geometry, size)


def _forward_gradient(g: Any, kernel: Any, geometry: Geometry, size: Pair) -> tuple[Array, tuple[Any, Array]]:
    return direct_gradient(g.value, kernel.value, geometry, size), (g.value if kernel.perturbed else None, kernel.value)


def _backward_gradient(
    geometry: Geometry, size: Pair, residual: tuple[Any, Array], of_images: Any
) -> tuple[Array | None, Array | None]:
    g, kernel = residual
    if isinstance(of_images, SymbolicZero):
        return None, None
    of_g: Any = direct_conv(of_images, kernel, geometry)
    if g is None:
        return of_g, None
    return of_g, jax.linear_transpose(lambda k: xla_gradient(g, k, geometry=geometry, size=size), kernel)(of_images)[0]


direct_gradient.defvjp(_forward_gradient, _backward_gradient, symbolic_zeros=True)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _computed_gradient(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    cpu, default = partial(gradient_on_cpu, geometry=geometry, size=size), partial(xla_gradient, geometry=geometry, size=size)
    return lax.platform_dependent(g, kernel, cpu=cpu, default=default)


def xla_gradient(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    """The gradient as XLA has it: the reference for all others."""
    images = jax.ShapeDtypeStruct((g.shape[0], *size, kernel.shape[2] * geometry[-1]), g.dtype)
    return jax.linear_transpose(lambda x: plain_conv(x, kernel, geometry), images)(g)[0]


def gradient_on_cpu(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    stride, _, _, groups = geometry
    if is_pointwise(kernel, geometry):
        spread = [(0, n - (k - 1) * s - 1, s - 1) for n, k, s in zip(size, g.shape[1:3], stride, strict=True)]
        return lax.pad(g @ kernel[0, 0].T, jnp.zeros((), g.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    if has_few_channels(kernel, geometry) or has_few_places(g, kernel, geometry):
        return in_one_batch(partial(gradient_by_products, geometry=geometry, size=size))(g, kernel)
    # The barrier keeps XLA from folding the turn into the convolution, in a form that it has no fast program for.
    return turned_conv(g, lax.optimization_barrier(turned(kernel, groups)), geometry, size)


def turned(kernel: Any, groups: int = 1) -> Any:
    """Return a kernel (kh, kw, C / groups, K) as its gradient needs it: turned by half a circle, (kh, kw, K / groups, C).

    Of NumPy's array one of NumPy's, of JAX's one of JAX's.
    """
    kh, kw, c, k = kernel.shape
    parts = kernel[::-1, ::-1].reshape(kh, kw, c, groups, k // groups)
    return parts.transpose(0, 1, 4, 3, 2).reshape(kh, kw, k // groups, groups * c)


def turned_conv(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, from that of the output and a kernel that `turned` returned."""
    stride, padding, dilation, groups = geometry
    border = []
    for n, m, k, s, d, (low, _) in zip(size, g.shape[1:3], kernel.shape, stride, dilation, padding, strict=False):
        before = (k - 1) * d - low
        border.append((before, n - 1 - (m - 1) * s - before + (k - 1) * d))
    return lax.conv_general_dilated(
        g,
        kernel,
        window_strides=(1, 1),
        padding=border,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
