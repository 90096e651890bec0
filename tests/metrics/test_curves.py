"""Deletion and insertion against loops over torch's network, and that they tell a good map from a bad one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import metrics
from jaxviz.metrics._curves import rise_blur
from tests.attribution.reference import assert_close, full, images, normalised, pair
from tests.tiny import random_images, tiny_model


def torch_scores(module, x: np.ndarray, classes, softmax: bool) -> np.ndarray:
    import torch

    with torch.no_grad():
        out = module(normalised(x))
        return (out.softmax(1) if softmax else out).numpy()[np.arange(len(x)), classes]


@pytest.mark.parametrize(
    ("name", "head", "inserting", "softmax"),
    [
        ("small_vgg", None, True, False),
        ("small_bottleneck", None, False, True),
        full("vgg11", 64, False, True),
        full("vgg11", 64, True, False),
        full("resnet50", None, False, True),
    ],
)
def test_curves_are_those_of_a_loop(name: str, head: int | None, inserting: bool, softmax: bool) -> None:
    """torch-cam's definition: a stable order, highest first, steps of ceil(P / 20), trapezoid against the true fractions."""
    pytest.importorskip("torch")
    module, model = pair(name, head)
    x, maps = images(2, 40, 40, 3), np.round(np.random.default_rng(1).normal(size=(2, 40, 40)), 1).astype(np.float32)
    classes = np.asarray(model(x)).argmax(1)
    total, step = 40 * 40, -(-40 * 40 // 20)
    base = images(2, 40, 40, 3, seed=5)
    counts = np.append(np.arange(0, total, step), total)
    curves = []
    for i in range(2):
        order = np.argsort(-maps[i].ravel(), kind="stable")
        row = []
        for count in counts:
            seen = (base if inserting else x)[i].reshape(-1, 3).copy()
            other = (x if inserting else base)[i].reshape(-1, 3)
            seen[order[:count]] = other[order[:count]]
            row.append(torch_scores(module, seen.reshape(1, 40, 40, 3), classes[i : i + 1], softmax)[0])
        curves.append(row)
    metric = metrics.insertion if inserting else metrics.deletion
    score = "probability" if softmax else "logit"
    found = metric(model, x, maps, classes, pixels=step, baseline=base, score=score)
    assert_close(found.curves, curves)
    assert_close(found.fractions, counts / total)
    assert_close(found.value, np.trapezoid(curves, counts / total, axis=1))


def test_blur_of_rise() -> None:
    """The kernel of RISE's code: a Gaussian of 5 of a single one in 11 x 11, then a convolution with zeros around."""
    torch = pytest.importorskip("torch")
    ndimage = pytest.importorskip("scipy.ndimage")
    one = np.zeros((11, 11))
    one[5, 5] = 1
    kernel = np.zeros((3, 3, 11, 11), np.float32)
    kernel[range(3), range(3)] = ndimage.gaussian_filter(one, 5)
    x, mean = images(2, 30, 41, 3), np.array([0.4, 0.5, 0.6], np.float32)
    nchw = torch.from_numpy((x - mean).transpose(0, 3, 1, 2).copy())
    expected = torch.nn.functional.conv2d(nchw, torch.from_numpy(kernel), padding=5).numpy().transpose(0, 2, 3, 1) + mean
    assert_close(rise_blur(jnp.asarray(x), jnp.asarray(mean)), expected, tolerance=1e-5)


def test_rise_protocol() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    maps = random_images(2, 16, 16, seed=3)
    for name, metric in (("deletion", metrics.deletion), ("insertion", metrics.insertion)):
        found = metric(model, x, maps, **metrics.RISE[name])
        np.testing.assert_allclose(found.fractions, [0, 224 / 256, 1])
        assert found.curves.shape == (2, 3)
    probability = np.asarray(model(x)).max(1)  # of logits: only that the end with all pixels is the image's own score
    whole = metrics.deletion(model, x, maps, score="logit").curves[:, 0]
    np.testing.assert_allclose(whole, probability, rtol=1e-5)


def test_a_right_map_beats_a_random_one() -> None:
    """On a network that looks at one quarter of the image alone, and on the bundled one with its own gradients."""

    def corner(x):
        return jnp.stack([x[:, :8, :8].mean((1, 2, 3)), 0.5 * x[:, :8, :8].mean((1, 2, 3))], -1)

    model = jv.from_function(corner, input_size=(16, 16))
    x = np.ones((2, 16, 16, 3), np.float32)
    right = np.zeros((2, 16, 16), np.float32)
    right[:, :8, :8] = 1
    random = random_images(2, 16, 16)
    options = {"score": "logit", "baseline": "black"}
    assert (metrics.deletion(model, x, right, 0, **options).value < 0.13).all()  # the area of a fall within a quarter
    assert (metrics.insertion(model, x, right, 0, **options).value > 0.87).all()
    assert (np.abs(metrics.deletion(model, x, random, 0, **options).value - 0.5) < 0.1).all()


def test_the_bundled_network_is_explained_better_than_by_chance() -> None:
    model, rng = jv.load(), np.random.default_rng(0)
    noise = rng.uniform(0.3, 0.7, (2, 48, 48, 3)).astype(np.float32)
    maps = jv.attribution.input_x_gradient(model, noise, baseline="blur")
    random = rng.normal(size=(2, 48, 48)).astype(np.float32)
    options = {"score": "logit", "baseline": "blur", "steps": 7}
    right = metrics.deletion(model, noise, maps.reduce("sum"), maps.classes, **options).value
    assert (right < metrics.deletion(model, noise, random, maps.classes, **options).value).all()


def test_maps_that_rank_nothing_are_undefined() -> None:
    model, x = tiny_model(), random_images(3, 16, 16, 3)
    maps = random_images(3, 16, 16)
    maps[0], maps[1, 2, 3] = 0.5, np.nan
    for found in (metrics.deletion(model, x, maps, steps=3), metrics.road(model, x, maps, fractions=(0.5,))):
        assert np.isnan(found.value).tolist() == [True, True, False]


def test_small_maps_are_enlarged() -> None:
    model, x = tiny_model(), random_images(1, 16, 16, 3)
    small = random_images(1, 4, 4)
    large = jv.image.resize(small[..., None], 16)[..., 0]
    np.testing.assert_array_equal(
        metrics.deletion(model, x, small).curves, metrics.deletion(model, x, np.asarray(large)).curves
    )
