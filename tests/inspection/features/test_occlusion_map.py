"""Occlusion maps against a loop over windows."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import plot
from jaxviz._errors import ArgumentError
from jaxviz.inspection import occlusion_map
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
IMAGES = random_images(3, 16, 16, 3) * np.array([1, 0.6, 0.3], np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_scores_and_classes_are_those_of_covered_images() -> None:
    found = occlusion_map(MODEL, IMAGES, window=6, stride=5)
    top = np.asarray(MODEL(IMAGES)).argmax(1)
    assert found.whole.tolist() == top.tolist() and found.classes.shape == (3, 3, 3)
    for r in range(3):
        for c in range(3):
            covered = IMAGES.copy()
            covered[:, r * 5 : r * 5 + 6, c * 5 : c * 5 + 6] = 0.5  # the mean color
            logits = np.asarray(MODEL(covered))
            assert found.classes[:, r, c].tolist() == logits.argmax(1).tolist()
            np.testing.assert_allclose(found.scores[:, r, c], softmax(logits)[np.arange(3), top], atol=1e-5)
    np.testing.assert_allclose(found.changed(), (found.classes != top[:, None, None]).mean((1, 2)))


def test_every_pixel_has_the_window_whose_center_is_nearest() -> None:
    found = occlusion_map(MODEL, IMAGES, window=(8, 6), stride=(4, 5))
    values = np.arange(9.0).reshape(1, 3, 3)
    assert found.classes.shape == (3, 3, 3)
    seen = found.spread(values)
    for y in range(16):
        for x in range(16):
            rows = [abs(y - (a + min(a + 8, 16) - 1) / 2) for a in (0, 4, 8)]
            columns = [abs(x - (a + min(a + 6, 16) - 1) / 2) for a in (0, 5, 10)]
            assert seen[0, y, x] == values[0, int(np.argmin(rows)), int(np.argmin(columns))]


def test_the_picture_has_a_legend_of_all_classes() -> None:
    found = occlusion_map(MODEL, IMAGES)
    assert found.window == (4, 4) and found.stride == (1, 1)
    page = found.picture(tile=64)
    colors = {tuple(color) for color in page.reshape(-1, 3).tolist()}
    said = np.union1d(found.classes, found.whole)
    assert {tuple(color) for color in plot.class_colors(said, 5).tolist()} <= colors
    assert occlusion_map(MODEL, IMAGES, "church", window=8).picture(dark=True).shape[-1] == 3


def test_wrong_use_is_told() -> None:
    with pytest.raises(ArgumentError, match="one target"):
        occlusion_map(MODEL, IMAGES, [[0, 1]], window=8)
    with pytest.raises(ArgumentError, match="window"):
        occlusion_map(MODEL, IMAGES, window=20)
