"""What each class activation map makes of a layer's values and the gradients with respect to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax.nn import relu

from jaxviz._types import Array
from jaxviz.attribution._cam.eigen_cam import first_component

Convention: TypeAlias = Literal["pytorch-grad-cam"] | None  # None: as published
PLACES = (-3, -2)  # the axes of the positions


class Formula(NamedTuple):
    """A map (K, n, h, w) of a layer's values (n, h, w, C) and their gradients (K, n, h, w, C)."""

    fn: Callable[[Array, Array], Array]
    relu: bool  # whether it ends in a ReLU unless the caller says otherwise
    name: str  # as in the literature


def weighted(weights: Array, values: Array) -> Array:
    """Return the sum of the channels of values (n, h, w, C) with weights (K, n, C): (K, n, h, w)."""
    return jnp.einsum("knc,nhwc->knhw", weights, values)


def _cam(values: Array, gradients: Array) -> Array:
    # Under global average pooling the gradient at every position is the weight of the linear layer over their number.
    return weighted(gradients.sum(PLACES), values)


def _grad_cam(values: Array, gradients: Array) -> Array:
    return weighted(gradients.mean(PLACES), values)


def _grad_cam_plus_plus(values: Array, gradients: Array) -> Array:
    # Equation 19 divided by the square of the gradient: alpha = 1 / (2 + sum of the channel x gradient).
    below = 2 + values.sum(PLACES, keepdims=True) * gradients
    return weighted((relu(gradients) / jnp.where(below == 0, 1, below)).sum(PLACES), values)


def _grad_cam_plus_plus_pgc(values: Array, gradients: Array) -> Array:
    square = gradients * gradients
    alpha = square / (2 * square + values.sum(PLACES, keepdims=True) * square * gradients + 1e-6)
    return weighted((relu(gradients) * jnp.where(gradients != 0, alpha, 0)).sum(PLACES), values)


def _xgrad_cam(values: Array, gradients: Array) -> Array:
    total = values.sum(PLACES)
    return weighted((gradients * values).sum(PLACES) / jnp.where(total == 0, 1, total), values)


def _hires_cam(values: Array, gradients: Array) -> Array:
    return (gradients * values).sum(-1)


def _elementwise(values: Array, gradients: Array) -> Array:
    return relu(gradients * values).sum(-1)


def _layer_cam(values: Array, gradients: Array) -> Array:
    return (relu(gradients) * values).sum(-1)


def _eigen_cam(values: Array, gradients: Array) -> Array:
    return jnp.broadcast_to(first_component(values), gradients.shape[:-1])


def _eigen_grad_cam(values: Array, gradients: Array) -> Array:
    return first_component(gradients * values)


FORMULAS = {
    "cam": Formula(_cam, False, "CAM"),
    "grad_cam": Formula(_grad_cam, True, "Grad-CAM"),
    "grad_cam_plus_plus": Formula(_grad_cam_plus_plus, True, "Grad-CAM++"),
    "xgrad_cam": Formula(_xgrad_cam, True, "XGrad-CAM"),
    "hires_cam": Formula(_hires_cam, True, "HiResCAM"),
    "layer_cam": Formula(_layer_cam, True, "LayerCAM"),
    "grad_cam_elementwise": Formula(_elementwise, False, "element-wise Grad-CAM"),
    "eigen_cam": Formula(_eigen_cam, False, "Eigen-CAM"),
    "eigen_grad_cam": Formula(_eigen_grad_cam, False, "EigenGrad-CAM"),
}
_PYTORCH_GRAD_CAM = {"grad_cam_plus_plus": _grad_cam_plus_plus_pgc}


def make_map(method: str, convention: Convention, values: Array, gradients: Array) -> Array:
    """Return the signed map (K, n, h, w) of a method of `FORMULAS`."""
    fn = _PYTORCH_GRAD_CAM.get(method, FORMULAS[method].fn) if convention == "pytorch-grad-cam" else FORMULAS[method].fn
    return fn(values, gradients)
