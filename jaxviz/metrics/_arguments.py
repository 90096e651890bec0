"""The common arguments of metrics: maps as an `Attribution` or an array, their target and score."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.attribution._attribution import Attribution
from jaxviz.attribution._target import AsTarget, ClassTarget, Score, Scored, Target, as_target, target_values
from jaxviz.attribution._types import Reduction
from jaxviz.engine import RunOptions
from jaxviz.models import Model
from jaxviz.models._network import Network

Maps: TypeAlias = Attribution | ArrayLike


@dataclasses.dataclass(frozen=True)
class Question:
    """N images, their targets, and the maps that explain them.

    Attributes:
        images: float32 (N, H, W, C).
        target: the target of the maps.
        index: int32 (N, K), the classes; None for the top class of each image, or for a target without classes.
        maps: maps of the same images and targets.
    """

    images: Array
    target: Target
    index: np.ndarray | None
    maps: Attribution

    def items(self, **more: Any) -> dict[str, Any]:
        """Return the items of a program: images, classes, and more arrays with the axis of N images in front."""
        return {"images": self.images, "index": self.index, **more}

    def pixels(self, reduce: Reduction) -> np.ndarray:
        """Return the maps without color channels, at the size of the images, float32 (N, K, H, W)."""
        return pixel_maps(self.maps, reduce, (self.images.shape[1], self.images.shape[2]))

    def shaped(self, values: Any) -> np.ndarray:
        """Return values (N, K, ...) for users: without the axis of targets if there is a single target."""
        return shaped(values, self.maps.many)


def as_question(model: Model, images: ArrayLike, maps: Maps, target: AsTarget, score: Score) -> Question:
    """Return a user's arguments, checked, as a `Question`.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C); for K targets (N, K, h, w) or (N, K, h, w, C).
        target: the target of the maps, as in `attribute`. None: the classes of the `Attribution`; for an array, each image's
            top class.
        score: the score of a class; a target with its own, such as `margin("church")`, keeps it.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown score, or no target for an `Attribution` whose target is
            not a class.
    """
    if score not in get_args(Score):
        raise ArgumentError(f"A score is {', '.join(map(repr, get_args(Score)))}; got {score!r}.")
    images = model.check_images(images)
    if isinstance(maps, Attribution):
        if target is None and maps.classes is None:
            raise ArgumentError(f"These maps explain {maps.targets.flat[0]!r}, which is no class: pass the same target again.")
        if target is None:
            target = maps.classes
        elif isinstance(target, Scored) and target.classes is None:
            target = dataclasses.replace(target, classes=maps.classes)
    resolved, index = as_target(model, target, images)
    if isinstance(resolved, ClassTarget) and not isinstance(target, Scored):
        resolved = dataclasses.replace(resolved, score=score)
    attribution = as_attribution(maps, resolved.many)
    if len(attribution) != len(images):
        raise ArgumentError(f"Expected maps of the same {len(images)} images; got {len(attribution)}.")
    count = _count(resolved, index)
    if attribution.many != resolved.many or (attribution.many and attribution.scores.shape[1] != count):
        passed = f"{attribution.scores.shape[1]} maps for each image" if attribution.many else "one map for each image"
        raise ArgumentError(f"Expected a map for each of {count} target{'s' * (count > 1)}; got {passed}.")
    return Question(images, resolved, index, attribution)


def as_attribution(maps: Maps, many: bool = False) -> Attribution:
    """Return maps as an `Attribution`; an array's axes are (N, h, w) or (N, h, w, C), with K after N where `many`."""
    if isinstance(maps, Attribution):
        return maps
    array, lead = np.asarray(maps, np.float32), 2 if many else 1
    if array.ndim not in (lead + 2, lead + 3) or not array.size:
        expected = "(N, K, h, w) or (N, K, h, w, C), K for K targets" if many else "(N, h, w) or (N, h, w, C)"
        raise ArgumentError(f"Expected maps {expected}, or an Attribution; got an array of shape {array.shape}.")
    scores = np.zeros(array.shape[:lead], np.float32)
    return Attribution(array, scores, np.full(scores.shape, ""), None, "", spatial=array.ndim == lead + 2)


def pixel_maps(maps: Attribution, reduce: Reduction, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return maps without color channels, float32 (N, K, H, W), resized to `size` by bilinear interpolation."""
    maps = maps.reduce(reduce)
    if size is not None and maps.maps.shape[-2:] != size:
        maps = maps.resize(size)
    values = np.asarray(maps.maps, np.float32)
    return values if maps.many else values[:, None]


def shaped(values: Any, many: bool) -> np.ndarray:
    """Return values (N, K, ...) without the axis of targets unless there are many."""
    return np.asarray(values) if many else np.asarray(values)[:, 0]


def resolve_target(model: Model, target: AsTarget, images: Array, run: RunOptions) -> tuple[Target, np.ndarray | None]:
    """Return the target and its classes now, int32 (N, K), so that other weights or pixels do not change them."""
    resolved, index = as_target(model, target, images)
    if index is None and isinstance(resolved, ClassTarget):
        index = engine.map_images(_TopClass(model.network), images, **run)
    return resolved, index


def as_user_target(target: AsTarget, resolved: Target, index: np.ndarray | None) -> AsTarget:
    """Return resolved classes as a target of attribution methods."""
    if not isinstance(resolved, ClassTarget) or index is None:
        return target
    classes = index if resolved.many else index[:, 0]
    return classes if resolved.score == "logit" else Scored(classes, resolved.score)


@pytree
@dataclasses.dataclass(frozen=True)
class _TopClass:
    network: Network

    def __call__(self, images: Array) -> Array:
        target = ClassTarget(many=False)
        chosen = target_values(self.network, target, images, None)[1]
        assert chosen is not None
        return chosen


def chosen_classes(network: Network, target: Target, images: Array, index: Array | None) -> Array | None:
    """Return the classes (n, K) of images; for use inside traced code. Only top classes take a forward pass."""
    if index is not None or not isinstance(target, ClassTarget):
        return index
    return target_values(network, target, images, None)[1]


def scores_of_each(network: Network, target: Target, images: Array, index: Array | None) -> Array:
    """Return the scores (m, K) of images (m, K, H, W, C), one for each target; for use inside traced code."""
    m, k = images.shape[:2]
    flat = images.reshape(m * k, *images.shape[2:])
    if index is not None:
        return target_values(network, target, flat, index.reshape(m * k, 1))[0].reshape(m, k)
    scores = target_values(network, target, flat, None)[0]  # (1 or K, m K)
    return scores.reshape(m, k) if len(scores) == 1 else jnp.einsum("kmk->mk", scores.reshape(k, m, k))


def _count(target: Target, index: np.ndarray | None) -> int:
    if index is not None:
        return index.shape[1]
    return len(jax.tree.leaves(getattr(target, "each", None))[0]) if target.many else 1
