"""Integrated gradients: gradients along the straight path from a baseline to the image."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._affine_prefix import at_stem, find_stem, pull_to_images, stem_gradients
from jaxviz.attribution._attribution import Attribution, finished
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._sampling import along, apart, as_count, repeated, together, weighted_sum
from jaxviz.attribution._target import AsTarget, Target, as_target
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network

QuadratureRule: TypeAlias = Literal["gauss_legendre", "trapezoid", "riemann_left", "riemann_right", "riemann_middle"]
RULES: tuple[str, ...] = ("gauss_legendre", "trapezoid", "riemann_left", "riemann_right", "riemann_middle")
Convention: TypeAlias = Literal["captum"]
PADDED = 1024  # points are padded to a multiple of it, so that their number is no part of a program


def quadrature(rule: QuadratureRule, steps: int, convention: Convention | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the points in [0, 1] and the weights, float64 (steps,), of a rule that integrates over [0, 1].

    The weights add up to 1. Only Captum's trapezoid (`convention="captum"`) gives each of its n points 1/n and the two ends
    half of that, (n - 1)/n in all, where the intervals are 1/(n - 1) wide.

    Raises:
        ArgumentError: no such rule or convention, or too few steps.
    """
    if rule not in RULES:
        raise ArgumentError(f"A rule is {', '.join(map(repr, RULES))}; got {rule!r}.")
    if convention not in (None, "captum"):
        raise ArgumentError(f"A convention is None or 'captum'; got {convention!r}.")
    steps = as_count(steps, "steps", 2 if rule == "trapezoid" else 1)
    if rule == "gauss_legendre":
        points, weights = np.polynomial.legendre.leggauss(steps)
        return (1 + points) / 2, weights / 2
    if rule == "trapezoid":
        weights = np.full(steps, 1 / (steps if convention == "captum" else steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    offset = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return (np.arange(steps) + offset) / steps, np.full(steps, 1 / steps)


@pytree
@dataclasses.dataclass(frozen=True)
class Path:
    """Weighted gradients at points between baseline and image: a program of the engine.

    Points lie between the values of the network's stem, and its gradient is applied to the sum; without a stem they are images.
    """

    network: Network
    target: Target
    points: Array
    weights: Array
    stem: str | None = dataclasses.field(metadata=dict(static=True))
    multiply: bool = dataclasses.field(default=True, metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        found, above = at_stem(self.network, self.target, self.stem, items["images"], items["index"])
        ends, below = at_stem(self.network, self.target, self.stem, items["baseline"], found["index"])
        return {"scores": found["scores"], "index": found["index"], "ends": ends["scores"], "from": below, "by": above - below}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        s, by, size = len(numbers), fixed["by"][None], items["images"].shape[1:3]
        values = together(fixed["from"][None] + along(self.points[numbers], by) * by)
        index = repeated(fixed["index"], s)
        maps = stem_gradients(self.network, self.target, self.stem, values, index, size)
        return jnp.swapaxes(weighted_sum(self.weights[numbers] * valid, apart(maps, s, axis=1), axis=1), 0, 1)

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Any]:
        sums = pull_to_images(self.network, self.stem, items["images"], sums)
        product = sums * (items["images"] - items["baseline"])[:, None]
        delta = product.sum((2, 3, 4)) - (fixed["scores"] - fixed["ends"])
        maps = product if self.multiply else sums
        return {"maps": maps, "scores": fixed["scores"], "index": fixed["index"], "delta": delta}


def path_program(
    model: Model, target: Target, size: tuple[int, ...], points: np.ndarray, weights: np.ndarray, multiply: bool = True
) -> Path:
    """Return the program of integrated gradients; another number of points makes no other program (up to 1024)."""
    empty = -len(points) % PADDED
    padded = [jnp.asarray(np.pad(values, (0, empty))) for values in (points, weights)]  # float32, unless 64 bits are enabled
    return Path(model.network, target, padded[0], padded[1], find_stem(model.network, target, size), bool(multiply))


def integrated_gradients(
    model: Model,
    images: ArrayLike,
    target: AsTarget = None,
    *,
    baseline: Baseline = "mean",
    steps: int = 50,
    rule: QuadratureRule = "gauss_legendre",
    multiply: bool = True,
    convention: Convention | None = None,
    **run: Unpack[RunOptions],
) -> Attribution:
    """Return integrated gradients, `(x - x') * integral of df/dx(x' + a (x - x')) da` (Sundararajan et al., 2017).

    The map's sum is the score's change from the baseline x' to the image x, but for the error of the sum over `steps` points,
    which `delta` tells. Of networks of ReLUs it falls as 1 / steps by any rule: about a hundredth of the score at 50 steps, a
    thousandth at 500. One forward and one backward pass a step, of what lies above the network's affine start.

    In float32 a ReLU whose input is 0 but for rounding, on some step, changes a map by up to some thousandths of its largest
    value. Where that matters, give a model whose leaves are float64, within `jax.enable_x64(True)`: maps are float64 then.

    Args:
        model: any network or function.
        images: float32 (N, H, W, C) in [0, 1].
        target: what is explained, see `attribute`.
        baseline: x', see `attribute`; the default is the mean color, Captum's 0.
        steps: points on the path. Another number compiles nothing new.
        rule: `"gauss_legendre"`, without the two ends; `"trapezoid"`, with both; `"riemann_left"`, `"riemann_right"` with one,
            `"riemann_middle"` with neither.
        multiply: by x - x'; else the mean gradient on the path is returned (`delta` stays that of the product).
        convention: `"captum"` for Captum's trapezoid, whose weights add up to 1 - 1/steps; None, where they add up to 1.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `maps` float32 (N, H, W, C), signed, or (N, K, H, W, C) for K targets; `delta` (N,) or (N, K).

    Raises:
        ArgumentError: images, target, baseline, rule or steps that do not fit.

    >>> integrated_gradients(model, images, "church", steps=100).delta.shape  # how far the maps are from adding up
    (2,)
    """
    points, weights = quadrature(rule, steps, convention)
    images = model.check_images(images)
    made, index = as_target(model, target, images)
    items = {"images": images, "baseline": as_baselines(model, baseline, images), "index": index}
    found = engine.reduce_images(
        path_program(model, made, images.shape[1:3], points, weights, multiply), items, len(points), **run
    )
    settings = {"baseline": baseline, "steps": len(points), "rule": rule, "multiply": multiply, "convention": convention}
    return finished("integrated_gradients", model, made, found, spatial=False, settings=settings)
