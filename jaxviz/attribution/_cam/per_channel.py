"""What Score-CAM and Ablation-CAM share: one score for each channel of a layer, gathered in chunks of channels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._cam.formulas import weighted
from jaxviz.attribution._cam.layers import Size, check_reached, map_layer
from jaxviz.attribution._cam.program import merged
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.models import Model, intervene
from jaxviz.models._network import Network
from jaxviz.models._taps import nodes


def values_and_scores(
    network: Network, target: Target, layer: str, images: Array, index: Array | None
) -> tuple[Array, Array, Array | None]:
    """Return a layer's values (n, h, w, C), the scores (n, K) and the classes (n, K); one forward pass, in traced code."""
    acts, values = intervene(network, images, target.layers(), {layer: lambda value: value})
    chosen = target.choose(acts, index)
    return values[layer], target.scores(acts, images, chosen).T, chosen


def placed(scores: Array, numbers: Array, valid: Array, channels: int) -> Array:
    """Return scores (K, n, s) of the channels `numbers` (s,) at their places: (n, K, C), zero elsewhere and where not valid."""
    one_hot = jax.nn.one_hot(numbers, channels, dtype=scores.dtype)
    return jnp.einsum("kns,sc->nkc", jnp.where(valid > 0, scores, 0), one_hot * valid[:, None])


def weighted_maps(weights: Array, values: Array, *, relu: bool, size: Size | None) -> dict[str, Array]:
    """Return `maps` (n, K, H, W) and `negative` (n, K) of weights (n, K, C) of a layer's channels (n, h, w, C)."""
    maps, negative = merged([weighted(jnp.moveaxis(weights, 1, 0), values)], relu=relu, size=size)
    return {"maps": jnp.moveaxis(maps, 0, 1), "negative": negative.T}


def prepared(
    model: Model, images: ArrayLike, target: AsTarget, layer: str | None
) -> tuple[Array, Target, np.ndarray | None, str, int]:
    """Return images, target, classes, the layer and the number of its channels, all checked."""
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    size = (int(images.shape[1]), int(images.shape[2]))
    name = map_layer(model, size, layer)
    check_reached(model, made, (name,), size)
    channels = next(node.shape[-1] for node in nodes(model.network, size) if node.name == name)
    return images, made, index, name, channels


def attribution(
    method: str, model: Model, target: Target, found: dict[str, Any], layer: str, settings: dict[str, Any]
) -> Attribution:
    """Return the attribution of what a program found: `maps`, `negative`, `scores`, `index` and `weights`."""
    weights = np.asarray(found["weights"])
    return finished(
        method,
        model,
        target,
        found,
        spatial=True,
        settings=settings,
        layer=layer,
        negative=np.asarray(found["negative"]),
        extra={"weights": weights if target.many else weights[:, 0]},
    )
