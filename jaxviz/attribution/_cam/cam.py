"""Class activation maps from a layer's values and gradients: CAM, Grad-CAM and what came after it."""

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
from jaxviz.attribution._cam.program import GradientMaps
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
    convention: Convention = "published",
    **run: Unpack[RunOptions],
) -> dict[str, Attribution]:
    """Return several class activation maps from one forward pass and one backward pass of what lies above the layer.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        methods: any of `cam`, `grad_cam`, `grad_cam_plus_plus`, `xgrad_cam`, `hires_cam`, `layer_cam`, `grad_cam_elementwise`,
            `eigen_cam` and `eigen_grad_cam`; all but `cam`, which few networks allow, unless given.
        layer: as of `grad_cam`.
        relu: whether negative values become zero; each method's own habit unless given.
        resize: to the images' size, as of `grad_cam`.
        convention: as of `grad_cam_plus_plus`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        The attribution of each method, by its name, as the function of that name gives it.

    Raises:
        As `grad_cam`; and ArgumentError for an unknown method.

    >>> maps = gradient_cams(model, images, methods=("grad_cam", "layer_cam"))
    >>> maps["layer_cam"].maps.shape
    (2, 128, 128)
    """
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    program = cam_program(model, made, images, methods, layer, relu, resize, convention)
    done = engine.map_images(program, {"images": images, "index": index}, **run)
    found = {}
    for method in program.methods:
        settings: dict[str, Any] = {"relu": FORMULAS[method].relu if relu is None else relu, "resize": resize}
        if method == "grad_cam_plus_plus":
            settings["convention"] = convention
        found[method] = finished(
            method,
            model,
            made,
            {"maps": done["found"][method]["maps"], "scores": done["scores"], "index": done["index"]},
            spatial=True,
            settings=settings,
            layer=" + ".join(program.layers),
            negative=np.asarray(done["found"][method]["negative"]),
        )
    return found


def traced_cam(
    model: Model,
    images: Array,
    target: AsTarget = None,
    *,
    method: str = "grad_cam",
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = "published",
) -> Array:
    """Return a class activation map as an array, inside traced code: under `jax.jit`, and under `jax.grad` for a loss on maps.

    Args as of `gradient_cams`; nothing of the images' values is checked.

    Returns:
        float32 (n, H, W), or (n, K, H, W) for K targets.

    >>> loss = lambda images: traced_cam(model, images, 3, layer="layer3").mean()
    >>> jax.grad(loss)(images).shape == images.shape
    True
    """
    made, index = as_target(model, target, images)
    program = cam_program(model.bare(), made, images, (method,), layer, relu, resize, convention)
    maps = program({"images": images, "index": index})["found"][method]["maps"]
    return maps if made.many else maps[:, 0]


def cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: str | None = None,
    relu: bool = False,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the layer's channels, weighted by the linear layer of a class (Zhou et al., 2016): sum_c w_c A_c.

    The mean of the signed map at the layer's resolution is the logit without its bias.

    Args as for `grad_cam`, and:
        layer: a single one, between which and the target there is nothing but average pooling over all positions and linear
            layers. That is seen in the operations the network computes and in its weights, not in names.

    Raises:
        UnsupportedError: there is more between the layer and the target, such as a ReLU (VGG), a softmax
            (`target=probability(...)`), or weights of each position of its own.
    """
    return _one("cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def grad_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = True,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the layer's channels, weighted by the mean of their gradients (Selvaraju et al., 2017): ReLU(sum_c mean(G_c) A_c).

    One forward pass of the network, and the backward pass of what lies above the layer.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        layer: whose values A are looked at, a node or a module (its last node), with positions; unless given, the last one, see
            `default_layer`. Of several layers the maps are scaled, each by itself, resized and averaged.
        relu: set what speaks against the target to zero, as published; False leaves the signed map.
        resize: to the size of the images, bilinear; False leaves the layer's own resolution.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), raw; (N, K, H, W) for K targets. Where the ReLU left nothing, `diagnosis` says so.

    Raises:
        LayerError: the network has no such layer.
        ArgumentError: a layer without positions, a target that does not depend on the layer, images or target of a wrong shape.
        UnsupportedError: no layer of the network has positions.

    >>> grad_cam(model, images, [[217, 482]], layer="layer4", resize=False).maps.shape
    (8, 2, 7, 7)
    """
    return _one("grad_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def grad_cam_plus_plus(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = True,
    resize: bool = True,
    convention: Convention = "published",
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return Grad-CAM++ (Chattopadhay et al., 2018): weights sum(ReLU(G_c) a_c) with a_c = G_c^2 / (2 G_c^2 + sum(A_c) G_c^3).

    Args as for `grad_cam`, and:
        convention: `"pgc"` adds 1e-6 to the denominator, as pytorch-grad-cam does. Gradients of logits are often smaller than
            1e-3, where that number, not the formula, decides the weights; `"published"` has none.
    """
    return _one("grad_cam_plus_plus", model, images, target, run, layer=layer, relu=relu, resize=resize, convention=convention)


def xgrad_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = True,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return XGrad-CAM (Fu et al., 2020): the weight of a channel is sum(G_c A_c) / sum(A_c), and 0 where it is silent.

    Args as for `grad_cam`.
    """
    return _one("xgrad_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def hires_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = True,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return HiResCAM (Draelos and Carin, 2020): sum_c G_c A_c at each position.

    Args as for `grad_cam`; without ReLU and resizing it is Captum's `LayerGradientXActivation`, summed over the channels.
    """
    return _one("hires_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def layer_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = True,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return LayerCAM (Jiang et al., 2021): sum_c ReLU(G_c) A_c at each position; of use in early layers too.

    Args as for `grad_cam`.
    """
    return _one("layer_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def grad_cam_elementwise(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the sum over the channels of ReLU(G_c A_c) at each position: what speaks for the target, channel by channel.

    Args as for `grad_cam`.
    """
    return _one("grad_cam_elementwise", model, images, target, run, layer=layer, resize=resize)


def eigen_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = False,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return Eigen-CAM (Muhammad and Yeasin, 2020): the layer's first principal component over the positions.

    It does not look at the target. Its sign, which the decomposition leaves open, is the one that is high where the layer is
    active. Signed, of mean 0 at the layer's resolution.

    Args as for `grad_cam`.
    """
    return _one("eigen_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def eigen_grad_cam(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    layer: AsLayers = None,
    relu: bool = False,
    resize: bool = True,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return the first principal component of gradient x value over the positions: Eigen-CAM that looks at the target.

    Its sign is the one that is high where sum_c G_c A_c is.

    Args as for `grad_cam`.
    """
    return _one("eigen_grad_cam", model, images, target, run, layer=layer, relu=relu, resize=resize)


def _one(method: str, model: Model, images: ArrayLike, target: AsTarget, run: RunOptions, **options: Any) -> Attribution:
    return gradient_cams(model, images, target, methods=(method,), **options, **run)[method]


def cam_program(
    model: Model,
    target: Target,
    images: Array,
    methods: Sequence[str],
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = "published",
) -> GradientMaps:
    """Return the program of the methods, with the layers that `layer` means; args and raises as `gradient_cams`."""
    methods = (methods,) if isinstance(methods, str) else tuple(dict.fromkeys(methods))
    for method in methods:
        if method not in FORMULAS:
            near = near_matches(method, FORMULAS)
            raise ArgumentError(f"There is no gradient CAM {method!r}.{near} Known are {', '.join(FORMULAS)}.")
    if not methods:
        raise ArgumentError(f"Expected at least one method of {', '.join(FORMULAS)}; got none.")
    if convention not in ("published", "pgc"):
        raise ArgumentError(f"convention is 'published' or 'pgc', not {convention!r}.")
    size = (int(images.shape[1]), int(images.shape[2]))
    layers = map_layers(model, size, layer)
    affine = check_reached(model, target, layers, size).affine
    if "cam" in methods:
        _check_cam(model, target, layers, affine, size)
    if not resize:
        shapes = {node.name: node.shape[:2] for node in nodes(model, size) if node.name in layers}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {h} x {w}" for name, (h, w) in shapes.items())
            raise ArgumentError(f"Maps of several layers are averaged at one size; these have {listed}. Use resize=True.")
    return GradientMaps(model.bare(), target, layers, methods, relu, resize, convention)


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
