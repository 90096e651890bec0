"""The methods that noise can be averaged over: programs of one evaluation, and integrated gradients.

A method joins by an entry in `INNER`: a function of the model, the target, the images and its own options that returns an
`Inner`, whose program takes and returns what that of a gradient does.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from jaxviz._errors import ArgumentError, near_matches
from jaxviz._pytree import pytree
from jaxviz._types import Array
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._cam.formulas import Convention
from jaxviz.attribution._cam.gradient_cams import cam_program
from jaxviz.attribution._cam.layers import AsLayers
from jaxviz.attribution._cam.program import GradientMaps
from jaxviz.attribution._methods.gradient import Gradient
from jaxviz.attribution._methods.integrated_gradients import Path, QuadratureRule, path_program, quadrature
from jaxviz.attribution._target import Target
from jaxviz.models import Model
from jaxviz.ops import DECONVNET, EXACT, GUIDED, Ops


@dataclasses.dataclass(frozen=True)
class Inner:
    """A method that is run on many noisy versions of an image.

    Attributes:
        program: takes a dict of `images` (n, H, W, C), `index` (n, K) or None and `items`, and returns a dict of `maps`
            (n, K, ...), `scores` (n, K) and `index`; or a `Path`, which takes steps.
        items: what else the program takes of N images, (N, ...), such as baselines.
        spatial: whether its maps have no color axis.
        layer: whose activations it looks at, or None.
    """

    program: Callable[[dict[str, Any]], dict[str, Any]] | Path
    items: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    steps: int = 0
    spatial: bool = False
    layer: str | None = None


def _saliency(model: Model, target: Target, images: Array) -> Inner:
    return _gradient(model, target, EXACT)


def _guided_backprop(model: Model, target: Target, images: Array) -> Inner:
    return _gradient(model, target, GUIDED)


def _deconvnet(model: Model, target: Target, images: Array) -> Inner:
    return _gradient(model, target, DECONVNET)


def _input_x_gradient(model: Model, target: Target, images: Array, *, baseline: Baseline = "mean") -> Inner:
    return _gradient(model, target, EXACT, {"baseline": as_baselines(model, baseline, images)})


def _integrated_gradients(
    model: Model,
    target: Target,
    images: Array,
    *,
    baseline: Baseline = "mean",
    steps: int = 50,
    rule: QuadratureRule = "gauss_legendre",
    multiply: bool = True,
) -> Inner:
    points, weights = quadrature(rule, steps)
    program = path_program(model, target, images.shape[1:3], points, weights, multiply)
    return Inner(program, {"baseline": as_baselines(model, baseline, images)}, len(points))


@pytree
@dataclasses.dataclass(frozen=True)
class _SingleCam:
    """Program: a single class activation map, with the output of `Gradient`."""

    program: GradientMaps

    def __call__(self, items: dict[str, Any]) -> dict[str, Any]:
        output = self.program(items)
        (cam,) = output.cams.values()
        return {"maps": cam.maps, "scores": output.scores, "index": output.classes}


def _cam(
    method: str,
    model: Model,
    target: Target,
    images: Array,
    *,
    layer: AsLayers = None,
    relu: bool | None = None,
    resize: bool = True,
    convention: Convention = None,
) -> Inner:
    program = cam_program(model, target, images, (method,), layer, relu, resize, convention)
    return Inner(_SingleCam(program), spatial=True, layer=" + ".join(program.layers))


def _gradient(model: Model, target: Target, ops: Ops, items: Mapping[str, Array] | None = None) -> Inner:
    return Inner(Gradient(model.network, target, ops), items or {})


# Not those of principal components: over noise their order changes, and a mean of first components is of several.
_CAMS = ("grad_cam", "grad_cam_plus_plus", "xgrad_cam", "hires_cam", "layer_cam", "grad_cam_elementwise")

INNER: dict[str, Callable[..., Inner]] = {
    "saliency": _saliency,
    "input_x_gradient": _input_x_gradient,
    "guided_backprop": _guided_backprop,
    "deconvnet": _deconvnet,
    "integrated_gradients": _integrated_gradients,
    **{method: partial(_cam, method) for method in _CAMS},
}


def as_inner(name: str, model: Model, target: Target, images: Array, options: Mapping[str, Any] | None) -> Inner:
    """Return the method of a name with its own options.

    Raises:
        ArgumentError: no such method, or an option that it does not take.
    """
    if name not in INNER:
        raise ArgumentError(f"There is no inner method {name!r}.{near_matches(name, INNER)} Known are {', '.join(INNER)}.")
    known = [p.name for p in inspect.signature(INNER[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options or {}:
        if option not in known:
            takes = ", ".join(known) or "none"
            raise ArgumentError(f"{name} has no option {option!r} for noise to be averaged over it; it takes {takes}.")
    return INNER[name](model, target, images, **(options or {}))
