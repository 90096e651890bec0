"""`attribute`: every method by its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack

from jax.sharding import Mesh

from jaxviz._errors import ArgumentError, near_matches
from jaxviz._types import ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._baseline import Baseline
from jaxviz.attribution._cam.ablation_cam import ablation_cam
from jaxviz.attribution._cam.grad_cam import (
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
from jaxviz.attribution._methods.guided_grad_cam import Interpolation, guided_grad_cam
from jaxviz.attribution._methods.integrated_gradients import QuadratureRule, integrated_gradients
from jaxviz.attribution._methods.lrp import RuleName, lrp
from jaxviz.attribution._methods.occlusion import Extent, feature_ablation, occlusion
from jaxviz.attribution._methods.rise import Normalize, rise
from jaxviz.attribution._methods.smoothgrad import smoothgrad, smoothgrad_squared, vargrad
from jaxviz.attribution._target import AsTarget
from jaxviz.engine import Progress, RunOptions
from jaxviz.engine._options import FULL_PRECISION
from jaxviz.models import Model
from jaxviz.ops import Composite, Rule
from jaxviz.ops._rules.lrp_propagation import Bias, Residual

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


class MethodOptions(TypedDict, total=False):
    """Options of attribution methods; the function of a method describes its own, with their defaults.

    Attributes:
        absolute: `saliency`, `smoothgrad` and its kin.
        baseline: `input_x_gradient`, `integrated_gradients`, `gradient_shap`, `deep_lift`, `occlusion`, `feature_ablation`,
            `rise`, `score_cam`.
        relu: class activation maps.
        resize: class activation maps.
        convention: `grad_cam_plus_plus`, `ablation_cam`, `full_grad`, `integrated_gradients`, `lrp`.
        interpolation: `guided_grad_cam`.
        steps: `integrated_gradients`.
        rule: `integrated_gradients`, `lrp`.
        multiply: `integrated_gradients`, `deep_lift`.
        epsilon: `lrp`.
        gamma: `lrp`.
        alpha: `lrp`.
        beta: `lrp`.
        bias: `lrp`.
        residual: `lrp`.
        inner: `smoothgrad` and its kin.
        inner_options: `smoothgrad` and its kin.
        samples: `smoothgrad` and its kin, `gradient_shap`, `rise`.
        noise: `smoothgrad` and its kin, `gradient_shap`.
        seed: `smoothgrad` and its kin, `gradient_shap`, `rise`.
        ids: `smoothgrad` and its kin, `gradient_shap`, `rise`.
        window: `occlusion`.
        stride: `occlusion`.
        mask: `feature_ablation`.
        grid: `rise`.
        probability: `rise`.
        normalize: `rise`.
    """

    absolute: bool
    baseline: Baseline
    relu: bool
    resize: bool
    convention: Literal["captum", "published", "pytorch-grad-cam"] | None
    interpolation: Interpolation
    steps: int
    rule: QuadratureRule | RuleName | Rule | Composite
    multiply: bool
    epsilon: float
    gamma: float
    alpha: float
    beta: float
    bias: Bias
    residual: Residual
    inner: str
    inner_options: Mapping[str, Any] | None
    samples: int
    noise: float
    seed: int
    ids: ArrayLike | Sequence[int] | None
    window: Extent | None
    stride: Extent | None
    mask: ArrayLike | None
    grid: int
    probability: float
    normalize: Normalize


def attribute(
    model: Model,
    images: ArrayLike,
    method: str = "guided_backprop",
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = FULL_PRECISION,
    progress: Callable[[Progress], None] | None = None,
    **options: Unpack[MethodOptions],
) -> Attribution:
    """Return attribution maps of many images and targets, by a method of the given name.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        method: a name of `jaxviz.attribution.METHODS`; each is also a function of `jaxviz.attribution`.
        target: the score to explain. None: each image's top class. A class, by index or name: the same for all images. N
            classes: one for each image. (N, K) or (1, K) classes: K for each image, which adds an axis of targets after that of
            the images and takes one forward pass. A function of the logits, (N, classes) -> (N,). An objective, such as
            `jv.channel("layer3", 7)`; one with K units gives K targets, and `jv.match(layer, features, distance="cosine")` is
            the similarity to an embedding. Or `jaxviz.attribution.probability`, `log_probability` or `margin` of classes.
        layer: the layer, for methods that need one; by default the last with positions. Gradient CAMs also take several.
        mesh, chunk, precision, progress: see `jaxviz.RunOptions`.
        **options: the options of the method, see `jaxviz.attribution.MethodOptions`. Where a method takes a `baseline`, it is
            `"mean"`, the network's mean color, which is 0 after normalization; `"black"`; `"white"`; `"blur"`, the blurred
            image; `"uniform"`, random pixels, the same for all images; a number; a color (C,); an image (H, W, C); or N images.

    Returns:
        An `Attribution`: raw, signed maps.

    Raises:
        ArgumentError: an unknown method or option, or images, target or layer that do not fit.
        UnsupportedError: a method that the network does not support.

    >>> jv.attribute(model, images, "grad_cam", [[1, 3]]).maps.shape == (len(images), 2, *images.shape[1:3])
    True
    """
    if method not in METHODS:
        raise ArgumentError(f"There is no method {method!r}.{near_matches(method, METHODS)} Known are {', '.join(METHODS)}.")
    fn = METHODS[method]
    known = [p.name for p in inspect.signature(fn).parameters.values() if p.kind is p.KEYWORD_ONLY]
    chosen: dict[str, Any] = {**options} if layer is None else {**options, "layer": layer}
    for name in chosen:
        if name not in known:
            near = near_matches(name, known)
            raise ArgumentError(
                f"{method} has no option {name!r}.{near} It takes {', '.join([*known, *RunOptions.__annotations__])}."
            )
    return fn(model, images, target, **chosen, mesh=mesh, chunk=chunk, precision=precision, progress=progress)
