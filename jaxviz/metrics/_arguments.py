"""What every metric takes: maps as an `Attribution` or an array, and the score that they are about."""

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

Maps: TypeAlias = Attribution | ArrayLike


@dataclasses.dataclass(frozen=True)
class Question:
    """N images, what is asked about them, and the maps that claim to answer it.

    Attributes:
        images: float32 (N, H, W, C).
        target: the score.
        index: int32 (N, K), the classes, or None: the top class of each image, or a target without classes.
        maps: of the same images and targets.
    """

    images: Array
    target: Target
    index: np.ndarray | None
    maps: Attribution

    def items(self, **more: Any) -> dict[str, Any]:
        """Return what a program of the engine gets of each image."""
        return {"images": self.images, "index": self.index, **more}

    def pixels(self, reduce: Reduction) -> np.ndarray:
        """Return the maps without colours and as large as the images, float32 (N, K, H, W)."""
        return pixel_maps(self.maps, reduce, (self.images.shape[1], self.images.shape[2]))

    def shaped(self, values: Any) -> np.ndarray:
        """Return values (N, K, ...) as users get them: without the axis of targets where one was asked for."""
        return shaped(values, self.maps.many)


def as_question(model: Model, images: ArrayLike, maps: Maps, target: AsTarget, score: Score) -> Question:
    """Return what a user's arguments mean.

    Args:
        model: the network.
        images: float32 (N, H, W, C) in [0, 1].
        maps: an `Attribution`, or an array (N, h, w) or (N, h, w, C); of K targets (N, K, h, w) or (N, K, h, w, C).
        target: what the maps are about, as in `attribute`. None: the classes of the `Attribution`; of an array each image's
            top class.
        score: of a class, what is looked at; a target that says so itself (`margin("church")`) keeps its own.

    Raises:
        ArgumentError: shapes that do not fit each other, an unknown score, or an `Attribution` of something other than
            classes without its target.
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
    made, index = as_target(model, target, images)
    if isinstance(made, ClassTarget) and not isinstance(target, Scored):
        made = dataclasses.replace(made, score=score)
    given = as_attribution(maps, made.many)
    if len(given) != len(images):
        raise ArgumentError(f"Expected maps of the same {len(images)} images; got {len(given)}.")
    count = _count(made, index)
    if given.many != made.many or (given.many and given.scores.shape[1] != count):
        came = f"{given.scores.shape[1]} maps for each image" if given.many else "one map for each image"
        raise ArgumentError(f"Expected a map for each of {count} target{'s' * (count > 1)}; got {came}.")
    return Question(images, made, index, given)


def as_attribution(maps: Maps, many: bool = False) -> Attribution:
    """Return maps as an `Attribution`; an array's axes are (N, h, w) or (N, h, w, C), with K after N where `many`."""
    if isinstance(maps, Attribution):
        return maps
    array, lead = np.asarray(maps, np.float32), 2 if many else 1
    if array.ndim not in (lead + 2, lead + 3) or not array.size:
        wanted = "(N, K, h, w) or (N, K, h, w, C), K for K targets" if many else "(N, h, w) or (N, h, w, C)"
        raise ArgumentError(f"Expected maps {wanted}, or an Attribution; got an array of shape {array.shape}.")
    scores = np.zeros(array.shape[:lead], np.float32)
    return Attribution(array, scores, np.full(scores.shape, ""), None, "", spatial=array.ndim == lead + 2)


def pixel_maps(maps: Attribution, reduce: Reduction, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return maps without colours, float32 (N, K, H, W), of a size where it is given (bilinear)."""
    maps = maps.reduce(reduce)
    if size is not None and maps.maps.shape[-2:] != size:
        maps = maps.resize(size)
    found = np.asarray(maps.maps, np.float32)
    return found if maps.many else found[:, None]


def shaped(values: Any, many: bool) -> np.ndarray:
    """Return values (N, K, ...) without the axis of targets where there is one."""
    return np.asarray(values) if many else np.asarray(values)[:, 0]


def settled(model: Model, target: AsTarget, images: Array, run: RunOptions) -> tuple[Target, np.ndarray | None]:
    """Return the target with the classes that it means now, so that other weights or pixels do not change them."""
    made, index = as_target(model, target, images)
    if index is None and isinstance(made, ClassTarget):
        index = engine.map_images(_TopClass(model.bare()), images, **run)
    return made, index


def as_user_target(target: AsTarget, made: Target, index: np.ndarray | None) -> AsTarget:
    """Return settled classes in the form that attribution methods take."""
    if not isinstance(made, ClassTarget) or index is None:
        return target
    classes = index if made.many else index[:, 0]
    return classes if made.score == "logit" else Scored(classes, made.score)


@pytree
@dataclasses.dataclass(frozen=True)
class _TopClass:
    model: Model

    def __call__(self, images: Array) -> Array:
        target = ClassTarget(many=False)
        chosen = target_values(self.model, target, images, None)[1]
        assert chosen is not None
        return chosen


def chosen_classes(model: Model, target: Target, images: Array, index: Array | None) -> Array | None:
    """Return the classes (n, K) of unchanged images; inside traced code. Only top classes take a forward pass."""
    if index is not None or not isinstance(target, ClassTarget):
        return index
    return target_values(model, target, images, None)[1]


def scores_of_each(model: Model, target: Target, images: Array, index: Array | None) -> Array:
    """Return the scores (m, K) of images (m, K, H, W, C), an image for each target; inside traced code."""
    m, k = images.shape[:2]
    flat = images.reshape(m * k, *images.shape[2:])
    if index is not None:
        return target_values(model, target, flat, index.reshape(m * k, 1))[0].reshape(m, k)
    scores = target_values(model, target, flat, None)[0]  # (1 or K, m K)
    return scores.reshape(m, k) if len(scores) == 1 else jnp.einsum("kmk->mk", scores.reshape(k, m, k))


def repeated(array: Array | None, times: int) -> Array | None:
    """Return (n, ...) `times` times over, (times n, ...): for each of some steps, all images."""
    return None if array is None else jnp.broadcast_to(array, (times, *array.shape)).reshape(-1, *array.shape[1:])


def keys_of(seed: Array, ids: Array, numbers: Array) -> Array:
    """Return random keys (s, n) of a seed, of each image's id (n,) and of the numbers (s,) of the draws."""
    per_draw = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(per_draw, ids)


def as_ids(ids: ArrayLike | None, count: int) -> np.ndarray:
    """Return a number for each image that its random draws depend on: zeros, the same draws for all, unless given."""
    if ids is None:
        return np.zeros(count, np.int32)
    found = np.asarray(ids)
    if found.shape != (count,) or not np.issubdtype(found.dtype, np.integer):
        raise ArgumentError(f"Expected ids of {count} images, whole numbers ({count},); got {found.dtype} {found.shape}.")
    return found.astype(np.int32)


def _count(made: Target, index: np.ndarray | None) -> int:
    if index is not None:
        return index.shape[1]
    return len(jax.tree.leaves(getattr(made, "each", None))[0]) if made.many else 1
