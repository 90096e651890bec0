"""What is explained: a class score, a function of the logits, or any objective, K of them for each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import objectives
from jaxviz._errors import ArgumentError, UnitError
from jaxviz._pytree import as_static, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model, activations
from jaxviz.objectives import Objective
from jaxviz.ops import EXACT, Ops

Score: TypeAlias = Literal["logit", "probability", "log_probability", "margin"]
Classes: TypeAlias = int | str | ArrayLike | Sequence[int] | Sequence[str] | Sequence[Sequence[int]] | None
AsTarget: TypeAlias = Any  # Classes, Scored, an Objective, or a function of the logits

_EXPECTED = (
    "Expected target=None (each image's top class), a class (an index or a name), N classes, one for each image, (N, K) or "
    "(1, K) classes for K an image, a function of the logits (N, classes) -> (N,), or an objective"
)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Classes, and the function of the logits that is explained of each; see `probability` and `margin`."""

    classes: Classes
    score: Score


def probability(classes: Classes = None) -> Scored:
    """Explain the softmax probability of classes instead of their logit; `classes` as for any `target`.

    >>> saliency(model, images, probability("church"))
    """
    return Scored(classes, "probability")


def log_probability(classes: Classes = None) -> Scored:
    """Explain the logarithm of the softmax probability of classes, minus the cross entropy; `classes` as for any `target`."""
    return Scored(classes, "log_probability")


def margin(classes: Classes = None) -> Scored:
    """Explain by how much the logit of a class is above the best of all others; `classes` as for any `target`."""
    return Scored(classes, "margin")


