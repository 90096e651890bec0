"""Baselines: what an image is compared with, in pixels in [0, 1]."""

from __future__ import annotations

import numpy as np
import pytest

from jaxviz import attribution
from jaxviz._errors import ArgumentError
from jaxviz.attribution._baseline import BLUR, as_baselines
from jaxviz.models import forward
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
IMAGES = random_images(2, 16, 12, 3)


def test_mean_is_zero_to_the_network() -> None:
    found = as_baselines(MODEL, "mean", IMAGES)
    assert found.shape == IMAGES.shape and np.all(found == MODEL.mean)
    bias_only = forward(MODEL.network, found)
    np.testing.assert_allclose(bias_only, MODEL.module()(np.zeros((2, 16, 12, 3), np.float32)), atol=1e-7)


@pytest.mark.parametrize(("baseline", "value"), [("black", 0.0), ("white", 1.0), (0.25, 0.25), (np.float32(0.5), 0.5)])
def test_flat(baseline: object, value: float) -> None:
    found = as_baselines(MODEL, baseline, IMAGES)  # type: ignore[arg-type]
    assert found.shape == IMAGES.shape and np.all(np.asarray(found) == value)


def test_a_colour_an_image_and_one_for_each() -> None:
    colour = as_baselines(MODEL, [0.1, 0.2, 0.3], IMAGES)  # type: ignore[arg-type]
    np.testing.assert_array_equal(colour[1, 3, 4], np.float32([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(as_baselines(MODEL, IMAGES[0], IMAGES), np.stack([IMAGES[0]] * 2))
    np.testing.assert_array_equal(as_baselines(MODEL, IMAGES[::-1], IMAGES), IMAGES[::-1])


def test_blur_is_scipys_weights() -> None:
    """As a weighted mean over the image: SciPy's filter with nothing outside, divided by that of ones."""
    ndimage = pytest.importorskip("scipy.ndimage")
    sigma = BLUR * 16
    options = {"sigma": (sigma, sigma, 0), "mode": "constant", "truncate": 30.0}
    expected = ndimage.gaussian_filter(IMAGES[0].astype(np.float64), **options)
    expected /= ndimage.gaussian_filter(np.ones_like(IMAGES[0], np.float64), **options)
    found = np.asarray(as_baselines(MODEL, "blur", IMAGES))
    np.testing.assert_allclose(found[0], expected, atol=1e-5)
    np.testing.assert_array_equal(found[:1], as_baselines(MODEL, "blur", IMAGES[:1]))


def test_uniform_is_one_image_of_the_seed() -> None:
    found = np.asarray(as_baselines(MODEL, "uniform", IMAGES))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[:1], as_baselines(MODEL, "uniform", IMAGES[:1]))
    assert np.any(found != as_baselines(MODEL, "uniform", IMAGES, seed=1))
    assert found.min() >= 0 and found.max() <= 1 and abs(found[0].mean() - 0.5) < 0.05


def test_a_set_stays_a_set() -> None:
    many = random_images(5, 16, 12, 3, seed=1)
    np.testing.assert_array_equal(as_baselines(MODEL, many, IMAGES, sets=True), many)
    assert as_baselines(MODEL, IMAGES[0], IMAGES, sets=True).shape == IMAGES.shape
    with pytest.raises(ArgumentError, match="2 images"):
        as_baselines(MODEL, many, IMAGES)


@pytest.mark.parametrize(
    "baseline", ["grey", np.zeros((4,)), np.zeros((16, 12)), np.full((16, 12, 3), 2.0), -1.0, np.nan, np.zeros((0,))]
)
def test_what_is_no_baseline_is_refused(baseline: object) -> None:
    with pytest.raises(ArgumentError, match="baseline"):
        as_baselines(MODEL, baseline, IMAGES)  # type: ignore[arg-type]


@pytest.mark.parametrize("baseline", ["mean", "black", "white", "blur", "uniform", [0.2, 0.4, 0.6], IMAGES[0]])
def test_methods_take_them(baseline: object) -> None:
    """Where there is nothing between the baseline and the image, nothing is attributed."""
    images = np.asarray(as_baselines(MODEL, baseline, IMAGES))  # type: ignore[arg-type]
    if isinstance(baseline, str) and baseline == "blur":
        images = np.full_like(IMAGES, 0.3)  # blurred, a flat image stays itself
    found = attribution.integrated_gradients(MODEL, images, 1, baseline=baseline, steps=4, chunk=8)
    assert np.abs(found.maps).max() < 1e-6
    there = attribution.integrated_gradients(MODEL, IMAGES, 1, baseline=baseline, steps=4, chunk=8)
    same = isinstance(baseline, np.ndarray)  # the first of the images is its own baseline
    assert list(there.diagnosis) == (["zero everywhere", "ok"] if same else ["ok", "ok"])


def test_settings_say_which() -> None:
    found = attribution.occlusion(MODEL, IMAGES, 1, baseline=IMAGES[0], window=8)
    assert found.settings["baseline"] == "array (16, 12, 3)"
    assert attribution.occlusion(MODEL, IMAGES, 1, baseline="blur", window=8).settings["baseline"] == "blur"
