"""The algebra of objectives: the base class, sums, multiples, products, and the split into per-unit and shared leaves."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree as register
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model

Activations: TypeAlias = Mapping[str, Array]
T = TypeVar("T")


def reference_name(layer: str = "") -> str:
    """Return the key under which `activations` hold a layer's value for the reference image; "" for the image itself."""
    return f"reference:{layer}"


def leaf(rank: int = 0, default: Any = dataclasses.MISSING) -> Any:
    """Declare an array field of `rank` axes for one unit; one axis more, in front, means one entry per unit."""
    return field(default=default, metadata={"rank": rank})


def static(default: Any = dataclasses.MISSING) -> Any:
    """Declare a field that is part of the compiled program (a name, a mode), not of its data."""
    return field(default=default, metadata={"static": True})


@dataclass_transform(frozen_default=True, field_specifiers=(leaf, static, field))
def pytree(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass and a JAX pytree: fields are leaves unless `static()`."""
    return register(dataclass(frozen=True, eq=False)(cls))


class Objective:
    """Base of all objectives: arithmetic, and the methods that the engine calls.

    Sums, differences, negation, multiples and products of objectives are objectives.

    >>> contrast = jv.channel("layer3", 7) - 0.5 * jv.channel("layer3", 9)
    """

    __array_ufunc__ = None  # numpy scalars and arrays defer to __rmul__

    def __call__(self, acts: Activations, images: Array) -> Array:
        """Return the score of each of S images, float32 (S,)."""
        raise NotImplementedError

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        """Return the objective with layers, units and class names checked against the network."""
        bound = _map_terms(self, lambda term: term.bind(model, size))
        check_one_reference(bound)
        return bound

    def at_size(self, model: Model, size: tuple[int, int], other: tuple[int, int]) -> Objective:
        """Return the objective, bound for images of `size`, for the same images resized to `other`; positions are scaled."""
        return _map_terms(self, lambda term: term.at_size(model, size, other))

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers whose activations the objective reads."""
        return tuple(dict.fromkeys(name for term in _terms(self) for name in term.layers()))

    def units(self) -> tuple[str, np.ndarray] | None:
        """Return the layer and the unit indices (K,) of one term, or None if it has no units."""
        return None

    def ids(self, model: Model) -> np.ndarray | None:
        """Return the numbers that are folded into the random keys, uint32 (K, n): crc32 of the layer's node, and the unit.

        A sum has the ids of its term with the most units. Ids of shape (1, 0) leave only the seed and the sample; None means
        no ids.
        """
        if terms := _terms(self):
            all_ids = [ids for term in terms if (ids := term.ids(model)) is not None]
            return max(all_ids, key=lambda ids: ids.shape) if all_ids else None
        named = self.units()
        if named is None:
            return None
        node = np.full(len(named[1]), zlib.crc32(model.resolve(named[0]).encode()))
        return np.stack([node, named[1]], axis=1).astype(np.uint32)

    def reference(self) -> Array | None:
        """Return the image (H, W, C) in [0, 1] that one unit is compared with, or None.

        The engine runs the network on it through the samples' random transforms. `activations` then holds its activations
        under `reference_name(layer)`, and the transformed image itself under `reference_name()`.
        """
        return next((image for term in _terms(self) if (image := term.reference()) is not None), None)

    def labels(self, model: Model) -> tuple[str, ...]:
        """Return a name for each unit of work, such as `layer3:7` or `logit:golf ball`."""
        named = [labels for term in _terms(self) if (labels := term.labels(model))]
        return max(named, key=len) if named else ()

    def __add__(self, other: Objective | int) -> Objective:
        if not isinstance(other, Objective):
            if other == 0:  # so that sum() works
                return self
            raise ArgumentError(f"Expected an objective to add, got {other!r}.")
        return Sum((self, other))

    __radd__ = __add__

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __sub__(self, other: Objective) -> Objective:
        return self + -other

    def __mul__(self, other: Objective | float | ArrayLike) -> Objective:
        return Product(self, other) if isinstance(other, Objective) else Scaled(np.asarray(other, np.float32), self)

    __rmul__ = __mul__

    def __truediv__(self, other: float | ArrayLike) -> Objective:
        return self * (1.0 / np.asarray(other, np.float32))


@pytree
class Sum(Objective):
    """The sum of its terms, exactly: weights belong to their own term."""

    terms: tuple[Objective, ...]

    def __call__(self, acts: Activations, images: Array) -> Array:
        return sum((term(acts, images) for term in self.terms[1:]), self.terms[0](acts, images))


@pytree
class Scaled(Objective):
    """A term times a weight. The weight is data: another weight does not recompile."""

    weight: ArrayLike = leaf()
    term: Objective

    def __call__(self, acts: Activations, images: Array) -> Array:
        return jnp.asarray(self.weight) * self.term(acts, images)

    def labels(self, model: Model) -> tuple[str, ...]:
        names = self.term.labels(model)
        several = np.ndim(self.weight) == 1 and len(names) == 1
        return tuple(f"{weight:g} * {names[0]}" for weight in np.asarray(self.weight)) if several else names


@pytree
class Product(Objective):
    """The product of two scores."""

    left: Objective
    right: Objective

    def __call__(self, acts: Activations, images: Array) -> Array:
        return self.left(acts, images) * self.right(acts, images)


def checked_objective(value: object, what: str) -> Objective:
    """Return `value`; raise an ArgumentError unless it is an objective."""
    if not isinstance(value, Objective):
        raise ArgumentError(f"Expected {what}, such as channel('layer3', 7), got {value!r}.")
    return value


def check_one_reference(objective: Objective) -> None:
    """Raise an ArgumentError if terms have different reference images: there is only one for each unit."""
    images = [image for term in _terms(objective) if (image := term.reference()) is not None]
    if any(not np.array_equal(images[0], image) for image in images[1:]):
        raise ArgumentError("The terms of an objective compare with different images; give all of them the same.")


def count_units(objective: Objective) -> int:
    """Return the number of units of work.

    Raises:
        ArgumentError: the terms of a sum have different numbers of units.
    """
    sizes = {len(value) for value, batched in _leaves(objective) if batched}
    if len(sizes - {1}) > 1:
        raise ArgumentError(f"The terms of an objective have different numbers of units: {sorted(sizes)}; give each K or one.")
    return max(sizes, default=1)


def partition(objective: Objective) -> tuple[Objective, Objective]:
    """Split into two pytrees of the same form: the leaves with one entry per unit, and the shared leaves; the rest is None.

    If there are several units, a leaf with one entry is shared by all of them.
    """
    units, form = count_units(objective), jax.tree.structure(objective)
    each: list[Any] = []
    shared: list[Any] = []
    for value, batched in _leaves(objective):
        own = batched and len(value) == units
        each.append(value if own else None)
        shared.append(None if own else value[0] if batched else value)
    return form.unflatten(each), form.unflatten(shared)


def combine(each: Objective, shared: Objective) -> Objective:
    """Undo `partition`."""
    return jax.tree.map(lambda a, b: b if a is None else a, each, shared, is_leaf=lambda x: x is None)


def _children(objective: Objective) -> list[tuple[str, Any]]:
    return [(f.name, getattr(objective, f.name)) for f in dataclasses.fields(objective)]  # type: ignore[arg-type]


def _terms(objective: Objective) -> list[Objective]:
    terms: list[Objective] = []
    for _, value in _children(objective):
        terms += [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Objective)]
    return terms


def _map_terms(objective: Objective, change: Callable[[Objective], Objective]) -> Objective:
    changed: dict[str, Any] = {}
    for name, value in _children(objective):
        if isinstance(value, Objective):
            changed[name] = change(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Objective):
            changed[name] = tuple(change(term) for term in value)
    return dataclasses.replace(objective, **changed)  # type: ignore[type-var]


def _leaves(objective: Objective) -> list[tuple[Any, bool]]:
    """Return every array leaf in the pytree's order, and whether it has one entry per unit."""
    leaves: list[tuple[Any, bool]] = []
    for f in dataclasses.fields(objective):  # type: ignore[arg-type]
        value = getattr(objective, f.name)
        if f.metadata.get("static") or value is None:
            continue
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Objective):
                leaves += _leaves(part)
            else:
                rank, ndim = f.metadata.get("rank", 0), np.ndim(part)
                if ndim not in (rank, rank + 1):
                    shape = np.shape(part)
                    raise ArgumentError(
                        f"{type(objective).__name__}.{f.name} has {rank} axes for each unit; got shape {shape}."
                    )
                leaves.append((part, ndim == rank + 1))
    return leaves
