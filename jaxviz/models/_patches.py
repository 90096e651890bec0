"""Networks computed anew only where an image has changed: see `jaxviz.ops._patches.PatchOps`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._types import Array
from jaxviz.models._network import Network, Structure
from jaxviz.models._taps import calls_through_ops, capture, nodes, normalize
from jaxviz.ops._patches import Axis, Patch, PatchOps, UnknownMap, is_large, whole_maps

IMAGES = ""  # the name of the normalized images among a network's maps


def changed_activations(
    network: Network, patches: Array, at: Array, maps: dict[str, Array], images: Array, names: Sequence[str]
) -> dict[str, Array]:
    """Return the values of some layers, of s versions of n images in each of which a patch was replaced; in traced code.

    Args:
        network: a network for which `maps_around_patches` has an answer.
        patches: float32 (s * n, h, w, C) in [0, 1], what stands in the images.
        at: int32 (s, n, 2), their first row and column.
        maps: the values (n, ...) of the layers that `maps_around_patches` names, of the images as they are.
        images: float32 (n, H, W, C) in [0, 1].
        names: of nodes or modules; the keys of the result.

    Returns:
        For each name float32 (s * n, ...), the s versions in front.
    """
    maps = {**maps, IMAGES: normalize(network, images)}
    size = (images.shape[1], images.shape[2])
    return _captured(network, normalize(network, patches), at, size, maps.__getitem__, names)


def maps_around_patches(
    network: Network, patch: tuple[int, int], size: tuple[int, int], names: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the layers whose values as they were `changed_activations` needs; None where it would gain or know nothing.

    Args:
        network: any network or function.
        patch, size: (h, w) of the patches, (H, W) of the images.
        names: what is asked for.
    """
    if not calls_through_ops(network) or is_large((Axis(size[0], patch[0]), Axis(size[1], patch[1]))):
        return None
    return _around(network.structure, patch, tuple(names), size)


@functools.lru_cache(maxsize=256)
def _around(
    structure: Structure, patch: tuple[int, int], names: tuple[str, ...], size: tuple[int, int]
) -> tuple[str, ...] | None:
    needed: dict[str, None] = {}

    def trace(network: Network) -> dict[str, Array]:
        channels = network.in_channels
        shapes = {node.name: node.shape for node in nodes(network, size)} | {IMAGES: (*size, channels)}

        def base(name: str) -> Array:
            needed[name] = None
            return jnp.zeros((1, *shapes[name]))

        nowhere = jnp.zeros((1, 1, 2), jnp.int32)
        return _captured(network, jnp.zeros((1, *patch, channels)), nowhere, size, base, names)

    try:
        jax.eval_shape(trace, structure.abstract())
    except (UnknownMap, TypeError, AttributeError):  # the network computes with maps other than through `ops`
        return None
    return tuple(name for name in needed if name != IMAGES)


def _captured(
    network: Network, patches: Array, at: Array, size: tuple[int, int], maps: Callable[[str], Array], names: Sequence[str]
) -> dict[str, Array]:
    """Return the values of layers, given normalized patches and what gives the maps as they were."""
    axes = (Axis(size[0], patches.shape[1]), Axis(size[1], patches.shape[2]))
    seen: Any = Patch(patches, at, axes, IMAGES)
    found = capture(network, seen, names, ops=PatchOps(maps).ops(), tap=_named)
    return {name: whole_maps(value, maps) for name, value in found.items()}


def _named(name: str, value: Any) -> Any:
    return dataclasses.replace(value, name=name) if isinstance(value, Patch) else value
