"""DeepLIFT's Rescale rule: tables of operations whose gradient is the multiplier of a change from a baseline.

The network runs twice, on the baseline with `Record.ops()` and on the image with `Rescale.ops()`; the gradient of the second
run is the multiplier. Only nonlinear operations have a rule. It applies per call, so that a module may be used several times.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import NO_PADDING, MaxPoolOptions, Pair, Pairs
from jaxviz.ops._pooling import max_pool
from jaxviz.ops._table import EXACT, Ops

TINY = 1e-10  # an input that changes by less counts as unchanged: its multiplier is the gradient, which is the limit

Inputs: TypeAlias = tuple[Array, Array]  # of the image and of the baseline


class _Pool(NamedTuple):
    """Max pooling with fixed options; hashable, so that it can be static."""

    window: Pair
    stride: Pair
    padding: Pairs = NO_PADDING

    def __call__(self, x: Array) -> Array:
        return max_pool(x, window=self.window, stride=self.stride, padding=self.padding)


@jax.custom_vjp
def rescaled_relu(x: Array, base: Array) -> Array:
    """Return relu(x) with the gradient (relu(x) - relu(base)) / (x - base), which lies in [0, 1] (Shrikumar et al., 2017)."""
    return EXACT.relu(x)


def _relu_forward(x: Array, base: Array) -> tuple[Array, Inputs]:
    return EXACT.relu(x), (x, base)


def _relu_backward(inputs: Inputs, g: Array) -> tuple[Array, None]:
    x, base = inputs
    change = x - base
    unchanged = jnp.abs(change) < TINY
    ratio = (EXACT.relu(x) - EXACT.relu(base)) / jnp.where(unchanged, 1, change)
    return g * jnp.where(unchanged, x > 0, ratio), None


rescaled_relu.defvjp(_relu_forward, _relu_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _rescaled_max_pool(pool: _Pool, x: Array, base: Array) -> Array:
    return pool(x)


def _max_pool_forward(pool: _Pool, x: Array, base: Array) -> tuple[Array, Inputs]:
    return pool(x), (x, base)


def _max_pool_backward(pool: _Pool, inputs: Inputs, g: Array) -> tuple[Array, None]:
    x, base = inputs[0], jnp.broadcast_to(inputs[1], inputs[0].shape)
    (top, pull), (base_top, base_pull) = jax.vjp(pool, x), jax.vjp(pool, base)
    between = jnp.maximum(top, base_top)
    contributions = pull(g * (between - base_top))[0] + base_pull(g * (top - between))[0]
    change = x - base
    unchanged = jnp.abs(change) < TINY
    return jnp.where(unchanged, pull(g)[0], contributions / jnp.where(unchanged, 1, change)), None


_rescaled_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def rescaled_max_pool(x: Array, base: Array, **options: Unpack[MaxPoolOptions]) -> Array:
    """Max pooling whose gradient attributes the change of every window's maximum to the elements that cause it.

    A rise of the maximum belongs to the image's largest element, a fall to the baseline's (the authors' cross-maximum); among
    equal elements to the first. These elements have changed by at least as much, so that a window's multipliers lie in [0, 1].

    Args:
        x: (n, H, W, C).
        base: the input of the baseline, (n, H, W, C) or (1, H, W, C).
        **options: see `max_pool`.
    """
    return _rescaled_max_pool(_Pool(**options), x, base)


class Record:
    """The exact table of one traced run; it records the input of every nonlinear operation."""

    def __init__(self) -> None:
        self.inputs: list[Array] = []

    def ops(self) -> Ops:
        """Return the table."""
        return Ops(relu=self._relu, max_pool=self._max_pool)

    def _relu(self, x: Array) -> Array:
        self.inputs.append(x)
        return EXACT.relu(x)

    def _max_pool(self, x: Array, **options: Unpack[MaxPoolOptions]) -> Array:
        self.inputs.append(x)
        return EXACT.max_pool(x, **options)


class Rescale:
    """The table of one traced run that compares nonlinear operations' inputs with the recorded ones, in the order of calls."""

    def __init__(self, record: Record) -> None:
        self._inputs = iter(record.inputs)

    def ops(self) -> Ops:
        """Return the table."""
        return Ops(relu=self._relu, max_pool=self._max_pool)

    def _relu(self, x: Array) -> Array:
        return rescaled_relu(x, next(self._inputs))

    def _max_pool(self, x: Array, **options: Unpack[MaxPoolOptions]) -> Array:
        return rescaled_max_pool(x, next(self._inputs), **options)
