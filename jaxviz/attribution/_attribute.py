"""One entry for every method, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from jaxviz._errors import ArgumentError, near_matches
from jaxviz._types import ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._cam.ablation_cam import ablation_cam
from jaxviz.attribution._cam.cam import (
    cam,
    eigen_cam,
    eigen_grad_cam,
    grad_cam,
    grad_cam_elementwise,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from jaxviz.attribution._cam.layers import AsLayers
from jaxviz.attribution._cam.score_cam import score_cam
from jaxviz.attribution._methods.deep_lift import deep_lift
from jaxviz.attribution._methods.full_grad import full_grad
from jaxviz.attribution._methods.gradient import deconvnet, guided_backprop, input_x_gradient, saliency
from jaxviz.attribution._methods.gradient_shap import gradient_shap
from jaxviz.attribution._methods.guided_grad_cam import guided_grad_cam
from jaxviz.attribution._methods.integrated_gradients import integrated_gradients
from jaxviz.attribution._methods.lrp import lrp
from jaxviz.attribution._methods.occlusion import feature_ablation, occlusion
from jaxviz.attribution._methods.rise import rise
from jaxviz.attribution._methods.smoothgrad import smoothgrad, smoothgrad_squared, vargrad
from jaxviz.attribution._target import AsTarget
from jaxviz.engine import RunOptions
from jaxviz.models import Model

METHODS: dict[str, Callable[..., Attribution]] = {
    fn.__name__: fn
    for fn in (
        saliency,
        input_x_gradient,
        guided_backprop,
        deconvnet,
        guided_grad_cam,
        cam,
        grad_cam,
        grad_cam_plus_plus,
        xgrad_cam,
        hires_cam,
        layer_cam,
        grad_cam_elementwise,
        eigen_cam,
        eigen_grad_cam,
        score_cam,
        ablation_cam,
        full_grad,
        smoothgrad,
        smoothgrad_squared,
        vargrad,
        integrated_gradients,
        gradient_shap,
        occlusion,
        feature_ablation,
        rise,
        lrp,
        deep_lift,
    )
}


def attribute(
    model: Model,
    images: ArrayLike,
    method: str = "guided_backprop",
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    **options: Any,
) -> Attribution:
    """Say which pixels made the network say it, for many images and targets at once.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        method: a name of `METHODS`, each also a function of `jaxviz.attribution`.
        target: what is explained. None: each image's top class. A class, an index or a name: the same for all. N classes: one
            for each image. (N, K) or (1, K) classes: K for each, which adds an axis after that of the images and costs one
            forward pass. A function of the logits, (N, classes) -> (N,). Any objective, such as `jv.channel("layer3", 7)`; one
            with K units gives K targets. `jv.attribution.probability`, `log_probability` or `margin` of any of the classes.
            `jv.match(layer, features, distance="cosine")` is similarity to an embedding.
        layer: for methods that look at one; the last with positions unless given. Gradient CAMs also take several.
        **options: the method's own, and those of `jaxviz.engine.RunOptions`.

    Returns:
        An `Attribution`: raw, signed maps.

    Raises:
        ArgumentError: an unknown method or option, or images, target or layer that do not fit.
        UnsupportedError: a method that the network cannot take.

    >>> attribute(model, images, "grad_cam", [[217, 482]], layer="layer4").maps.shape
    (8, 2, 224, 224)
    """
    if method not in METHODS:
        raise ArgumentError(f"There is no method {method!r}.{near_matches(method, METHODS)} Known are {', '.join(METHODS)}.")
    fn = METHODS[method]
    known = [p.name for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY]
    given = options if layer is None else {**options, "layer": layer}
    for name in given:
        if name not in known and name not in RunOptions.__annotations__:
            near = near_matches(name, known)
            raise ArgumentError(
                f"{method} has no option {name!r}.{near} It takes {', '.join([*known, *RunOptions.__annotations__])}."
            )
    return fn(model, images, target, **given)
