"""Non-negative matrix factorisation against scikit-learn's, and on matrices whose factors are known."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz._errors import ArgumentError
from jaxviz.inspection import nmf
from tests.tiny import random_images, tiny_model


def activations() -> np.ndarray:
    model = tiny_model()
    acts = np.asarray(model.activations(random_images(6, 16, 16, 3), "relu_1")["relu_1"])
    return acts.reshape(-1, acts.shape[-1])


@pytest.mark.parametrize("make", [activations, lambda: np.random.default_rng(0).gamma(0.3, size=(40, 90))])
@pytest.mark.parametrize("factors", [1, 4])
def test_the_loss_is_scikit_learns(make, factors: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    values = make().astype(np.float32)
    theirs = decomposition.NMF(factors, init="nndsvdar", max_iter=2000, tol=1e-5, random_state=0).fit(values)
    found = nmf(values, factors, steps=2000, tolerance=1e-5)
    assert found.loss <= theirs.reconstruction_err_**2 / 2 * 1.003
    rest = values - found.weights.astype(np.float64) @ found.vectors
    np.testing.assert_allclose(found.loss, (rest**2).sum() / 2, rtol=1e-4)
    np.testing.assert_allclose(found.explained, 1 - (rest**2).sum() / (values.astype(np.float64) ** 2).sum(), atol=1e-5)


def test_parts_that_are_there_are_found() -> None:
    random = np.random.default_rng(1)
    parts = np.kron(np.eye(3), np.ones((1, 4))) * random.uniform(0.5, 1, (3, 12))
    amounts = random.gamma(0.5, size=(50, 3)) * [1, 5, 20]
    found = nmf(amounts @ parts, 3, tolerance=1e-7, steps=3000)
    assert found.explained > 0.9999 and found.weights.min() >= 0 and found.vectors.min() >= 0
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-5)
    expected = (parts / np.linalg.norm(parts, axis=1, keepdims=True))[::-1]  # what makes up most comes first
    np.testing.assert_allclose(found.vectors, expected, atol=0.01)


def test_the_seed_decides_and_nothing_is_not_a_number() -> None:
    values = activations()
    a, b = nmf(values, 3, seed=4), nmf(values, 3, seed=4)
    np.testing.assert_array_equal(a.weights, b.weights)
    nothing = nmf(np.zeros((5, 4)), 2)
    assert np.isfinite(nothing.weights).all() and np.isfinite(nothing.vectors).all() and nothing.loss < 1e-6
    one = nmf(np.outer([1.0, 2, 3], [1.0, 0, 2, 5]), 3)  # fewer would have done
    assert np.isfinite(one.weights).all() and one.explained > 0.999


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (-np.eye(3), {}, "at least 0"),
        (np.full((3, 3), np.nan), {}, "finite"),
        (np.zeros((0, 3)), {}, "shape"),
        (np.ones(3), {}, "shape"),
        (np.eye(3), {"factors": 4}, "1 to 3 factors"),
        (np.eye(3), {"steps": 0}, "steps"),
        (np.eye(3), {"tolerance": -1.0}, "tolerance"),
    ],
)
def test_wrong_use_is_told(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        nmf(values, **{"factors": 2, **options})
