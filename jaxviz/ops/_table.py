"""The table of operations through which every network of this library computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv.direct import direct_conv
from jaxviz.ops._conv.geometry import Pair, Pairs
from jaxviz.ops._conv.winograd_f2 import TiledKernel, is_straight, straight_conv, tiled_conv
from jaxviz.ops._conv.winograd_f4 import PreparedKernel, prepared_conv
from jaxviz.ops._pooling import avg_pool, max_pool


def conv(
    x: Array,
    kernel: Array | PreparedKernel | TiledKernel,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Pairs = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Array:
    """Cross-correlate images with a kernel, as `torch.nn.functional.conv2d` does.

    Reverse mode works to any order; forward mode (`jax.jvp`, `jax.jacfwd`) does not, because the gradient is a
    `jax.custom_vjp`. A kernel that was prepared has no gradient of its own.

    Args:
        x: float (N, H, W, C).
        kernel: float (kh, kw, C / groups, K), or one prepared by `Model.fast` or for many steps.
        bias: float (K,) or None.
        stride, dilation: one int for each of height and width.
        padding: `((top, bottom), (left, right))` zeros.
        groups: the number of groups of channels that see only themselves.

    Returns:
        float (N, H', W', K).
    """
    geometry = (stride, padding, dilation, groups)
    y: Any
    if isinstance(kernel, PreparedKernel):
        y = prepared_conv(x, kernel, geometry)
    elif isinstance(kernel, TiledKernel):
        straight = is_straight(x, kernel.plain, geometry)
        y = tiled_conv(x, kernel, padding) if straight else direct_conv(x, kernel.plain, geometry)
    elif is_straight(x, kernel, geometry):
        y = straight_conv(x, kernel, padding)
    else:
        y = direct_conv(x, kernel, geometry)
    return y if bias is None else y + bias[None, None, None, :]


def linear(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Return `x @ kernel + bias` for x of shape (N, C) and a kernel of shape (C, K)."""
    y = x @ kernel
    return y if bias is None else y + bias[None, :]


def batch_norm(x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, epsilon: float = 1e-5) -> Array:
    """Normalise with running statistics: `(x - mean) / sqrt(var + epsilon) * scale + bias` per channel.

    The four vectors of shape (C,) are folded into one factor and one offset first, so that the map of shape
    (N, H, W, C) is read and written once.
    """
    factor = scale * lax.rsqrt(var + epsilon)
    offset = bias - mean * factor
    return x * factor[None, None, None, :] + offset[None, None, None, :]


def relu(x: Array) -> Array:
    """Return `max(x, 0)`; the derivative at 0 is 0, as in torch."""
    return jax.nn.relu(x)


def add(x: Array, y: Array) -> Array:
    """Return `x + y`: the sum that closes a residual block."""
    return x + y


@dataclasses.dataclass(frozen=True)
class Ops:
    """One function for each operation; `dataclasses.replace(EXACT, relu=rule)` makes a network that follows a rule.

    Entries should be module-level functions: an `Ops` is part of the key of compiled programs, so an entry made anew
    on every call (a lambda, a partial) compiles anew on every call.
    """

    conv: Callable[..., Array] = conv
    linear: Callable[..., Array] = linear
    batch_norm: Callable[..., Array] = batch_norm
    relu: Callable[[Array], Array] = relu
    max_pool: Callable[..., Array] = max_pool
    avg_pool: Callable[..., Array] = avg_pool
    add: Callable[[Array, Array], Array] = add
    prepared: bool = False  # whether a `conv` put in the place of ours takes kernels prepared by `Model.fast`, too


EXACT = Ops()
