"""Deletion and insertion: how fast the score falls, or rises, as pixels go, or come, in the order of a map."""

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
from jaxviz.attribution._target import AsTarget, Score, Target
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_question, chosen_classes, repeated, scores_of_each
from jaxviz.models import Model

# Of the paper: softmax, 224 pixels a step, the mean colour where pixels are deleted, a blur where they are inserted.
RISE: dict[str, dict[str, Any]] = {
    "deletion": {"score": "probability", "pixels": 224, "baseline": "mean"},
    "insertion": {"score": "probability", "pixels": 224, "baseline": "rise_blur"},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """How a score changes with the share of the pixels that were deleted, or inserted, of N images (and K targets).

    Attributes:
        value: float32 (N,) or (N, K), the area under each curve, by the trapezoidal rule; NaN where a map ranks nothing.
        curves: float32 (N, steps + 1) or (N, K, steps + 1), the scores.
        fractions: float32 (steps + 1,), the shares of the pixels, from 0 to 1.
    """

    value: np.ndarray
    curves: np.ndarray
    fractions: np.ndarray


@pytree
@dataclasses.dataclass(frozen=True)
class Reveal:
    """The scores of images of which a growing number of pixels is replaced: a `Reduction` over the numbers."""

    model: Model
    target: Target
    counts: Array  # int32 (steps + 1,)
    inserting: bool = dataclasses.field(metadata=dict(static=True))

    def start(self, items: dict[str, Any]) -> dict[str, Any]:
        index = chosen_classes(self.model, self.target, items["images"], items["index"])
        return {"ranks": ranks(items["maps"]), "index": index}

    def step(self, items: dict[str, Any], fixed: dict[str, Any], numbers: Array, valid: Array) -> Array:
        first = fixed["ranks"] < self.counts[numbers][:, None, None, None, None]  # (s, n, K, H, W)
        images, baseline = items["images"][:, None], items["baseline"][:, None]
        seen = jnp.where((first == self.inserting)[..., None], images, baseline)
        flat = seen.reshape(-1, *seen.shape[2:])
        scores = scores_of_each(self.model, self.target, flat, repeated(fixed["index"], len(numbers)))
        places = jax.nn.one_hot(numbers, len(self.counts)) * valid[:, None]
        return jnp.einsum("snk,sp->nkp", scores.reshape(first.shape[:3]), places, precision="highest")

    def finish(self, items: dict[str, Any], fixed: dict[str, Any], sums: Array) -> dict[str, Array]:
        area = jnp.trapezoid(sums, self.counts / self.counts[-1])
        return {"curves": sums, "value": jnp.where(says_something(items["maps"]), area, jnp.nan)}


def ranks(maps: Array) -> Array:
    """Return each pixel's place in the order of values, highest first, ties in row-major order: int32 (n, K, H, W)."""
    flat = maps.reshape(*maps.shape[:2], -1)
    order = jnp.argsort(-flat, axis=-1, stable=True)
    return jnp.argsort(order, axis=-1).astype(jnp.int32).reshape(maps.shape)


def says_something(maps: Array) -> Array:
    """Say of maps (n, K, H, W) whether they are finite and not the same everywhere: bool (n, K)."""
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
    """Return how the score falls as the pixels with the highest values are taken away (Petsiuk et al., 2018): less is better.

    `deletion(model, images, maps, **jv.metrics.RISE["deletion"])` is the paper's protocol.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C); of K targets (N, K, h, w) or (N, K, h, w, C). Smaller
            maps are enlarged.
        target: what the maps are about, as in `attribute`. None: the classes of the `Attribution`; of an array each image's
            top class.
        score: of a class, `"probability"`, `"logit"`, `"log_probability"` or `"margin"`.
        baseline: what takes the place of a pixel, see `attribute`; also `"rise_blur"`, the blur of the paper's code.
        steps: into how many equal parts the pixels are divided.
        pixels: how many pixels go at a time instead; the last step takes what is left.
        reduce: of maps with colours, what ranks a pixel: `"sum"` over its channels, as in Xplique, `"max_abs"` or `"sum_abs"`.
        **run: see `jaxviz.engine.RunOptions`.

    Returns:
        `Curves`, of each image (and target) its own. Its `value` is NaN where a map is constant or not finite: it has no order.

    Raises:
        ArgumentError: arguments that do not fit each other.

    >>> deletion(model, images, saliency(model, images), reduce="sum_abs").value.shape
    (8,)
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
    """Return how the score rises as the pixels with the highest values are put onto the baseline: more is better.

    Petsiuk et al., 2018; `insertion(model, images, maps, **jv.metrics.RISE["insertion"])` is the paper's protocol. Args, result
    and errors as for `deletion`.
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
    asked = as_question(model, images, maps, target, score)
    ordered = asked.pixels(reduce)
    total = ordered.shape[-2] * ordered.shape[-1]
    if (pixels if pixels is not None else steps) < 1:
        raise ArgumentError(f"Expected at least 1 step, of at least 1 pixel; got steps={steps}, pixels={pixels}.")
    if pixels is not None:
        counts = np.minimum(np.arange(-(-total // pixels) + 1) * pixels, total)
    else:
        counts = np.round(np.linspace(0, total, min(steps, total) + 1))
    if isinstance(baseline, str) and baseline == "rise_blur":
        base = rise_blur(asked.images, model.mean)
    else:
        base = as_baselines(model, baseline, asked.images)
    program = Reveal(model.bare(), asked.target, jnp.asarray(counts, jnp.int32), inserting)
    items = asked.items(maps=ordered, baseline=base)
    found = engine.reduce_images(program, items, len(counts), cost=ordered.shape[1], **run)
    return Curves(asked.shaped(found["value"]), asked.shaped(found["curves"]), (counts / total).astype(np.float32))


@jax.jit
def rise_blur(images: Array, mean: Array) -> Array:
    """Return the blur of RISE's code: a window of 11 x 11 of a Gaussian of 5 pixels, its tails folded back into it.

    Outside the image lies the mean colour.
    """
    tail = np.exp(-(np.arange(-20, 21) ** 2) / 50)
    window = np.zeros(11)
    for place, weight in zip(np.arange(-20, 21) + 5, tail / tail.sum(), strict=True):
        window[min(place % 22, 21 - place % 22)] += weight

    def product(length: int) -> np.ndarray:
        apart = np.arange(length)[:, None] - np.arange(length)[None, :] + 5
        return np.where((apart >= 0) & (apart < 11), window[np.clip(apart, 0, 10)], 0).astype(np.float32)

    h, w = images.shape[1:3]
    blurred = jnp.einsum("ij,kl,njlc->nikc", product(h), product(w), images - mean, precision="highest")
    return jnp.clip(blurred + mean, 0, 1)
