"""Principal components: scikit-learn's, of tall and of wide arrays, in one batch or many."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz.inspection import Embeddings, pca
from jaxviz.inspection._embeddings import pca as _pca


def vectors(count: int, length: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(0)
    spread = np.geomspace(3, 0.05, length)  # well separated variances: then components are unique
    turned = np.linalg.qr(random.normal(size=(length, length)))[0]
    drawn = np.random.default_rng([1, seed]).normal(size=(count, length))
    return (drawn * spread @ turned + random.normal(size=length) * 5).astype(np.float32)


@pytest.mark.parametrize(("count", "length", "k"), [(400, 16, 16), (400, 16, 3), (12, 300, 12), (12, 300, 2), (16, 16, 5)])
@pytest.mark.parametrize("size", [None, 40])
def test_scikit_learn_finds_the_same(count: int, length: int, k: int, size: int | None, monkeypatch) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    if size is not None:
        monkeypatch.setattr(_pca, "CHUNK_BYTES", 4 * min(count, length) * size)  # many batches, the last smaller
    data, other = vectors(count, length), vectors(7, length, seed=3)
    expected = decomposition.PCA(k, svd_solver="full").fit(data.astype(np.float64))
    made = pca(data, k)
    rank = min(count - 1, length)  # beyond it directions are arbitrary
    scale = np.abs(expected.explained_variance_).max()
    np.testing.assert_allclose(made.mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(made.components[:rank], expected.components_[:rank], atol=3e-4)
    np.testing.assert_allclose(made.explained_variance, expected.explained_variance_, rtol=1e-4, atol=1e-6 * scale)
    np.testing.assert_allclose(made.explained_variance_ratio, expected.explained_variance_ratio_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made.components @ made.components.T, np.eye(k), atol=1e-5)
    n = min(k, rank)
    for some in (data, other):
        shown, wanted = made.transform(some)[:, :n], expected.transform(some)[:, :n]
        np.testing.assert_allclose(shown, wanted, atol=2e-4 * np.abs(wanted).max())
    if k <= rank:
        back, wanted = made.inverse_transform(made.transform(other)), expected.inverse_transform(expected.transform(other))
        np.testing.assert_allclose(back, wanted, atol=2e-4 * np.abs(wanted).max())


def test_a_large_mean_leaves_the_small_variance() -> None:
    """A covariance as the difference of float32 sums would be noise: variance 1e-4 beside a mean of 1000."""
    random = np.random.default_rng(0)
    data = (1000 + random.normal(size=(5000, 4)) * [0.05, 0.02, 0.01, 0.005]).astype(np.float32)
    values = np.linalg.eigvalsh(np.cov(data.astype(np.float64).T))[::-1]
    np.testing.assert_allclose(pca(data, 4).explained_variance, values, rtol=1e-3)


def test_signs_do_not_depend_on_batches_and_equal_vectors_have_no_variance() -> None:
    made = pca(vectors(50, 6), 6)
    assert all(row[np.abs(row).argmax()] > 0 for row in made.components)
    flat = pca(np.ones((5, 3), np.float32), 2)
    assert flat.explained_variance.tolist() == [0, 0] and flat.explained_variance_ratio.tolist() == [0, 0]
    assert not flat.transform(np.ones((2, 3), np.float32)).any()


def test_of_embeddings_saved_and_read(tmp_path) -> None:
    data = vectors(20, 5)
    made = pca(Embeddings(data, tuple(map(str, range(20))), ("",) * 20), 2)
    with np.load(made.save(tmp_path / "pca.npz"), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["components"], made.components)


@pytest.mark.parametrize(
    ("data", "k", "words"),
    [
        (np.ones((1, 3)), 1, "at least 2"),
        (np.ones((4, 3)), 4, "from 1 to 3"),
        (np.ones((4, 3)), 0, "from 1 to 3"),
        (np.full((4, 3), np.inf), 1, "finite"),
        (np.ones(3), 1, r"\(N, D\)"),
    ],
)
def test_wrong_arguments_are_told(data: np.ndarray, k: int, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        pca(data, k)


def test_too_large_in_both_directions_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(_pca, "LARGEST", 8)
    assert pca(vectors(30, 8), 1).components.shape == (1, 8)
    with pytest.raises(ArgumentError, match="pool='mean'"):
        pca(vectors(30, 9), 1)


def test_other_lengths_are_told() -> None:
    made = pca(vectors(9, 4), 2)
    with pytest.raises(ArgumentError, match=r"\(N, 4\)"):
        made.transform(np.ones((2, 5)))
    with pytest.raises(ArgumentError, match=r"\(N, 2\)"):
        made.inverse_transform(np.ones((2, 3)))
