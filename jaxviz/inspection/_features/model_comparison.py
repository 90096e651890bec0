"""Compare two networks on the same images, unit by unit and layer by layer, such as before and after fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Unpack

import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network
from jaxviz.models._taps import activations

LEAST = 4  # images at least for the unbiased estimate


@dataclasses.dataclass(frozen=True)
class Changes:
    """Similarity of two networks on the same images.

    Attributes:
        correlations: by layer, float32 (C,), each unit's Pearson correlation between the networks over all images and
            positions; NaN if the unit is constant in one of them.
        cka: by layer, the similarity of the representations: 1 if they are equal up to rotation and scale, about 0 if they
            are unrelated; see `cka`.
    """

    correlations: Mapping[str, np.ndarray]
    cka: Mapping[str, float]

    def most_changed(self, layer: str, count: int = 10) -> np.ndarray:
        """Return the units of a layer that changed most, most changed first, int (count,), without constant units."""
        correlations = self.correlations[layer]
        order = np.argsort(correlations, kind="stable")
        return order[: min(count, int(np.isfinite(correlations).sum()))]


class _Sums(NamedTuple):
    """Means (n, C) over positions in both networks, and sums of squares and products of the deviations (n, C)."""

    a: Array
    b: Array
    aa: Array
    bb: Array
    ab: Array


@pytree
@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Program: images to sums over the positions of each layer in both networks."""

    before: Network
    after: Network
    layers: tuple[str, ...] = dataclasses.field(metadata=dict(static=True))

    def __call__(self, images: Array) -> dict[str, _Sums]:
        first, last = (activations(model, images, self.layers) for model in (self.before, self.after))
        return {layer: _sums(first[layer], last[layer]) for layer in self.layers}


def _sums(a: Array, b: Array) -> _Sums:
    """Return the sums of one layer in both networks."""
    a, b = (x.reshape(len(x), -1, x.shape[-1]) for x in (a, b))
    means = a.mean(1), b.mean(1)
    a, b = a - means[0][:, None], b - means[1][:, None]
    return _Sums(*means, (a * a).sum(1), (b * b).sum(1), (a * b).sum(1))


def changes(before: Model, after: Model, images: ArrayLike, layers: str | Sequence[str], **run: Unpack[RunOptions]) -> Changes:
    """Compare layers of two networks on the same images, such as before and after fine-tuning.

    Takes one pass of each network up to the deepest layer.

    Args:
        before, after: networks that both have the layers, with equal shapes.
        images: float32 (N, H, W, C) in [0, 1], N at least 4; use a hundred or more.
        layers: nodes or modules, such as `["layer3", "layer4"]`.
        **run: see `RunOptions`.

    Raises:
        LayerError: an unknown layer.
        ArgumentError: too few images, or a layer of different shapes.

    >>> images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    >>> same = changes(model, model, images, "layer4")
    >>> round(same.cka["layer4"], 3)
    1.0
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
    sums: dict[str, _Sums] = engine.map_images(_Pairs(before.network, after.network, names), images, **run)
    counts = {name: int(np.prod(before.layers(size)[name].shape[:-1])) for name in names}
    return Changes(
        {name: _correlations(sums[name], counts[name]) for name in names},
        {name: cka(sums[name].a, sums[name].b) for name in names},
    )


def _correlations(sums: _Sums, positions: int) -> np.ndarray:
    """Return correlations over images and positions, from sums within images and means of images."""
    values = {name: np.asarray(x, np.float64) for name, x in sums._asdict().items()}
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
    """Return the linear centered kernel alignment of two representations of N inputs (Kornblith et al., 2019).

    Invariant to rotation, scale and shift. Uses the unbiased estimate of HSIC (Song et al., 2012), because the biased one
    approaches 1 for any networks if there are fewer inputs than channels. May be slightly below 0.

    Args:
        a: (N, C), such as a layer's means over the positions; N at least 4.
        b: (N, D).

    Raises:
        ArgumentError: not two matrices of N rows each.

    >>> x = np.random.default_rng(0).normal(size=(20, 5))
    >>> round(cka(x, 3 * x[:, ::-1] + 1), 6)
    1.0
    """
    x, y = (np.asarray(v, np.float64) for v in (a, b))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < LEAST:
        raise ArgumentError(f"Expected two matrices of N rows each, N at least {LEAST}; got {x.shape} and {y.shape}.")
    x, y = x - x.mean(0), y - y.mean(0)  # only reduces rounding errors
    scale = np.sqrt(max(_hsic(x, x), 0) * max(_hsic(y, y), 0))
    return float(_hsic(x, y) / scale) if scale > 0 else float("nan")


def _hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Return the unbiased HSIC of linear kernels K and L with zero diagonals, without N x N matrices."""
    n = len(x)
    own = (x * x).sum(1), (y * y).sum(1)
    rows = x @ x.sum(0) - own[0], y @ y.sum(0) - own[1]  # K 1 and L 1
    trace = np.square(x.T @ y).sum() - own[0] @ own[1]  # tr(K L)
    return float(trace + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (rows[0] @ rows[1])) / (
        n * (n - 3)
    )
