"""Pointing game, localization, rank accuracy, sparseness and complexity against NumPy and SciPy."""

from __future__ import annotations

import numpy as np
import pytest

import jaxviz as jv
from jaxviz import metrics
from jaxviz.metrics._localization import squared_distance
from tests.tiny import random_images, tiny_model


def disc(h: int, w: int, r: int, c: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:h, :w]
    return (rows - r) ** 2 + (columns - c) ** 2 <= radius**2


def test_distance_is_scipys() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = np.random.default_rng(0).uniform(size=(23, 31)) > 0.99
    assert mask.any()
    np.testing.assert_allclose(np.sqrt(squared_distance(mask)), ndimage.distance_transform_edt(~mask), atol=1e-5)
    assert np.isinf(squared_distance(np.zeros((3, 4), bool))).all()


def test_pointing_game() -> None:
    mask = disc(20, 20, 5, 5, 3)[None]
    maps = np.zeros((1, 20, 20), np.float32)
    maps[0, 5, 12] = 1  # 4 pixels from the mask's edge at column 8
    assert metrics.pointing_game(maps, mask) == 0
    assert metrics.pointing_game(maps, mask, tolerance=3.9) == 0
    assert metrics.pointing_game(maps, mask, tolerance=4) == 1
    maps[0, 5, 12] = -1
    maps[0, 4, 4] = 1
    assert metrics.pointing_game(maps, mask) == 1


def test_ties_count_by_their_share() -> None:
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 0] = True
    maps = np.zeros((1, 4, 4), np.float32)
    assert metrics.pointing_game(maps, mask) == 0.25  # a constant map hits as often as chance
    assert metrics.pointing_game(maps, mask, ties="any") == 1  # Quantus's convention
    maps[0, 0, 0] = maps[0, 3, 3] = 1
    assert metrics.pointing_game(maps, mask) == 0.5


def test_empty_masks_and_broken_maps_are_undefined_and_no_hits() -> None:
    maps, masks = random_images(3, 6, 6), np.ones((3, 6, 6), bool)
    masks[0], maps[1, 0, 0] = False, np.inf
    for metric in (metrics.pointing_game, metrics.localization, metrics.rank_accuracy):
        assert np.isnan(metric(maps, masks)).tolist() == [True, True, False]
    assert np.isnan(metrics.pointing_game(maps, masks, tolerance=100, ties="any")).tolist() == [True, True, False]
    assert np.isnan(metrics.localization(-maps, masks)[2])


def test_localization_and_rank_accuracy_by_hand() -> None:
    maps = np.random.default_rng(0).normal(size=(4, 9, 11)).astype(np.float32)
    masks = np.stack([disc(9, 11, r, 5, 2.5) for r in (2, 3, 4, 5)])
    positive = np.maximum(maps, 0)
    expected = (positive * masks).sum((1, 2)) / positive.sum((1, 2))
    np.testing.assert_allclose(metrics.localization(maps, masks), expected, rtol=1e-5)
    order = [np.argsort(-m.ravel())[: k.sum()] for m, k in zip(maps, masks, strict=True)]
    expected = [k.ravel()[top].mean() for top, k in zip(order, masks, strict=True)]
    np.testing.assert_allclose(metrics.rank_accuracy(maps, masks), expected, rtol=1e-6)
    np.testing.assert_allclose(metrics.rank_accuracy(masks.astype(np.float32), masks), 1)
    flat = np.zeros_like(maps)
    np.testing.assert_allclose(metrics.rank_accuracy(flat, masks), masks.mean((1, 2)), rtol=1e-6)


def test_masks_of_targets_and_sizes() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = jv.attribution.saliency(model, x, [[0, 2, 4]])
    one = np.stack([disc(32, 32, 8, 8, 6)] * 2)
    each = np.stack([one, one, one], 1)
    each[:, 1] = ~each[:, 1]
    shared, own = metrics.localization(maps, one), metrics.localization(maps, each)
    assert shared.shape == own.shape == (2, 3)
    np.testing.assert_array_equal(shared[:, [0, 2]], own[:, [0, 2]])
    np.testing.assert_allclose(shared[:, 1] + own[:, 1], 1, rtol=1e-5)
    with pytest.raises(jv.ArgumentError, match=r"\(2, H, W\) or \(2, 3, H, W\)"):
        metrics.localization(maps, one[:1])
    with pytest.raises(jv.ArgumentError, match="True and False"):
        metrics.localization(maps, one * 255)
    with pytest.raises(jv.ArgumentError, match="'mean' or 'any'"):
        metrics.pointing_game(maps, one, ties="first")  # type: ignore[arg-type]


def test_sparseness_is_gini() -> None:
    maps = np.random.default_rng(0).normal(size=(3, 8, 9, 3)).astype(np.float32)
    found = metrics.sparseness(maps)
    for value, one in zip(found, np.abs(maps).sum(-1).reshape(3, -1), strict=True):
        gini = np.abs(one[:, None] - one[None]).mean() / (2 * one.mean())  # mean absolute difference, the definition
        assert abs(value - gini) < 1e-5
    single = np.zeros((1, 8, 8), np.float32)
    single[0, 3, 3] = 7
    np.testing.assert_allclose(metrics.sparseness(single), 1 - 1 / 64, rtol=1e-5)
    np.testing.assert_allclose(metrics.sparseness(np.ones((1, 8, 8))), 0, atol=1e-6)
    assert np.isnan(metrics.sparseness(np.zeros((1, 8, 8)))).all()


def test_complexity_is_scipys_entropy() -> None:
    stats = pytest.importorskip("scipy.stats")
    maps = np.random.default_rng(0).normal(size=(3, 8, 9, 3)).astype(np.float32)
    expected = stats.entropy(np.abs(maps).sum(-1).reshape(3, -1), axis=1)
    np.testing.assert_allclose(metrics.complexity(maps), expected, rtol=1e-5)
    np.testing.assert_allclose(metrics.complexity(maps * 1e-20), expected, rtol=1e-5)
    single = np.zeros((2, 8, 8), np.float32)
    single[0, 3, 3] = 7
    assert metrics.complexity(single)[0] == 0 and np.isnan(metrics.complexity(single)[1])


def test_of_large_maps_too() -> None:
    stats = pytest.importorskip("scipy.stats")
    maps = np.abs(np.random.default_rng(0).normal(size=(1, 224, 224))).astype(np.float32)
    np.testing.assert_allclose(metrics.complexity(maps), stats.entropy(maps.reshape(1, -1), axis=1), rtol=1e-4)
    ordered = np.sort(maps.ravel().astype(np.float64))
    weights = 2 * np.arange(1, ordered.size + 1) - ordered.size - 1
    np.testing.assert_allclose(metrics.sparseness(maps), (weights * ordered).sum() / ordered.size / ordered.sum(), rtol=1e-4)
