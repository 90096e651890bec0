"""Convolution, with a gradient that XLA compiles well on a CPU, inside loops too."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from jaxviz._static import pytree
from jaxviz._types import Array
from jaxviz.ops._pool import Pair, Pairs

Geometry: TypeAlias = tuple[Pair, Pairs, Pair, int]  # stride, padding, dilation, groups


@pytree
@dataclass(frozen=True)
class PreparedKernel:
    """A kernel, and what `fast_conv` makes of it once instead of in every step."""

    plain: Array  # (kh, kw, C / groups, K)
    turned: Array  # (kh, kw, K / groups, C), see `turned`
    forward: Array | None  # (36, C, K), transformed, where it is 3 x 3 with stride 1
    backward: Array | None  # (36, K, C), the turned one transformed

    @property
    def shape(self) -> tuple[int, ...]:
        return self.plain.shape


def conv(
    x: Array,
    kernel: Array | PreparedKernel,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pairs = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Cross-correlate images with a kernel, as `torch.nn.functional.conv2d` does.

    On a CPU the gradient of the images is written as one more convolution with the turned kernel: XLA's own form of it is
    five times slower inside a compiled loop, and 1 x 1 kernels are matrix products. Other platforms use XLA's. Reverse
    mode works to any order; forward mode (`jax.jvp`, `jax.jacfwd`) does not.

    Args:
        x: float (N, H, W, C).
        kernel: float (kh, kw, C / groups, K).
        bias: float (K,) or None.
        stride, dilation: one int for each of height and width.
        padding: `((top, bottom), (left, right))` zeros.
        groups: the number of groups of channels that see only themselves.

    Returns:
        float (N, H', W', K).
    """
    kernel = kernel.plain if isinstance(kernel, PreparedKernel) else kernel
    y = _conv(x, kernel, (stride, padding, dilation, groups))
    return y if bias is None else y + bias[None, None, None, :]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, geometry: Geometry) -> Array:
    if is_pointwise(kernel, geometry):
        return lax.platform_dependent(x, kernel, cpu=partial(_product, geometry[0]), default=partial(plain_conv, geometry=geometry))
    return plain_conv(x, kernel, geometry)


def _forward(x: Any, kernel: Any, geometry: Geometry) -> tuple[Array, tuple[Any, Array, Array]]:
    # Only the size of x is needed for its own gradient; an array without elements carries it through vmap.
    empty = jnp.zeros((0, *x.value.shape[1:]), x.value.dtype)
    return _conv(x.value, kernel.value, geometry), (x.value if kernel.perturbed else None, empty, kernel.value)


def _backward(geometry: Geometry, residual: tuple[Any, Array, Array], g: Any) -> tuple[Array, Array | None]:
    x, empty, kernel = residual
    if isinstance(g, SymbolicZero):
        g = jnp.zeros(g.shape, g.dtype)
    size = (empty.shape[1], empty.shape[2])
    cpu, default = partial(_images_gradient, geometry=geometry, size=size), partial(_xla_gradient, geometry=geometry, size=size)
    of_images = lax.platform_dependent(g, kernel, cpu=cpu, default=default)
    if x is None:
        return of_images, None
    return of_images, jax.linear_transpose(lambda kernel: plain_conv(x, kernel, geometry), kernel)(g)[0]


_conv.defvjp(_forward, _backward, symbolic_zeros=True)


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


def _product(stride: Pair, x: Array, kernel: Array) -> Array:
    return x[:, :: stride[0], :: stride[1]] @ kernel[0, 0]


def _xla_gradient(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    images = jax.ShapeDtypeStruct((g.shape[0], *size, kernel.shape[2] * geometry[-1]), g.dtype)
    return jax.linear_transpose(lambda x: plain_conv(x, kernel, geometry), images)(g)[0]


def _images_gradient(g: Array, kernel: Array, *, geometry: Geometry, size: Pair) -> Array:
    stride, _, _, groups = geometry
    if is_pointwise(kernel, geometry):
        spread = [(0, n - (k - 1) * s - 1, s - 1) for n, k, s in zip(size, g.shape[1:3], stride, strict=True)]
        return lax.pad(g @ kernel[0, 0].T, jnp.zeros((), g.dtype), ((0, 0, 0), *spread, (0, 0, 0)))
    # The barrier keeps XLA from folding the turn into the convolution, in a form that it has no fast program for.
    return turned_conv(g, lax.optimization_barrier(turned(kernel, groups)), geometry, size)


def turned(kernel: Array, groups: int = 1) -> Array:
    """Return a kernel (kh, kw, C / groups, K) as its gradient needs it: turned by half a circle, (kh, kw, K / groups, C)."""
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
