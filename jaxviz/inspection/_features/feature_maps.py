"""Feature maps: where in photos the channels of layers are active, the strongest channels first."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, UnitError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.engine import RunOptions
from jaxviz.inspection._features import feature_map_pictures as pictures
from jaxviz.models import Model, ReceptiveField, activations

Order: TypeAlias = Literal["max", "mean"]


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The maps of K channels of a layer, of N images.

    Attributes:
        layer: its name.
        maps: float32 (N, K, h, w), of each image its own K channels; (N, K) of a layer without positions.
        channels: int32 (N, K), their numbers.
        strengths: float32 (N, K), the maximum or mean of each map, by which they are ordered; the value itself without
            positions.
        order: "max" or "mean".
        images: float32 (N, H, W, C) in [0, 1], the images themselves.
        receptive_field: what a unit can see, or None where the network does not compute the layer through `ops`.
        labels: of the layer's channels, such as the names of classes; or empty.
    """

    layer: str
    maps: np.ndarray
    channels: np.ndarray
    strengths: np.ndarray
    order: str
    images: np.ndarray
    receptive_field: ReceptiveField | None
    labels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.maps)

    @property
    def is_spatial(self) -> bool:
        """Whether the layer has positions, and these are maps."""
        return self.maps.ndim == 4

    def draw(self, image: int = 0, *, view: pictures.View = "map", side: int | None = None) -> np.ndarray:
        """Return each map of an image as a picture, uint8 (K, side', side, 3), all at one scale.

        Args:
            image: which one.
            view: "map": colours, each unit of the map a square; "smooth": interpolated; "overlay": laid over the image.
            side: pixels of the width; the image's unless given.

        Raises:
            ArgumentError: another view, or a layer without positions.
        """
        return pictures.draw(self, image, view, side)

    def picture(
        self, image: int = 0, *, view: pictures.View = "map", columns: int | None = None, tile: int = 112, dark: bool = False
    ) -> np.ndarray:
        """Return a page: the image, then its strongest channels with their numbers and strengths; uint8 (height, width, 3).

        Of a layer without positions it is a chart with a bar for each channel.

        Args:
            image: which one.
            view: see `draw`.
            columns: pictures a row; chosen for a well-shaped page where not given.
            tile: pixels of a picture's height.
            dark: white on black.

        Raises:
            ArgumentError: another view, or an image that is not there.
        """
        return pictures.page(self, image, view, columns, tile, dark)

    def draw_receptive_field(self, y: int, x: int, image: int = 0, *, side: int = 256, width: int = 3) -> np.ndarray:
        """Return the image with a frame around what the unit at row `y`, column `x` of the map can see; uint8 (side, ..., 3).

        Outside the frame the image is darkened; where the frame is beyond the image, the unit sees padding.

        Args:
            y, x: row and column, from 0; `strongest_position` tells where the channel is most active.
            image: which one.
            side: pixels of the picture's height.
            width: pixels of the frame.

        Raises:
            ArgumentError: a layer without positions, or whose receptive field is not known.
            UnitError: a position that the map does not have.
        """
        if not self.is_spatial or self.receptive_field is None:
            raise ArgumentError(f"Layer {self.layer!r} has no positions with a known receptive field.")
        h, w = self.maps.shape[2:]
        if not (0 <= y < h and 0 <= x < w):
            raise UnitError(f"Layer {self.layer!r} has positions (y, x) from (0, 0) to ({h - 1}, {w - 1}); got ({y}, {x}).")
        return pictures.framed(self.images[image], self.receptive_field.box(y, x), side, width)

    def strongest_position(self, image: int = 0, rank: int = 0) -> tuple[int, int]:
        """Return row and column of the largest value of the image's map number `rank`."""
        if not self.is_spatial:
            raise ArgumentError(f"Layer {self.layer!r} has no positions.")
        one = self.maps[image, rank]
        y, x = np.unravel_index(int(one.argmax()), one.shape)
        return int(y), int(x)


