"""t-SNE of embeddings by scikit-learn, which the extra `embed` installs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, Unpack

import numpy as np

from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz._types import ArrayLike
from jaxviz.inspection._embeddings.embeddings import Embeddings, as_vectors
from jaxviz.inspection._embeddings.pca import pca as principal_components


class TSNEOptions(TypedDict, total=False):
    """Further options of `sklearn.manifold.TSNE`, which describes them."""

    early_exaggeration: float
    learning_rate: float | Literal["auto"]
    max_iter: int
    n_iter_without_progress: int
    min_grad_norm: float
    metric_params: Mapping[str, Any] | None
    init: Literal["random", "pca"] | np.ndarray
    verbose: int
    method: Literal["barnes_hut", "exact"]
    angle: float
    n_jobs: int | None


def tsne(
    embeddings: Embeddings | ArrayLike,
    *,
    perplexity: float | None = None,
    pca: int | None = 50,
    metric: str = "cosine",
    seed: int = 0,
    **options: Unpack[TSNEOptions],
) -> np.ndarray:
    """Lay vectors out on a plane so that neighbors stay neighbors (van der Maaten and Hinton, 2008; scikit-learn's t-SNE).

    Read which points are neighbors; distances between groups, and the sizes of groups, mean little.

    Args:
        embeddings: N vectors, an `Embeddings` or an array (N, D), N at least 3.
        perplexity: about how many neighbors each vector is held near to, below N; the smaller of 30 and (N - 1) / 3 by
            default.
        pca: number of principal components to which the vectors are reduced first; None for no reduction.
        metric: "cosine", "euclidean", or another metric of scikit-learn.
        seed: the same seed gives the same layout on the same machine.
        **options: of `sklearn.manifold.TSNE`, such as `max_iter` or `early_exaggeration`.

    Returns:
        float32 (N, 2).

    Raises:
        ArgumentError: too few vectors for the perplexity, or an option that scikit-learn refuses.
        UnsupportedError: scikit-learn is not installed.

    >>> tsne(np.random.default_rng(0).normal(size=(20, 5)), perplexity=5).shape
    (20, 2)
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UnsupportedError(
            "t-SNE needs scikit-learn, which is not installed: pip install 'jaxviz[embed]'. jaxviz.inspection.pca does without."
        ) from error
    vectors = as_vectors(embeddings)
    count = len(vectors)
    perplexity = min(30.0, (count - 1) / 3) if perplexity is None else perplexity
    if count < 3 or not 0 < perplexity < count:
        raise ArgumentError(
            f"Expected at least 3 vectors and a perplexity above 0 and below their number; got {count} and {perplexity}."
        )
    if metric == "cosine":  # normalize before PCA, which would move the origin of the angles
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.asarray(vectors / np.where(length > 0, length, 1), np.float32)
        metric = "euclidean"  # the same neighbors for unit vectors, and faster
    if pca is not None and pca < min(vectors.shape):
        vectors = principal_components(vectors, pca).transform(vectors)
    if not np.isfinite(vectors).all():
        raise ArgumentError("Expected finite vectors; some hold NaN or infinity.")
    keywords: dict[str, Any] = {"perplexity": float(perplexity), "metric": metric, "random_state": seed, **options}
    try:
        layout = TSNE(2, **keywords)
        return np.asarray(layout.fit_transform(np.asarray(vectors)), np.float32)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"scikit-learn's t-SNE refuses this: {error}") from error
