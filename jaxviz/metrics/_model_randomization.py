"""The sanity check: a map that stays as it is when the network is made random tells nothing of the network."""

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
from jaxviz.metrics._arguments import as_user_target, pixel_maps, settled, shaped
from jaxviz.metrics._reinitialize import Draw, cascade, initial
from jaxviz.metrics._sensitivity import Method, as_method
from jaxviz.metrics._similarity import Similarity
from jaxviz.models import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Randomisation:
    """How alike a method's maps are to those of the trained network while its layers become random from the top down.

    Attributes:
        method: its name.
        layers: the L stages; at each one this layer and all before it are random.
        spearman: float32 (N, L), or (N, K, L) for K targets: rank correlation of the absolute maps; 1 for maps of one order.
            NaN where a map is constant or not finite.
        ssim: the same of structural similarity.
    """

    method: str
    layers: tuple[str, ...]
    spearman: np.ndarray
    ssim: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """The cascades of several methods.

    Attributes:
        layers: the L stages.
        found: of each method that ran.
        failed: of each other, why not.
    """

    layers: tuple[str, ...]
    found: Mapping[str, Randomisation]
    failed: Mapping[str, str]

    def changes_from(self, method: str, limit: float = 0.5) -> str | None:
        """Return the first stage whose mean rank correlation is at most `limit` in size, or None: the maps hardly change."""
        found = self.found[method].spearman
        return next((layer for i, layer in enumerate(self.layers) if abs(_mean(found[..., i])) <= limit), None)

    def markdown(self, limit: float = 0.5) -> str:
        """Return a table: the mean rank correlation at each stage, the SSIM at the end, and from where on the maps change."""
        head = ["method", *(f"`{layer}`" for layer in self.layers), "SSIM at the end", "changes"]
        rows = [head, ["---"] * len(head)]
        for name, made in self.found.items():
            means = [f"{_mean(made.spearman[..., i]):.2f}" for i in range(len(self.layers))]
            layer = self.changes_from(name, limit)
            verdict = "**no**" if layer is None else f"from `{layer}`"
            rows.append([f"`{name}`", *means, f"{_mean(made.ssim[..., -1]):.2f}", verdict])
        rows += [[f"`{name}`", f"not run: {why}", *[""] * (len(head) - 2)] for name, why in self.failed.items()]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def model_randomisation(
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
) -> Randomisation:
    """Return how alike a method's maps stay while the network becomes random, from the top layer down.

    The cascade of Adebayo et al., 2018. A method whose maps hardly change shows the image and not what the network learned.
    The new weights come from the distribution that they had before training, statistics of batch normalisation are reset, and
    what is explained stays the class that the trained network saw. Only weights change: all stages run one compiled program.

    Args:
        model: a network of modules (no pure function).
        images: float32 (N, H, W, C) in [0, 1].
        method: a name of `METHODS`, or a function `(model, images, target) -> Attribution`, such as one of
            `jaxviz.attribution`.
        target: what is explained, see `attribute`.
        layers: names of modules from the top down, everything inside one goes at once, `"a+b"` are two at once; every layer
            with weights unless given.
        seed: of the new weights; those of a layer depend on nothing else but its name.
        draw: makes a parameter anew, see `initial`.
        reduce: of maps with colours, `"sum_abs"`, `"max_abs"` or `"sum"`; then absolute values are compared.
        options: of the method.
        **run: see `jaxviz.engine.RunOptions`; passed to the method.

    Raises:
        LayerError: a module that the network does not have.
        UnsupportedError: a pure function, or a parameter that `draw` does not know.

    >>> model_randomisation(model, images, "grad_cam", layers=["fc", "layer4", "layer3"]).spearman.shape
    (8, 3)
    """
    explain = as_method(method, options)
    x = model.check_images(images)
    made, index = settled(model, target, x, run)
    classes = as_user_target(target, made, index)
    original = np.abs(pixel_maps(explain(model, x, classes, **run), reduce))
    names, found = [], []
    for name, random in cascade(model, layers, seed=seed, draw=draw):
        maps = np.abs(pixel_maps(explain(random, x, classes, **run), reduce))
        found.append(engine.map_images(Similarity(), {"one": original, "other": maps}, **run))
        names.append(name)
    stacked = {key: shaped(np.stack([one[key] for one in found], -1), made.many) for key in ("spearman", "ssim")}
    label = method if isinstance(method, str) else getattr(method, "__name__", "method")
    return Randomisation(label, tuple(names), **stacked)


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
    """Run `model_randomisation` for several methods, of the same images and the same random networks.

    Args:
        model, images, target, layers, seed, draw, reduce: see `model_randomisation`.
        methods: names, or options by name; all of `METHODS` unless given. One that raises an error of jaxviz, or lacks an
            argument, is listed with the reason and does not stop the rest.

    >>> print(sanity_check(model, images, ["saliency", "guided_backprop"], layers=["fc", "layer4"]).markdown())
    """
    names = METHODS if methods is None else methods
    wanted = methods if isinstance(methods, Mapping) else {name: {} for name in names}
    stages = tuple(name for name, _ in cascade(model, layers, seed=seed, draw=draw))
    found, failed = {}, {}
    for name, options in wanted.items():
        settings = {"layers": layers, "seed": seed, "draw": draw, "reduce": reduce, "options": options}
        try:
            found[name] = model_randomisation(model, images, name, target, **settings, **run)
        except (JaxvizError, TypeError) as error:
            failed[name] = str(error).replace("\n", " ").replace("|", "/")
    return SanityCheck(stages, found, failed)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
