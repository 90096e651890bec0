"""Average drop, increase and gain: how the score changes if the image is multiplied by its map."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeAlias, Unpack

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
from jaxviz.models._network import Network

DropConvention: TypeAlias = Literal["pytorch-grad-cam"]


class ConfidenceOptions(RunOptions, total=False):
    """Options of `confidence`, which describes them."""

    score: Score
    baseline: Baseline
    normalize: Normalization | None
    reduce: Reduction


@dataclasses.dataclass(frozen=True, eq=False)
class Confidence:
    """Scores of N images (and K targets) before and after the image is multiplied by its map, float32 (N,) or (N, K)."""

    before: np.ndarray
    after: np.ndarray

    def drop(self, convention: DropConvention | None = None) -> np.ndarray:
        """Return the loss of each score, at least 0: see `average_drop`."""
        lost = np.where(np.isfinite(self.after), np.maximum(self.before - self.after, 0), np.nan)
        if convention == "pytorch-grad-cam":
            return lost
        if convention is not None:
            raise ArgumentError(f"A convention is None or 'pytorch-grad-cam'; got {convention!r}.")
        return np.where(self.before > 0, lost / np.where(self.before > 0, self.before, 1), np.nan).astype(np.float32)

    def increase(self) -> np.ndarray:
        """Return 1 if the score rises, else 0: see `average_increase`."""
        return np.where(np.isfinite(self.after), self.after > self.before, np.nan).astype(np.float32)

    def gain(self) -> np.ndarray:
        """Return the gain as a share of the largest possible gain, at least 0: see `average_gain`."""
        gain, room = np.maximum(self.after - self.before, 0), 1 - self.before
        return np.where(room > 0, gain / np.where(room > 0, room, 1), gain).astype(np.float32)


@pytree
@dataclasses.dataclass(frozen=True)
class Multiply:
    """The scores of images and of their products with maps: a program of the engine."""

    network: Network
    target: Target

    def __call__(self, items: dict[str, Any]) -> dict[str, Array]:
        images, masks = items["images"], items["masks"][..., None]
        before, chosen = target_values(self.network, self.target, images, items["index"])
        baseline = items["baseline"][:, None]
        seen = baseline + (images[:, None] - baseline) * masks
        after = scores_of_each(self.network, self.target, seen, chosen)
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
    """Return the scores before and after each image is multiplied by its map; drop, increase and gain follow from them.

    The multiplied image is baseline + (image - baseline) x map. With the mean color as baseline it is the product of
    normalized image and map, as in pytorch-grad-cam.

    Args:
        model, images, maps, target, score: see `deletion`.
        baseline: the image where the map is 0, see `attribute`.
        normalize: how each map is normalized, `"min_max"` or `"max_abs"` (negative values then become 0); None for maps in
            [0, 1].
        reduce: how maps with color channels are reduced; Xplique uses absolute values, `"sum_abs"`.
        **run: see `jaxviz.RunOptions`.

    Returns:
        `Confidence`.

    Raises:
        ArgumentError: arguments that do not fit each other, or maps outside [0, 1] with `normalize=None`.

    >>> maps = jv.attribute(model, images, "grad_cam")
    >>> jv.metrics.confidence(model, images, maps).drop().shape == (len(images),)
    True
    """
    question = as_question(model, images, maps, target, score)
    masks = question.pixels(reduce)
    if normalize is not None:
        flat = dataclasses.replace(question.maps, maps=question.shaped(masks), spatial=True).normalize(normalize)
        masks = flat.maps if flat.many else flat.maps[:, None]
    elif masks.min() < 0 or masks.max() > 1:
        raise ArgumentError(f"Expected maps in [0, 1] with normalize=None; got {masks.min():.3g} to {masks.max():.3g}.")
    items = question.items(masks=np.clip(masks, 0, 1), baseline=as_baselines(model, baseline, question.images))
    found = engine.map_images(Multiply(model.network, question.target), items, cost=1 + masks.shape[1], **run)
    return Confidence(question.shaped(found["before"]), question.shaped(found["after"]))


def average_drop(
    model: Model,
    images: ArrayLike,
    maps: Maps,
    target: AsTarget = None,
    *,
    convention: DropConvention | None = None,
    **options: Unpack[ConfidenceOptions],
) -> np.ndarray:
    """Return max(0, before - after) / before of each image; lower is better (Chattopadhay et al., 2018).

    The average drop of a data set is the mean. `confidence` gives drop, increase and gain from one run.

    Args:
        model, images, maps, target: see `deletion`.
        convention: `"pytorch-grad-cam"` does not divide by the score before.
        **options: see `confidence`.

    Returns:
        float32 (N,), or (N, K) for K targets, in [0, 1]. NaN if the score before is not positive, or the map is not finite.

    Raises:
        ArgumentError: as for `confidence`.

    >>> maps = jv.attribute(model, images, "grad_cam")
    >>> bool((jv.metrics.average_drop(model, images, maps) >= 0).all())
    True
    """
    return confidence(model, images, maps, target, **options).drop(convention)


def average_increase(
    model: Model, images: ArrayLike, maps: Maps, target: AsTarget = None, **options: Unpack[ConfidenceOptions]
) -> np.ndarray:
    """Return 1 if the score rises when the image is multiplied by its map, else 0 (Chattopadhay et al., 2018).

    Higher is better. Args and shape as for `average_drop`; the increase in confidence of a data set is the mean.
    """
    return confidence(model, images, maps, target, **options).increase()


def average_gain(
    model: Model, images: ArrayLike, maps: Maps, target: AsTarget = None, **options: Unpack[ConfidenceOptions]
) -> np.ndarray:
    """Return max(0, after - before) / (1 - before) of each image's probabilities; higher is better (Zhang et al., 2024).

    Args and shape as for `average_drop`.
    """
    return confidence(model, images, maps, target, **options).gain()
