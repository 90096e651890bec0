"""Regularisers against their formulas in NumPy and against examples worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import regularizers as R
from tests.contracts import check_all

RNG = np.random.default_rng(0)
SHAPES = [(6, 5, 3), (5, 8, 1), (1, 4, 2)]
CALL = jax.jit(lambda regularizer, x: regularizer(x))  # compiled once for a kind and shape


def image(shape):
    return RNG.uniform(size=shape).astype(np.float32)


def numpy_frequency_penalty(x, weight, power):
    h, w, _ = x.shape
    f = np.sqrt(np.fft.fftfreq(h)[:, None] ** 2 + np.fft.fftfreq(w)[None, :] ** 2)
    spectrum = np.fft.fft2(x.astype(np.float64), axes=(0, 1), norm="ortho")
    return weight * np.sum(np.abs(spectrum) ** 2 * (f**power)[..., None])


def numpy_total_variation(x, weight):
    total, (h, w, c) = 0.0, x.shape
    for i in range(h):
        for j in range(w):
            for k in range(c):
                dy = x[i + 1, j, k] - x[i, j, k] if i + 1 < h else 0.0
                dx = x[i, j + 1, k] - x[i, j, k] if j + 1 < w else 0.0
                total += np.hypot(float(dx), float(dy))
    return weight * total


FORMULAS = {
    "l1": (lambda: R.l1(0.7), lambda x: 0.7 * np.abs(x).sum()),
    "l1 centred": (lambda: R.l1(0.7, center=0.5), lambda x: 0.7 * np.abs(x - 0.5).sum()),
    "l2": (lambda: R.l2(0.3), lambda x: 0.3 * (x**2).sum()),
    "l2 centred": (lambda: R.l2(0.3, 0.5), lambda x: 0.3 * ((x - 0.5) ** 2).sum()),
    "total_variation": (lambda: R.total_variation(1.5), lambda x: numpy_total_variation(x, 1.5)),
    "frequency 0": (lambda: R.frequency_penalty(2.0), lambda x: numpy_frequency_penalty(x, 2.0, 0)),
    "frequency 1": (lambda: R.frequency_penalty(2.0, 1.0), lambda x: numpy_frequency_penalty(x, 2.0, 1)),
    "frequency 2.5": (lambda: R.frequency_penalty(2.0, 2.5), lambda x: numpy_frequency_penalty(x, 2.0, 2.5)),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_formula(name, shape):
    make, formula = FORMULAS[name]
    x = image(shape)
    np.testing.assert_allclose(float(CALL(make(), x)), formula(x.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_by_hand():
    step = jnp.zeros((2, 2, 1)).at[0, 0].set(3.0)
    assert float(R.l1(2.0)(step)) == 6.0
    assert float(R.l2(2.0)(step)) == 18.0
    # Only at (0, 0): sqrt(3^2 + 3^2). The pixels right of it and below see no difference to their own neighbours.
    np.testing.assert_allclose(float(R.total_variation(1.0)(step)), 3 * np.sqrt(2), rtol=1e-6)
    # A stripe pattern of period 2: all energy, 4 pixels of 1, is at f = 0.5.
    stripes = jnp.array([[1.0, -1.0], [1.0, -1.0]])[..., None]
    np.testing.assert_allclose(float(R.frequency_penalty(1.0, power=1.0)(stripes)), 4 * 0.5, rtol=1e-6)


def test_parseval():
    x = jnp.asarray(image((9, 6, 3)))
    np.testing.assert_allclose(float(R.frequency_penalty(0.5)(x)), float(R.l2(0.5)(x)), rtol=1e-5)


def test_flat_image_has_no_gradient_of_total_variation():
    gradient = jax.grad(R.total_variation(1.0))(jnp.full((5, 6, 3), 0.4))
    assert not np.any(gradient)


def test_gradient_of_total_variation_beside_flat_parts():
    x = image((6, 6, 1))
    x[:3, :3] = 0.5
    gradient = np.asarray(jax.grad(R.total_variation(1.0))(x))
    assert np.isfinite(gradient).all() and not gradient[:2, :2].any()
    up, down = x.astype(np.float64), x.astype(np.float64)
    up[4, 4], down[4, 4] = up[4, 4] + 1e-5, down[4, 4] - 1e-5
    numeric = (numpy_total_variation(up, 1.0) - numpy_total_variation(down, 1.0)) / 2e-5
    np.testing.assert_allclose(gradient[4, 4, 0], numeric, atol=1e-3)


VARIANTS = {
    "l1": [lambda: R.l1(1.0), lambda: R.l1(np.float64(2), center=1), lambda: R.l1(jnp.float32(3), 0.5)],
    "l2": [lambda: R.l2(1.0), lambda: R.l2(2, center=np.float32(0.5))],
    "total_variation": [lambda: R.total_variation(1.0), lambda: R.total_variation(2)],
    "frequency_penalty": [lambda: R.frequency_penalty(1.0), lambda: R.frequency_penalty(2, power=1)],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    images = jnp.asarray(image((2, 6, 5, 3)))
    check_all(lambda regularizer, x: regularizer(x), VARIANTS[name], [images], atol=1e-4)


def test_function():
    def darkness(x):
        return 1 - x.mean()

    assert float(R.function(darkness)(jnp.ones((2, 2, 3)))) == 0.0
    assert jax.tree.structure(R.function(darkness)) == jax.tree.structure(R.function(darkness))
    own = R.l1(1.0)
    assert R.function(own) is own


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: R.l1("much"),  # pyright: ignore
        lambda: R.l2(float("nan")),
        lambda: R.l2(1.0, center=float("inf")),
        lambda: R.total_variation([1.0, 2.0]),  # pyright: ignore
        lambda: R.frequency_penalty(1.0, power=-1.0),
        lambda: R.function(3),  # pyright: ignore
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
