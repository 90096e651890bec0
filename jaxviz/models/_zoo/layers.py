"""The layers of torchvision's networks as flax.nnx modules, and how their parameters are named and laid out there."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz._types import Array
from jaxviz.ops import Ops, conv
from jaxviz.ops._conv.winograd_f4 import plain_kernel

Pair = tuple[int, int]
Pairs = tuple[Pair, Pair]

# The name in a state_dict of each parameter of the modules below and of their namesakes in flax.nnx.
LEAF = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def to_torch_layout(leaf: str, array: np.ndarray) -> np.ndarray:
    """Return a parameter in torch's layout: HWIO to OIHW, (in, out) to (out, in), all else unchanged."""
    if leaf != "kernel":
        return array
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T)


def from_torch_layout(leaf: str, array: np.ndarray) -> np.ndarray:
    """Return a parameter of torch's in our layout: OIHW to HWIO, (out, in) to (in, out), all else unchanged."""
    if leaf != "kernel":
        return array
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def _init(std: float, shape: tuple[int, ...], rngs: nnx.Rngs | None) -> Array:
    """Draw a normal kernel; zeros without `rngs`, since drawing takes long, for nothing where a file brings the weights."""
    if rngs is None:
        return jnp.zeros(shape)
    # In a row, then reshaped: XLA's CPU compiler takes many seconds over random numbers of four axes, and none over one.
    return std * jax.random.normal(rngs.params(), (math.prod(shape),), jnp.float32).reshape(shape)


class Conv(nnx.Module):
    """A convolution; `kernel` is (kh, kw, in / groups, out)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Pair,
        *,
        stride: Pair = (1, 1),
        padding: Pairs = ((0, 0), (0, 0)),
        dilation: Pair = (1, 1),
        groups: int = 1,
        use_bias: bool = False,
        rngs: nnx.Rngs | None = None,
    ):
        std = math.sqrt(2 / (math.prod(window) * out_channels))  # Kaiming, by what goes out, as torchvision's
        self.kernel = nnx.Param(_init(std, (*window, in_channels // groups, out_channels), rngs))
        self.bias = nnx.Param(jnp.zeros((out_channels,))) if use_bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def __call__(self, x: Array, ops: Ops) -> Array:
        kernel: Any = self.kernel.get_value()
        return ops.conv(
            x,
            kernel if ops.conv is conv or ops.takes_prepared else plain_kernel(kernel),  # rules need the plain one
            None if self.bias is None else self.bias[...],
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class BatchNorm(nnx.Module):
    """Normalisation with running statistics; there is no training mode."""

    def __init__(self, channels: int, *, epsilon: float = 1e-5):
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))
        self.epsilon = epsilon

    def __call__(self, x: Array, ops: Ops) -> Array:
        return ops.batch_norm(x, self.scale[...], self.bias[...], self.mean[...], self.var[...], epsilon=self.epsilon)


class Linear(nnx.Module):
    """A fully connected layer; `kernel` is (in, out)."""

    def __init__(self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs | None = None):
        self.kernel = nnx.Param(_init(0.01, (in_features, out_features), rngs))
        self.bias = nnx.Param(jnp.zeros((out_features,))) if use_bias else None

    def __call__(self, x: Array, ops: Ops) -> Array:
        return ops.linear(x, self.kernel[...], None if self.bias is None else self.bias[...])


class ReLU(nnx.Module):
    """ReLU as a module."""

    def __call__(self, x: Array, ops: Ops) -> Array:
        return ops.relu(x)


class MaxPool(nnx.Module):
    """Max pooling."""

    def __init__(self, window: Pair, stride: Pair, padding: Pairs = ((0, 0), (0, 0))):
        self.window, self.stride, self.padding = window, stride, padding

    def __call__(self, x: Array, ops: Ops) -> Array:
        return ops.max_pool(x, window=self.window, stride=self.stride, padding=self.padding)


class AvgPool(nnx.Module):
    """Adaptive average pooling to a fixed size."""

    def __init__(self, size: Pair):
        self.size = size

    def __call__(self, x: Array, ops: Ops) -> Array:
        return ops.avg_pool(x, size=self.size)


class Identity(nnx.Module):
    """Identity, in place of a removed layer."""

    def __call__(self, x: Array, ops: Ops) -> Array:
        return x


class Dropout(Identity):
    """Dropout of a network that is not being trained: nothing."""


def both(size: int) -> Pair:
    """Return `(size, size)`."""
    return (size, size)


def around(padding: int) -> Pairs:
    """Return the same padding on all four sides."""
    return ((padding, padding), (padding, padding))
