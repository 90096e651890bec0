"""Opacity: what is opaque stays, what is not shows the background, and what the backgrounds are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from jaxviz.param import fourier
from tests.contracts import check_all
from tests.transforms.common import APPLY, KEYS, call, image, images

CLEAR = np.zeros((16, 20, 4), np.float32)


def test_formula():
    x = image(9, 12, 4)
    out = APPLY(T.composite(0.25), KEYS[0], x)
    np.testing.assert_allclose(out, x[..., :3] * x[..., 3:] + 0.25 * (1 - x[..., 3:]), atol=1e-6)
    x[..., 3] = 1
    np.testing.assert_allclose(APPLY(T.composite(), KEYS[0], x), x[..., :3], atol=1e-6)
    assert APPLY(T.composite("random"), KEYS[0], x[..., :2]).shape == (9, 12, 1)


def test_backgrounds():
    colors = [np.asarray(APPLY(T.composite("random"), key, CLEAR)) for key in KEYS]
    for color in colors:
        assert np.ptp(color, axis=(0, 1)).max() == 0 and np.ptp(color) > 0.01 and 0 <= color.min() and color.max() <= 1
    assert len(np.unique([color[0, 0, 0] for color in colors])) == 3
    noises = [np.asarray(APPLY(T.composite(sd=0.3), key, CLEAR)) for key in KEYS]
    for noise in noises:
        assert 0 < noise.min() and noise.max() < 1 and noise.std() > 0.02
        assert np.abs(np.diff(noise, axis=1)).mean() < noise.std()  # white noise: 1.13 of it
        assert np.ptp(noise, axis=-1).max() > 0.02  # coloured
    assert np.abs(noises[0] - noises[1]).max() > 0.05
    # Its spread over draws is that of Fourier images at their start with the same numbers.
    drawn = jax.vmap(lambda key: T.composite(sd=0.3, decay=1.0)(key, CLEAR))(jax.random.split(KEYS[0], 50))
    start = fourier((16, 20, 3), sd=0.3, decay=1.0)
    started = jax.vmap(lambda key: start.decode(start.init(key)))(jax.random.split(KEYS[1], 50))
    assert float(drawn.std()) == pytest.approx(float(started.std()), rel=0.1)


def test_gradient_of_opacity_is_the_difference_to_the_background():
    x = image(9, 12, 4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(T.composite("random")(KEYS[0], x))))(x)
    background = np.asarray(APPLY(T.composite("random"), KEYS[0], 0 * x))
    np.testing.assert_allclose(gradient[..., 3], (x[..., :3] - background).sum(-1), atol=1e-5)
    np.testing.assert_allclose(gradient[..., :3], np.repeat(x[..., 3:], 3, -1), atol=1e-6)


VARIANTS = {
    "noise": [lambda: T.composite(), lambda: T.composite("noise", sd=1, decay=0)],
    "random": [lambda: T.composite("random"), lambda: T.composite("random")],
    "number": [lambda: T.composite(0.5), lambda: T.composite(1)],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images(9, 12, 4)])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.composite("white"),  # pyright: ignore
        lambda: T.composite([0.1, 0.2, 0.3]),  # pyright: ignore
        lambda: T.composite(sd=-1),
        lambda: T.composite()(KEYS[0], jnp.zeros((4, 4, 1))),
        lambda: T.composite()(KEYS[0], jnp.zeros((4, 4))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
