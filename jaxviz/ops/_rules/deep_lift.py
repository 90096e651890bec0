"""DeepLIFT's Rescale rule: tables of operations whose gradient is the multiplier of a change from a baseline.

The network runs twice, on the baseline with `Record.ops()` and on the image with `Rescale.ops()`; the gradient of the second
run is the multiplier. Only what is not linear needs a rule, and every call of it has its own, however often a module is used.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._types import Array
from jaxviz.ops._pooling import max_pool
from jaxviz.ops._table import EXACT, Ops

TINY = 1e-10  # a change of an input below this is none: the gradient then is what the multiplier tends to


@jax.custom_vjp
def rescaled_relu(x: Array, base: Array) -> Array:
    """Return relu(x), whose gradient is (relu(x) - relu(base)) / (x - base), which lies in [0, 1] (Shrikumar et al., 2017)."""
    return EXACT.relu(x)


def _relu_forward(x: Array, base: Array) -> tuple[Array, tuple]:
    return EXACT.relu(x), (x, base)


def _relu_backward(residual: tuple, g: Array) -> tuple:
    x, base = residual
    change = x - base
    still = jnp.abs(change) < TINY
    ratio = (EXACT.relu(x) - EXACT.relu(base)) / jnp.where(still, 1, change)
    return g * jnp.where(still, x > 0, ratio), None


rescaled_relu.defvjp(_relu_forward, _relu_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rescaled_max_pool(options: tuple[tuple[str, Any], ...], x: Array, base: Array) -> Array:
    return max_pool(x, **dict(options))


def _max_pool_forward(options: tuple[tuple[str, Any], ...], x: Array, base: Array) -> tuple[Array, tuple]:
    return max_pool(x, **dict(options)), (x, base)


def _max_pool_backward(options: tuple[tuple[str, Any], ...], residual: tuple, g: Array) -> tuple:
    x, base = residual[0], jnp.broadcast_to(residual[1], residual[0].shape)
    pool = partial(max_pool, **dict(options))
    (top, pull), (base_top, base_pull) = jax.vjp(pool, x), jax.vjp(pool, base)
    between = jnp.maximum(top, base_top)
    contributions = pull(g * (between - base_top))[0] + base_pull(g * (top - between))[0]
    change = x - base
    still = jnp.abs(change) < TINY
    return jnp.where(still, pull(g)[0], contributions / jnp.where(still, 1, change)), None


_rescaled_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def rescaled_max_pool(x: Array, base: Array, **options: Any) -> Array:
    """Max pooling whose gradient gives every window's change to the places that it comes from.

    A rise of the window's maximum belongs to the image's largest element, a fall to the baseline's (the authors'
    cross-maximum); of equal ones to the first. These elements have changed by at least as much, so that a window's multipliers
    lie in [0, 1].

    Args:
        x: (n, H, W, C).
        base: of the baseline, (n, H, W, C) or (1, H, W, C).
        **options: as for `max_pool`.
    """
    return _rescaled_max_pool(tuple(options.items()), x, base)


class Record:
    """The exact table of one traced run that keeps what enters every operation that is not linear."""

    def __init__(self) -> None:
        self.inputs: list[Array] = []

    def ops(self) -> Ops:
        return Ops(relu=self._relu, max_pool=self._max_pool)

    def _relu(self, x: Array) -> Array:
        self.inputs.append(x)
        return EXACT.relu(x)

    def _max_pool(self, x: Array, **options: Any) -> Array:
        self.inputs.append(x)
        return EXACT.max_pool(x, **options)


class Rescale:
    """The table of one traced run that compares every operation's input with what `Record` kept, in the order of calls."""

    def __init__(self, record: Record) -> None:
        self._inputs = iter(record.inputs)

    def ops(self) -> Ops:
        return Ops(relu=self._relu, max_pool=self._max_pool)

    def _relu(self, x: Array) -> Array:
        return rescaled_relu(x, next(self._inputs))

    def _max_pool(self, x: Array, **options: Any) -> Array:
        return rescaled_max_pool(x, next(self._inputs), **options)
