"""The table of operations through which every network of this library computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
from jax import lax

from jaxviz._types import Array
from jaxviz.ops._conv import conv
from jaxviz.ops._pool import avg_pool, max_pool


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


EXACT = Ops()