class Target:
    """Base of what may be explained: K scores of each image, from the values of some layers.

    A target is a pytree. Which classes are meant may differ from image to image, so their indices travel with the images:
    `index` is int32 (n, K), or None for each image's top class, or for targets without classes.
    """

    many: bool  # whether there is an axis of K targets; otherwise K is 1, and the axis is dropped in the end

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers whose values the scores are made of."""
        return ("output",)

    def choose(self, acts: dict[str, Array], index: Array | None) -> Array | None:
        """Return the classes int32 (n, K) that are meant, where the target is about classes."""
        return index

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        """Return float32 (K, n), of values of the layers and images (n, H, W, C)."""
        raise NotImplementedError


@pytree
@dataclasses.dataclass(frozen=True)
class ClassTarget(Target):
    """Scores of classes."""

    many: bool = dataclasses.field(metadata=dict(static=True))
    score: Score = dataclasses.field(default="logit", metadata=dict(static=True))

    def choose(self, acts: dict[str, Array], index: Array | None) -> Array | None:
        return acts["output"].argmax(-1)[:, None].astype(jnp.int32) if index is None else index

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        logits = acts["output"]
        assert index is not None, "choose() first"
        # A product with ones and zeros and not a gather, whose gradient is a scatter; exact at any precision.
        one_hot = jax.nn.one_hot(index.T, logits.shape[-1], dtype=logits.dtype)
        if self.score in ("probability", "log_probability"):
            logits = (jax.nn.softmax if self.score == "probability" else jax.nn.log_softmax)(logits)
        chosen = (logits[None] * one_hot).sum(-1)
        return chosen - jnp.where(one_hot > 0, -jnp.inf, logits[None]).max(-1) if self.score == "margin" else chosen


@pytree
@dataclasses.dataclass(frozen=True)
class FunctionTarget(Target):
    """Any function of the logits."""

    fn: Callable[[Array], Array] = dataclasses.field(metadata=dict(static=True))
    many = False

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        return self.fn(acts["output"])[None]


@pytree
@dataclasses.dataclass(frozen=True)
class ObjectiveTarget(Target):
    """An objective, or K of them as one objective with K units."""

    each: Objective  # the leaves with an entry per unit
    rest: Objective
    reference: dict[str, Array]  # the values of the reference image, where the objective has one
    many: bool = dataclasses.field(metadata=dict(static=True))

    def layers(self) -> tuple[str, ...]:
        return self.rest.layers()

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        values = {**acts, **self.reference}
        if not self.many:
            return objectives.combine(self.each, self.rest)(values, images)[None]
        return jax.vmap(lambda one: objectives.combine(one, self.rest)(values, images))(self.each)


def as_target(model: Model, target: AsTarget, images: ArrayLike) -> tuple[Target, np.ndarray | None]:
    """Return what a user's `target` means, and the classes of each image, int32 (N, K), where it is about given classes.

    Raises:
        ArgumentError: a length that does not fit the N images, or something that is no target.
        UnitError: a class, unit or layer that the network does not have.
    """
    size, count = (int(images.shape[1]), int(images.shape[2])), int(images.shape[0])
    if isinstance(target, Target):
        return target, None
    if isinstance(target, Scored):
        if not isinstance(target.classes, Scored | Objective) and not callable(target.classes):
            made, index = as_target(model, target.classes, images)
            return ClassTarget(made.many, target.score), index
        raise ArgumentError(f"Expected classes to take the {target.score} of; got {target.classes!r}.")
    if isinstance(target, str) and ":" in target:
        try:
            target = model.class_index(target)
        except UnitError:
            return _objective(model, objectives.parse(target), size, single=True), None
    if isinstance(target, Objective):
        return _objective(model, target, size), None
    if callable(target):
        shape = jax.eval_shape(
            target, jax.eval_shape(lambda m, x: activations(m, x, ("output",)), model, images)["output"]
        ).shape
        if shape != (count,):
            raise ArgumentError(f"A target function must return one score per image, shape ({count},); got {shape}.")
        return FunctionTarget(as_static(target)), None
    if target is None:
        return ClassTarget(many=False), None
    classes = _classes(model, target)
    if classes.ndim == 0:
        return ClassTarget(many=False), np.full((count, 1), classes, np.int32)
    if classes.ndim == 1 and len(classes) == count:
        return ClassTarget(many=False), classes[:, None]
    if classes.ndim == 2 and len(classes) in (1, count) and classes.size:
        return ClassTarget(many=True), np.broadcast_to(classes, (count, classes.shape[1]))
    raise ArgumentError(f"{_EXPECTED}; got classes of shape {classes.shape} for {count} images.")


def _classes(model: Model, target: Any) -> np.ndarray:
    """Return class indices, from names or indices, checked."""
    if isinstance(target, str):
        return np.asarray(model.class_index(target), np.int32)
    if isinstance(target, Sequence):
        rows = [_classes(model, one) for one in target]
        try:
            given = np.asarray(rows)
        except ValueError:
            raise ArgumentError(f"{_EXPECTED}; got rows of different lengths.") from None
    else:
        given = np.asarray(target)
    if not np.issubdtype(given.dtype, np.integer):
        raise ArgumentError(f"{_EXPECTED}; got {type(target).__name__} of {given.dtype}.")
    wrong = np.unique(given[(given < 0) | (given >= model.num_classes)])
    if wrong.size:
        listed = ", ".join(map(str, wrong[:5]))
        raise UnitError(f"Expected classes from 0 to {model.num_classes - 1}; got {listed}.")
    return given.astype(np.int32)


def _objective(model: Model, objective: Objective, size: tuple[int, int], *, single: bool = False) -> Target:
    """Return the target; `single`: a list of one unit, as strings always make, is one target without an axis of its own."""
    bound = objective.bind(model, size)
    each, rest = objectives.partition(bound)
    many = bool(jax.tree.leaves(each))
    if single and objectives.count(bound) == 1:
        each, many = jax.tree.map(lambda leaf: leaf[0], each), False
    seen: dict[str, Array] = {}
    reference = bound.reference()
    if reference is not None:
        if reference.ndim != 3:
            raise ArgumentError("As a target, an objective may compare with one image, not with several.")
        seen = {objectives.reference_name(): reference[None]}
        found = model.activations(np.asarray(reference)[None], bound.layers()) if bound.layers() else {}
        seen |= {objectives.reference_name(name): value for name, value in found.items()}
    return ObjectiveTarget(each, rest, seen, many)


def target_values(
    model: Model, target: Target, images: Array, index: Array | None, *, ops: Ops = EXACT
) -> tuple[Array, Array | None]:
    """Return the scores (K, n) of images (n, H, W, C), and the classes (n, K) that they are of, if any; inside traced code."""
    acts = activations(model, images, target.layers(), ops=ops)
    chosen = target.choose(acts, index)
    return target.scores(acts, images, chosen), chosen
