"""Score-CAM: each channel weighs what the network says of the image seen through it."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._cam.layers import Size
from jaxviz.attribution._cam.per_channel import attribution, placed, prepared, values_and_scores, weighted_maps
from jaxviz.attribution._target import AsTarget, Target, target_values
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network


@pytree
@dataclasses.dataclass(frozen=True)
class ScoreCam:
    """The scores of the image behind each channel as a mask: a reduction of the engine, whose steps are channels."""

    network: Network
    target: Target
    layer: str = dataclasses.field(metadata=dict(static=True))
    channels: int = dataclasses.field(metadata=dict(static=True))
    relu: bool = dataclasses.field(metadata=dict(static=True))
    resize: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        values, scores, chosen = values_and_scores(self.network, self.target, self.layer, items["images"], items["index"])
        return {"values": values, "scores": scores, "index": chosen}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        images, empty = items["images"], items["baseline"]
        n, height, width, _ = images.shape
        masks = channel_masks(jnp.take(fixed["values"], numbers, axis=-1), (height, width))
        seen = empty[:, None] + (images - empty)[:, None] * jnp.moveaxis(masks, -1, 1)[..., None]
        index = fixed["index"]
        index = None if index is None else jnp.repeat(index, len(numbers), axis=0)
        scores, _ = target_values(self.network, self.target, seen.reshape(-1, *images.shape[1:]), index)
        return placed(scores.reshape(len(scores), n, len(numbers)), numbers, valid, self.channels)

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Any]:
        weights = jax.nn.softmax(sums, axis=-1)
        size = items["images"].shape[1:3] if self.resize else None
        made = weighted_maps(weights, fixed["values"], relu=self.relu, size=size)
        return {**made, "weights": weights, "scores": fixed["scores"], "index": fixed["index"]}


def channel_masks(values: Array, size: Size) -> Array:
    """Return channels (n, h, w, s) as masks (n, H, W, s): enlarged, then each scaled to [0, 1] from its least to its most.

    Bilinear with the corners of the two grids aligned, as `torch.nn.UpsamplingBilinear2d`. A constant channel gives zeros.
    """
    rows, columns = (aligned_weights(n, m) for n, m in zip(values.shape[1:3], size, strict=True))
    large = jnp.einsum("Hh,Ww,nhws->nHWs", rows, columns, values, precision=jax.lax.Precision.HIGHEST)
    low, high = (fn(large, axis=(1, 2), keepdims=True) for fn in (jnp.min, jnp.max))
    return (large - low) / jnp.where(high > low, high - low, 1)


def aligned_weights(size: int, wanted: int) -> np.ndarray:
    """Return the matrix (wanted, size) of linear interpolation in which the first and last points of both grids agree."""
    at = np.arange(wanted) * ((size - 1) / max(wanted - 1, 1))
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size))).astype(np.float32)


def score_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: str | None = None,
    relu: bool = True,
    resize: bool = True,
    baseline: Baseline = "mean",
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the layer's channels, weighted by the softmax over them of the score of the image behind each (Wang et al., 2020).

    One forward pass for each channel, whatever the number of targets; masks are made on the device, a chunk at a time.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`. Logits make the softmax sharp; `probability()` a nearly even one.
        layer: a single one with positions; the last unless given.
        relu: set what is negative to zero, as published; False leaves the signed map.
        resize: to the size of the images, bilinear; False leaves the layer's own resolution.
        baseline: what is seen where a mask is 0, see `attribute`; the mean color is what other libraries have.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), or (N, K, H, W) for K targets; `extra["weights"]` (N, C) or (N, K, C).

    Raises:
        As `grad_cam`.

    >>> score_cam(model, images, layer="layer1").maps.shape
    (2, 128, 128)
    """
    images, made, index, name, channels = prepared(model, images, target, layer)
    items = {"images": images, "index": index, "baseline": as_baselines(model, baseline, images)}
    program = ScoreCam(model.network, made, name, channels, relu, resize)
    found = engine.reduce_images(program, items, channels, **run)
    return attribution("score_cam", model, made, found, name, {"relu": relu, "resize": resize, "baseline": baseline})
