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
    combine,
    count,
    leaf,
    partition,
    pytree,
)


@pytree
class Unbound(Objective):
    """What `product` returns: how many combinations there are is known once a network says how many units a layer has."""

    terms: tuple[Objective, ...]

    def __call__(self, acts: Activations, images: Array) -> Array:
        raise ArgumentError("A product of objectives has its units from the network: bind(model, size) first.")

    def bind(self, model: Model, size: tuple[int, int]) -> Objective:
        bound = [term.bind(model, size) for term in self.terms]
        choice = np.indices([count(term) for term in bound], np.int32).reshape(len(bound), -1)
        combined = Combination(tuple(map(_take, bound, choice)), choice.T)
        check_one_reference(combined)
        return combined


@pytree
class Combination(Sum):
    """A sum for each combination of its terms' units; `choice` says which unit of each term, (T,)."""

    choice: ArrayLike = leaf(1)

    def ids(self, model: Model) -> np.ndarray | None:
        """Return the ids of all terms side by side, and a number that tells apart rows that are equal up to here."""
        columns = []
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
        names = []
        for options, which in self._options():
            if labels := options.labels(model):
                names.append([labels[i if len(labels) > 1 else 0] for i in which])
        return tuple(" + ".join(parts) for parts in zip(*names, strict=True))

    def _options(self) -> list[tuple[Objective, np.ndarray]]:
        """Return each term with its own units alone, and which of them each combination has."""
        columns = np.atleast_2d(np.asarray(self.choice)).T
        return [
            (_take(term, np.unique(column, return_index=True)[1]), column)
            for term, column in zip(self.terms, columns, strict=True)
        ]


def product(*objectives: Objective) -> Objective:
    """Combine every unit of each objective with every unit of the others: K1 x K2 x ... pieces of work, each a sum.

    The last objective's units change fastest. One without units of its own takes part in all sums.

    Args:
        *objectives: with one or more units each; `channel("layer2")` stands for all channels of the layer.

    Raises:
        ArgumentError: nothing, or something else than objectives.

    >>> pairs = product(channel("layer3", [1, 2, 3]), channel("layer2", [4, 5]))
    >>> jaxviz.visualize(model, pairs).labels[:2]
    ('layer3:1 + layer2:4', 'layer3:1 + layer2:5')
    """
    if not objectives or not all(isinstance(one, Objective) for one in objectives):
        raise ArgumentError(f"Expected objectives to combine, got {objectives!r}.")
    return Unbound(objectives)


def _take(objective: Objective, rows: np.ndarray) -> Objective:
    """Return the objective with the units of `rows`, in that order; what all units share stays shared."""
    each, rest = partition(objective)
    return combine(jax.tree.map(lambda values: np.asarray(values)[rows], each), rest)


def _contents(options: Objective) -> list[int]:
    """Return crc32 of the numbers of each unit: what names a direction or an image wherever it stands in the batch."""
    leaves = [np.asarray(values) for values in jax.tree.leaves(partition(options)[0])]
    return [zlib.crc32(b"".join(values[i].tobytes() for values in leaves)) for i in range(count(options))]
