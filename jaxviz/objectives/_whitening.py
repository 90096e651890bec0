"""Whitened directions: what is particular about activations, rather than what all of them share."""

from __future__ import annotations

import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike

RIDGE = 1e-2  # of the mean variance


def whiten(vectors: ArrayLike, samples: ArrayLike) -> np.ndarray:
    """Whiten directions by activations: `v inv(S)` with `S = A^T A / n` (Carter et al. 2019, "Activation Atlas").

    A direction that shares much with what is always active then asks for what is particular to it.

    Args:
        vectors: (C,) or (K, C).
        samples: activations (n, C) or (..., C) of many images, n larger than C.

    Returns:
        float32, of the shape of `vectors`.

    Raises:
        ArgumentError: shapes that do not fit, numbers that are not finite, or samples that do not span the layer (a channel
            that is never active, too few samples).

    >>> samples = model.activations(photos, ["layer2"])["layer2"]
    >>> probes = np.random.default_rng(0).normal(size=(2, samples.shape[-1]))
    >>> jaxviz.visualize(model, jaxviz.direction("layer2", jaxviz.objectives.whiten(probes, samples)), steps=1, size=32)
    """
    directions, moment, count = _second_moment(vectors, samples)
    if np.linalg.matrix_rank(moment, hermitian=True) < len(moment):
        raise ArgumentError(
            f"{count} samples do not span the {len(moment)} channels: give more of them, or leave silent channels out."
        )
    return np.linalg.solve(moment, directions.T).T.astype(np.float32)  # S is symmetric


def whiten_with_ridge(vectors: ArrayLike, samples: ArrayLike, ridge: float = RIDGE) -> np.ndarray:
    """Whiten directions by samples that need not span the layer: `v inv(S + ridge * trace(S) / C)`, each as long as its `v`.

    The samples of a photo or a folder seldom span a layer. With a ridge, silent channels and fewer samples than channels are
    no problem.

    Args:
        vectors: (K, C).
        samples: (n, C) or (..., C).
        ridge: above 0.

    Raises:
        ArgumentError: shapes that do not fit, numbers that are not finite, samples that are all 0.
    """
    directions, moment, _ = _second_moment(vectors, samples)
    mean = np.trace(moment) / len(moment)
    if not (mean > 0 and ridge > 0):
        raise ArgumentError(f"Expected samples that are not all 0 and a ridge above 0; got a ridge of {ridge}.")
    whitened = np.linalg.solve(moment + ridge * mean * np.eye(len(moment)), directions.T).T
    before, after = (np.linalg.norm(rows, axis=1, keepdims=True) for rows in (directions, whitened))
    return (whitened * before / np.where(after > 0, after, 1)).astype(np.float32)


def _second_moment(vectors: ArrayLike, samples: ArrayLike) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the vectors and `S = A^T A / n` (C, C) of the samples in float64, and n."""
    directions, rows = np.asarray(vectors, np.float64), np.asarray(samples, np.float64)
    rows = rows.reshape(-1, rows.shape[-1] if rows.ndim else 1)
    fits = directions.ndim in (1, 2) and directions.shape[-1] == rows.shape[1]
    if not fits or not len(rows) or not np.isfinite(rows).all():
        raise ArgumentError(
            f"Expected vectors (C,) or (K, C) and finite samples (n, C); got {directions.shape} and {rows.shape}."
        )
    return directions, rows.T @ rows / len(rows), len(rows)
