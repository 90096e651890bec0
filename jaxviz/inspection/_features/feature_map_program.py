"""Feature maps of channels: where in images they are active, strongest channels first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, UnitError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.engine import RunOptions
from jaxviz.inspection._features.feature_maps import FeatureMaps, Order
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations


class _Maps(NamedTuple):
    """The arrays of `FeatureMaps`, of n images and one layer."""

    maps: Array
    channels: Array
    strengths: Array


@pytree
@dataclasses.dataclass(frozen=True)
class _StrongestMaps:
    """Program: the maps of chosen channels of each layer, or of each image's strongest channels.

    Attributes:
        chosen: int32 (K,) for each layer; empty for the strongest channels.
        layers: names of the layers.
        counts: number of channels of each layer.
        order: what makes a channel strong.
    """

    network: Network
    chosen: tuple[Array, ...]
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    counts: tuple[int, ...] = dataclasses.field(metadata=dict(static=True))
    order: Order = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> tuple[_Maps, ...]:
        values = activations(self.network, images, self.layers)
        return tuple(self._maps(i, values[layer]) for i, layer in enumerate(self.layers))

    def _maps(self, i: int, values: Array) -> _Maps:
        values = jnp.moveaxis(values, -1, 1)  # (n, C, ...)
        flat = values.reshape(*values.shape[:2], -1)
        strength = flat.max(-1) if self.order == "max" else flat.mean(-1)
        if self.chosen:
            channels = jnp.broadcast_to(self.chosen[i], (len(values), len(self.chosen[i])))
        else:
            channels = jax.lax.top_k(strength, self.counts[i])[1]
        at = channels.reshape(*channels.shape, *[1] * (values.ndim - 2))
        maps, strengths = jnp.take_along_axis(values, at, 1), jnp.take_along_axis(strength, channels, 1)
        return _Maps(maps, channels.astype(jnp.int32), strengths)


def feature_maps(
    model: Model,
    images: ArrayLike,
    layers: Sequence[str] | str,
    *,
    channels: int | Sequence[int] | None = None,
    order: Order = "max",
    **run: Unpack[RunOptions],
) -> dict[str, FeatureMaps]:
    """Return where channels of layers are active in images; one pass serves all layers and stops at the deepest.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        layers: one or more layer names; the keys of the result.
        channels: a number n for the n strongest channels of each image; a sequence of channel numbers for the same channels
            in all images and layers, in that order; all channels by default, each image's strongest first.
        order: a channel's strength is the "max" or the "mean" of its map.
        **run: see `RunOptions`.

    Raises:
        ArgumentError: unsuitable images, no layer, or an unknown order.
        LayerError: an unknown layer.
        UnitError: a channel that a layer does not have.

    >>> feature_maps(model, images, "layer3", channels=8)["layer3"].maps.shape
    (2, 8, 8, 8)
    """
    images = model.check_images(images)
    names = (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))
    if order not in get_args(Order) or not names:
        raise ArgumentError(f"Expected at least one layer and an order 'max' or 'mean'; got {list(names)} and {order!r}.")
    table = model.layers((int(images.shape[1]), int(images.shape[2])))
    rows = [table[name] for name in names]
    selected = [_select(channels, row.channels, name) for name, row in zip(names, rows, strict=True)]
    counts = tuple(n if isinstance(n, int) else len(n) for n in selected)
    chosen = tuple(jnp.asarray(n, jnp.int32) for n in selected if not isinstance(n, int))
    program = _StrongestMaps(model.network, chosen, names, counts, order)
    photos = np.asarray(images)
    last = model.resolve("output")
    return {
        name: FeatureMaps(
            layer=name,
            maps=maps.maps,
            channels=maps.channels,
            strengths=maps.strengths,
            order=order,
            images=photos,
            receptive_field=row.receptive_field,
            labels=model.class_names if row.name == last else (),
        )
        for name, row, maps in zip(names, rows, engine.map_images(program, images, **run), strict=True)
    }


def _select(channels: int | Sequence[int] | None, count: int, layer: str) -> int | np.ndarray:
    """Return how many of a layer's strongest channels to take, or the chosen channels."""
    if channels is None:
        return count
    if isinstance(channels, int | np.integer):
        if channels < 1:
            raise UnitError(f"Expected at least one channel; got {channels}.")
        return min(int(channels), count)
    numbers = np.asarray(channels)
    is_list = numbers.ndim == 1 and numbers.size and numbers.dtype.kind in "iu"
    if not is_list or numbers.min() < 0 or numbers.max() >= count:
        raise UnitError(f"Layer {layer!r} has channels 0 to {count - 1}; got {list(channels)!r}.")
    return numbers
