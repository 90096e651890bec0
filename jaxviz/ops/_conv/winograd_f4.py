"""Convolutions of kernels that were prepared once, for CPUs: Winograd's F(4 x 4, 3 x 3), forwards and backwards.

A quarter of the multiplications of the direct sum. Rounding errors are some ten times as large, a few 1e-6 of the largest
value: nothing in a picture, but attribution, which is compared with other tools to the fifth digit, has it only of networks
that were asked to be `fast`.
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
    is_pointwise,
    plain_conv,
    turned,
    turned_conv,
    xla_gradient,
)
from jaxviz.ops._conv.geometry import Geometry, Pair, Pairs
from jaxviz.ops._conv.im2col import has_few_channels, is_larger
from jaxviz.ops._conv.winograd import F4, across, has_tiles, in_one_batch, padded, transformed, winograd
from jaxviz.ops._conv.winograd_f2 import TiledKernel

# Where it was measured to be faster than the direct sum (2 cores with AVX-512, batches of 2 to 8).
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


def plain(kernel: Array | PreparedKernel | TiledKernel) -> Array:
    """Return a kernel as it was before it was prepared."""
    return kernel.plain if isinstance(kernel, PreparedKernel | TiledKernel) else kernel


def prepare_kernel(kernel: Array, *, stride: Pair, dilation: Pair, groups: int) -> PreparedKernel:
    """Return a kernel (kh, kw, C / groups, K) with all that `prepared_conv` needs of it."""
    given = np.asarray(kernel)  # all in NumPy: XLA would compile every operation for every shape of kernel
    back = np.ascontiguousarray(turned(given, groups))
    if not has_tiles(kernel, stride, dilation, groups):
        return PreparedKernel(kernel, jnp.asarray(back), None, None)
    forward, backward = (jnp.asarray(transformed(one, F4)) for one in (given, back))
    return PreparedKernel(kernel, jnp.asarray(back), forward, backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def prepared_conv(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    """Cross-correlate on a CPU by the fastest way; elsewhere as XLA does. Only `x` has a gradient."""
    return _computed(x, kernel, geometry)


@partial(jax.jit, static_argnums=2, inline=True)
def _computed(x: Array, kernel: PreparedKernel, geometry: Geometry) -> Array:
    def on_cpu(x: Array, kernel: PreparedKernel) -> Array:
        padding = geometry[1]
        if kernel.forward is not None and _is_worth_it(x, padding):
            return _quarter(padded(x, padding), kernel.forward)
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
        padding = across(geometry[1])
        if kernel.backward is not None and min(*padding[0], *padding[1]) >= 0 and _is_worth_it(g, padding):
            return _quarter(padded(g, padding), kernel.backward)
        few = has_few_channels(kernel.plain, geometry) or is_larger(kernel.plain, (g.shape[1], g.shape[2]))
        if few or is_pointwise(kernel.plain, geometry):
            return direct_gradient(g, kernel.plain, geometry, size)
        return turned_conv(g, kernel.turned, geometry, size)

    def elsewhere(g: Array, kernel: PreparedKernel) -> Array:
        return xla_gradient(g, kernel.plain, geometry=geometry, size=size)

    return lax.platform_dependent(g, kernel, cpu=on_cpu, default=elsewhere)


prepared_conv.defvjp(_forward, _backward)


def _is_worth_it(x: Array, padding: Pairs) -> bool:
    return all(n + sum(p) - 2 in _SIDES for n, p in zip(x.shape[1:3], padding, strict=True))


_quarter = in_one_batch(partial(winograd, scheme=F4))
