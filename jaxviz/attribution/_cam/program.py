"""One forward pass and the backward pass of what lies above a layer: all that gradient class activation maps are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.attribution._cam.formulas import FORMULAS, Convention, make_map
from jaxviz.attribution._cam.layers import Size, resized
from jaxviz.attribution._methods.gradient import pull_back
from jaxviz.attribution._target import Target
from jaxviz.models import Model, altered_layers
from jaxviz.models._taps import nodes


def layer_gradients(
    model: Model, target: Target, images: Array, index: Array | None, layers: tuple[str, ...]
) -> tuple[Array, dict[str, Array], dict[str, Array], Array | None]:
    """Return scores (K, n), and for each layer its values (n, h, w, C) and gradients (K, n, h, w, C); and the classes (n, K).

    For use inside traced code. One forward pass, and for each of K targets the backward pass above the lowest layer only.
    """
    shapes = {node.name: node.shape for node in nodes(model, (images.shape[1], images.shape[2]))}
    zeros = {layer: jnp.zeros((len(images), *shapes[layer]), images.dtype) for layer in layers}

    def scored(deltas: dict[str, Array]) -> tuple[Array, tuple[dict[str, Array], Array | None]]:
        changes = {layer: partial(jnp.add, delta) for layer, delta in deltas.items()}
        acts, values = altered_layers(model, images, target.layers(), changes)
        chosen = target.choose(acts, index)
        return target.scores(acts, images, chosen), (values, chosen)

    scores, pull, (values, chosen) = jax.vjp(scored, zeros, has_aux=True)
    return scores, values, pull_back(pull, scores), chosen


@pytree
@dataclasses.dataclass(frozen=True)
class GradientMaps:
    """Class activation maps of one or several methods, from one pair of values and gradients: a program of the engine."""

    model: Model
    target: Target
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    methods: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    relu: bool | None = dataclasses.field(default=None, metadata=dict(static=True))
    resize: bool = dataclasses.field(default=True, metadata=dict(static=True))
    convention: Convention = dataclasses.field(default=None, metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        images = items["images"]
        scores, values, gradients, chosen = layer_gradients(self.model, self.target, images, items["index"], self.layers)
        size = (images.shape[1], images.shape[2])
        found = {}
        for method in self.methods:
            relu = FORMULAS[method].relu if self.relu is None else self.relu
            each = [make_map(method, self.convention, values[layer], gradients[layer]) for layer in self.layers]
            maps, negative = merged(each, relu=relu, size=size if self.resize else None)
            found[method] = {"maps": jnp.moveaxis(maps, 0, 1), "negative": negative.T}
        return {"found": found, "scores": scores.T, "index": chosen}


def merged(
    maps: list[Array], *, relu: bool, size: Size | None, enlarge: Callable[[Array, Size], Array] = resized
) -> tuple[Array, Array]:
    """Return one map (K, n, H, W) of those of several layers (K, n, h, w), and whether a ReLU cut all of it off (K, n).

    A single one keeps its values. Several are scaled first, each by itself, to [0, 1] from its least to its most, or, where no
    ReLU has cut them, by the largest absolute value; then resized and averaged.

    Args:
        maps: signed, one for each layer.
        relu: whether to set what is negative to zero.
        size: (H, W) of the result; None leaves the layers' own, which must then agree.
        enlarge: how; bilinear unless given.
    """
    alone = len(maps) == 1
    negative, parts = jnp.ones(maps[0].shape[:-2], bool), []
    for one in maps:
        negative &= (one <= 0).all((-2, -1)) & (one < 0).any((-2, -1))
        one = jax.nn.relu(one) if relu else one
        one = one if alone else _scaled(one, relu)
        parts.append(one if size is None else enlarge(one, size))
    return parts[0] if alone else jnp.stack(parts).mean(0), negative & relu


def _scaled(maps: Array, relu: bool) -> Array:
    if relu:
        low, high = (fn(maps, axis=(-2, -1), keepdims=True) for fn in (jnp.min, jnp.max))
        return (maps - low) / jnp.where(high > low, high - low, 1)
    size = jnp.abs(maps).max((-2, -1), keepdims=True)
    return maps / jnp.where(size > 0, size, 1)
