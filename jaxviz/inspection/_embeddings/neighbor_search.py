"""Exact nearest-neighbor search, a block of vectors at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.engine import RunOptions
from jaxviz.inspection._embeddings.embeddings import Embeddings, as_vectors
from jaxviz.inspection._embeddings.neighbors import Metric, Neighbors

BLOCK_BYTES = 32e6  # vectors on a device at a time
CHUNK = 256  # queries at a time, over all devices
SPARE = 16  # candidates beyond k that are ranked again: float32 rounding may misplace as many


def neighbors(
    embeddings: Embeddings | ArrayLike,
    queries: Embeddings | ArrayLike | Sequence[int] | None = None,
    k: int = 9,
    *,
    metric: Metric = "cosine",
    **run: Unpack[RunOptions],
) -> Neighbors:
    """Return the k nearest vectors of every query by exhaustive search.

    Memory does not grow with N or Q: blocks of vectors are compared with chunks of queries, and the vectors may be a memory
    map. Distances are computed in float32 first (cosine and L2 by a matrix product), then the best k + 16 candidates are
    ranked by float64 differences, so that near duplicates do not drown in rounding. If more than 16 vectors beyond the k-th
    are equally near within float32 rounding, any of them may be returned; the distances that are returned are right.

    Args:
        embeddings: N vectors, an `Embeddings` or an array (N, D).
        queries: vectors (Q, D); or integers (Q,), rows of the embeddings, which are not their own neighbors; all rows by
            default.
        k: number of neighbors, from 1 to N (to N - 1 if queries are rows).
        metric: "cosine", "l2" or "l1". The cosine similarity with a zero vector counts as 0.
        **run: see `RunOptions`; `chunk` is the number of queries at a time, 256 by default.

    Raises:
        ArgumentError: vectors of another length, values that are not finite, a wrong k or an unknown metric.

    >>> neighbors(np.array([[0.0, 1], [0, 2], [3, 0]]), k=1, metric="l2").indices.tolist()
    [[1], [0], [0]]
    """
    vectors = as_vectors(embeddings)
    if metric not in get_args(Metric):
        raise ArgumentError(f"A metric is {', '.join(map(repr, get_args(Metric)))}; got {metric!r}.")
    targets, rows = _as_queries(vectors, queries)
    most = len(vectors) - (queries is None or rows[0] >= 0)
    if k != int(k) or not 1 <= k <= most:
        raise ArgumentError(f"Expected k from 1 to {most}, the number of possible neighbors; got {k!r}.")
    candidates = min(int(k) + SPARE, most)
    size = max(1, min(len(vectors), int(BLOCK_BYTES // (4 * vectors.shape[1]))))
    best: dict[str, np.ndarray] = {
        "distances": np.full((len(targets), candidates), np.inf, np.float32),
        "indices": np.full((len(targets), candidates), -1, np.int32),
    }
    # Subtracting a constant changes no difference, but keeps the digits that the product of large numbers would lose.
    shift = _mean(vectors, size) if metric == "l2" else np.zeros(vectors.shape[1], np.float32)
    run.setdefault("chunk", CHUNK)
    for first, block in _blocks(vectors, size):
        program = _Nearest(block, shift, np.asarray(first, np.int32), np.asarray(len(vectors), np.int32), metric)
        best = engine.map_images(program, {"queries": targets, "rows": rows, **best}, **run)
    indices, distances = _rank(vectors, targets, best["indices"], metric)
    return Neighbors(indices[:, : int(k)], distances[:, : int(k)], rows, metric)


@pytree
@dataclasses.dataclass(frozen=True)
class _Nearest:
    """Program: compare queries with one block of vectors and keep the best of old and new candidates.

    Attributes:
        block: float32 (B, D); rows from `count` on are padding.
        shift: float32 (D,), subtracted from vectors and queries.
        first: row of the block's first vector.
        count: number of vectors in all blocks.
    """

    block: ArrayLike
    shift: ArrayLike
    first: ArrayLike
    count: ArrayLike
    metric: Metric = dataclasses.field(metadata=dict(static=True))

    def __call__(self, items: PyTree) -> PyTree:
        vectors, queries = jnp.asarray(self.block), items["queries"]
        rows = self.first + jnp.arange(len(vectors), dtype=jnp.int32)
        if self.metric == "l1":
            distances = jax.lax.map(lambda query: jnp.abs(vectors - query[None]).sum(1), queries)
        elif self.metric == "cosine":
            distances = 1 - _unit(queries) @ _unit(vectors).T
        else:
            queries, vectors = queries - self.shift[None], vectors - self.shift[None]
            distances = (vectors**2).sum(1)[None] + (queries**2).sum(1)[:, None] - 2 * (queries @ vectors.T)
        is_excluded = (rows >= self.count)[None] | (rows[None] == items["rows"][:, None])
        distances = jnp.where(is_excluded, jnp.inf, distances)
        k = items["indices"].shape[1]
        negative, places = jax.lax.top_k(-distances, min(k, len(vectors)))
        # Old candidates come first: top_k breaks ties by order.
        distances = jnp.concatenate([items["distances"], -negative], 1)
        indices = jnp.concatenate([items["indices"], rows[places]], 1)
        negative, places = jax.lax.top_k(-distances, k)
        return {"distances": -negative, "indices": jnp.take_along_axis(indices, places, 1)}


def _unit(vectors: Array) -> Array:
    length = jnp.sqrt((vectors**2).sum(1, keepdims=True))
    return vectors / jnp.where(length > 0, length, 1)


def _as_queries(vectors: np.ndarray, queries: Embeddings | ArrayLike | Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries (Q, D), and the row of each, or -1."""
    if queries is None:
        return vectors, np.arange(len(vectors), dtype=np.int32)
    rows = None if isinstance(queries, Embeddings) else np.asarray(queries)
    if rows is not None and rows.ndim == 1 and np.issubdtype(rows.dtype, np.integer):
        if not len(rows) or rows.min() < 0 or rows.max() >= len(vectors):
            raise ArgumentError(f"Expected rows from 0 to {len(vectors) - 1}; got {rows.tolist()[:8]}.")
        return vectors[rows], rows.astype(np.int32)
    targets = as_vectors(queries if isinstance(queries, Embeddings) else np.asarray(queries))
    if targets.shape[1] != vectors.shape[1]:
        raise ArgumentError(f"Expected queries (Q, {vectors.shape[1]}), as long as the vectors; got {targets.shape}.")
    return targets, np.full(len(targets), -1, np.int32)


