"""The program of gradient class activation maps: one forward pass, and the backward pass of the part above a layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.attribution._cam.formulas import FORMULAS, Convention, make_map
from jaxviz.attribution._cam.layers import Size, resized
from jaxviz.attribution._methods.gradient import pull_back
from jaxviz.attribution._target import Target
from jaxviz.models import intervene
from jaxviz.models._network import Network
from jaxviz.models._taps import nodes


def layer_gradients(
    network: Network, target: Target, images: Array, index: Array | None, layers: tuple[str, ...]
) -> tuple[Array, dict[str, Array], dict[str, Array], Array | None]:
    """Return scores (K, n), and for each layer its values (n, h, w, C) and gradients (K, n, h, w, C); and the classes (n, K).

    For use inside traced code. One forward pass, and for each of K targets the backward pass above the lowest layer only.
    """
    shapes = {node.name: node.shape for node in nodes(network, (images.shape[1], images.shape[2]))}
    zeros = {layer: jnp.zeros((len(images), *shapes[layer]), images.dtype) for layer in layers}

    def scored(deltas: dict[str, Array]) -> tuple[Array, tuple[dict[str, Array], Array | None]]:
        changes = {layer: partial(jnp.add, delta) for layer, delta in deltas.items()}
        acts, values = intervene(network, images, target.layers(), changes)
        chosen = target.choose(acts, index)
        return target.scores(acts, images, chosen), (values, chosen)

    scores, pull, (values, chosen) = jax.vjp(scored, zeros, has_aux=True)
    return scores, values, pull_back(pull, scores), chosen


class CamMaps(NamedTuple):
    """The maps of one method.

    Attributes:
        maps: (n, K, H, W).
        negative: bool (n, K), whether the ReLU has cut all of a map off.
    """

    maps: Array
    negative: Array


class CamOutput(NamedTuple):
    """What `GradientMaps` returns.

    Attributes:
        cams: the maps of each method.
        classes: int32 (n, K); None for targets without classes.
        scores: (n, K).
    """

    cams: dict[str, CamMaps]
    classes: Array | None
    scores: Array


@pytree
@dataclasses.dataclass(frozen=True)
class GradientMaps:
    """Program: class activation maps of one or several methods, from one pair of values and gradients."""

    network: Network
    target: Target
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    methods: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    relu: bool | None = dataclasses.field(default=None, metadata=dict(static=True))
    resize: bool = dataclasses.field(default=True, metadata=dict(static=True))
    convention: Convention = dataclasses.field(default=None, metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> CamOutput:
        images = items["images"]
        scores, values, gradients, chosen = layer_gradients(self.network, self.target, images, items["index"], self.layers)
        size = (images.shape[1], images.shape[2])
        cams: dict[str, CamMaps] = {}
        for method in self.methods:
            relu = FORMULAS[method].relu if self.relu is None else self.relu
            each = [make_map(method, self.convention, values[layer], gradients[layer]) for layer in self.layers]
            maps, negative = merged(each, relu=relu, size=size if self.resize else None)
            cams[method] = CamMaps(jnp.moveaxis(maps, 0, 1), negative.T)
        return CamOutput(cams, chosen, scores.T)


def merged(
    maps: list[Array], *, relu: bool, size: Size | None, enlarge: Callable[[Array, Size], Array] = resized
) -> tuple[Array, Array]:
    """Return one map (K, n, H, W) from the maps of several layers (K, n, h, w), and whether a ReLU cut all of it off (K, n).

    A single map keeps its values. Several maps are normalized, resized and averaged. Each is normalized to [0, 1] by its
    smallest and largest value, or, without a ReLU, by its largest absolute value.

    Args:
        maps: signed, one for each layer.
        relu: whether to set negative values to zero.
        size: (H, W) of the result; None keeps the size of the layers, which must then agree.
        enlarge: the interpolation; bilinear by default.
    """
    alone = len(maps) == 1
    negative = jnp.ones(maps[0].shape[:-2], bool)
    parts: list[Array] = []
    for signed in maps:
        negative &= (signed <= 0).all((-2, -1)) & (signed < 0).any((-2, -1))
        part = jax.nn.relu(signed) if relu else signed
        part = part if alone else _scaled(part, relu)
        parts.append(part if size is None else enlarge(part, size))
    return parts[0] if alone else jnp.stack(parts).mean(0), negative & relu


def _scaled(maps: Array, relu: bool) -> Array:
    if relu:
        low, high = (fn(maps, axis=(-2, -1), keepdims=True) for fn in (jnp.min, jnp.max))
        return (maps - low) / jnp.where(high > low, high - low, 1)
    size = jnp.abs(maps).max((-2, -1), keepdims=True)
    return maps / jnp.where(size > 0, size, 1)
