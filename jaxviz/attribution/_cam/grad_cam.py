"""Class activation maps from a layer's values and gradients: CAM, Grad-CAM and its successors, a function each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Unpack

from jaxviz._types import ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._cam.formulas import FORMULAS, Convention
from jaxviz.attribution._cam.gradient_cams import gradient_cams
from jaxviz.attribution._cam.layers import AsLayers
from jaxviz.attribution._target import AsTarget
from jaxviz.engine import RunOptions
from jaxviz.models import Model


class CamOptions(RunOptions, total=False):
    """Options of every gradient CAM; `grad_cam` describes them."""

    layer: AsLayers
    relu: bool
    resize: bool


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
    """Return the layer's channels, weighted by their mean gradients (Selvaraju et al., 2017): ReLU(sum_c mean(G_c) A_c).

    One forward pass of the network, and the backward pass of the part above the layer.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        target: the score to explain, see `attribute`.
        layer: the layer with the values A, a node or a module (its last node), with positions; by default the last one, see
            `default_layer`. With several layers, each map is normalized and resized, and the maps are averaged.
        relu: set negative values, which are evidence against the target, to zero, as published; False keeps the signed map.
        resize: resize maps to the size of the images, bilinear; False keeps the resolution of the layer.
        **run: see `jaxviz.RunOptions`.

    Returns:
        `maps` float32 (N, H, W), raw; (N, K, H, W) for K targets. If the ReLU leaves nothing, `diagnosis` says so.

    Raises:
        LayerError: the network has no such layer.
        ArgumentError: a layer without positions, a target that does not depend on the layer, images or target of a wrong shape.
        UnsupportedError: no layer of the network has positions.

    >>> jv.attribution.grad_cam(model, images, [[1, 3]]).maps.shape == (len(images), 2, *images.shape[1:3])
    True
    """
    return _single_cam("grad_cam", model, images, target, {"layer": layer, "relu": relu, "resize": resize, **run})


def grad_cam_plus_plus(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    convention: Convention = None,
    **options: Unpack[CamOptions],
) -> Attribution:
    """Return Grad-CAM++ (Chattopadhay et al., 2018): weights sum(ReLU(G_c) a_c) with a_c = G_c^2 / (2 G_c^2 + sum(A_c) G_c^3).

    Args as for `grad_cam`, and:
        convention: `"pytorch-grad-cam"` adds 1e-6 to the denominator. Gradients of logits are often smaller than 1e-3, where
            this number, not the formula, decides the weights. None adds nothing.
    """
    return _single_cam("grad_cam_plus_plus", model, images, target, options, convention)


def cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return the layer's channels, weighted by the linear layer of a class (Zhou et al., 2016): sum_c w_c A_c.

    The mean of the signed map at the layer's resolution is the logit without its bias.

    Args as for `grad_cam`, and:
        layer: a single layer. Between it and the target there may only be average pooling over all positions and linear layers;
            this is checked in the operations that the network computes and in its weights, not in names.

    Raises:
        UnsupportedError: there is more between the layer and the target, such as a ReLU (VGG), a softmax
            (`target=probability(...)`), or separate weights for each position.
    """
    return _single_cam("cam", model, images, target, options)


def xgrad_cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return XGrad-CAM (Fu et al., 2020): the weight of a channel is sum(G_c A_c) / sum(A_c), and 0 if the channel is 0.

    Args as for `grad_cam`.
    """
    return _single_cam("xgrad_cam", model, images, target, options)


def hires_cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return HiResCAM (Draelos and Carin, 2020): sum_c G_c A_c at each position.

    Args as for `grad_cam`. Without ReLU and resizing it equals Captum's `LayerGradientXActivation`, summed over the channels.
    """
    return _single_cam("hires_cam", model, images, target, options)


def layer_cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return LayerCAM (Jiang et al., 2021): sum_c ReLU(G_c) A_c at each position; useful in early layers too.

    Args as for `grad_cam`.
    """
    return _single_cam("layer_cam", model, images, target, options)


def grad_cam_elementwise(
    model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]
) -> Attribution:
    """Return the sum over the channels of ReLU(G_c A_c) at each position: the evidence for the target, channel by channel.

    Args as for `grad_cam`; the map is never negative, so that `relu` changes nothing.
    """
    return _single_cam("grad_cam_elementwise", model, images, target, options)


def eigen_cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return Eigen-CAM (Muhammad and Yeasin, 2020): the layer's first principal component over the positions.

    It does not depend on the target. The sign of the component, which is arbitrary, is chosen so that the map is high where the
    layer is active. Signed, with mean 0 at the layer's resolution.

    Args as for `grad_cam`.
    """
    return _single_cam("eigen_cam", model, images, target, options)


def eigen_grad_cam(model: Model, images: ArrayLike, target: AsTarget = None, **options: Unpack[CamOptions]) -> Attribution:
    """Return the first principal component of gradient x value over the positions: Eigen-CAM that depends on the target.

    The sign is chosen so that the map is high where sum_c G_c A_c is high.

    Args as for `grad_cam`.
    """
    return _single_cam("eigen_grad_cam", model, images, target, options)


def _single_cam(
    method: str,
    model: Model,
    images: ArrayLike,
    target: AsTarget,
    options: CamOptions,
    convention: Convention = None,
) -> Attribution:
    return gradient_cams(model, images, target, methods=(method,), convention=convention, **options)[method]


def _show_options(function: Callable[..., Attribution]) -> None:
    """Let `help` and `inspect.signature` show the options behind `CamOptions`, with the defaults of the method."""
    signature, run = inspect.signature(function), inspect.signature(grad_cam).parameters
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    shown = [run["layer"], run["relu"].replace(default=FORMULAS[function.__name__].relu), run["resize"]]
    function.__signature__ = signature.replace(parameters=[*own, *shown, run["run"]])  # type: ignore[attr-defined]


for _function in (
    cam,
    grad_cam_plus_plus,
    xgrad_cam,
    hires_cam,
    layer_cam,
    grad_cam_elementwise,
    eigen_cam,
    eigen_grad_cam,
):
    _show_options(_function)
