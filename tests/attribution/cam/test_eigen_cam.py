"""Eigen-CAM: the principal component of NumPy's decomposition, whichever matrix is smaller, with a sign of its own."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxviz import attribution as at
from jaxviz.attribution._cam.eigen_cam import first_component
from tests.attribution.pgc import pgc_raw_maps
from tests.attribution.reference import assert_close, full, images, pair
from tests.tiny import random_images, tiny_model


def by_svd(values: np.ndarray) -> np.ndarray:
    """Return the projection on the first right singular vector of the centred values, of either sign."""
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    rows = rows - rows.mean(0)
    return (rows @ np.linalg.svd(rows, full_matrices=False)[2][0]).reshape(values.shape[:-1])


@pytest.mark.parametrize("shape", [(3, 3, 20), (6, 5, 4), (4, 4, 16)])
def test_either_gram_matrix_gives_the_principal_component(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32) ** 2
    found = np.asarray(jax.jit(first_component)(values))
    for one, ours in zip(values, found, strict=True):
        theirs = by_svd(one)
        total = one.sum(-1)
        sign = np.sign((theirs * (total - total.mean())).sum())
        assert_close(ours, sign * theirs)


def test_the_sign_is_high_where_the_layer_is_active() -> None:
    values = np.zeros((1, 5, 5, 8), np.float32)
    values[0, 1:3, 1:3] = np.arange(1, 9)
    found = np.asarray(first_component(values))[0]
    assert (found[1:3, 1:3] > 0).all() and found[4, 4] < 0
    for scale in (1e-12, 1e12):  # neither small nor large values vanish in their squares
        assert_close(np.asarray(first_component(values * np.float32(scale)))[0] / scale, found)


def test_a_map_that_is_the_same_everywhere_is_blank() -> None:
    assert not np.asarray(first_component(np.full((2, 3, 3, 4), 0.5, np.float32))).any()
    assert not np.asarray(first_component(np.full((2, 3, 3, 40), 0.5, np.float32))).any()


@pytest.mark.parametrize(
    "name, head, layer, path",
    [
        ("small_resnet", None, "layer1", "layer1.0"),  # 256 positions, 8 channels
        ("small_bottleneck", None, "layer3", "layer3.0"),  # 16 positions, 128 channels
        full("resnet18", None, "layer1", "layer1.1"),  # 256 positions, 64 channels
        full("resnet50", None, "layer3", "layer3.5"),  # 16 positions, 1024 channels
        full("vgg16", 64, "features.30", "features.30"),
        full("vgg16_bn", 64, "features.33", "features.33"),
    ],
)
def test_equal_to_pgc_up_to_its_sign(name: str, head: int | None, layer: str, path: str) -> None:
    module, model = pair(name, head)
    x = images(2, 64, 64, 3, seed=3)  # as in test_cam.py, on which no ReLU is within rounding of 0
    expected = pgc_raw_maps(("EigenCAM", "EigenGradCAM"), module, path, x, [1, 5])
    found = at.gradient_cams(model, x, [1, 5], methods=("eigen_cam", "eigen_grad_cam"), layer=layer, resize=False)
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        for one, other in zip(ours.maps, theirs, strict=True):
            assert_close(one, np.sign((one * other).sum()) * other, ours.method)


def test_eigen_cam_does_not_look_at_the_target() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = at.eigen_cam(model, x, [[0, 1]]).maps
    np.testing.assert_array_equal(maps[:, 0], maps[:, 1])
    assert np.abs(at.eigen_grad_cam(model, x, [[0, 1]]).maps[:, 0] - at.eigen_grad_cam(model, x, 1).maps).max() > 0
