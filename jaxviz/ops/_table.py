"""The table of operations through which every network of this library computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import jax
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.direct import direct_conv
from jaxviz.ops._conv.geometry import NO_PADDING, Geometry, Pair, Pairs
from jaxviz.ops._conv.winograd_f2 import HoistedKernel, hoisted_conv, suits_winograd_f2, winograd_f2_conv
from jaxviz.ops._conv.winograd_f4 import PreparedKernel, prepared_conv
from jaxviz.ops._pooling import avg_pool, max_pool

Kernel: TypeAlias = Array | PreparedKernel | HoistedKernel


def conv(
    x: Array,
    kernel: Kernel,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pairs = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Cross-correlate images with a kernel, as `torch.nn.functional.conv2d` does.

    Reverse mode works to any order; forward mode (`jax.jvp`, `jax.jacfwd`) does not, because the gradient is a
    `jax.custom_vjp`. A prepared kernel has no gradient.

    Args:
        x: float (N, H, W, C).
        kernel: float (kh, kw, C / groups, K), or a kernel that `Model.fast` prepared or that was hoisted out of a loop.
        bias: float (K,) or None.
        stride, dilation: one int each for height and width.
        padding: zeros `((top, bottom), (left, right))`.
        groups: number of groups of channels that are convolved separately.

    Returns:
        float (N, H', W', K).

    >>> jaxviz.ops.conv(images, np.ones((3, 3, 3, 8), np.float32) / 27, stride=(2, 2), padding=((1, 1), (1, 1))).shape[-1]
    8
    """
    geometry = Geometry(stride, padding, dilation, groups)
    y: Any
    if isinstance(kernel, PreparedKernel):
        y = prepared_conv(x, kernel, geometry)
    elif isinstance(kernel, HoistedKernel):
        is_fast = suits_winograd_f2(x, kernel.plain, geometry)
        y = hoisted_conv(x, kernel, padding) if is_fast else direct_conv(x, kernel.plain, geometry)
    elif suits_winograd_f2(x, kernel, geometry):
        y = winograd_f2_conv(x, kernel, padding)
    else:
        y = direct_conv(x, kernel, geometry)
    return y if bias is None else y + bias[None, None, None, :]


def linear(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return `x @ kernel + bias` for x of shape (N, C) and a kernel of shape (C, K)."""
    y = x @ kernel
    return y if bias is None else y + bias[None, :]


def batch_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
    """Normalize with running statistics: `(x - mean) / sqrt(var + epsilon) * scale + bias` per channel.

    The four vectors of shape (C,) are first folded into one factor and one offset, so that the map of shape (N, H, W, C) is
    read and written once.
    """
    factor = scale * lax.rsqrt(var + epsilon)
    offset = bias - mean * factor
    return x * factor[None, None, None, :] + offset[None, None, None, :]


def relu(x: Array) -> Array:
    """Return `max(x, 0)`; the derivative at 0 is 0, as in torch."""
    return jax.nn.relu(x)


def add(x: Array, y: Array) -> Array:
    """Return `x + y`, the sum at the end of a residual block."""
    return x + y


class ConvOp(Protocol):
    """The signature of `conv`."""

    def __call__(
        self,
        x: Array,
        kernel: Any,
        bias: Array | None = None,
        /,
        *,
        stride: Pair = (1, 1),
        padding: Pairs = NO_PADDING,
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> Array: ...


class LinearOp(Protocol):
    """The signature of `linear`."""

    def __call__(self, x: Array, kernel: Array, bias: Array | None = None, /) -> Array: ...


class BatchNormOp(Protocol):
    """The signature of `batch_norm`."""

    def __call__(self, x: Array, scale: Array, bias: Array, mean: Array, var: Array, /, *, epsilon: float = 1e-5) -> Array: ...


class MaxPoolOp(Protocol):
    """The signature of `max_pool`."""

    def __call__(self, x: Array, /, *, window: Pair, stride: Pair, padding: Pairs = NO_PADDING) -> Array: ...


class AvgPoolOp(Protocol):
    """The signature of `avg_pool`."""

    def __call__(self, x: Array, /, *, size: Pair) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Ops:
    """One function per operation; `dataclasses.replace(EXACT, relu=rule)` makes a table that follows a rule.

    Entries should be module-level functions: an `Ops` is part of the key of compiled programs, so that an entry created in
    every call (a lambda, a partial) compiles again in every call.

    Attributes:
        takes_prepared: whether a `conv` other than this library's also takes kernels that `Model.fast` prepared.

    >>> import dataclasses
    >>> guided = dataclasses.replace(jaxviz.ops.EXACT, relu=jaxviz.ops.guided_relu)
    >>> guided == jaxviz.ops.GUIDED
    True
    """

    conv: ConvOp = conv
    linear: LinearOp = linear
    batch_norm: BatchNormOp = batch_norm
    relu: Callable[[Array], Array] = relu
    max_pool: MaxPoolOp = max_pool
    avg_pool: AvgPoolOp = avg_pool
    add: Callable[[Array, Array], Array] = add
    takes_prepared: bool = False


EXACT = Ops()
"""The operations with their own gradients."""
