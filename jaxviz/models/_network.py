"""Network: what compiled programs take, the weights and the structure without any names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz._pytree import pytree
from jaxviz._types import Array, PyTree

Avals: TypeAlias = tuple[tuple[tuple[int, ...], np.dtype[Any]], ...]  # shape and dtype of each leaf


@dataclasses.dataclass(frozen=True)
class PureFunction:
    """A pure function in place of a graph of modules: `fn(images)`, or `fn(params, images)` with `has_params`."""

    fn: Callable[..., Array]
    has_params: bool = False

    def __call__(self, params: PyTree, images: Array) -> Array:
        return self.fn(params, images) if self.has_params else self.fn(images)


@pytree
@dataclasses.dataclass(frozen=True)
class Network:
    """Weights, preprocessing and structure of a network; immutable, a pytree whose leaves are the arrays.

    Compiled programs take a `Network`, not a `Model`, so that names never compile a program again.

    Attributes:
        state: the weights, an `nnx.State` (or the parameters of a pure function).
        mean, std: float32 (C,), of images in [0, 1]; the network sees `(images - mean) / std`.
        graphdef: the structure, or a pure function.
        input_size: (H, W) that the weights were evaluated at.
    """

    state: Any
    mean: Array
    std: Array
    graphdef: nnx.GraphDef[Any] | PureFunction = dataclasses.field(metadata=dict(static=True))
    input_size: tuple[int, int] = dataclasses.field(default=(224, 224), metadata=dict(static=True))

    @property
    def in_channels(self) -> int:
        """The number of channels of an image."""
        return self.mean.shape[-1]

    @property
    def structure(self) -> Structure:
        """All but the values of the arrays; a hashable key."""
        leaves, treedef = jax.tree.flatten(self)
        return Structure(treedef, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))

    def abstract_image(self, size: tuple[int, int]) -> jax.ShapeDtypeStruct:
        """Return the shape of one image (1, H, W, C) as the network sees it; float64 where mean or std are."""
        return jax.ShapeDtypeStruct((1, *size, self.in_channels), jnp.result_type(jnp.float32, self.mean, self.std))


class Structure(NamedTuple):
    """What a network's operations depend on: its pytree's structure, and each leaf's shape and dtype."""

    treedef: Any
    leaves: Avals

    def abstract(self) -> Network:
        """Return the network with a `jax.ShapeDtypeStruct` in place of every array."""
        return jax.tree.unflatten(self.treedef, [jax.ShapeDtypeStruct(*leaf) for leaf in self.leaves])
