"""The nearest neighbors of vectors, exactly, a block at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias, Unpack, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz import engine
from jaxviz._errors import ArgumentError
from jaxviz._pytree import pytree
from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.engine import RunOptions
from jaxviz.inspection._embeddings.embeddings import Embeddings, as_vectors
from jaxviz.inspection._embeddings.neighbor_pictures import draw

Metric: TypeAlias = Literal["cosine", "l2", "l1"]

BLOCK_BYTES = 32e6  # of vectors on a device at a time
QUERIES = 256  # at a time, on all devices
SPARE = 16  # candidates beyond k that are measured again: as many may be out of order by the rounding of float32


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """The k nearest of some vectors to each of Q queries, nearest first.

    Attributes:
        indices: int32 (Q, k), rows of the vectors.
        distances: float32 (Q, k), ascending; of equal ones the lower row is first.
        rows: int32 (Q,), which of the vectors each query is, or -1: one from elsewhere.
        metric: "cosine" (1 - cosine of the angle), "l2" or "l1".
    """

    indices: np.ndarray
    distances: np.ndarray
    rows: np.ndarray
    metric: Metric = "cosine"

    def __len__(self) -> int:
        return len(self.indices)

    def picture(
        self,
        embeddings: Embeddings,
        queries: Embeddings | None = None,
        *,
        images: ArrayLike | None = None,
        query_images: ArrayLike | None = None,
        title: str | None = None,
        tile: int = 112,
        dark: bool = False,
    ) -> np.ndarray:
        """Return a picture: in each row a query and its neighbors with class and distance, uint8 (height, width, 3).

        Neighbors of another class than the query have a red frame.

        Args:
            embeddings: the ones that were searched; their files are read again.
            queries: those that were asked about, where they came from elsewhere.
            images, query_images: the images themselves (N, H, W, C) and (Q, H, W, C), where they are no files.
            title: above all.
            tile: pixels of a picture.
            dark: white on black.

        Raises:
            ArgumentError: another number of queries, or none where they came from elsewhere.
        """
        return draw(self, embeddings, queries, images, query_images, title, tile, dark)


def neighbors(
    embeddings: Embeddings | ArrayLike,
    queries: Embeddings | ArrayLike | Sequence[int] | None = None,
    k: int = 9,
    *,
    metric: Metric = "cosine",
    **run: Unpack[RunOptions],
) -> Neighbors:
    """Return the k nearest vectors of every query, found by looking at all of them.

    A block of vectors at a time is compared with a chunk of queries (for cosine and L2 by a matrix product), so memory does
    not grow with their number, and vectors may be a memory map. The best candidates are then measured again from their
    differences in float64: near duplicates do not drown in the rounding of the product. (Of more than 16 vectors beyond the
    k-th that float32 cannot tell from it, any may come; what is told of those that come is right.)

    Args:
        embeddings: N vectors, an `Embeddings` or an array (N, D).
        queries: vectors (Q, D); whole numbers (Q,), rows of the embeddings, which are not their own neighbors; or None, all
            rows.
        k: how many neighbors, from 1 to N (to N - 1 where a row is not its own neighbor).
        metric: "cosine", "l2" or "l1". The cosine of a vector of zeros with any other counts as 0, its distance as 1.
        run: devices and chunk, see `RunOptions`.

    Raises:
        ArgumentError: vectors of another length, values that are not finite, a wrong k or an unknown metric.

    >>> neighbors(np.array([[0.0, 1], [0, 2], [3, 0]]), k=1, metric="l2").indices.tolist()
    [[1], [0], [0]]
    """
    vectors = as_vectors(embeddings)
    if metric not in get_args(Metric):
        raise ArgumentError(f"A metric is {', '.join(map(repr, get_args(Metric)))}; got {metric!r}.")
    asked, own = _as_queries(vectors, queries)
    most = len(vectors) - (queries is None or own[0] >= 0)
    if k != int(k) or not 1 <= k <= most:
        raise ArgumentError(f"Expected k from 1 to {most}, the number of possible neighbors; got {k!r}.")
    wanted = min(int(k) + SPARE, most)
    size = max(1, min(len(vectors), int(BLOCK_BYTES // (4 * vectors.shape[1]))))
    best = {
        "distances": np.full((len(asked), wanted), np.inf, np.float32),
        "indices": np.full((len(asked), wanted), -1, np.int32),
    }
    # A constant moves no difference, but takes the digits of large ones out of the product.
    shift = _mean(vectors, size) if metric == "l2" else np.zeros(vectors.shape[1], np.float32)
    run.setdefault("chunk", QUERIES)
    for first, block in _blocks(vectors, size):
        program = _Nearest(block, shift, np.asarray(first, np.int32), np.asarray(len(vectors), np.int32), metric)
        best = engine.map_images(program, {"queries": asked, "own": own, **best}, **run)
    indices, distances = _measured(vectors, asked, best["indices"], metric)
    return Neighbors(indices[:, : int(k)], distances[:, : int(k)], own, metric)


@pytree
@dataclasses.dataclass(frozen=True)
class _Nearest:
    """Compares queries with one block of vectors and keeps the best of what is known and what is new.

    Attributes:
        block: float32 (B, D); rows past `count` only fill it.
        shift: float32 (D,), subtracted from all.
        first: the row of the block's first vector.
        count: how many vectors there are.
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
            found = jax.lax.map(lambda query: jnp.abs(vectors - query[None]).sum(1), queries)
        elif self.metric == "cosine":
            found = 1 - _unit(queries) @ _unit(vectors).T
        else:
            queries, vectors = queries - self.shift[None], vectors - self.shift[None]
            found = (vectors**2).sum(1)[None] + (queries**2).sum(1)[:, None] - 2 * (queries @ vectors.T)
        out = (rows >= self.count)[None] | (rows[None] == items["own"][:, None])
        found = jnp.where(out, jnp.inf, found)
        k = items["indices"].shape[1]
        least, place = jax.lax.top_k(-found, min(k, len(vectors)))
        # What is known comes first: of equal distances, top_k takes the first.
        distances = jnp.concatenate([items["distances"], -least], 1)
        indices = jnp.concatenate([items["indices"], rows[place]], 1)
        least, place = jax.lax.top_k(-distances, k)
        return {"distances": -least, "indices": jnp.take_along_axis(indices, place, 1)}


