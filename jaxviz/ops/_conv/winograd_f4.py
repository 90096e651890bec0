"""Convolutions with prepared kernels for CPUs: Winograd's F(4 x 4, 3 x 3), forward and backward.

A quarter of the multiplications of the direct sum. Rounding errors are about ten times as large, a few 1e-6 of the largest
value: invisible in a picture. Attributions, which are compared with other tools to the fifth digit, use it only after
`Model.fast`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.ops._conv.direct import (
    direct_conv,
    direct_gradient,
    flip_kernel,
    is_pointwise,
    transposed_conv,
    xla_conv,
    xla_gradient,
)
from jaxviz.ops._conv.geometry import Geometry, Pair, Pairs, map_size
from jaxviz.ops._conv.im2col import exceeds_map, is_strided_stem
from jaxviz.ops._conv.winograd import (
    F4,
    flatten_vmap,
    gradient_padding,
    pad,
    suits_winograd,
    transform_kernel,
    winograd_conv,
)
from jaxviz.ops._conv.winograd_f2 import HoistedKernel

# Sides of the output for which it was measured to be faster than the direct sum (2 cores with AVX-512, batches of 2 to 8).
_SIDES = range(4, 129)


@pytree
@dataclass(frozen=True)
class PreparedKernel:
    """A kernel, and its forms that are computed once instead of at every step."""

    plain: Array  # (kh, kw, C / groups, K)
    flipped: Array  # (kh, kw, K / groups, C), see `flip_kernel`
    forward: Array | None  # (36, C, K): the transform, of 3 x 3 kernels with stride 1
    backward: Array | None  # (36, K, C): the transform of the flipped kernel

    @property
    def shape(self) -> tuple[int, ...]:
        """(kh, kw, C / groups, K)."""
        return self.plain.shape


def plain_kernel(kernel: Array | PreparedKernel | HoistedKernel) -> Array:
    """Return a kernel as it was before it was prepared or hoisted."""
    return kernel.plain if isinstance(kernel, PreparedKernel | HoistedKernel) else kernel


def prepare_kernel(kernel: Array, *, stride: Pair, dilation: Pair, groups: int) -> PreparedKernel:
    """Return a kernel (kh, kw, C / groups, K) with the forms that `prepared_conv` uses."""
    weights = np.asarray(kernel)  # all in NumPy: XLA would compile every operation for every shape of kernel
    flipped = np.ascontiguousarray(flip_kernel(weights, groups))
    if not suits_winograd(kernel, stride, dilation, groups):
        return PreparedKernel(kernel, jnp.asarray(flipped), None, None)
    forward, backward = (jnp.asarray(transform_kernel(form, F4)) for form in (weights, flipped))
    return PreparedKernel(kernel, jnp.asarray(flipped), forward, backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def prepared_conv(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    """Cross-correlate on a CPU by the fastest way; elsewhere by XLA's. Only `x` has a gradient."""
    return _computed(x, kernel, geometry)


@partial(jax.jit, static_argnums=2, inline=True)
def _computed(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    def on_cpu(x: Array, kernel: PreparedKernel) -> Array:
        if kernel.forward is not None and _suits_winograd_f4(x, geometry.padding):
            return _winograd_f4_conv(pad(x, geometry.padding), kernel.forward)
        return direct_conv(x, kernel.plain, geometry)

    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=lambda x, kernel: xla_conv(x, kernel.plain, geometry))


def _forward(x: Array, kernel: PreparedKernel, geometry: Geometry) -> tuple[Array, tuple[Array, PreparedKernel]]:
    # The gradient needs only the size of x; an array without elements carries it through vmap.
    return prepared_conv(x, kernel, geometry), (jnp.zeros((0, *x.shape[1:]), x.dtype), kernel)


def _backward(geometry: Geometry, residual: tuple[Array, PreparedKernel], g: Array) -> tuple[Array, None]:
    empty, kernel = residual
    return _image_gradient(g, kernel, geometry, map_size(empty)), None


@partial(jax.jit, static_argnums=(2, 3), inline=True)
def _image_gradient(g: Array, kernel: PreparedKernel, geometry: Geometry, size: Pair) -> Array:
    def on_cpu(g: Array, kernel: PreparedKernel) -> Array:
        padding = gradient_padding(geometry.padding)
        if kernel.backward is not None and min(*padding[0], *padding[1]) >= 0 and _suits_winograd_f4(g, padding):
            return _winograd_f4_conv(pad(g, padding), kernel.backward)
        suits_products = is_strided_stem(kernel.plain, geometry) or exceeds_map(kernel.plain, map_size(g))
        if suits_products or is_pointwise(kernel.plain, geometry):
            return direct_gradient(g, kernel.plain, geometry, size)
        return transposed_conv(g, kernel.flipped, geometry, size)

    def elsewhere(g: Array, kernel: PreparedKernel) -> Array:
        return xla_gradient(g, kernel.plain, geometry=geometry, size=size)

    return lax.platform_dependent(g, kernel, cpu=on_cpu, default=elsewhere)


prepared_conv.defvjp(_forward, _backward)


def _suits_winograd_f4(x: Array, padding: Pairs) -> bool:
    return all(n + sum(p) - 2 in _SIDES for n, p in zip(x.shape[1:3], padding, strict=True))


_winograd_f4_conv = flatten_vmap(partial(winograd_conv, scheme=F4))
