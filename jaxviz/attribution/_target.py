"""Targets of attribution: class scores, functions of the logits, or objectives; K for each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import objectives
from jaxviz._errors import ArgumentError, UnitError
from jaxviz._pytree import as_static, pytree
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model, activations
from jaxviz.models._network import Network
from jaxviz.objectives import Objective
from jaxviz.objectives._algebra import combine, count_units, partition, reference_name
from jaxviz.ops import EXACT, Ops

Score: TypeAlias = Literal["logit", "probability", "log_probability", "margin"]
Class: TypeAlias = int | str | np.integer
Classes: TypeAlias = Class | ArrayLike | Sequence[Class | ArrayLike] | Sequence[Sequence[Class | ArrayLike]] | None

_EXPECTED = (
    "Expected target=None (each image's top class), a class (an index or a name), N classes, one for each image, (N, K) or "
    "(1, K) classes for K an image, a function of the logits (N, classes) -> (N,), or an objective"
)


@dataclasses.dataclass(frozen=True)
class Scored:
    """Classes, and which function of their logits is explained; see `probability` and `margin`."""

    classes: Classes
    score: Score


def probability(classes: Classes = None) -> Scored:
    """Return the target "softmax probability of classes", instead of their logits; `classes` as for any `target`.

    >>> jv.attribution.saliency(model, images, jv.attribution.probability(3)).targets.shape == (len(images),)
    True
    """
    return Scored(classes, "probability")


def log_probability(classes: Classes = None) -> Scored:
    """Return the target "log of the softmax probability", the negative cross entropy; `classes` as for any `target`."""
    return Scored(classes, "log_probability")


def margin(classes: Classes = None) -> Scored:
    """Return the target "logit of a class less the largest logit of all others"; `classes` as for any `target`."""
    return Scored(classes, "margin")


class Target:
    """Base of targets: K scores of each image, computed from the values of some layers.

    A target is a pytree. Classes may differ from image to image, so their indices are items next to the images: `index` is
    int32 (n, K), or None for each image's top class, or for targets without classes.
    """

    many: bool  # whether results have an axis of K targets; if not, K is 1 and the axis is dropped at the end

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers that the scores are computed from."""
        return ("output",)

    def choose(self, acts: dict[str, Array], index: Array | None) -> Array | None:
        """Return the classes int32 (n, K), or None for targets without classes."""
        return index

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        """Return the scores float32 (K, n), given the values of the layers and the images (n, H, W, C)."""
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
        # A product with a one-hot vector: the gradient of a gather is a scatter, which is slower. Exact at any precision.
        one_hot = jax.nn.one_hot(index.T, logits.shape[-1], dtype=logits.dtype)
        if self.score in ("probability", "log_probability"):
            logits = (jax.nn.softmax if self.score == "probability" else jax.nn.log_softmax)(logits)
        chosen = (logits[None] * one_hot).sum(-1)
        return chosen - jnp.where(one_hot > 0, -jnp.inf, logits[None]).max(-1) if self.score == "margin" else chosen


@pytree
@dataclasses.dataclass(frozen=True)
class FunctionTarget(Target):
    """A function of the logits."""

    fn: Callable[[Array], Array] = dataclasses.field(metadata=dict(static=True))
    many = False

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        return self.fn(acts["output"])[None]


@pytree
@dataclasses.dataclass(frozen=True)
class ObjectiveTarget(Target):
    """An objective, or an objective with K units as K targets."""

    each: Objective  # the leaves with an entry per unit
    rest: Objective
    reference: dict[str, Array]  # values of the reference image, if the objective has one
    many: bool = dataclasses.field(metadata=dict(static=True))

    def layers(self) -> tuple[str, ...]:
        return self.rest.layers()

    def scores(self, acts: dict[str, Array], images: Array, index: Array | None) -> Array:
        values = {**acts, **self.reference}
        if not self.many:
            return combine(self.each, self.rest)(values, images)[None]
        return jax.vmap(lambda unit: combine(unit, self.rest)(values, images))(self.each)


AsTarget: TypeAlias = Classes | Scored | Objective | Target | Callable[[Array], Array]


