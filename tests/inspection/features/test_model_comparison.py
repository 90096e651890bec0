"""What two networks make of the same images: correlations and CKA by their definitions."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import ArgumentError, LayerError
from jaxviz.inspection import changes, cka
from tests.tiny import random_images, tiny_model

X = random_images(12, 16, 16, 3)


def fine_tuned(model: jv.Model, amount: float) -> jv.Model:
    """Return the network with noise on all its weights."""
    leaves, tree = jax.tree.flatten(model)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [leaf + amount * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def test_correlations_are_numpys_over_all_images_and_positions() -> None:
    before, after = tiny_model(), fine_tuned(tiny_model(), 0.05)
    found = changes(before, after, X, ["conv2", "fc"], chunk=5)
    for layer in ("conv2", "fc"):
        a, b = (np.asarray(model.activations(X, [layer])[layer], np.float64) for model in (before, after))
        a, b = (v.reshape(-1, v.shape[-1]) for v in (a, b))
        expected = [np.corrcoef(a[:, unit], b[:, unit])[0, 1] for unit in range(a.shape[1])]
        np.testing.assert_allclose(found.correlations[layer], expected, atol=1e-4)
        order = np.argsort(found.correlations[layer])[:3]
        np.testing.assert_array_equal(found.most_changed(layer, 3), order)


def test_a_network_is_like_itself_and_less_like_a_changed_one() -> None:
    model = tiny_model()
    same = changes(model, model, X, "conv2")
    assert same.cka["conv2"] == pytest.approx(1, abs=1e-5)
    live = np.isfinite(same.correlations["conv2"])
    np.testing.assert_allclose(same.correlations["conv2"][live], 1, atol=1e-5)
    little, much = (changes(model, fine_tuned(model, amount), X, "conv2") for amount in (0.02, 0.5))
    assert much.cka["conv2"] < little.cka["conv2"] < 1
    assert np.nanmean(much.correlations["conv2"]) < np.nanmean(little.correlations["conv2"]) < 1


def unbiased(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC with whole kernel matrices, as Song et al. write it."""
    n, one = len(x), np.ones(len(x))
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)
    outer = one @ k @ one * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + outer - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def test_cka_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 7)) + 3
    y = x[:, :4] @ rng.normal(size=(4, 5)) + rng.normal(size=(30, 5))
    expected = unbiased(x, y) / np.sqrt(unbiased(x, x) * unbiased(y, y))
    assert cka(x, y) == pytest.approx(expected, rel=1e-9)
    turn = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    assert cka(2 * x @ turn - 1, y) == pytest.approx(expected, rel=1e-9)


def test_cka_of_unrelated_features_is_near_0_even_of_few_images() -> None:
    rng = np.random.default_rng(1)
    found = [cka(rng.normal(size=(20, 200)), rng.normal(size=(20, 200))) for _ in range(20)]
    assert abs(np.mean(found)) < 0.05


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match="4 images"):
        changes(tiny_model(), tiny_model(), X[:3], "conv2")
    with pytest.raises(LayerError):
        changes(tiny_model(), tiny_model(), X, "conv9")
    with pytest.raises(ArgumentError, match=r"\(3, 4\) and \(5, 4\)"):
        cka(np.zeros((3, 4)), np.zeros((5, 4)))


def test_a_unit_that_never_varies_has_no_correlation() -> None:
    model = tiny_model()
    found = changes(model, model, np.repeat(X[:1], 5, 0), "fc")
    assert np.isnan(found.correlations["fc"]).all() and len(found.most_changed("fc", 99)) == 0
