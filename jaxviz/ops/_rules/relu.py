"""Rules for ReLU and max pooling: the same values, another gradient."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxviz._types import Array
from jaxviz.ops._conv.geometry import NO_PADDING, Pair, Pairs
from jaxviz.ops._pooling import max_pool
from jaxviz.ops._table import Ops


@jax.custom_vjp
def guided_relu(x: Array) -> Array:
    """ReLU whose gradient passes only where both the input and the gradient are positive.

    Guided backpropagation: Springenberg et al., "Striving for Simplicity: The All Convolutional Net", 2015.
    """
    return jax.nn.relu(x)


def _guided_forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x > 0


def _guided_backward(positive: Array, g: Array) -> tuple[Array]:
    return (jnp.where(positive, jax.nn.relu(g), 0),)


guided_relu.defvjp(_guided_forward, _guided_backward)


@jax.custom_vjp
def deconv_relu(x: Array) -> Array:
    """ReLU whose gradient passes where the gradient is positive, for any input.

    Deconvolutional network: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014.
    """
    return jax.nn.relu(x)


def _deconv_forward(x: Array) -> tuple[Array, None]:
    return jax.nn.relu(x), None


def _deconv_backward(_: None, g: Array) -> tuple[Array]:
    return (jax.nn.relu(g),)


deconv_relu.defvjp(_deconv_forward, _deconv_backward)


@jax.custom_vjp
def redirected_relu(x: Array) -> Array:
    """ReLU whose gradient, for images that would get none, passes where it would raise an inactive unit.

    For the gradient of a minimized loss, where a negative gradient raises the unit. It applies per image (first axis) and only
    if the image's whole gradient here is zero: other images keep exactly theirs. This is Lucid's `redirected_relu_grad`, which
    it uses for the first 16 steps: without it, a unit that is silent at the start stays gray.
    """
    return jax.nn.relu(x)


def _redirected_forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.relu(x), x > 0


def _redirected_backward(positive: Array, g: Array) -> tuple[Array]:
    alive = (jnp.where(positive, g, 0) != 0).any(axis=tuple(range(1, g.ndim)), keepdims=True)
    # Computed again, not from `alive`'s operand: XLA would write that to memory, which makes a whole step a tenth slower.
    return (jnp.where(positive, g, jnp.where(alive, 0, jnp.minimum(g, 0))),)


redirected_relu.defvjp(_redirected_forward, _redirected_backward)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _relaxed_max_pool(x: Array, window: Pair, stride: Pair, padding: Pairs) -> Array:
    return max_pool(x, window=window, stride=stride, padding=padding)


def _root_mean_square(x: Array, window: Pair, stride: Pair, padding: Pairs) -> Array:
    sums = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, *window, 1), (1, *stride, 1), ((0, 0), *padding, (0, 0)))
    mean = sums / (window[0] * window[1])
    return jnp.where(mean > 0, jnp.sqrt(jnp.where(mean > 0, mean, 1)), 0)


def _relaxed_forward(x: Array, window: Pair, stride: Pair, padding: Pairs) -> tuple[Array, Array]:
    return _relaxed_max_pool(x, window, stride, padding), x


def _relaxed_backward(window: Pair, stride: Pair, padding: Pairs, x: Array, g: Array) -> tuple[Array]:
    return jax.vjp(lambda x: _root_mean_square(x, window, stride, padding), x)[1](g)


_relaxed_max_pool.defvjp(_relaxed_forward, _relaxed_backward)


def relaxed_max_pool(x: Array, *, window: Pair, stride: Pair, padding: Pairs = NO_PADDING) -> Array:
    """Max pooling with the gradient of the window's root mean square.

    Every value of a window gets a share, larger ones more: this removes the lattice that the gradient of max pooling leaves in
    pictures. Lucid's `l2_smoothed_maxpool_grad`. The arguments are those of `max_pool`.
    """
    return _relaxed_max_pool(x, window, stride, padding)


GUIDED = Ops(relu=guided_relu)
DECONVNET = Ops(relu=deconv_relu)
REDIRECTED = Ops(relu=redirected_relu)
RELAXED = Ops(relu=redirected_relu, max_pool=relaxed_max_pool)
