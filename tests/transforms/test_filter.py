"""Blur against SciPy, and the distribution of noise."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import APPLY, KEYS, call, image, images

EACH = jax.jit(jax.vmap(lambda transform, key, image: transform(key, image), (None, 0, None)))


def test_blur_is_scipys_away_from_the_border():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = image(20, 24)
    out = np.asarray(APPLY(T.blur(1.2), KEYS[0], x))
    expected = ndimage.gaussian_filter(x, 1.2, axes=(0, 1), truncate=6)
    np.testing.assert_allclose(out[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-5)


def test_sigma_is_drawn_from_its_range():
    spot = np.zeros((41, 41, 1), np.float32)
    spot[20, 20] = 1
    out = np.asarray(EACH(T.blur(0.5, 3.0), jax.random.split(KEYS[0], 200), spot))[..., 0]
    sigma = np.sqrt((out * (np.arange(41)[:, None] - 20) ** 2).sum((1, 2)))  # the variance of the blurred spot
    assert 0.5 < sigma.min() + 0.01 < 0.6 and 2.9 < sigma.max() < 3.01 and abs(sigma.mean() - 1.75) < 0.2


def test_distribution_of_noise():
    stats = pytest.importorskip("scipy.stats")
    x = image(60, 50)
    drawn = (np.asarray(APPLY(T.noise(0.05), KEYS[0], x)) - x).ravel()
    assert stats.kstest(drawn / 0.05, "norm").pvalue > 1e-3
    drawn = (np.asarray(APPLY(T.noise(0, uniform=0.2), KEYS[0], x)) - x).ravel()
    assert stats.kstest((drawn + 0.2) / 0.4, "uniform").pvalue > 1e-3
    both = (np.asarray(APPLY(T.noise(0.1, uniform=0.2), KEYS[0], x)) - x).ravel()
    assert both.std() == pytest.approx(np.sqrt(0.1**2 + 0.2**2 / 3), rel=0.03)  # independent: variances add up
    other = (np.asarray(APPLY(T.noise(0.1, uniform=0.2), KEYS[1], x)) - x).ravel()
    assert abs(np.corrcoef(both, other)[0, 1]) < 0.05


VARIANTS = {
    "blur": [lambda: T.blur(1), lambda: T.blur(0.0, np.float64(2)), lambda: T.blur(jnp.float32(0.3), 9)],
    "noise": [lambda: T.noise(0.1, 0.1), lambda: T.noise(0, np.float64(2))],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.blur(-1),
        lambda: T.blur(2, 1),
        lambda: T.blur([]),  # pyright: ignore
        lambda: T.blur(1)(KEYS[0], jnp.zeros((4, 4))),
        lambda: T.noise(-0.1),
        lambda: T.noise(0.1, float("nan")),
        lambda: T.noise(0.1)(KEYS[0], jnp.zeros((2, 4, 4, 3))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
