"""Objectives along vectors of activation space: probes, factors, sparse-autoencoder directions, patches."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import leaf as number
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model, layer_shape
from jaxviz.objectives._algebra import Activations, Objective, leaf, pytree
from jaxviz.objectives._basic import LayerObjective, at_position, check_position, move_position, norm, numbered


@pytree
class Direction(LayerObjective):
    """A vector at all positions; see `direction`."""

    vector: ArrayLike = leaf(1)
    cossim_power: ArrayLike = leaf()

    def __call__(self, acts: Activations, images: Array) -> Array:
        act = acts[self.layer]
        act = act.reshape(act.shape[0], -1, act.shape[-1])
        return aligned(act, jnp.asarray(self.vector), self.cossim_power).mean(1)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        _check_last(self.vector, layer_shape(model.network, self.layer, size)[-1:], self.layer)
        return self

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} direction", self.vector, 1)


@pytree
class NeuronDirection(Direction):
    """A vector at one position; see `direction_neuron`."""

    y: ArrayLike | None = leaf(default=None)
    x: ArrayLike | None = leaf(default=None)

    def __call__(self, acts: Activations, images: Array) -> Array:
        act = at_position(acts[self.layer], self.y, self.x)
        return aligned(act, jnp.asarray(self.vector), self.cossim_power)

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model.network, self.layer, size)
        _check_last(self.vector, shape[-1:], self.layer)
        y, x = (check_position(p, axis, shape, self.layer, size) for axis, p in enumerate((self.y, self.x)))
        return dataclasses.replace(self, y=y, x=x)

    def at_size(self, model: Model, size: tuple[int, int], other: tuple[int, int]) -> Objective:
        shapes = [layer_shape(model.network, self.layer, s) for s in (size, other)]
        y, x = (move_position(p, axis, *shapes) for axis, p in enumerate((self.y, self.x)))
        return dataclasses.replace(self, y=y, x=x)

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} direction neuron", self.vector, 1)


@pytree
class TensorDirection(LayerObjective):
    """A patch of activations around the center; see `tensor_direction`."""

    tensor: ArrayLike = leaf(3)
    cossim_power: ArrayLike = leaf()

    def __call__(self, acts: Activations, images: Array) -> Array:
        act, tensor = acts[self.layer], jnp.asarray(self.tensor)
        h, w = (min(a, b) for a, b in zip(act.shape[1:3], tensor.shape[:2], strict=True))
        return aligned(_center(act, h, w), _center(tensor, h, w), self.cossim_power).mean((1, 2))

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        shape = layer_shape(model.network, self.layer, size)
        if len(shape) != 3:
            raise ArgumentError(f"Layer {self.layer!r} has no positions (shape {shape}); use direction().")
        _check_last(self.tensor, shape[-1:], self.layer)
        return self

    def labels(self, model: Model) -> tuple[str, ...]:
        return numbered(f"{self.layer} tensor direction", self.tensor, 3)


def direction(layer: str, vectors: ArrayLike, *, cossim_power: float = 0.0) -> Objective:
    """Maximize the activation along vectors: the mean over positions of `dot * max(0.1, cosine) ** cossim_power`.

    The formula is Lucid's. A power above 0 asks for the direction and not only for large activations; 1 to 4 are usual.
    Weighted channels are a direction with power 0: `direction("layer3", [0.5, -1.0, 0.0, ...])` is 0.5 times channel 0 minus
    channel 1, in one term.

    Args:
        layer: a node or module name.
        vectors: float32 (C,), or (K, C) for K units of work; C is the layer's number of channels.
        cossim_power: at least 0; traced.

    Raises:
        ArgumentError: another shape, or numbers that are not finite.

    >>> probes = model.activations(photos, ["layer4"])["layer4"].mean((1, 2))
    >>> jv.visualize(model, jv.direction("layer4", probes, cossim_power=1.0), steps=1, size=32).labels
    ('layer4 direction:0', 'layer4 direction:1')
    """
    return Direction(layer, _vectors(vectors, 1), number(cossim_power, "cossim_power", low=0))


def direction_neuron(
    layer: str, vectors: ArrayLike, *, y: int | None = None, x: int | None = None, cossim_power: float = 0.0
) -> Objective:
    """Maximize the activation along vectors at one position: row `y` and column `x`, by default the center.

    Args and errors as for `direction`; `y` and `x` are traced.

    >>> probe = model.activations(photos[:1], ["layer4"])["layer4"][0].mean((0, 1))
    >>> jv.visualize(model, jv.direction_neuron("layer4", probe, y=0, x=0), steps=1, size=32).labels
    ('layer4 direction neuron',)
    """
    position = (None if p is None else np.asarray(p, np.int32) for p in (y, x))
    return NeuronDirection(layer, _vectors(vectors, 1), number(cossim_power, "cossim_power", low=0), *position)


def tensor_direction(layer: str, tensors: ArrayLike, *, cossim_power: float = 0.0) -> Objective:
    """Maximize the match with a patch of activations: `direction`, with another vector at each position.

    Args:
        layer: a node or module name, one with positions.
        tensors: float32 (h, w, C), or (K, h, w, C). If the patch and the layer differ in size, both are cut about the center.
        cossim_power: at least 0; traced.

    Raises:
        ArgumentError: another shape, numbers that are not finite, or, when run, a layer without positions.

    >>> patches = model.activations(photos, ["layer3"])["layer3"]
    >>> jv.visualize(model, jv.tensor_direction("layer3", patches), steps=1, size=32).labels
    ('layer3 tensor direction:0', 'layer3 tensor direction:1')
    """
    return TensorDirection(layer, _vectors(tensors, 3), number(cossim_power, "cossim_power", low=0))


def aligned(act: Array, vector: Array, power: ArrayLike) -> Array:
    """Return `dot * max(0.1, cosine) ** power` over the last axis, in full float32 on every device."""
    dot = (act * vector).sum(-1)
    cosine = dot / ((1e-4 + norm(act)) * (1e-4 + norm(vector)))
    return dot * jnp.maximum(cosine, 0.1) ** power


def _center(value: Array, h: int, w: int) -> Array:
    """Cut (..., H, W, C) to (..., h, w, C) about the center."""
    top, left = (value.shape[-3] - h) // 2, (value.shape[-2] - w) // 2
    return value[..., top : top + h, left : left + w, :]


def _vectors(vectors: ArrayLike, rank: int) -> np.ndarray:
    array = np.asarray(vectors, np.float32)
    if array.ndim not in (rank, rank + 1) or not array.size or not np.isfinite(array).all():
        axes = "(C,) or (K, C)" if rank == 1 else "(h, w, C) or (K, h, w, C)"
        raise ArgumentError(f"Expected finite numbers of shape {axes}, got shape {array.shape}.")
    return array


def _check_last(vectors: ArrayLike, channels: tuple[int, ...], layer: str) -> None:
    if np.shape(vectors)[-1:] != channels:
        raise ArgumentError(f"Layer {layer!r} has {channels[0]} channels; got a direction of {np.shape(vectors)[-1]}.")
