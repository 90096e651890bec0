"""The layer that a class activation map looks at, and what the network computes above it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz._types import Array
from jaxviz.attribution._linearity.dependence import (
    Dependence,
    abstract_target,
    dependence,
    dependence_on_first,
    target_key,
)
from jaxviz.attribution._target import Target
from jaxviz.models import Model, intervene
from jaxviz.models._layer_table import layer_table
from jaxviz.models._network import Avals, Network, Structure
from jaxviz.models._taps import Node, nodes, resolve

AsLayers: TypeAlias = str | Sequence[str] | None
Size: TypeAlias = tuple[int, int]


def default_layer(model: Model, size: Size) -> str:
    """Return the last layer whose values have positions: what class activation maps look at unless told otherwise.

    Such as `layer4.1.relu_1`, the output of ResNet-18's last block, or `features.30` of VGG-16. A final average pooling does
    not count: torchvision's VGGs pool to 7 x 7 whatever the size of the image.

    Args:
        model: the network.
        size: (H, W) of the images, which decides where a layer has more than one position.

    Raises:
        UnsupportedError: no layer has positions.

    >>> default_layer(jaxviz.models.untrained("resnet18"), (224, 224))
    'layer4.1.relu_1'
    """
    found = _last_with_positions(model.network.structure, size)
    if found is None:
        raise UnsupportedError(
            f"{model.name or 'This network'} has no layer with more than one position for images of {size[0]} x {size[1]}, so "
            "there is no class activation map. Use larger images, a network whose modules call `tap`, or a gradient method."
        )
    return found


def map_layers(model: Model, size: Size, layer: AsLayers) -> tuple[str, ...]:
    """Return the nodes that a user's `layer` means, the default for None, checked to be maps.

    Raises:
        LayerError: the network has no such layer.
        ArgumentError: a layer without positions, or no layer.
        UnsupportedError: None, where no layer has positions.
    """
    if layer is None:
        return (default_layer(model, size),)
    given = (layer,) if isinstance(layer, str) else tuple(layer)
    known = {node.name: node for node in nodes(model.network, size)}
    found = tuple(dict.fromkeys(_as_map(model, size, name, known) for name in given))
    if not found:
        raise ArgumentError("Expected a layer, or several; got an empty list.")
    return found


def map_layer(model: Model, size: Size, layer: str | None) -> str:
    """Return the node that a user's `layer` means, of methods that look at a single one; raises as `map_layers`."""
    if layer is not None and not isinstance(layer, str):
        raise ArgumentError(f"Expected the name of one layer; got {layer!r}. Only gradient methods average several layers.")
    return map_layers(model, size, layer)[0]


def _as_map(model: Model, size: Size, name: str, known: dict[str, Node]) -> str:
    if not isinstance(name, str):
        raise ArgumentError(f"Expected the name of a layer, such as {default_layer(model, size)!r}; got {name!r}.")
    node = known[resolve(name, list(known))]
    if len(node.shape) != 3 or node.shape[0] * node.shape[1] == 1:
        raise ArgumentError(
            f"A class activation map needs a layer with positions, (h, w, channels) with h x w above 1; {name!r} has the shape "
            f"{node.shape} for images of {size[0]} x {size[1]}. The last that has is {default_layer(model, size)!r}."
        )
    return node.name


class Tail(NamedTuple):
    """What lies between some layers and the scores of a target."""

    reached: tuple[bool, ...]  # for each layer, whether a score depends on it
    affine: bool  # whether the scores are sums of products of the layers' values with constants, plus a constant


def tail_above(network: Network, target: Target, layers: Sequence[str], size: Size) -> Tail:
    """Say how scores depend on the values of some layers, from the operations that are computed; no name is looked at.

    Traced once for each network, target and size of images; nothing is computed.
    """
    return _tail(network.structure, *target_key(target), tuple(layers), size)


def check_reached(model: Model, target: Target, layers: Sequence[str], size: Size) -> Tail:
    """Return `tail_above`, or raise an ArgumentError where a target does not depend on a layer."""
    tail = tail_above(model.network, target, layers, size)
    for layer, reached in zip(layers, tail.reached, strict=True):
        if not reached:
            raise ArgumentError(
                f"The target, made of {', '.join(target.layers()) or 'the image'}, does not depend on the layer {layer!r}: it "
                "lies below it or beside it. Choose a layer that is computed before the target: "
                f"{', '.join(_before(model.network, target, size)[-3:]) or 'there is none'}."
            )
    return tail