@pytree
@dataclasses.dataclass(frozen=True)
class _Strongest:
    """The maps of some channels of each layer: those that are asked for, or each image's strongest. A program of the engine."""

    model: Model
    chosen: tuple[Array, ...]  # int32 (K,) for each layer, or nothing at all
    names: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    counts: tuple[int, ...] = dataclasses.field(metadata=dict(static=True))
    order: str = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> dict[str, dict[str, Array]]:
        found = activations(self.model, images, self.names)
        told = {}
        for i, name in enumerate(self.names):
            act = found[name]
            act = jnp.moveaxis(act, -1, 1)  # (n, C, ...)
            flat = act.reshape(*act.shape[:2], -1)
            strength = flat.max(-1) if self.order == "max" else flat.mean(-1)
            if self.chosen:
                channels = jnp.broadcast_to(self.chosen[i], (len(act), len(self.chosen[i])))
            else:
                channels = jax.lax.top_k(strength, self.counts[i])[1]
            at = channels.reshape(*channels.shape, *[1] * (act.ndim - 2))
            told[name] = {
                "maps": jnp.take_along_axis(act, at, 1),
                "channels": channels.astype(jnp.int32),
                "strengths": jnp.take_along_axis(strength, channels, 1),
            }
        return told


def feature_maps(
    model: Model,
    images: ArrayLike,
    layers: Sequence[str] | str,
    *,
    channels: int | Sequence[int] | None = None,
    order: Order = "max",
    **run: Unpack[RunOptions],
) -> dict[str, FeatureMaps]:
    """Return where channels of layers are active in images; all layers from one pass, which stops at the deepest.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        layers: one or more names; the keys of the result.
        channels: None for all channels, each image's strongest first; a number n for its n strongest; or numbers of channels,
            kept in the order in which they are given, the same of all images and layers.
        order: what makes a channel strong: the "max" or the "mean" of its map.
        **run: see `jaxviz.engine.RunOptions`.

    Raises:
        ArgumentError: images or an order that do not fit.
        LayerError: a layer that is not there.
        UnitError: a channel that a layer does not have.

    >>> feature_maps(model, images, "layer3", channels=8)["layer3"].maps.shape
    (2, 8, 8, 8)
    """
    images = model.check_images(images)
    names = (layers,) if isinstance(layers, str) else tuple(dict.fromkeys(layers))
    if order not in ("max", "mean") or not names:
        raise ArgumentError(f"Expected at least one layer and an order 'max' or 'mean'; got {list(names)} and {order!r}.")
    table = model.layers((int(images.shape[1]), int(images.shape[2])))
    about = {name: table[name] for name in names}
    counts, chosen = [], []
    for name, layer in about.items():
        if channels is None or isinstance(channels, int | np.integer):
            if channels is not None and channels < 1:
                raise UnitError(f"Expected at least one channel; got {channels}.")
            counts.append(layer.channels if channels is None else min(int(channels), layer.channels))
            continue
        wanted = np.asarray(channels)
        if wanted.ndim != 1 or not wanted.size or wanted.dtype.kind not in "iu" or not _within(wanted, layer.channels):
            raise UnitError(f"Layer {name!r} has channels 0 to {layer.channels - 1}; got {list(channels)!r}.")
        counts.append(len(wanted))
        chosen.append(jnp.asarray(wanted, jnp.int32))
    program = _Strongest(model.bare(), tuple(chosen), names, tuple(counts), order)
    found: dict[str, Any] = engine.map_images(program, images, **run)
    photos = np.asarray(images)
    last = model.resolve("output")
    return {
        name: FeatureMaps(
            layer=name,
            **found[name],
            order=order,
            images=photos,
            receptive_field=about[name].receptive_field,
            labels=model.class_names if about[name].name == last else (),
        )
        for name in names
    }


def _within(numbers: np.ndarray, count: int) -> bool:
    return bool(numbers.min() >= 0 and numbers.max() < count)
