"""Nearest neighbors: those that SciPy finds by measuring every distance in float64, in blocks, on devices, with ties."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

import jaxviz
from jaxviz import ArgumentError
from jaxviz.inspection import Embeddings, Neighbors, neighbors
from jaxviz.inspection._embeddings import neighbor_search as _search

SCIPY = {"cosine": "cosine", "l2": "euclidean", "l1": "cityblock"}


def vectors(count: int, length: int = 12, seed: int = 0, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, length)) + offset).astype(np.float32)


def assert_nearest(found: Neighbors, distances: np.ndarray) -> None:
    """The first k of a stable sort of all distances, (Q, N)."""
    k = found.indices.shape[1]
    order = np.argsort(distances, 1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, order, 1), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("metric", SCIPY)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_scipy_finds_the_same(metric, offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_search, "BLOCK_BYTES", 4 * 12 * 50)  # 7 blocks of 50, the last of 33
    data, asked = vectors(333, offset=offset), vectors(45, seed=1, offset=offset)
    found = neighbors(data, asked, 7, metric=metric)
    assert found.indices.dtype == np.int32 and found.distances.dtype == np.float32 and found.metric == metric
    assert_nearest(found, cdist(asked.astype(float), data.astype(float), SCIPY[metric]))


@pytest.mark.parametrize("metric", SCIPY)
def test_scikit_learn_finds_the_same(metric) -> None:
    brute = pytest.importorskip("sklearn.neighbors").NearestNeighbors(
        n_neighbors=6, algorithm="brute", metric={"l2": "euclidean", "l1": "manhattan"}.get(metric, metric)
    )
    data = vectors(200, 30)
    distances, indices = brute.fit(data.astype(float)).kneighbors()  # of every row, itself left out
    found = neighbors(data, k=6, metric=metric)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.distances, distances, rtol=2e-6, atol=1e-7)


def test_rows_are_not_their_own_neighbors_but_their_copies_are() -> None:
    data = vectors(60)
    data[40] = data[3]
    found = neighbors(data, np.array([3, 40, 5]), 2, metric="l2")
    assert found.indices[:2, 0].tolist() == [40, 3] and found.distances[:2, 0].tolist() == [0, 0]
    assert 5 not in found.indices[2]
    assert neighbors(data, data[[3]], 2, metric="l2").indices[0].tolist() == [3, 40], "one from elsewhere: the lower row first"


@pytest.mark.parametrize("metric", SCIPY)
def test_near_duplicates_far_from_the_origin_are_told_apart(metric) -> None:
    """A product of float32 alone would lose them: 1e-4 beside 300."""
    base = vectors(1, 64, offset=300.0)
    steps = np.arange(1, 21, dtype=np.float32)[::-1, None] * 2e-4
    direction = np.where(np.arange(64) % 2, 1, -1)[None].astype(np.float32)
    data = np.concatenate([vectors(100, 64, seed=2, offset=300.0), base + steps * direction])
    expected = cdist(base.astype(float), data.astype(float), SCIPY[metric])
    found = neighbors(data, base, 8, metric=metric)
    np.testing.assert_array_equal(found.indices, np.argsort(expected, 1, kind="stable")[:, :8])


def test_ties_and_zeros() -> None:
    data = np.zeros((40, 3), np.float32)
    data[7] = [1, 0, 0]
    found = neighbors(data, np.array([[1.0, 0, 0]], np.float32), 5)
    assert found.indices[0].tolist() == [7, 0, 1, 2, 3] and found.distances[0].tolist() == [0, 1, 1, 1, 1]


def test_devices_chunks_and_memory_maps_change_nothing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = vectors(120)
    np.save(tmp_path / "v.npy", data)
    expected = neighbors(data, k=4)
    monkeypatch.setattr(_search, "BLOCK_BYTES", 4 * 12 * 32)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    mesh = jaxviz.make_mesh(2) if len(jax.devices()) > 1 else None
    for options in ({}, {"chunk": 7}, {"mesh": mesh}):
        found = neighbors(mapped, k=4, **options)
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.distances, expected.distances)


def test_embeddings_and_all_of_them() -> None:
    data = vectors(9)
    whole = Embeddings(data, tuple("abcdefghi"), ("",) * 9)
    found = neighbors(whole, whole[[2]], k=9)
    assert sorted(found.indices[0]) == list(range(9)) and found.indices[0, 0] == 2
    assert neighbors(whole, k=8).indices.shape == (9, 8)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": 0}, "from 1 to 5"),
        ({"k": 6}, "from 1 to 5"),
        ({"k": 1, "metric": "l3"}, "'cosine', 'l2', 'l1'"),
        ({"queries": np.zeros((2, 5), np.float32)}, r"\(Q, 4\)"),
        ({"queries": np.array([6])}, "rows from 0 to 5"),
        ({"queries": np.zeros(3)}, r"vectors \(N, D\)"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        neighbors(np.eye(6, 4, dtype=np.float32), **{"k": 2, **arguments})


def test_values_that_are_not_finite_are_named() -> None:
    data = vectors(8)
    data[5, 1] = np.nan
    with pytest.raises(ArgumentError, match="row 5"):
        neighbors(data, k=1)
