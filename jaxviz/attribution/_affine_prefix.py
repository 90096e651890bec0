"""The stem of a network: its affine start, such as a first convolution and normalization.

Methods with many steps compute it once. A straight path of images is a straight path of the stem's values, and gradients with
respect to those can be added up before they are pulled back to the image.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxviz._types import Array
from jaxviz.attribution._linearity.dependence import (
    Dependence,
    abstract_target,
    dependence_on_first,
    target_key,
)
from jaxviz.attribution._methods.gradient import gradients, pull_back
from jaxviz.attribution._sampling import judged
from jaxviz.attribution._target import Target
from jaxviz.models import activations, intervene
from jaxviz.models._network import Avals, Network, Structure
from jaxviz.models._taps import nodes, resolve
from jaxviz.ops import EXACT, Ops


def find_stem(network: Network, target: Target, size: tuple[int, ...]) -> str | None:
    """Return the last node that is affine in the image and through which alone the scores depend on it; None if there is none.

    Read from the operations that are computed, once for each network, target and size (H, W) of images; no name is looked at.
    """
    return _find_stem(network.structure, *target_key(target), (size[0], size[1]))


@functools.lru_cache(maxsize=256)
def _find_stem(structure: Structure, of_target: Any, shapes: Avals, size: tuple[int, int]) -> str | None:
    network = structure.abstract()
    image = network.abstract_image(size)
    target, index = abstract_target(of_target, shapes)
    shape_of = {node.name: node.shape for node in nodes(network, size)}
    order = list(shape_of)
    ends = {resolve(name, order) for name in target.layers()}

    def values(image: Array, network: Network) -> list[Array]:
        found = activations(network, image, order)
        return [found[name] for name in order]

    stem = None
    for name, kind in zip(order, dependence_on_first(values, image, network), strict=True):
        if kind != Dependence.AFFINE or name in ends:
            break
        stem = name
    if stem is None:
        return None

    def scores(image: Array, value: Array, network: Network, target: Target, index: Array | None) -> Array:
        acts, _ = intervene(network, image, target.layers(), {stem: lambda _: value})
        return target.scores(acts, image, index)

    value = jax.ShapeDtypeStruct((1, *shape_of[stem]), image.dtype)
    carries_all = max(dependence_on_first(scores, image, value, network, target, index)) == Dependence.NONE
    return stem if carries_all else None


def at_stem(
    network: Network, target: Target, stem: str | None, images: Array, index: Array | None, *, ops: Ops = EXACT
) -> tuple[dict[str, Any], Array]:
    """Return what `evaluate` does, and the values of the stem, which are the images themselves where there is none."""
    names = target.layers()
    acts = activations(network, images, names if stem is None else (*names, stem), ops=ops)
    return judged(target, acts, images, index), images if stem is None else acts[stem]


def stem_gradients(
    network: Network,
    target: Target,
    stem: str | None,
    values: Array,
    index: Array | None,
    size: tuple[int, ...],
    *,
    ops: Ops = EXACT,
) -> Array:
    """Return the gradients (K, n, ...) of scores with respect to the values (n, ...) of a stem, for images of a size (H, W)."""
    if stem is None:
        return gradients(network, target, values, index, ops=ops)[1]
    unseen = jnp.zeros((len(values), *size, network.in_channels), values.dtype)

    def scores(values: Array) -> Array:
        acts, _ = intervene(network, unseen, target.layers(), {stem: lambda _: values}, ops=ops)
        return target.scores(acts, unseen, target.choose(acts, index))

    found, pull = jax.vjp(scores, values)
    return pull_back(pull, found)


def pull_to_images(network: Network, stem: str | None, images: Array, slopes: Array, *, ops: Ops = EXACT) -> Array:
    """Return gradients with respect to a stem's values, (n, K, ...), as gradients with respect to images, (n, K, H, W, C)."""
    if stem is None:
        return slopes
    images = images.astype(jnp.promote_types(images.dtype, slopes.dtype))  # of float64 networks, float64 maps
    _, pull = jax.vjp(lambda x: activations(network, x, (stem,), ops=ops)[stem], images)
    each = jnp.swapaxes(slopes, 0, 1)  # one target after the other: the memory of one
    maps = pull(each[0])[0][None] if len(each) == 1 else jax.lax.map(lambda one: pull(one)[0], each)
    return jnp.swapaxes(maps, 0, 1)
