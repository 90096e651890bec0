"""What fine-tuning changed: the same photographs through two networks, unit by unit and layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.engine import RunOptions
from jaxviz.models import Model, activations

LEAST = 4  # images that the unbiased estimate needs


@dataclasses.dataclass(frozen=True)
class Changes:
    """How alike two networks answer the same images.

    Attributes:
        correlations: for each layer float32 (C,): each unit's correlation (Pearson) between the two networks, over all
            images and positions; NaN where a unit is constant in one of them.
        cka: for each layer the similarity of the two representations, 1 if one is the other but for rotation and scale,
            about 0 if they have nothing in common; see `cka`.
    """

    correlations: Mapping[str, np.ndarray]
    cka: Mapping[str, float]

    def most_changed(self, layer: str, count: int = 10) -> np.ndarray:
        """Return the units of a layer that changed most, the most first; int (count,). Constant ones are left out."""
        found = self.correlations[layer]
        order = np.argsort(found, kind="stable")
        return order[: min(count, int(np.isfinite(found).sum()))]


@pytree
@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Sums over the positions of one image, of both networks' layers: a program of the engine."""

    before: Model
    after: Model
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> dict[str, dict[str, Array]]:
        first, last = (activations(model, images, self.layers) for model in (self.before, self.after))
        return {layer: _sums(first[layer], last[layer]) for layer in self.layers}


def _sums(a: Array, b: Array) -> dict[str, Array]:
    """Return means (n, C) over the positions, and the sums of squares and products about them."""
    a, b = (x.reshape(len(x), -1, x.shape[-1]) for x in (a, b))
    means = a.mean(1), b.mean(1)
    a, b = a - means[0][:, None], b - means[1][:, None]
    return {"a": means[0], "b": means[1], "aa": (a * a).sum(1), "bb": (b * b).sum(1), "ab": (a * b).sum(1)}


def changes(before: Model, after: Model, images: ArrayLike, layers: str | Sequence[str], **run: Unpack[RunOptions]) -> Changes:
    """Compare what two networks of one architecture make of the same images, such as before and after fine-tuning.

    One pass of each network up to the highest of the layers.

    Args:
        before, after: networks that both have the layers, with as many channels in each.
        images: float32 (N, H, W, C) in [0, 1], N at least 4; a hundred or more tell something.
        layers: nodes or modules, such as `["layer3", "layer4"]`.
        **run: see `jaxviz.engine.RunOptions`.

    Raises:
        LayerError: a network has no such layer.
        ArgumentError: too few images, or a layer of different sizes.

    >>> found = changes(before, after, photos, ["layer3", "layer4"])
    >>> found.cka["layer4"], found.most_changed("layer4", 3)
    """
    images = before.check_images(images)
    if len(images) < LEAST:
        raise ArgumentError(f"Expected {LEAST} images or more to compare networks by; got {len(images)}.")
    names = (layers,) if isinstance(layers, str) else tuple(layers)
    size = (int(images.shape[1]), int(images.shape[2]))
    for name in names:
        first, last = (model.layers(size)[name].shape for model in (before, after))
        if first != last:
            raise ArgumentError(f"The layer {name!r} is {first} in one network and {last} in the other; they must be alike.")
    found = engine.map_images(_Pairs(before.bare(), after.bare(), names), images, **run)
    counts = {name: int(np.prod(before.layers(size)[name].shape[:-1])) for name in names}
    return Changes(
        {name: _correlations(found[name], counts[name]) for name in names},
        {name: cka(found[name]["a"], found[name]["b"]) for name in names},
    )


def _correlations(sums: Mapping[str, Any], positions: int) -> np.ndarray:
    """Return the correlation over images and positions: that within images and that between their means, put together."""
    values = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    mean = {name: values[name].mean(0) for name in "ab"}
    a, b = (values[name] - mean[name] for name in "ab")
    about = {
        "aa": values["aa"].sum(0) + positions * (a * a).sum(0),
        "bb": values["bb"].sum(0) + positions * (b * b).sum(0),
        "ab": values["ab"].sum(0) + positions * (a * b).sum(0),
    }
    rounding = {name: 1e-12 * positions * len(a) * mean[name] ** 2 for name in "ab"}
    varies = (about["aa"] > rounding["a"]) & (about["bb"] > rounding["b"])
    spread = np.sqrt(about["aa"] * about["bb"])
    return np.where(varies, about["ab"] / np.where(varies, spread, 1), np.nan).astype(np.float32)


def cka(a: ArrayLike, b: ArrayLike) -> float:
    """Return how alike two representations of N inputs are: linear centred kernel alignment (Kornblith et al., 2019).

    The same for rotated, scaled and shifted representations. Of the unbiased estimates of HSIC (Song et al., 2012): the biased
    ones come near 1 where there are fewer inputs than channels, whatever the networks. May fall slightly below 0.

    Args:
        a: (N, C), such as a layer's means over the positions; N at least 4.
        b: (N, D).

    Raises:
        ArgumentError: not two matrices with N rows each.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(cka(x, 3 * x[:, ::-1] + 1), 6)
    1.0
    """
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < LEAST:
        raise ArgumentError(f"Expected two matrices of N rows each, N at least {LEAST}; got {x.shape} and {y.shape}.")
    x, y = x - x.mean(0), y - y.mean(0)  # changes nothing but the rounding
    scale = np.sqrt(max(_hsic(x, x), 0) * max(_hsic(y, y), 0))
    return float(_hsic(x, y) / scale) if scale > 0 else float("nan")


def _hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased HSIC of linear kernels K and L with zeros on their diagonals, without any N x N matrix."""
    n = len(x)
    own = (x * x).sum(1), (y * y).sum(1)
    rows = x @ x.sum(0) - own[0], y @ y.sum(0) - own[1]  # K 1 and L 1
    trace = np.square(x.T @ y).sum() - own[0] @ own[1]  # tr(K L)
    return float(trace + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows[0] @ rows[1])) / (
        n * (n - 3)
    )