def _blocks(vectors: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the vectors of each block, all of one size.

    Raises:
        ArgumentError: a value that is not finite.
    """
    for first in range(0, len(vectors), size):
        block = np.asarray(vectors[first : first + size], np.float32)
        finite = np.isfinite(block).all(1)
        if not finite.all():
            raise ArgumentError(f"Expected finite vectors; row {first + int(np.argmin(finite))} holds NaN or infinity.")
        yield first, np.pad(block, ((0, size - len(block)), (0, 0)))


def _mean(vectors: np.ndarray, size: int) -> np.ndarray:
    sums = [vectors[i : i + size].sum(0, dtype=np.float64) for i in range(0, len(vectors), size)]
    return (np.sum(sums, 0) / len(vectors)).astype(np.float32)


def _rank(vectors: np.ndarray, queries: np.ndarray, candidates: np.ndarray, metric: Metric) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates (Q, m) by ascending distance, and their distances, computed in float64, some queries at a time."""
    indices, distances = np.empty_like(candidates), np.empty(candidates.shape, np.float32)
    step = max(1, int(BLOCK_BYTES // (8 * candidates.shape[1] * vectors.shape[1])))
    for first in range(0, len(queries), step):
        rows = np.sort(candidates[first : first + step], 1)  # the stable sort below then breaks ties by row
        near = vectors[rows].astype(np.float64)
        targets = queries[first : first + step].astype(np.float64)[:, None]
        if metric == "cosine":
            exact = 1 - (_unit64(targets) * _unit64(near)).sum(-1)
        elif metric == "l2":
            exact = np.sqrt(((near - targets) ** 2).sum(-1))
        else:
            exact = np.abs(near - targets).sum(-1)
        order = np.argsort(exact, 1, kind="stable")
        indices[first : first + step] = np.take_along_axis(rows, order, 1)
        distances[first : first + step] = np.take_along_axis(exact, order, 1)
    return indices, distances


def _unit64(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
