"""t-SNE: what scikit-learn gives, seeded; groups stay groups; what is missing or wrong is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from jaxviz import ArgumentError, UnsupportedError
from jaxviz.inspection import pca, tsne


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A few points are laid out in no time by one thread; many wait for each other where other tests run beside."""
    pytest.importorskip("sklearn.manifold")  # what it loads is limited, not what is loaded later
    limits = pytest.importorskip("threadpoolctl", reason="scikit-learn brings it").threadpool_limits
    with limits(1):
        yield


def groups(count: int = 20, length: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Three groups of vectors whose lengths say nothing: only their directions do."""
    random = np.random.default_rng(0)
    which = np.arange(3 * count) % 3
    vectors = 3 * np.eye(3, length)[which] + 0.3 * random.normal(size=(3 * count, length))
    return (vectors * random.uniform(0.1, 10, (3 * count, 1))).astype(np.float32), which


@pytest.mark.usefixtures("one_thread")
def test_groups_stay_groups_and_the_seed_decides() -> None:
    vectors, which = groups()
    points = tsne(vectors, perplexity=8, max_iter=400)
    assert points.shape == (60, 2) and points.dtype == np.float32
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert (which[distance.argmin(1)] == which).mean() > 0.95
    np.testing.assert_array_equal(tsne(vectors, perplexity=8, max_iter=400), points)


@pytest.mark.usefixtures("one_thread")
def test_scikit_learn_gives_the_same() -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    vectors, _ = groups()
    expected = manifold.TSNE(perplexity=5, metric="manhattan", random_state=3, max_iter=250).fit_transform(vectors)
    found = tsne(vectors, perplexity=5, metric="manhattan", pca=None, seed=3, max_iter=250)
    np.testing.assert_array_equal(found, expected)
    reduced = pca(vectors, 4).transform(vectors)
    expected = manifold.TSNE(perplexity=5, metric="euclidean", random_state=3, max_iter=250).fit_transform(reduced)
    np.testing.assert_array_equal(tsne(vectors, perplexity=5, metric="euclidean", pca=4, seed=3, max_iter=250), expected)


@pytest.mark.usefixtures("one_thread")
def test_few_vectors_have_few_neighbors() -> None:
    assert np.isfinite(tsne(groups()[0][:5], max_iter=250)).all()
    np.testing.assert_array_equal(tsne(groups()[0], max_iter=250), tsne(groups()[0], perplexity=59 / 3, max_iter=250))


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    with pytest.raises(UnsupportedError, match=r"jaxviz\[embed\]"):
        tsne(np.eye(9))


@pytest.mark.parametrize(
    ("count", "options", "words"),
    [
        (9, {"perplexity": 9}, "below their number"),
        (2, {"perplexity": 1}, "at least 3"),
        (9, {"perplexity": 2, "max_iter": 3}, "refuses"),
        (9, {"perplexity": 2, "nonsense": 3}, "refuses"),
    ],
)
def test_wrong_arguments_are_told(count: int, options: dict, words: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ArgumentError, match=words):
        tsne(groups()[0][:count], **options)


def test_values_that_are_not_finite_are_told() -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ArgumentError, match="finite"):
        tsne(np.full((9, 3), np.nan, np.float32), perplexity=2)