def as_target(model: Model, target: AsTarget, images: ArrayLike) -> tuple[Target, np.ndarray | None]:
    """Return a user's `target` as a `Target`, and the given classes of each image, int32 (N, K), or None.

    Raises:
        ArgumentError: a length that does not fit the N images, or something that is not a target.
        UnitError: a class, unit or layer that the network does not have.
    """
    size, count = (int(images.shape[1]), int(images.shape[2])), int(images.shape[0])
    if isinstance(target, Target):
        return target, None
    if isinstance(target, Scored):
        if isinstance(target.classes, Scored | Objective) or callable(target.classes):
            raise ArgumentError(f"Expected classes to take the {target.score} of; got {target.classes!r}.")
        class_target, index = as_target(model, target.classes, images)
        return ClassTarget(class_target.many, target.score), index
    if isinstance(target, str) and ":" in target:
        try:
            target = model.class_index(target)
        except UnitError:
            return _objective_target(model, objectives.parse(str(target)), size, single=True), None
    if isinstance(target, Objective):
        return _objective_target(model, target, size), None
    if callable(target):
        shape = jax.eval_shape(
            target, jax.eval_shape(lambda m, x: activations(m, x, ("output",)), model.network, images)["output"]
        ).shape
        if shape != (count,):
            raise ArgumentError(f"A target function must return one score per image, shape ({count},); got {shape}.")
        return FunctionTarget(as_static(target)), None
    if target is None:
        return ClassTarget(many=False), None
    classes = _as_indices(model, target)
    if classes.ndim == 0:
        return ClassTarget(many=False), np.full((count, 1), classes, np.int32)
    if classes.ndim == 1 and len(classes) == count:
        return ClassTarget(many=False), classes[:, None]
    if classes.ndim == 2 and len(classes) in (1, count) and classes.size:
        return ClassTarget(many=True), np.broadcast_to(classes, (count, classes.shape[1]))
    raise ArgumentError(f"{_EXPECTED}; got classes of shape {classes.shape} for {count} images.")


def _as_indices(model: Model, classes: Classes) -> np.ndarray:
    """Return class indices int32 for names or indices, checked."""
    if isinstance(classes, str):
        return np.asarray(model.class_index(classes), np.int32)
    if isinstance(classes, Sequence):
        rows = [_as_indices(model, row) for row in classes]
        try:
            indices = np.asarray(rows)
        except ValueError:
            raise ArgumentError(f"{_EXPECTED}; got rows of different lengths.") from None
    else:
        indices = np.asarray(classes)
    if not np.issubdtype(indices.dtype, np.integer):
        raise ArgumentError(f"{_EXPECTED}; got {type(classes).__name__} of {indices.dtype}.")
    wrong = np.unique(indices[(indices < 0) | (indices >= model.num_classes)])
    if wrong.size:
        listed = ", ".join(map(str, wrong[:5]))
        raise UnitError(f"Expected classes from 0 to {model.num_classes - 1}; got {listed}.")
    return indices.astype(np.int32)


def _objective_target(model: Model, objective: Objective, size: tuple[int, int], *, single: bool = False) -> Target:
    """Return the target; with `single`, an objective of one unit, as strings give, has no axis of targets."""
    bound = objective.bind(model, size)
    each, rest = partition(bound)
    many = bool(jax.tree.leaves(each))
    if single and count_units(bound) == 1:
        each, many = jax.tree.map(lambda leaf: leaf[0], each), False
    values: dict[str, Array] = {}
    reference = bound.reference()
    if reference is not None:
        if reference.ndim != 3:
            raise ArgumentError("As a target, an objective may compare with one image, not with several.")
        values = {reference_name(): reference[None]}
        acts = model.activations(np.asarray(reference)[None], bound.layers()) if bound.layers() else {}
        values |= {reference_name(name): value for name, value in acts.items()}
    return ObjectiveTarget(each, rest, values, many)


def target_values(
    network: Network, target: Target, images: Array, index: Array | None, *, ops: Ops = EXACT
) -> tuple[Array, Array | None]:
    """Return the scores (K, n) of images (n, H, W, C), and their classes (n, K) or None; for use inside traced code."""
    acts = activations(network, images, target.layers(), ops=ops)
    chosen = target.choose(acts, index)
    return target.scores(acts, images, chosen), chosen
