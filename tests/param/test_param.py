"""Both parameterisations: the contract, and the formulas of Lucid in an independent NumPy version."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxviz import ArgumentError
from jaxviz.param import Param, fourier, pixel
from jaxviz.param._color import correlate, decorrelate
from tests.contracts import check_all

KEYS = jax.random.split(jax.random.key(0), 2)

# Compiled once for each shape and kind: that they equal the uncompiled methods is part of the contract.
INIT = jax.jit(lambda param, key: param.init(key))
DECODE = jax.jit(lambda param, params: param.decode(params))
PROJECT = jax.jit(lambda param, params: param.project(params))
ENCODE = jax.jit(lambda param, image: param.encode(image))

# The matrix as other libraries have it hard-coded (Xplique, Horama, faccent), to multiply rows of decorrelated colours with.
LUCID_MATRIX = np.array(
    [
        [0.56282854, 0.58447583, 0.58447583],
        [0.19482528, 0.0, -0.19482528],
        [0.04329451, -0.10823626, 0.06494176],
    ]
)

ALL = {
    "pixel": pixel,
    "pixel decorrelated": partial(pixel, decorrelate=True),
    "pixel sigmoid": partial(pixel, squash="sigmoid"),
    "pixel of Lucid": partial(pixel, decorrelate=True, squash="sigmoid"),
    "fourier": fourier,
    "fourier rgb": partial(fourier, decorrelate=False),
    "fourier clip": partial(fourier, squash="clip"),
}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lucid_fourier(params, shape, decay, colour):
    """Lucid's fft_image and to_valid_rgb, written from the formulas; the inverse transform is summed up term by term."""
    h, w, c = shape
    out = np.zeros(shape)
    fy, fx = np.fft.fftfreq(h), np.fft.fftfreq(w)
    rows, columns = np.arange(h), np.arange(w)
    for u in range(h):
        for v in range(w // 2 + 1):
            f = np.sqrt(fy[u] ** 2 + fx[v] ** 2)
            scale = 1.0 / max(f, 1.0 / max(w, h)) ** decay * np.sqrt(w * h)
            phase = np.exp(2j * np.pi * (rows[:, None] * u / h + columns[None, :] * v / w))
            # A column other than 0 and W / 2 stands for its mirror image too.
            twice = 1 if v == 0 or 2 * v == w else 2
            for k in range(c):
                out[:, :, k] += twice * np.real(scale * (params[u, v, k, 0] + 1j * params[u, v, k, 1]) * phase) / (h * w)
    out /= 4
    return sigmoid(out @ LUCID_MATRIX if colour else out)


@pytest.mark.parametrize("shape", [(8, 6, 3), (5, 7, 3), (6, 9, 1)], ids=str)
@pytest.mark.parametrize("decay", [1.0, 0.0, 1.5])
def test_fourier_is_lucids_formula(shape, decay):
    param = fourier(shape, sd=0.5, decay=decay)
    params = INIT(param, KEYS[0])
    assert params.shape == (shape[0], shape[1] // 2 + 1, shape[2], 2)
    expected = lucid_fourier(np.asarray(params, np.float64), shape, decay, colour=shape[2] == 3)
    np.testing.assert_allclose(DECODE(param, params), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_fourier_with_lucids_decay_starts_almost_grey():
    """Lucid's formulas give, at 128 pixels, a spread of 0.018 before colours and sigmoid, and about 0.486 to 0.513 after."""
    plain, coloured = fourier((128, 128, 3), decay=1.0, decorrelate=False), fourier((128, 128, 3), decay=1.0)
    params = INIT(plain, KEYS[0])
    image = np.asarray(DECODE(coloured, params))
    assert 0.48 < image.min() < 0.499 < 0.501 < image.max() < 0.52
    assert float((4 * (DECODE(plain, params) - 0.5)).std()) == pytest.approx(0.018, abs=0.004)


def test_initial_spread():
    params = INIT(fourier((32, 32, 3), sd=0.3), KEYS[0])
    assert float(params.std()) == pytest.approx(0.3, rel=0.05)
    image = INIT(pixel((32, 32, 3), sd=0.2), KEYS[0])
    assert float(image.std()) == pytest.approx(0.2, rel=0.05) and float(image.mean()) == pytest.approx(0.5, abs=0.02)


def test_colour_matrix():
    np.testing.assert_allclose(correlate(jnp.eye(3)), LUCID_MATRIX, atol=1e-7)
    x = jax.random.normal(KEYS[0], (4, 5, 3))
    np.testing.assert_allclose(correlate(x), np.asarray(x) @ LUCID_MATRIX, atol=1e-6)
    np.testing.assert_allclose(decorrelate(correlate(x)), x, atol=1e-5)
    for channels in (1, 2, 4):
        other = jnp.ones((2, 2, channels))
        assert correlate(other) is other and decorrelate(other) is other


def test_pixel_is_the_textbook_form():
    param = pixel((3, 4, 3))
    image = jnp.linspace(-1, 2, 36).reshape(3, 4, 3)
    np.testing.assert_array_equal(param.decode(image), image)
    np.testing.assert_array_equal(param.project(image), np.clip(image, 0, 1))


def test_pixel_of_lucid():
    param = pixel((3, 4, 3), sd=1.0, decorrelate=True, squash="sigmoid")
    params = param.init(KEYS[0])
    np.testing.assert_allclose(param.decode(params), sigmoid(np.asarray(params) @ LUCID_MATRIX), atol=1e-6)
    assert param.project(params) is params


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", [(6, 5, 3), (5, 7, 1)], ids=str)
def test_range_projection_and_encoding(name, shape):
    param = ALL[name](shape, sd=3.0)
    assert isinstance(param, Param)
    params = PROJECT(param, INIT(param, KEYS[0]))
    image = np.asarray(DECODE(param, params))
    assert image.shape == shape and image.dtype == jnp.float32
    assert image.min() >= 0 and image.max() <= 1 and np.ptp(image) > 0.5
    np.testing.assert_allclose(DECODE(param, PROJECT(param, params)), image, atol=2e-6)
    target = np.random.default_rng(0).uniform(0.01, 0.99, shape).astype(np.float32)
    np.testing.assert_allclose(DECODE(param, ENCODE(param, target)), target, atol=1e-5)


@pytest.mark.parametrize("name", ["pixel", "pixel decorrelated", "fourier"])
def test_adam_reaches_for_a_target(name):
    param = ALL[name]((6, 5, 3))
    target = jax.random.uniform(KEYS[1], (6, 5, 3))
    params = param.init(KEYS[0])
    optimizer = optax.adam(0.05)

    @jax.jit
    def step(params, state):
        loss, gradient = jax.value_and_grad(lambda p: jnp.sum((param.decode(p) - target) ** 2))(params)
        updates, state = optimizer.update(gradient, state, params)
        return param.project(optax.apply_updates(params, updates)), state, loss

    state, losses = optimizer.init(params), []
    for _ in range(30):
        params, state, loss = step(params, state)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


def test_clipped_pixels_can_come_back():
    """A value beyond the border keeps its gradient where clipping is part of decode."""
    param = pixel((1, 1, 3), decorrelate=True)
    outside = param.encode(jnp.full((1, 1, 3), 1.5))
    assert param.decode(outside).max() <= 1
    gradient = jax.grad(lambda p: param.decode(p)[..., 0].sum())(outside)
    np.testing.assert_allclose(gradient[0, 0], LUCID_MATRIX[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["pixel", "pixel of Lucid", "fourier", "fourier clip"])
def test_contract(name):
    make = ALL[name]
    variants = [lambda: make((6, 5, 3)), lambda: make((6, 5, 3), sd=np.float64(0.5)), lambda: make(sd=1).with_shape([6, 5, 3])]
    if "fourier" in name:
        variants.append(lambda: make((6, 5, 3), decay=2))
    params = jnp.stack([INIT(variants[0](), key) for key in KEYS])
    check_all(lambda param, p: param.decode(param.project(p)), variants, [params])
    check_all(lambda param, key: param.init(key), variants, [KEYS], gradient=False)


def test_with_shape():
    param = fourier(sd=0.2)
    assert param.shape is None
    assert param.with_shape((4, 5, 3)).shape == (4, 5, 3)
    assert param.with_shape(np.array([4, 5, 3])).with_shape((8, 9, 1)).shape == (8, 9, 1)
    assert float(param.with_shape((4, 5, 3)).sd) == np.float32(0.2)


@pytest.mark.parametrize("make", [pixel, fourier])
def test_wrong_arguments(make):
    for shape in [(4, 4), (4, 4, 0), (4.5, 4, 3), "abc", 4, (-4, 4, 3), (1, 4, 4, 3)]:
        with pytest.raises(ArgumentError, match="three positive integers"):
            make(shape)
        with pytest.raises(ArgumentError, match="three positive integers"):
            make().with_shape(shape)
    for sd in (-1, float("nan"), "x", [1, 2]):
        with pytest.raises(ArgumentError, match="sd must be"):
            make(sd=sd)
    with pytest.raises(ArgumentError, match="squash must be 'clip' or 'sigmoid', got 'tanh'"):
        make(squash="tanh")
    with pytest.raises(ArgumentError, match="with_shape"):
        make().init(KEYS[0])
    with pytest.raises(ArgumentError, match=r"of shape \(4, 4, 3\), got \(4, 5, 3\)"):
        make((4, 4, 3)).encode(jnp.zeros((4, 5, 3)))
