"""Convolution as a direct sum, with a gradient that XLA compiles well for CPUs.

Inside a compiled loop on CPU, XLA's own gradient of a convolution with respect to the images is five times slower than the
convolution. Here the gradient is one more convolution, with the flipped kernel, or one matrix product where that is faster, as
for 1 x 1 kernels. Other platforms use XLA's gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import NO_PADDING, Geometry, Pair, map_size
from jaxviz.ops._conv.im2col import (
    col2im_gradient,
    im2col_conv,
    is_strided_stem,
    suits_col2im,
    suits_im2col,
)
from jaxviz.ops._conv.winograd import flatten_vmap


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def direct_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Convolve by a direct sum or, on CPUs, a matrix product where that is faster; the gradient is `direct_gradient`."""
    is_product = is_pointwise(kernel, geometry) or suits_im2col(x, kernel, geometry)
    return (_by_platform if is_product else xla_conv)(x, kernel, geometry)


def _forward(x: Any, kernel: Any, geometry: Geometry) -> tuple[Array, tuple[Any, Array, Array]]:
    # The gradient needs only the size of x; an array without elements carries it through vmap.
    empty = jnp.zeros((0, *x.value.shape[1:]), x.value.dtype)
    return direct_conv(x.value, kernel.value, geometry), (x.value if kernel.perturbed else None, empty, kernel.value)


def _backward(geometry: Geometry, residual: tuple[Any, Array, Array], g: Any) -> tuple[Array | None, Array | None]:
    x, empty, kernel = residual
    if isinstance(g, SymbolicZero):
        return None, None
    image_gradient: Any = direct_gradient(g, kernel, geometry, map_size(empty))
    if x is None:
        return image_gradient, None
    return image_gradient, jax.linear_transpose(lambda kernel: xla_conv(x, kernel, geometry), kernel)(g)[0]


direct_conv.defvjp(_forward, _backward, symbolic_zeros=True)


def is_pointwise(kernel: Array, geometry: Geometry) -> bool:
    """Return whether a convolution is 1 x 1 without groups and padding: a matrix product at each place."""
    return kernel.shape[:2] == (1, 1) and geometry.groups == 1 and geometry.padding == NO_PADDING


def xla_conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    """Convolve by XLA's operation: the reference for all others."""
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


# Compiled once for a geometry: outside a program, a choice by platform would be compiled for every call.
@partial(jax.jit, static_argnums=2, inline=True)
def _by_platform(x: Array, kernel: Array, geometry: Geometry) -> Array:
    cpu, default = partial(conv_on_cpu, geometry=geometry), partial(xla_conv, geometry=geometry)
    return lax.platform_dependent(x, kernel, cpu=cpu, default=default)


def conv_on_cpu(x: Array, kernel: Array, *, geometry: Geometry) -> Array:
    """Convolve by the fastest of a matrix product, im2col and XLA's operation."""
    if is_pointwise(kernel, geometry):
        down, across = geometry.stride
        return x[:, ::down, ::across] @ kernel[0, 0]

    def convolve(x: Array, kernel: Array) -> Array:  # decides by the number of images over all units
        return (im2col_conv if suits_im2col(x, kernel, geometry) else xla_conv)(x, kernel, geometry)

    return flatten_vmap(convolve)(x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def direct_gradient(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, given that of the output. Its own gradient is the convolution."""
    return _gradient_by_platform(g, kernel, geometry, size)


def _forward_gradient(g: Any, kernel: Any, geometry: Geometry, size: Pair) -> tuple[Array, tuple[Any, Array]]:
    return direct_gradient(g.value, kernel.value, geometry, size), (g.value if kernel.perturbed else None, kernel.value)


def _backward_gradient(
    geometry: Geometry, size: Pair, residual: tuple[Any, Array], image_cotangent: Any
) -> tuple[Array | None, Array | None]:
    g, kernel = residual
    if isinstance(image_cotangent, SymbolicZero):
        return None, None
    g_cotangent: Any = direct_conv(image_cotangent, kernel, geometry)
    if g is None:
        return g_cotangent, None
    transpose = jax.linear_transpose(lambda kernel: xla_gradient(g, kernel, geometry=geometry, size=size), kernel)
    return g_cotangent, transpose(image_cotangent)[0]


direct_gradient.defvjp(_forward_gradient, _backward_gradient, symbolic_zeros=True)


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _gradient_by_platform(g: Array, kernel: Array, geometry: Geometry, size: Pair) -> Array:
    cpu, default = partial(gradient_on_cpu, geometry=geometry, size=size), partial(xla_gradient, geometry=geometry, size=size)
    return lax.platform_dependent(g, kernel, cpu=cpu, default=default)


def xla_gradient(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    """Return the images' gradient as XLA derives it: the reference for all others."""
    images = jax.ShapeDtypeStruct((g.shape[0], *size, kernel.shape[2] * geometry.groups), g.dtype)
    return jax.linear_transpose(lambda x: xla_conv(x, kernel, geometry), images)(g)[0]


def gradient_on_cpu(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    """Return the images' gradient by the fastest of a matrix product, col2im and a transposed convolution."""
    if is_pointwise(kernel, geometry):
        spread = [(0, n - (k - 1) * s - 1, s - 1) for n, k, s in zip(size, g.shape[1:3], geometry.stride, strict=True)]
        return lax.pad(g @ kernel[0, 0].T, jnp.zeros((), g.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    if is_strided_stem(kernel, geometry) or suits_col2im(g, kernel, geometry):
        return flatten_vmap(partial(col2im_gradient, geometry=geometry, size=size))(g, kernel)
    # The barrier keeps XLA from folding the flip into the convolution, for which it has no fast program.
    return transposed_conv(g, lax.optimization_barrier(flip_kernel(kernel, geometry.groups)), geometry, size)


def flip_kernel(kernel: Any, groups: int = 1) -> Any:
    """Return a kernel (kh, kw, C / groups, K) rotated by 180 degrees with its channels swapped, (kh, kw, K / groups, C).

    NumPy in, NumPy out; JAX in, JAX out.
    """
    kh, kw, c, k = kernel.shape
    parts = kernel[::-1, ::-1].reshape(kh, kw, c, groups, k // groups)
    return parts.transpose(0, 1, 4, 3, 2).reshape(kh, kw, k // groups, groups * c)


def transposed_conv(g: Array, flipped: Array, geometry: Geometry, size: Pair) -> Array:
    """Return the gradient (N, *size, C) of the images, given that of the output and the kernel of `flip_kernel`."""
    stride, padding, dilation, groups = geometry
    border: list[Pair] = []
    for n, m, k, s, d, (low, _) in zip(size, g.shape[1:3], flipped.shape, stride, dilation, padding, strict=False):
        before = (k - 1) * d - low
        border.append((before, n - 1 - (m - 1) * s - before + (k - 1) * d))
    return lax.conv_general_dilated(
        g,
        flipped,
        window_strides=(1, 1),
        padding=border,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
