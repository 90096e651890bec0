"""Guided Grad-CAM: guided backpropagation where Grad-CAM points."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._cam.formulas import make_map
from jaxviz.attribution._cam.layers import AsLayers, Size, check_reached, map_layers, resized
from jaxviz.attribution._cam.program import layer_gradients, merged
from jaxviz.attribution._methods.gradient import gradients
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.ops import GUIDED

Interpolation: TypeAlias = Literal["bilinear", "nearest"]


@pytree
@dataclasses.dataclass(frozen=True)
class GuidedGradCam:
    """Guided backpropagation times Grad-CAM: a program of the engine."""

    network: Network
    target: Target
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))
    interpolation: Interpolation = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        images = items["images"]
        size = (images.shape[1], images.shape[2])
        scores, values, slopes, chosen = layer_gradients(self.network, self.target, images, items["index"], self.layers)
        each = [make_map("grad_cam", None, values[layer], slopes[layer]) for layer in self.layers]
        enlarge = nearest if self.interpolation == "nearest" else resized
        places, negative = merged(each, relu=True, size=size, enlarge=enlarge)
        _, guided, _ = gradients(self.network, self.target, images, chosen, ops=GUIDED)
        maps = guided * places[..., None]
        return {"maps": jnp.moveaxis(maps, 0, 1), "scores": scores.T, "index": chosen, "negative": negative.T}


def nearest(maps: Array, size: Size) -> Array:
    """Return maps (..., h, w) at `size` (H, W), each position taking the value at floor(i h / H), as torch's "nearest"."""
    rows, columns = (
        np.floor(np.arange(wanted, dtype=np.float32) * np.float32(given / wanted)).astype(int).clip(max=given - 1)
        for given, wanted in zip(maps.shape[-2:], size, strict=True)
    )
    return maps[..., rows, :][..., columns]


def guided_grad_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    interpolation: Interpolation = "bilinear",
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return guided backpropagation times Grad-CAM, cut off by ReLU and enlarged (Selvaraju et al., 2017).

    Args as for `grad_cam`, and:
        interpolation: of the Grad-CAM map; `"nearest"` is what Captum's `GuidedGradCam` does.

    Returns:
        `maps` float32 (N, H, W, C), signed; (N, K, H, W, C) for K targets. Where the ReLU left nothing of Grad-CAM, `diagnosis`
        says so.

    Raises:
        As `grad_cam`; and UnsupportedError for a network that does not compute through `ops`.
    """
    if interpolation not in ("bilinear", "nearest"):
        raise ArgumentError(f"interpolation is 'bilinear' or 'nearest', not {interpolation!r}.")
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    size = (int(images.shape[1]), int(images.shape[2]))
    layers = map_layers(model, size, layer)
    check_reached(model, made, layers, size)
    program = GuidedGradCam(model.network, made, layers, interpolation)
    found = engine.map_images(program, {"images": images, "index": index}, **run)
    return finished(
        "guided_grad_cam",
        model,
        made,
        found,
        spatial=False,
        settings={"interpolation": interpolation},
        layer=" + ".join(layers),
        negative=np.asarray(found["negative"]),
    )
