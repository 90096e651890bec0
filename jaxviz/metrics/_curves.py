"""Deletion and insertion: the score as pixels are removed, or added, in the order of a map."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._sampling import repeated
from jaxviz.attribution._target import AsTarget, Score, Target
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_question, chosen_classes, scores_of_each
from jaxviz.models import Model
from jaxviz.models._network import Network

# The protocol of the RISE paper: softmax, 224 pixels a step, deletion to the mean color, insertion into a blurred image.
RISE: dict[str, dict[str, Any]] = {
    "deletion": {"score": "probability", "pixels": 224, "baseline": "mean"},
    "insertion": {"score": "probability", "pixels": 224, "baseline": "rise_blur"},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """The score as a function of the share of deleted, or inserted, pixels, for N images (and K targets).

    Attributes:
        value: float32 (N,) or (N, K), the area under each curve, by the trapezoidal rule; NaN if a map has no order.
        curves: float32 (N, steps + 1) or (N, K, steps + 1), the scores.
        fractions: float32 (steps + 1,), the shares of the pixels, from 0 to 1.
    """

    value: np.ndarray
    curves: np.ndarray
    fractions: np.ndarray


@pytree
@dataclasses.dataclass(frozen=True)
class Reveal:
    """`Reduction` over numbers of pixels: the scores of images in which so many pixels are replaced."""

    network: Network
    target: Target
    counts: Array  # int32 (steps + 1,)
    inserting: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        index = chosen_classes(self.network, self.target, items["images"], items["index"])
        return {"ranks": ranks(items["maps"]), "index": index}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        first = fixed["ranks"] < self.counts[numbers][:, None, None, None, None]  # (s, n, K, H, W)
        images, baseline = items["images"][:, None], items["baseline"][:, None]
        seen = jnp.where((first == self.inserting)[..., None], images, baseline)
        flat = seen.reshape(-1, *seen.shape[2:])
        scores = scores_of_each(self.network, self.target, flat, repeated(fixed["index"], len(numbers)))
        places = jax.nn.one_hot(numbers, len(self.counts)) * valid[:, None]
        return jnp.einsum("snk,sp->nkp", scores.reshape(first.shape[:3]), places, precision="highest")

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Array]:
        area = jnp.trapezoid(sums, self.counts / self.counts[-1])
        return {"curves": sums, "value": jnp.where(has_order(items["maps"]), area, jnp.nan)}


def ranks(maps: Array) -> Array:
    """Return each pixel's rank, highest value first, ties in row-major order: int32 (n, K, H, W)."""
    flat = maps.reshape(*maps.shape[:2], -1)
    order = jnp.argsort(-flat, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1).astype(jnp.int32).reshape(maps.shape)


def has_order(maps: Array) -> Array:
    """Return whether maps (n, K, H, W) are finite and not constant: bool (n, K)."""
    low, high = maps.min((2, 3)), maps.max((2, 3))
    return jnp.isfinite(low) & jnp.isfinite(high) & (low < high)


def deletion(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    score: Score = "probability",
    baseline: Baseline = "mean",
    steps: int = 20,
    pixels: int | None = None,
    reduce: Reduction = "sum",
    **run: Unpack[RunOptions],
) -> Curves:
    """Return the score as the pixels with the highest values are removed; lower is better (Petsiuk et al., 2018).

    `deletion(model, images, maps, **jv.metrics.RISE["deletion"])` is the protocol of the paper.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C); of K targets (N, K, h, w) or (N, K, h, w, C). Smaller
            maps are resized to the images.
        target: the target that the maps explain, as in `attribute`. None: the classes of the `Attribution`; for an array, each
            image's top class.
        score: score of a class, `"probability"`, `"logit"`, `"log_probability"` or `"margin"`.
        baseline: the values of removed pixels, see `attribute`; also `"rise_blur"`, the blur of the paper's code.
        steps: number of equal parts into which the pixels are divided.
        pixels: instead of `steps`, pixels per step; the last step takes the rest.
        reduce: how maps with color channels rank a pixel: `"sum"` over its channels, as in Xplique, `"max_abs"` or `"sum_abs"`.
        **run: see `jaxviz.RunOptions`.

    Returns:
        `Curves`, one for each image (and target). Its `value` is NaN if a map is constant or not finite.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> maps = jv.attribute(model, images, "saliency")
    >>> jv.metrics.deletion(model, images, maps, steps=4, reduce="sum_abs").value.shape == (len(images),)
    True
    """
    return _curves(model, images, maps, target, score, baseline, steps, pixels, reduce, False, run)


def insertion(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    score: Score = "probability",
    baseline: Baseline = "blur",
    steps: int = 20,
    pixels: int | None = None,
    reduce: Reduction = "sum",
    **run: Unpack[RunOptions],
) -> Curves:
    """Return the score as the pixels with the highest values are added to the baseline; higher is better.

    Petsiuk et al., 2018; `insertion(model, images, maps, **jv.metrics.RISE["insertion"])` is the protocol of the paper. Args,
    result and errors as for `deletion`.
    """
    return _curves(model, images, maps, target, score, baseline, steps, pixels, reduce, True, run)


def _curves(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget,
    score: Score,
    baseline: Baseline,
    steps: int,
    pixels: int | None,
    reduce: Reduction,
    inserting: bool,
    run: RunOptions,
) -> Curves:
    question = as_question(model, images, maps, target, score)
    ordered = question.pixels(reduce)
    total = ordered.shape[-2] * ordered.shape[-1]
    if (pixels if pixels is not None else steps) < 1:
        raise ArgumentError(f"Expected at least 1 step, of at least 1 pixel; got steps={steps}, pixels={pixels}.")
    if pixels is not None:
        counts = np.minimum(np.arange(-(-total // pixels) + 1) * pixels, total)
    else:
        counts = np.round(np.linspace(0, total, min(steps, total) + 1))
    if isinstance(baseline, str) and baseline == "rise_blur":
        base = rise_blur(question.images, model.mean)
    else:
        base = as_baselines(model, baseline, question.images)
    program = Reveal(model.network, question.target, jnp.asarray(counts, jnp.int32), inserting)
    items = question.items(maps=ordered, baseline=base)
    found = engine.reduce_images(program, items, len(counts), cost=ordered.shape[1], **run)
    return Curves(question.shaped(found["value"]), question.shaped(found["curves"]), (counts / total).astype(np.float32))


@jax.jit
def rise_blur(images: Array, mean: Array) -> Array:
    """Return the blur of RISE's code: a Gaussian of 5 pixels in a window of 11 x 11, with its tails reflected into the window.

    Pixels outside the image have the mean color.
    """
    tail = np.exp(-(np.arange(-20, 21) ** 2) / 50)
    window = np.zeros(11)
    for place, weight in zip(np.arange(-20, 21) + 5, tail / tail.sum(), strict=True):
        window[min(place % 22, 21 - place % 22)] += weight

    def product(length: int) -> np.ndarray:
        offset = np.arange(length)[:, None] - np.arange(length)[None, :] + 5
        return np.where((offset >= 0) & (offset < 11), window[np.clip(offset, 0, 10)], 0).astype(np.float32)

    h, w = images.shape[1:3]
    blurred = jnp.einsum("ij,kl,njlc->nikc", product(h), product(w), images - mean, precision="highest")
    return jnp.clip(blurred + mean, 0, 1)
