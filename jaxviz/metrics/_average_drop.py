"""Average drop, increase and gain: what becomes of the score where a map lets through only what it marks."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Unpack

import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._baseline import Baseline, as_baselines
from jaxviz.attribution._target import AsTarget, Score, Target, target_values
from jaxviz.attribution._types import Normalization, Reduction
from jaxviz.engine import RunOptions
from jaxviz.metrics._arguments import Maps, as_question, scores_of_each
from jaxviz.models import Model


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """The scores of N images (and K targets) before and after each was multiplied by its map, float32 (N,) or (N, K)."""

    before: np.ndarray
    after: np.ndarray

    def drop(self, convention: Literal["relative", "absolute"] = "relative") -> np.ndarray:
        """Return how much was lost, 0 where nothing was: see `average_drop`."""
        lost = np.where(np.isfinite(self.after), np.maximum(self.before - self.after, 0), np.nan)
        if convention == "absolute":
            return lost
        if convention != "relative":
            raise ArgumentError(f"A convention is 'relative' or 'absolute'; got {convention!r}.")
        return np.where(self.before > 0, lost / np.where(self.before > 0, self.before, 1), np.nan).astype(np.float32)

    def increase(self) -> np.ndarray:
        """Return 1 where the score rose, else 0: see `average_increase`."""
        return np.where(np.isfinite(self.after), self.after > self.before, np.nan).astype(np.float32)

    def gain(self) -> np.ndarray:
        """Return how much of what was missing to 1 was won, 0 where nothing was: see `average_gain`."""
        won, room = np.maximum(self.after - self.before, 0), 1 - self.before
        return np.where(room > 0, won / np.where(room > 0, room, 1), won).astype(np.float32)


@pytree
@dataclasses.dataclass(frozen=True)
class Multiply:
    """The scores of images and of their products with maps: a program of the engine."""

    model: Model
    target: Target

    def __call__(self, items: dict[str, Any]) -> dict[str, Array]:
        images, masks = items["images"], items["masks"][..., None]
        before, chosen = target_values(self.model, self.target, images, items["index"])
        baseline = items["baseline"][:, None]
        seen = baseline + (images[:, None] - baseline) * masks
        after = scores_of_each(self.model, self.target, seen, chosen)
        return {"before": before.T, "after": jnp.where(jnp.isfinite(masks).all((2, 3, 4)), after, jnp.nan)}


def confidence(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    score: Score = "probability",
    baseline: Baseline = "mean",
    normalize: Normalization | None = "min_max",
    reduce: Reduction = "sum",
    **run: Unpack[RunOptions],
) -> Confidence:
    """Return the scores before and after each image was multiplied by its map, from which drop, increase and gain follow.

    The image that is seen is baseline + (image - baseline) x map; over the mean colour that is the product of pytorch-grad-cam,
    of normalised images.

    Args:
        model, images, maps, target, score: see `deletion`.
        baseline: what is seen where the map is 0.
        normalize: of each map, `"min_max"` or `"max_abs"` (negative values are then cut off); None for maps in [0, 1] already.
        reduce: of maps with colours; Xplique's masks are of absolute values, `"sum_abs"`.
        **run: see `jaxviz.engine.RunOptions`.
    """
    asked = as_question(model, images, maps, target, score)
    masks = asked.pixels(reduce)
    if normalize is not None:
        flat = dataclasses.replace(asked.maps, maps=asked.shaped(masks), spatial=True).normalize(normalize)
        masks = flat.maps if flat.many else flat.maps[:, None]
    elif masks.min() < 0 or masks.max() > 1:
        raise ArgumentError(
            f"Expected maps in [0, 1] where nothing normalizes them; got {masks.min():.3g} to {masks.max():.3g}."
        )
    items = asked.items(masks=np.clip(masks, 0, 1), baseline=as_baselines(model, baseline, asked.images))
    found = engine.map_images(Multiply(model.bare(), asked.target), items, cost=1 + masks.shape[1], **run)
    return Confidence(asked.shaped(found["before"]), asked.shaped(found["after"]))


def average_drop(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    convention: Literal["relative", "absolute"] = "relative",
    **options: Any,
) -> np.ndarray:
    """Return max(0, before - after) / before of each image; less is better (Chattopadhay et al., 2018).

    The average drop of a data set is the mean; all three averages from one run: `confidence`.

    Args:
        model, images, maps, target: see `deletion`.
        convention: `"absolute"` does not divide, as pytorch-grad-cam.
        **options: see `confidence`.

    Returns:
        float32 (N,), or (N, K) for K targets, in [0, 1]. NaN where the score was not above 0, or the map is not finite.

    >>> average_drop(model, images, grad_cam(model, images)).mean()
    0.21
    """
    return confidence(model, images, maps, target, **options).drop(convention)


def average_increase(model: Model, images: ArrayLike, maps: Maps, target: AsTarget = None, **options: Any) -> np.ndarray:
    """Return 1 where the score rose under the map, else 0; more is better (Chattopadhay et al., 2018).

    Args and shape as for `average_drop`; the increase in confidence of a data set is the mean.
    """
    return confidence(model, images, maps, target, **options).increase()


def average_gain(model: Model, images: ArrayLike, maps: Maps, target: AsTarget = None, **options: Any) -> np.ndarray:
    """Return max(0, after - before) / (1 - before) of each image, of probabilities; more is better (Zhang et al., 2024).

    Args and shape as for `average_drop`.
    """
    return confidence(model, images, maps, target, **options).gain()
