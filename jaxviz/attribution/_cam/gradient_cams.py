"""Several class activation maps from one pass through the network; checks of layer and target; maps in traced code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError, UnsupportedError, near_matches
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._cam.formulas import FORMULAS, Convention
from jaxviz.attribution._cam.layers import AsLayers, Size, check_reached, map_layers, pools_evenly
from jaxviz.attribution._cam.program import CamOutput, GradientMaps
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._taps import nodes


def gradient_cams(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    methods: Sequence[str] = tuple(name for name in FORMULAS if name != "cam"),
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = None,
    **run: Unpack[RunOptions],
) -> dict[str, Attribution]:
    """Return several class activation maps from one forward pass, and one backward pass of the part above the layer.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: the score to explain, see `attribute`.
        methods: any of `cam`, `grad_cam`, `grad_cam_plus_plus`, `xgrad_cam`, `hires_cam`, `layer_cam`, `grad_cam_elementwise`,
            `eigen_cam` and `eigen_grad_cam`; by default all but `cam`, which few networks support.
        layer: as for `grad_cam`.
        relu: whether to set negative values to zero; the default of each method unless given.
        resize: as for `grad_cam`.
        convention: as for `grad_cam_plus_plus`.
        **run: see `jaxviz.RunOptions`.

    Returns:
        The attribution of each method by its name, the same as from the function of that name.

    Raises:
        As `grad_cam`; and ArgumentError for an unknown method.

    >>> maps = jv.attribution.gradient_cams(model, images, methods=("grad_cam", "layer_cam"))
    >>> maps["layer_cam"].maps.shape == images.shape[:3]
    True
    """
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    program = cam_program(model, made, images, methods, layer, relu, resize, convention)
    output: CamOutput = engine.map_images(program, {"images": images, "index": index}, **run)
    attributions: dict[str, Attribution] = {}
    for method in program.methods:
        settings: dict[str, Any] = {"relu": FORMULAS[method].relu if relu is None else relu, "resize": resize}
        if method == "grad_cam_plus_plus":
            settings["convention"] = convention
        attributions[method] = finished(
            method,
            model,
            made,
            {"maps": output.cams[method].maps, "scores": output.scores, "index": output.classes},
            spatial=True,
            settings=settings,
            layer=" + ".join(program.layers),
            negative=np.asarray(output.cams[method].negative),
        )
    return attributions


def traced_cam(
    model: Model,
    images: Array,
    target: AsTarget = None,
    *,
    method: str = "grad_cam",
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = None,
) -> Array:
    """Return a class activation map as an array, for use under `jax.jit`, and under `jax.grad` for a loss on maps.

    Args as for `gradient_cams`; the values of the images are not checked.

    Returns:
        float32 (n, H, W), or (n, K, H, W) for K targets.

    >>> loss = lambda images: jv.attribution.traced_cam(model, images, 3, layer="layer3").mean()
    >>> jax.grad(loss)(images).shape == images.shape
    True
    """
    made, index = as_target(model, target, images)
    program = cam_program(model, made, images, (method,), layer, relu, resize, convention)
    maps = program({"images": images, "index": index}).cams[method].maps
    return maps if made.many else maps[:, 0]


def cam_program(
    model: Model,
    target: Target,
    images: Array,
    methods: Sequence[str],
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = None,
) -> GradientMaps:
    """Return the program of the methods, with the layers that `layer` means; args and raises as `gradient_cams`."""
    methods = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    for method in methods:
        if method not in FORMULAS:
            near = near_matches(method, FORMULAS)
            raise ArgumentError(f"There is no gradient CAM {method!r}.{near} Known are {', '.join(FORMULAS)}.")
    if not methods:
        raise ArgumentError(f"Expected at least one method of {', '.join(FORMULAS)}; got none.")
    if convention not in (None, "pytorch-grad-cam"):
        raise ArgumentError(f"A convention is None or 'pytorch-grad-cam'; got {convention!r}.")
    size = (int(images.shape[1]), int(images.shape[2]))
    layers = map_layers(model, size, layer)
    affine = check_reached(model, target, layers, size).affine
    if "cam" in methods:
        _check_cam(model, target, layers, affine, size)
    if not resize:
        shapes = {node.name: node.shape[:2] for node in nodes(model.network, size) if node.name in layers}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {h} x {w}" for name, (h, w) in shapes.items())
            raise ArgumentError(f"Maps of several layers are averaged at one size; these have {listed}. Use resize=True.")
    return GradientMaps(model.network, target, layers, methods, relu, resize, convention)


def _check_cam(model: Model, target: Target, layers: tuple[str, ...], affine: bool, size: Size) -> None:
    if len(layers) != 1:
        raise ArgumentError(f"CAM looks at one layer, the last; got {', '.join(layers)}.")
    (layer,) = layers
    reason = ""
    if not affine:
        reason = "is not linear in the layer's values: there is a ReLU, a max pooling, a softmax or the like between them"
    elif not pools_evenly(model, target, layer, size):
        reason = "weighs the positions of the layer differently: it is not pooled over all of them"
    if reason:
        raise UnsupportedError(
            f"CAM needs average pooling over all positions and linear layers, and nothing else, between the layer {layer!r} "
            f"and the target. Here the target {reason}. Use grad_cam, which equals CAM but for a factor where CAM exists."
        )
