"""All combinations of the units of several objectives."""

from __future__ import annotations

import zlib
from collections import Counter

import jax
import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike
from jaxviz.models import Model
from jaxviz.objectives._algebra import (
    Activations,
    Objective,
    Sum,
    check_one_reference,
    checked_objective,
    combine,
    count_units,
    leaf,
    partition,
    pytree,
)


@pytree
class Unbound(Objective):
    """The result of `product`: the number of combinations is known only with a network, which has the number of units."""

    terms: tuple[Objective, ...]

    def __call__(self, acts: Activations, images: Array) -> Array:
        raise ArgumentError("A product of objectives gets its units from the network: call bind(model, size) first.")

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        bound = [term.bind(model, size) for term in self.terms]
        choice = np.indices([count_units(term) for term in bound], np.int32).reshape(len(bound), -1)
        combined = Combination(tuple(map(_take, bound, choice)), choice.T)
        check_one_reference(combined)
        return combined


@pytree
class Combination(Sum):
    """A sum for each combination of its terms' units; `choice` says which unit of each term, (T,)."""

    choice: ArrayLike = leaf(1)

    def ids(self, model: Model) -> np.ndarray | None:
        """Return the ids of all terms side by side, and a number that distinguishes rows that are otherwise equal."""
        columns: list[np.ndarray] = []
        for options, which in self._options():
            ids = options.ids(model)
            if ids is None or not ids.size:
                node = zlib.crc32(model.resolve(next(iter(options.layers()), "output")).encode())
                ids = np.array([[node, content] for content in _contents(options)], np.uint32)
            columns.append(ids[which if len(ids) > 1 else 0 * which])
        ids = np.concatenate(columns, axis=1)
        seen: Counter[bytes] = Counter()
        again = np.zeros((len(ids), 1), np.uint32)
        for i, row in enumerate(ids):
            again[i] = seen[row.tobytes()]
            seen[row.tobytes()] += 1
        return np.concatenate([ids, again], axis=1)

    def labels(self, model: Model) -> tuple[str, ...]:
        names: list[list[str]] = []
        for options, which in self._options():
            if labels := options.labels(model):
                names.append([labels[i if len(labels) > 1 else 0] for i in which])
        return tuple(" + ".join(parts) for parts in zip(*names, strict=True))

    def _options(self) -> list[tuple[Objective, np.ndarray]]:
        """Return each term with only the units that are used, and which of these each combination has."""
        columns = np.atleast_2d(np.asarray(self.choice)).T
        return [
            (_take(term, np.unique(column, return_index=True)[1]), column)
            for term, column in zip(self.terms, columns, strict=True)
        ]


def product(*objectives: Objective) -> Objective:
    """Combine every unit of each objective with every unit of the others: K1 x K2 x ... units of work, each a sum.

    The last objective's units change fastest. An objective without units takes part in all sums.

    Args:
        *objectives: with one or more units each; `channel("layer2")` stands for all channels of the layer.

    Raises:
        ArgumentError: no arguments, or anything but objectives.

    >>> pairs = jv.product(jv.channel("layer3", [1, 2, 3]), jv.channel("layer2", [4, 5]))
    >>> jv.visualize(model, pairs, steps=1, size=32).labels[:2]
    ('layer3:1 + layer2:4', 'layer3:1 + layer2:5')
    """
    if not objectives:
        raise ArgumentError("Expected objectives to combine, got none.")
    return Unbound(tuple(checked_objective(objective, "objectives to combine") for objective in objectives))


def _take(objective: Objective, rows: np.ndarray) -> Objective:
    """Return the objective with the units of `rows`, in that order; shared leaves stay shared."""
    each, shared = partition(objective)
    return combine(jax.tree.map(lambda values: np.asarray(values)[rows], each), shared)


def _contents(options: Objective) -> list[int]:
    """Return crc32 of the numbers of each unit: it identifies a direction or an image at any position in the batch."""
    leaves = [np.asarray(values) for values in jax.tree.leaves(partition(options)[0])]
    return [zlib.crc32(b"".join(values[i].tobytes() for values in leaves)) for i in range(count_units(options))]