def _unit(vectors: Array) -> Array:
    length = jnp.sqrt((vectors**2).sum(1, keepdims=True))
    return vectors / jnp.where(length > 0, length, 1)


def _as_queries(vectors: np.ndarray, queries: Embeddings | ArrayLike | Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries (Q, D), and for each the row that it is, or -1."""
    if queries is None:
        return vectors, np.arange(len(vectors), dtype=np.int32)
    rows = None if isinstance(queries, Embeddings) else np.asarray(queries)
    if rows is not None and rows.ndim == 1 and np.issubdtype(rows.dtype, np.integer):
        if not len(rows) or rows.min() < 0 or rows.max() >= len(vectors):
            raise ArgumentError(f"Expected rows from 0 to {len(vectors) - 1}; got {rows.tolist()[:8]}.")
        return vectors[rows], rows.astype(np.int32)
    asked = as_vectors(queries if isinstance(queries, Embeddings) else np.asarray(queries))
    if asked.shape[1] != vectors.shape[1]:
        raise ArgumentError(f"Expected queries (Q, {vectors.shape[1]}), as long as the vectors; got {asked.shape}.")
    return asked, np.full(len(asked), -1, np.int32)


def _blocks(vectors: np.ndarray, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row and the vectors of each block, all of one size; values that are not finite are refused."""
    for first in range(0, len(vectors), size):
        block = np.asarray(vectors[first : first + size], np.float32)
        finite = np.isfinite(block).all(1)
        if not finite.all():
            raise ArgumentError(f"Expected finite vectors; row {first + int(np.argmin(finite))} holds NaN or infinity.")
        yield first, np.pad(block, ((0, size - len(block)), (0, 0)))


def _mean(vectors: np.ndarray, size: int) -> np.ndarray:
    sums = [vectors[i : i + size].sum(0, dtype=np.float64) for i in range(0, len(vectors), size)]
    return (np.sum(sums, 0) / len(vectors)).astype(np.float32)


def _measured(
    vectors: np.ndarray, queries: np.ndarray, candidates: np.ndarray, metric: Metric
) -> tuple[np.ndarray, np.ndarray]:
    """Return candidates (Q, m) in the order of their distances, computed in float64, and these; some queries at a time."""
    indices, distances = np.empty_like(candidates), np.empty(candidates.shape, np.float32)
    step = max(1, int(BLOCK_BYTES // (8 * candidates.shape[1] * vectors.shape[1])))
    for first in range(0, len(queries), step):
        rows = np.sort(candidates[first : first + step], 1)  # so that of equal distances the lower row comes first
        near = vectors[rows].astype(np.float64)
        asked = queries[first : first + step].astype(np.float64)[:, None]
        if metric == "cosine":
            found = 1 - (_unit64(asked) * _unit64(near)).sum(-1)
        elif metric == "l2":
            found = np.sqrt(((near - asked) ** 2).sum(-1))
        else:
            found = np.abs(near - asked).sum(-1)
        order = np.argsort(found, 1, kind="stable")
        indices[first : first + step] = np.take_along_axis(rows, order, 1)
        distances[first : first + step] = np.take_along_axis(found, order, 1)
    return indices, distances


def _unit64(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
