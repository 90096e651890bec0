"""Gradients with respect to the image: saliency, input x gradient, guided backpropagation, deconvolutional network."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._target import AsTarget, Target, as_target, target_values
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.ops import DECONVNET, EXACT, GUIDED, Ops


def gradients(
    network: Network, target: Target, images: Array, index: Array | None, *, ops: Ops = EXACT
) -> tuple[Array, Array, Array | None]:
    """Return scores (K, n), their gradients (K, n, H, W, C), and the classes (n, K); for use inside traced code.

    One forward pass whatever K is. The images do not see each other, so the gradient of their sum is each one's own.
    """
    scores, pull, chosen = jax.vjp(lambda x: target_values(network, target, x, index, ops=ops), images, has_aux=True)
    return scores, pull_back(pull, scores), chosen


def pull_back(pull: Any, scores: Array) -> Any:
    """Return the gradients of K scores (K, n), (K, ...), given the pullback of all of them; of a pytree, a pytree."""
    return pull_back_all(pull, scores)[0]


def pull_back_all(pull: Any, scores: Array) -> tuple[Any, ...]:
    """Return the gradients of K scores (K, n) with respect to several values or trees of them, K in front of each."""
    if len(scores) == 1:
        return jax.tree.map(lambda g: g[None], pull(jnp.ones_like(scores)))
    one_hot = jnp.eye(len(scores), dtype=scores.dtype)
    return jax.vmap(lambda row: pull(jnp.broadcast_to(row[:, None], scores.shape)))(one_hot)


@pytree
@dataclasses.dataclass(frozen=True)
class Gradient:
    """The gradient, or its product with the image less a baseline, of some images: a program of the engine."""

    network: Network
    target: Target
    ops: Ops = dataclasses.field(default=EXACT, metadata=dict(static=True))

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        images = items["images"]
        scores, maps, chosen = gradients(self.network, self.target, images, items["index"], ops=self.ops)
        if "baseline" in items:
            maps = maps * (images - items["baseline"])[None]
        return {"maps": jnp.moveaxis(maps, 0, 1), "scores": scores.T, "index": chosen}


def saliency(
    model: Model, images: ArrayLike, target: AsTarget = None, *, absolute: bool = False, **run: Unpack[RunOptions]
) -> Attribution:
    """Return the gradient of a score with respect to the image (Simonyan et al., 2013).

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        absolute: take absolute values, as Captum's `Saliency` does.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W, C), signed; (N, K, H, W, C) for K targets. Per unit of the image in [0, 1].

    Raises:
        ArgumentError: images or target of a wrong shape or range.

    >>> saliency(model, images).reduce("max_abs").maps.shape
    (2, 128, 128)
    """
    made = _gradient("saliency", model, images, target, EXACT, run, {"absolute": absolute})
    return dataclasses.replace(made, maps=np.abs(made.maps)) if absolute else made


def input_x_gradient(
    model: Model, images: ArrayLike, target: AsTarget = None, *, baseline: Baseline = "mean", **run: Unpack[RunOptions]
) -> Attribution:
    """Return (image - baseline) x gradient (Shrikumar et al., 2016).

    With the default baseline, the network's mean color, it equals Captum's `InputXGradient` on normalized images.

    Args as for `saliency`, and:
        baseline: see `attribute`.

    Returns:
        `maps` float32 (N, H, W, C), signed; (N, K, H, W, C) for K targets.
    """
    return _gradient("input_x_gradient", model, images, target, EXACT, run, {"baseline": baseline}, baseline=baseline)


def guided_backprop(model: Model, images: ArrayLike, target: AsTarget = None, **run: Unpack[RunOptions]) -> Attribution:
    """Return the gradient that passes every ReLU only where it is positive (Springenberg et al., 2015).

    For a class, or for any unit in the middle: `target=jv.channel("layer3", 7)`.

    Args as for `saliency`.

    Raises:
        UnsupportedError: a network that does not compute through `ops`.
    """
    return _gradient("guided_backprop", model, images, target, GUIDED, run, {})


def deconvnet(model: Model, images: ArrayLike, target: AsTarget = None, **run: Unpack[RunOptions]) -> Attribution:
    """Return the signal of a deconvolutional network (Zeiler and Fergus, 2014): every ReLU passes what is positive of it.

    Args as for `saliency`.

    Raises:
        UnsupportedError: a network that does not compute through `ops`.
    """
    return _gradient("deconvnet", model, images, target, DECONVNET, run, {})


def _gradient(
    method: str,
    model: Model,
    images: ArrayLike,
    target: AsTarget,
    ops: Ops,
    run: RunOptions,
    settings: dict[str, Any],
    *,
    baseline: Baseline | None = None,
) -> Attribution:
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    items: dict[str, Any] = {"images": images, "index": index}
    if baseline is not None:
        items["baseline"] = as_baselines(model, baseline, images)
    found = engine.map_images(Gradient(model.network, made, ops), items, **run)
    return finished(method, model, made, found, spatial=False, settings=settings)
