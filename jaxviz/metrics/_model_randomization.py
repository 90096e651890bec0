"""Sanity check: maps must change if the weights of the network are randomized."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from jaxviz import engine
from jaxviz._errors import JaxvizError
from jaxviz._types import ArrayLike
from jaxviz.attribution._attribute import METHODS
from jaxviz.attribution._target import AsTarget
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import as_user_target, pixel_maps, resolve_target, shaped
from jaxviz.metrics._reinitialize import Draw, cascade, initial
from jaxviz.metrics._sensitivity import Method, as_method
from jaxviz.metrics._similarity import Similarity
from jaxviz.models import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Randomization:
    """Similarity of a method's maps to those of the trained network while its layers are randomized from the top down.

    Attributes:
        method: name of the method.
        layers: the L stages; at each stage, this layer and all before it are random.
        spearman: float32 (N, L), or (N, K, L) for K targets: rank correlation of the absolute maps, 1 for the same order. NaN
            if a map is constant or not finite.
        ssim: the same for structural similarity.
    """

    method: str
    layers: tuple[str, ...]
    spearman: np.ndarray
    ssim: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """Results of `model_randomization` for several methods.

    Attributes:
        layers: the L stages.
        found: the result of each method that ran.
        failed: the error message of each other method.
    """

    layers: tuple[str, ...]
    found: Mapping[str, Randomization]
    failed: Mapping[str, str]

    def changes_from(self, method: str, limit: float = 0.5) -> str | None:
        """Return the first stage with an absolute mean rank correlation of at most `limit`; None if the maps hardly change."""
        correlation = self.found[method].spearman
        return next((layer for i, layer in enumerate(self.layers) if abs(_mean(correlation[..., i])) <= limit), None)

    def markdown(self, limit: float = 0.5) -> str:
        """Return a table: mean rank correlation at each stage, SSIM at the last, and the stage from which the maps change."""
        head = ["method", *(f"`{layer}`" for layer in self.layers), "SSIM at the end", "changes"]
        rows = [head, ["---"] * len(head)]
        for name, result in self.found.items():
            means = [f"{_mean(result.spearman[..., i]):.2f}" for i in range(len(self.layers))]
            layer = self.changes_from(name, limit)
            verdict = "**no**" if layer is None else f"from `{layer}`"
            rows.append([f"`{name}`", *means, f"{_mean(result.ssim[..., -1]):.2f}", verdict])
        rows += [[f"`{name}`", f"not run: {why}", *[""] * (len(head) - 2)] for name, why in self.failed.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def model_randomization(
    model: Model,
    images: ArrayLike,
    method: Method = "saliency",
    target: AsTarget = None,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    draw: Draw = initial,
    reduce: Reduction = "sum_abs",
    options: Mapping[str, Any] | None = None,
    **run: Unpack[RunOptions],
) -> Randomization:
    """Return the similarity of a method's maps while the network is randomized, from the top layer down.

    The cascade of Adebayo et al., 2018. A method whose maps hardly change shows the image, not what the network learned. New
    weights have the distribution of weights before training, statistics of batch normalization are reset, and the target stays
    the class that the trained network predicts. Only weights change: all stages run one compiled program.

    Args:
        model: a network of modules, not a pure function.
        images: float32 (N, H, W, C) in [0, 1].
        method: a name of `jaxviz.attribution.METHODS`, or a function `(model, images, target) -> Attribution`, such as one of
            `jaxviz.attribution`.
        target: see `attribute`.
        layers: names of modules from the top down; everything inside a module is randomized at once, and `"a+b"` are two
            modules at once. By default every layer with weights.
        seed: a layer's new weights depend only on the seed and the layer's name.
        draw: returns a new parameter, see `initial`.
        reduce: how maps with color channels are reduced, `"sum_abs"`, `"max_abs"` or `"sum"`; absolute values are compared.
        options: options of the method.
        **run: see `jaxviz.RunOptions`; passed to the method.

    Returns:
        `Randomization`.

    Raises:
        LayerError: a module that the network does not have.
        UnsupportedError: a pure function, or a parameter that `draw` does not know.

    >>> check = jv.metrics.model_randomization(model, images, "grad_cam", layers=["fc", "layer4"])
    >>> check.spearman.shape == (len(images), 2)
    True
    """
    explain = as_method(method, options)
    x = model.check_images(images)
    resolved, index = resolve_target(model, target, x, run)
    classes = as_user_target(target, resolved, index)
    original = np.abs(pixel_maps(explain(model, x, classes, **run), reduce))
    names: list[str] = []
    similarities: list[dict[str, np.ndarray]] = []
    for name, random in cascade(model, layers, seed=seed, draw=draw):
        maps = np.abs(pixel_maps(explain(random, x, classes, **run), reduce))
        similarities.append(engine.map_images(Similarity(), {"one": original, "other": maps}, **run))
        names.append(name)
    spearman, ssim = (
        shaped(np.stack([values[key] for values in similarities], -1), resolved.many) for key in ("spearman", "ssim")
    )
    label = method if isinstance(method, str) else getattr(method, "__name__", "method")
    return Randomization(label, tuple(names), spearman, ssim)


def sanity_check(
    model: Model,
    images: ArrayLike,
    methods: Mapping[str, Mapping[str, Any]] | Sequence[str] | None = None,
    target: AsTarget = None,
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    draw: Draw = initial,
    reduce: Reduction = "sum_abs",
    **run: Unpack[RunOptions],
) -> SanityCheck:
    """Run `model_randomization` for several methods, with the same images and the same random networks.

    Args:
        model, images, target, layers, seed, draw, reduce: see `model_randomization`.
        methods: names, or options by name; all of `jaxviz.attribution.METHODS` by default. A method that raises an error of
            jaxviz, or lacks an argument, is listed in `failed` and does not stop the rest.
        **run: see `jaxviz.RunOptions`; passed to the methods.

    Returns:
        `SanityCheck`.

    >>> check = jv.metrics.sanity_check(model, images, ["saliency", "guided_backprop"], layers=["fc", "layer4"])
    >>> sorted(check.found)
    ['guided_backprop', 'saliency']
    """
    names = METHODS if methods is None else methods
    options_of: Mapping[str, Mapping[str, Any]] = methods if isinstance(methods, Mapping) else {name: {} for name in names}
    stages = tuple(name for name, _ in cascade(model, layers, seed=seed, draw=draw))
    found: dict[str, Randomization] = {}
    failed: dict[str, str] = {}
    for name, options in options_of.items():
        try:
            found[name] = model_randomization(
                model, images, name, target, layers=layers, seed=seed, draw=draw, reduce=reduce, options=options, **run
            )
        except (JaxvizError, TypeError) as error:
            failed[name] = str(error).replace("\n", " ").replace("|", "/")
    return SanityCheck(stages, found, failed)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
