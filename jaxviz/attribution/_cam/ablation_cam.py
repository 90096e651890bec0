"""Ablation-CAM: each channel weighs what the score loses without it."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

import jax
import jax.numpy as jnp

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._cam.layers import tail_above
from jaxviz.attribution._cam.per_channel import attribution, placed, prepared, values_and_scores, weighted_maps
from jaxviz.attribution._cam.program import layer_gradients
from jaxviz.attribution._target import AsTarget, Target
from jaxviz.engine import RunOptions
from jaxviz.models import Model, intervene
from jaxviz.models._network import Network

Ablation: TypeAlias = Literal["published", "pytorch-grad-cam"] | None
_STEP, _BATCH = 1e7, 32  # of pytorch-grad-cam: how far below the least value it fills, and how many channels at a time


@pytree
@dataclasses.dataclass(frozen=True)
class AblationCam:
    """The scores without each channel, one by one: a reduction of the engine, whose steps are channels."""

    network: Network
    target: Target
    layer: str = dataclasses.field(metadata=dict(static=True))
    channels: int = dataclasses.field(metadata=dict(static=True))
    relu: bool = dataclasses.field(metadata=dict(static=True))
    resize: bool = dataclasses.field(metadata=dict(static=True))
    convention: Ablation = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        values, scores, chosen = values_and_scores(self.network, self.target, self.layer, items["images"], items["index"])
        return {"values": values, "scores": scores, "index": chosen}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        images, values = items["images"], fixed["values"]

        def without(number: Array) -> Array:
            fill = _fill(values, number, self.convention)[:, None, None, None]
            rest = jnp.where(jnp.arange(self.channels) == number, fill, values)
            # The layer's own value is not used, so that nothing below it is computed again but what goes around it.
            acts, _ = intervene(self.network, images, self.target.layers(), {self.layer: lambda _: rest})
            return self.target.scores(acts, images, fixed["index"])

        return placed(jax.vmap(without, out_axes=-1)(numbers), numbers, valid, self.channels)

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Any]:
        return _finish(self, items, fixed, fixed["scores"][..., None] - sums)


@pytree
@dataclasses.dataclass(frozen=True)
class LinearAblation:
    """The same where the score is linear in the layer's values: the loss is gradient x what is taken away, for all at once."""

    network: Network
    target: Target
    layer: str = dataclasses.field(metadata=dict(static=True))
    relu: bool = dataclasses.field(metadata=dict(static=True))
    resize: bool = dataclasses.field(metadata=dict(static=True))
    convention: Ablation = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        scores, values, gradients, chosen = layer_gradients(
            self.network, self.target, items["images"], items["index"], (self.layer,)
        )
        value = values[self.layer]
        fill = jax.vmap(lambda number: _fill(value, number, self.convention), out_axes=-1)(jnp.arange(value.shape[-1]))
        lost = jnp.einsum("knhwc,nhwc->nkc", gradients[self.layer], value - fill[:, None, None])
        return _finish(self, items, {"values": value, "scores": scores.T, "index": chosen}, lost)


def _finish(program: AblationCam | LinearAblation, items: dict[str, Any], fixed: dict[str, Any], lost: Array) -> dict[str, Any]:
    """Return the maps of what the scores lose without each channel, (n, K, C)."""
    scores = fixed["scores"]
    weights = lost if program.convention is None else lost / jnp.where(scores == 0, 1, scores)[..., None]
    size = items["images"].shape[1:3] if program.resize else None
    made = weighted_maps(weights, fixed["values"], relu=program.relu, size=size)
    return {**made, "weights": weights, "scores": scores, "index": fixed["index"]}


def _fill(values: Array, number: Array, convention: Ablation) -> Array:
    """Return what stands in the place of a channel of values (n, h, w, C), for each image: (n,)."""
    least = values.min((1, 2, 3))
    if convention != "pytorch-grad-cam":
        return jnp.zeros_like(least)
    # pytorch-grad-cam takes the least value again after each of the channels of a batch, of what it has filled so far.
    return jnp.where(least == 0, 0, least - _STEP * (1 + number % _BATCH))


def ablation_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    resize: bool = True,
    convention: Ablation = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the layer's channels, weighted by what the score loses when each is set to zero (Desai and Ramaswamy, 2020).

    Where the score is linear in the layer's values, as at the last block of a ResNet, all losses come from one gradient.
    Elsewhere what lies above the layer is computed once for each channel, whatever the number of targets.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        layer: a single one with positions; the last unless given.
        relu: set what is negative to zero, as published; False leaves the signed map.
        resize: to the size of the images, bilinear; False leaves the layer's own resolution.
        convention: the weight of a channel. None: the score minus the score without the channel. `"published"`: this divided
            by the score; a single factor for the whole map, but it flips the sign of the map if the score is negative, and
            grows without bound near 0. `"pytorch-grad-cam"`: as published, but if the layer's smallest value is not 0, the
            channel is filled with 1e7 less than the smallest value so far, which falls from channel to channel within a batch
            of 32.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), or (N, K, H, W) for K targets; `extra["weights"]` (N, C) or (N, K, C).

    Raises:
        As `grad_cam`.

    >>> ablation_cam(model, images, layer="layer4").extra["weights"].shape
    (2, 512)
    """
    if convention not in (None, "published", "pytorch-grad-cam"):
        raise ArgumentError(f"A convention is None, 'published' or 'pytorch-grad-cam'; got {convention!r}.")
    images, made, index, name, channels = prepared(model, images, target, layer)
    items = {"images": images, "index": index}
    settings = {"relu": relu, "resize": resize, "convention": convention}
    if tail_above(model.network, made, (name,), (int(images.shape[1]), int(images.shape[2]))).affine:
        found = engine.map_images(LinearAblation(model.network, made, name, relu, resize, convention), items, **run)
    else:
        program = AblationCam(model.network, made, name, channels, relu, resize, convention)
        found = engine.reduce_images(program, items, channels, **run)
    return attribution("ablation_cam", model, made, found, name, settings)
