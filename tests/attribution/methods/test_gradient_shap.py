"""Gradient SHAP against Captum's on the same draws, and in its limit."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution
from jaxviz._errors import ArgumentError
from jaxviz.attribution import gradient_shap, integrated_gradients
from jaxviz.attribution._methods.gradient_shap import draws
from jaxviz.attribution._sampling import draw_keys
from jaxviz.objectives import channel
from tests.attribution.kinks import assert_images_close
from tests.attribution.reference import RESNET, assert_close, images, nhwc, normalised, pair
from tests.compilations import compilations
from tests.models.reference import STD
from tests.tiny import random_images, tiny_model

TINY, X, BASES = tiny_model(), random_images(3, 16, 16, 3), random_images(4, 16, 16, 3, seed=1)
IDS = np.array([5, 9, 2], np.int32)


def drawn(samples: int, shape: tuple[int, ...], baselines: int, ids: np.ndarray = IDS):
    keys = draw_keys(jnp.int32(0), jnp.asarray(ids), jnp.arange(samples, dtype=jnp.int32))
    return [np.asarray(value) for value in draws(keys, shape, baselines)]


def test_draws() -> None:
    place, which, noise = drawn(400, (4, 4, 3), 4)
    assert place.shape == which.shape == (400, 3) and noise.shape == (400, 3, 4, 4, 3)
    assert place.min() >= 0 and place.max() <= 1 and abs(place.mean() - 0.5) < 0.03
    assert np.all(np.abs(np.bincount(which.ravel(), minlength=4) - 300) < 75)
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02 and np.abs(noise).max() > 3
    assert abs(np.corrcoef(place.ravel(), which.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("name", RESNET)
def test_equals_captum(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whose draws are replaced by ours."""
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name)
    x, bases, samples = images(3, 32, 32, 3), images(4, 32, 32, 3, seed=1), 3
    place, which, noise = drawn(samples, (32, 32, 3), len(bases))
    apart = np.ascontiguousarray((0.1 * noise / np.float32(STD)).swapaxes(0, 1).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2))
    monkeypatch.setattr(torch, "normal", lambda *args: torch.from_numpy(apart))
    monkeypatch.setattr(np.random, "uniform", lambda *args: place.T.ravel())
    monkeypatch.setattr(np.random, "choice", lambda *args: which.T.ravel())
    method = attr.GradientShap(module)
    theirs = method.attribute(normalised(x), normalised(bases), n_samples=samples, stdevs=0.1, target=torch.tensor([3, 7, 1]))
    ours = gradient_shap(model, x, [3, 7, 1], baseline=bases, samples=samples, noise=0.1, ids=IDS)
    assert_images_close(ours.maps, nhwc(theirs))
    ends = np.asarray(model(bases))[which.T, np.array([3, 7, 1])[:, None]].mean(1)
    np.testing.assert_allclose(ours.delta, ours.maps.sum((1, 2, 3)) - (ours.scores - ends), atol=1e-3)


def test_its_limit_is_integrated_gradients() -> None:
    found = gradient_shap(TINY, X, 1, baseline="white", samples=600, chunk=96)
    exact = integrated_gradients(TINY, X, 1, baseline="white", steps=100)
    assert_close(found.maps, exact.maps, tolerance=0.1)
    assert np.abs(found.delta).max() < 0.05 * np.abs(exact.maps.sum((1, 2, 3))).max() + 1e-3


def test_of_many_baselines_the_limit_is_the_mean() -> None:
    found = gradient_shap(TINY, X, 1, baseline=BASES, samples=1500, chunk=96)
    each = np.mean([integrated_gradients(TINY, X, 1, baseline=base, steps=50).maps for base in BASES], 0)
    assert_close(found.maps, each, tolerance=0.15)


@pytest.mark.parametrize("baseline", ["black", BASES])
def test_chunks_and_company_change_nothing(baseline) -> None:
    options = {"samples": 12, "noise": 0.1, "baseline": baseline}
    whole = gradient_shap(TINY, X, [[0, 4]], chunk=36, ids=IDS, **options)
    found = gradient_shap(TINY, X, [[0, 4]], chunk=5, ids=IDS, **options)
    assert np.abs(found.maps - whole.maps).max() <= 1e-6 * np.abs(whole.maps).max()
    np.testing.assert_allclose(found.delta, whole.delta, atol=1e-5)
    alone = gradient_shap(TINY, X[2:], [[0, 4]], ids=IDS[2:], **options)
    assert np.abs(alone.maps - whole.maps[2:]).max() <= 1e-6 * np.abs(whole.maps).max()


def test_of_a_unit_in_the_middle() -> None:
    """Whose baselines are scored without any class."""
    found = gradient_shap(TINY, X, channel("relu_1", [2, 5]), baseline=BASES, samples=6)
    _, which, _ = drawn(6, (16, 16, 3), 4, np.zeros(3, np.int32))
    ends = np.asarray(TINY.activations(BASES, "relu_1")["relu_1"]).mean((1, 2))[:, [2, 5]][which].mean(0)
    np.testing.assert_allclose(found.delta, found.maps.sum((2, 3, 4)) - (found.scores - ends), atol=1e-5)


def test_other_counts_noise_seeds_and_baselines_compile_nothing() -> None:
    gradient_shap(TINY, X, 1, samples=32, baseline=BASES, chunk=24)
    other = tiny_model(1)
    with compilations() as compiled:
        gradient_shap(other, X[::-1], 2, samples=50, noise=0.3, seed=4, ids=IDS, baseline=BASES[::-1], chunk=24)
    assert not compiled.names


@pytest.mark.parametrize(
    ("options", "says"), [({"samples": 0}, "samples"), ({"noise": -1}, "noise"), ({"baseline": X[0, 0]}, "baseline")]
)
def test_what_does_not_fit_is_refused(options: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        attribution.attribute(TINY, X, "gradient_shap", 1, **options)