def _before(network: Network, target: Target, size: Size) -> list[str]:
    """Return the layers with positions that come before the target's."""
    names = [node.name for node in nodes(network, size)]
    ends = [names.index(resolve(name, names)) for name in target.layers()]
    maps = (node for node in nodes(network, size)[: max(ends, default=0)] if len(node.shape) == 3)
    return [node.name for node in maps if node.shape[0] * node.shape[1] > 1]


def pools_evenly(model: Model, target: Target, layer: str, size: Size) -> bool:
    """Say of an affine tail whether all positions of the layer's map count the same, as under global pooling.

    Looked at in the weights: the derivative of a random sum of all outputs, at one image, is constant over the positions.
    """
    return bool(_evenness(model.network, target.layers(), layer, size) < 1e-4)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _evenness(network: Network, names: tuple[str, ...], layer: str, size: Size) -> Array:
    images = jnp.zeros((1, *size, network.in_channels))
    shape = next(node.shape for node in nodes(network, size) if node.name == layer)

    def total(value: Array) -> Array:
        acts, _ = intervene(network, images, names, {layer: lambda _: value})
        keys = zip(jax.random.split(jax.random.key(0), len(names)), names, strict=True)
        return sum((jnp.vdot(jax.random.normal(key, acts[name].shape), acts[name]) for key, name in keys), jnp.zeros(()))

    with jax.default_matmul_precision("highest"):
        slope = jax.grad(total)(jnp.zeros((1, *shape)))
    return jnp.ptp(slope, axis=(1, 2)).max() / jnp.maximum(jnp.abs(slope).max(), 1e-30)


@functools.lru_cache(maxsize=256)
def _last_with_positions(structure: Structure, size: Size) -> str | None:
    network = structure.abstract()
    maps = [
        layer.name
        for layer in layer_table(network, size)
        if len(layer.shape) == 3 and layer.shape[0] * layer.shape[1] > 1 and layer.kind not in ("avg_pool", "dropout")
    ]
    # Where the last block has a single position, the last map may be one inside it, with the block's input around it.
    whole = (name for name in reversed(maps) if _carries_all(network, name, size))
    return next(whole, maps[-1] if maps else None)


def _carries_all(network: Network, layer: str, size: Size) -> bool:
    """Say whether all that the network makes of an image goes through a layer, with nothing around it."""

    def logits(images: Array, value: Array, network: Network) -> Array:
        return intervene(network, images, ("output",), {layer: lambda _: value})[0]["output"]

    shape = next(node.shape for node in nodes(network, size) if node.name == layer)
    image, value = (jax.ShapeDtypeStruct((1, *rest), jnp.float32) for rest in ((*size, network.in_channels), shape))
    return max(dependence_on_first(logits, image, value, network)) == Dependence.NONE


@functools.lru_cache(maxsize=256)
def _tail(structure: Structure, of_target: Any, shapes: Avals, layers: tuple[str, ...], size: Size) -> Tail:
    network = structure.abstract()
    target, index = abstract_target(of_target, shapes)
    known = {node.name: node.shape for node in nodes(network, size)}

    def scores(deltas: list[Array], network: Network, target: Target, images: Array, index: Array | None) -> Array:
        changes = {name: functools.partial(jnp.add, delta) for name, delta in zip(layers, deltas, strict=True)}
        acts, _ = intervene(network, images, target.layers(), changes)
        return target.scores(acts, images, index)

    deltas = [jax.ShapeDtypeStruct((1, *known[name]), jnp.float32) for name in layers]
    image = jax.ShapeDtypeStruct((1, *size, network.in_channels), jnp.float32)
    closed = jax.make_jaxpr(scores)(deltas, network, target, image, index)
    found = []
    for at in range(len(layers)):
        given = [Dependence.AFFINE if i == at else Dependence.NONE for i in range(len(closed.jaxpr.invars))]
        found.append(max(dependence(closed.jaxpr, given)))
    return Tail(tuple(kind > Dependence.NONE for kind in found), all(kind < Dependence.CURVED for kind in found))


def resized(maps: Array, size: Size) -> Array:
    """Return maps (..., h, w) at `size` (H, W), bilinear, as `torch.nn.functional.interpolate` without aligned corners."""
    return maps if maps.shape[-2:] == size else jax.image.resize(maps, (*maps.shape[:-2], *size), "linear")
