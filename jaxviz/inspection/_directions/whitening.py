"""Whitened directions: what is particular about activations, rather than what all of them share."""

from __future__ import annotations

import numpy as np

from jaxviz._errors import ArgumentError
from jaxviz._types import ArrayLike

RIDGE = 1e-2  # of the mean variance; samples of a photo or a folder seldom span a layer


def readers(vectors: ArrayLike, samples: ArrayLike, ridge: float = RIDGE) -> np.ndarray:
    """Return directions whitened by samples: `v inv(S + ridge * trace(S) / C)`, `S = A^T A / n`, each as long as its `v` was.

    As `jaxviz.objectives.whiten` (Carter et al., 2019), but for the ridge: with it, channels that are silent in all samples,
    and fewer samples than channels, are no problem.

    Args:
        vectors: (K, C).
        samples: (n, C) or (..., C).
        ridge: above 0.

    Raises:
        ArgumentError: shapes that do not fit, or numbers that are not finite.
    """
    rows, given = np.asarray(samples, np.float64), np.asarray(vectors, np.float64)
    rows = rows.reshape(-1, rows.shape[-1] if rows.ndim else 1)
    if given.ndim != 2 or rows.shape[1] != given.shape[1] or not len(rows) or not np.isfinite(rows).all():
        raise ArgumentError(f"Expected vectors (K, C) and finite samples (..., C); got {given.shape} and {np.shape(samples)}.")
    moment = rows.T @ rows / len(rows)
    mean = np.trace(moment) / len(moment)
    if not (mean > 0 and ridge > 0):
        raise ArgumentError(f"Expected samples that are not all 0 and a ridge above 0; got a ridge of {ridge}.")
    found = np.linalg.solve(moment + ridge * mean * np.eye(len(moment)), given.T).T
    lengths = [np.linalg.norm(a, axis=1, keepdims=True) for a in (given, found)]
    return (found * lengths[0] / np.where(lengths[1] > 0, lengths[1], 1)).astype(np.float32)
