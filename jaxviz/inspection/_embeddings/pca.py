"""Principal components of embeddings: sums over chunks on the device, decomposed in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxviz._atomic import write_atomically
from jaxviz._errors import ArgumentError
from jaxviz._types import Array, ArrayLike, StrPath
from jaxviz.inspection._embeddings.embeddings import Embeddings, as_vectors

CHUNK_BYTES = 32e6  # vectors on the device at a time
LARGEST = 8192  # side of the largest symmetric matrix that is decomposed


@dataclasses.dataclass(frozen=True)
class PCA:
    """Principal components of N vectors: orthonormal directions of the largest variance.

    Attributes:
        mean: float32 (D,).
        components: float32 (K, D), orthonormal; the entry of largest magnitude is positive (scikit-learn's `svd_flip`).
        explained_variance: float32 (K,), variance along each component, with divisor N - 1.
        explained_variance_ratio: float32 (K,), share of the total variance.
    """

    mean: np.ndarray
    components: np.ndarray
    explained_variance: np.ndarray
    explained_variance_ratio: np.ndarray

    def transform(self, embeddings: Embeddings | ArrayLike) -> np.ndarray:
        """Return the coordinates of vectors (N, D) along the components, float32 (N, K)."""
        vectors = as_vectors(embeddings)
        if vectors.shape[1] != len(self.mean):
            raise ArgumentError(f"Expected vectors (N, {len(self.mean)}); got {vectors.shape}.")
        rows = _row_chunks(vectors)
        return np.concatenate([np.asarray(_project(block, self.mean, self.components))[:count] for block, count in rows])

    def inverse_transform(self, coordinates: ArrayLike) -> np.ndarray:
        """Return the vectors float32 (N, D) that have the coordinates (N, K)."""
        values = np.asarray(coordinates, np.float32)
        if values.ndim != 2 or values.shape[1] != len(self.components):
            raise ArgumentError(f"Expected coordinates (N, {len(self.components)}); got {values.shape}.")
        return np.asarray(_restore(values, self.mean, self.components))

    def save(self, path: StrPath) -> Path:
        """Write the arrays as an `.npz` file."""
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def pca(embeddings: Embeddings | ArrayLike, k: int = 2) -> PCA:
    """Return the first k principal components of vectors.

    Vectors are read twice in chunks: for the mean, and for the scatter matrix, with products in full float32 and sums in
    float64. If N < D, the Gram matrix is decomposed instead, over chunks of columns. So N or D may be large, but not both.

    Args:
        embeddings: N vectors, an `Embeddings` or an array (N, D); a memory map is never read as a whole.
        k: number of components, from 1 to the smaller of N and D.

    Raises:
        ArgumentError: fewer than 2 vectors, values that are not finite, a wrong k, or N and D both above 8192.

    >>> result = pca(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), 1)
    >>> result.components.astype(float).round(3).tolist(), float(result.explained_variance[0])
    ([[0.707, 0.707]], 2.0)
    """
    vectors = as_vectors(embeddings)
    count, length = vectors.shape
    if count < 2:
        raise ArgumentError(f"Expected at least 2 vectors; got {count}.")
    if k != int(k) or not 1 <= k <= min(count, length):
        raise ArgumentError(f"Expected k from 1 to {min(count, length)}, the smaller of N and D; got {k!r}.")
    if min(count, length) > LARGEST:
        raise ArgumentError(
            f"Expected N or D of at most {LARGEST}; got vectors {vectors.shape}. Embed with pool='mean', or take fewer images."
        )
    mean = sum(_finite(block).sum(0, dtype=np.float64) for block, _ in _row_chunks(vectors)) / count
    rounded = np.asarray(mean, np.float32)
    values, directions = (_wide if count < length else _tall)(vectors, rounded)
    total = values.sum()
    order = np.argsort(values, kind="stable")[::-1][: int(k)]
    values, components = np.maximum(values[order], 0) / (count - 1), directions(order)
    largest = np.take_along_axis(components, np.abs(components).argmax(1)[:, None], 1)
    components = components * np.where(largest < 0, -1, 1)
    ratio = values / (total / (count - 1)) if total > 0 else np.zeros_like(values)
    return PCA(rounded, components.astype(np.float32), values.astype(np.float32), ratio.astype(np.float32))


def _tall(vectors: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Return the eigenvalues (D,) of the scatter matrix, and a function from their indices to eigenvectors (K, D)."""
    scatter = np.zeros((vectors.shape[1],) * 2)
    for block, count in _row_chunks(vectors):
        valid = (np.arange(len(block)) < count).astype(np.float32)
        scatter += np.asarray(_scatter(block, mean, valid))
    values, across = np.linalg.eigh((scatter + scatter.T) / 2)
    return values, lambda order: across.T[order]


def _wide(vectors: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """As `_tall`, from the Gram matrix of N vectors, for N < D."""
    count, length = vectors.shape
    size = max(1, min(length, int(CHUNK_BYTES // (4 * count))))

    def columns() -> Iterator[tuple[slice, np.ndarray]]:
        for first in range(0, length, size):
            part = slice(first, min(first + size, length))
            block = np.asarray(vectors[:, part], np.float32) - mean[part]
            yield part, np.pad(block, ((0, 0), (0, size - block.shape[1])))

    products = np.zeros((count, count))
    for _, block in columns():
        products += np.asarray(_products(block))
    values, along = np.linalg.eigh((products + products.T) / 2)

    def directions(order: np.ndarray) -> np.ndarray:
        # A direction is the sum of the vectors weighted by the eigenvector. Beyond the rank of the vectors, rounding decides;
        # QR makes all directions orthonormal and changes the others only in sign, which the caller sets.
        rows = np.zeros((len(order), length))
        weights = (along[:, order] / np.sqrt(np.maximum(values[order], np.finfo(float).tiny))).T.astype(np.float64)
        for part, block in columns():
            rows[:, part] = (weights @ block)[:, : part.stop - part.start]
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(float).tiny)
        return np.linalg.qr(rows.T)[0].T

    return values, directions


def _row_chunks(vectors: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield chunks of one size, the last padded with zeros, and how many of their rows are vectors."""
    size = max(1, min(len(vectors), int(CHUNK_BYTES // (4 * vectors.shape[1]))))
    for first in range(0, len(vectors), size):
        block = np.asarray(vectors[first : first + size], np.float32)
        yield np.pad(block, ((0, size - len(block)), (0, 0))), len(block)


def _finite(block: np.ndarray) -> np.ndarray:
    if not np.isfinite(block).all():
        raise ArgumentError("Expected finite vectors; some hold NaN or infinity.")
    return block


@jax.jit
def _scatter(block: ArrayLike, mean: ArrayLike, valid: ArrayLike) -> Array:
    centered = (jnp.asarray(block) - jnp.asarray(mean)[None]) * jnp.asarray(valid)[:, None]
    return jnp.matmul(centered.T, centered, precision="highest")


@jax.jit
def _products(block: ArrayLike) -> Array:
    return jnp.matmul(block, jnp.asarray(block).T, precision="highest")


@jax.jit
def _project(block: ArrayLike, mean: ArrayLike, components: ArrayLike) -> Array:
    centered = jnp.asarray(block) - jnp.asarray(mean)[None]
    return jnp.matmul(centered, jnp.asarray(components).T, precision="highest")


@jax.jit
def _restore(coordinates: ArrayLike, mean: ArrayLike, components: ArrayLike) -> Array:
    return jnp.matmul(coordinates, components, precision="highest") + jnp.asarray(mean)[None]
