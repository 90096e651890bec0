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


def numpy_blur(x, sigma):
    """The mean over the image with Gaussian weights, pixel by pixel."""
    h, w, _ = x.shape
    out = np.empty_like(x)
    for i in range(h):
        for j in range(w):
            weights = np.exp(-((np.arange(h)[:, None] - i) ** 2 + (np.arange(w)[None, :] - j) ** 2) / (2 * sigma**2))
            out[i, j] = (x * weights[..., None]).sum((0, 1)) / weights.sum()
    return out


def numpy_boundary(x, weight, width, center, sigma):
    mask = np.ones(x.shape)
    mask[width:-width, width:-width] = 0  # as Lucid writes it
    return weight * (mask * ((numpy_blur(x, sigma) - x) ** 2 + 0.8 * (x - center) ** 2)).sum()


FORMULAS = {
    "l1": (lambda: R.l1(0.7), lambda x: 0.7 * np.abs(x).sum()),
    "l1 centred": (lambda: R.l1(0.7, center=0.5), lambda x: 0.7 * np.abs(x - 0.5).sum()),
    "l2": (lambda: R.l2(0.3), lambda x: 0.3 * (x**2).sum()),
    "l2 centred": (lambda: R.l2(0.3, 0.5), lambda x: 0.3 * ((x - 0.5) ** 2).sum()),
    "total_variation": (lambda: R.total_variation(1.5), lambda x: numpy_total_variation(x, 1.5)),
    "frequency 0": (lambda: R.frequency_penalty(2.0), lambda x: numpy_frequency_penalty(x, 2.0, 0)),
    "frequency 1": (lambda: R.frequency_penalty(2.0, 1.0), lambda x: numpy_frequency_penalty(x, 2.0, 1)),
    "frequency 2.5": (lambda: R.frequency_penalty(2.0, 2.5), lambda x: numpy_frequency_penalty(x, 2.0, 2.5)),
    "p_norm": (lambda: R.p_norm(3.0), lambda x: 3 * (np.abs(x - 0.5) ** 6).sum()),
    "p_norm 1.5": (lambda: R.p_norm(0.3, 1.5, 0.2), lambda x: 0.3 * (np.abs(x - 0.2) ** 1.5).sum()),
    "l_infinity": (lambda: R.l_infinity(3.0), lambda x: 3 * np.abs(x - 0.5).max()),
    "l_infinity centred": (lambda: R.l_infinity(3.0, 0.9), lambda x: 3 * np.abs(x - 0.9).max()),
    "blur": (lambda: R.blur(0.7), lambda x: 0.35 * ((x - numpy_blur(x, 0.77)) ** 2).sum()),
    "blur 2": (lambda: R.blur(0.7, 2), lambda x: 0.35 * ((x - numpy_blur(x, 2)) ** 2).sum()),
    "boundary": (lambda: R.boundary_complexity(0.7, 1), lambda x: numpy_boundary(x, 0.7, 1, 0.5, 1.28)),
    "boundary 2": (lambda: R.boundary_complexity(2, 2, center=0.1, sigma=1), lambda x: numpy_boundary(x, 2, 2, 0.1, 1)),
    "all boundary": (lambda: R.boundary_complexity(), lambda x: numpy_boundary(x, 1, 20, 0.5, 1.28)),
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


@pytest.mark.parametrize("p", [1.0, 1.5, 6.0])
def test_gradient_of_p_norm_is_finite_at_its_centre(p):
    gradient = jax.jit(jax.grad(lambda x: R.p_norm(2.0, p)(x)))(jnp.array([0.5, 0.25, 1.0]).reshape(1, 3, 1))
    expected = [0, -2 * p * 0.25 ** (p - 1), 2 * p * 0.5 ** (p - 1)]
    np.testing.assert_allclose(gradient.ravel(), expected, rtol=1e-5)


def test_gradient_of_l_infinity_is_shared_among_the_furthest():
    gradient = jax.grad(R.l_infinity(3.0))(jnp.array([0.0, 0.7, 1.0, 0.5]).reshape(2, 2, 1))
    np.testing.assert_allclose(gradient.ravel(), [-1.5, 0, 1.5, 0])


def test_a_step_on_blur_blurs():
    x = image((6, 5, 3))
    step = x - np.asarray(jax.grad(R.blur(0.4, 1.2))(x))
    np.testing.assert_allclose(step, 0.6 * x + 0.4 * numpy_blur(x, 1.2), atol=1e-6)


@pytest.mark.parametrize("width, variance", [(3, R.blur(1.0).sigma ** 2), (5, R.boundary_complexity().sigma ** 2)])
def test_default_sigmas_have_the_variance_of_lucids_kernels(width, variance):
    kernel = np.ones((width, width))
    kernel[1:-1, 1:-1] = 2
    place = np.arange(width) - width // 2
    assert float(variance) == pytest.approx((kernel.sum(0) * place**2).sum() / kernel.sum(), rel=0.02)


def test_mask_of_a_boundary():
    x, mask = image((6, 5, 3)), image((6, 5))
    value = float(R.boundary_complexity(2.0, mask=mask, center=0.2)(x))
    rough = (numpy_blur(x.astype(np.float64), 1.28) - x) ** 2 + 0.8 * (x - 0.2) ** 2
    assert value == pytest.approx(2 * (rough * mask[..., None]).sum(), rel=1e-5)
    inside = np.zeros((6, 5))
    inside[1:-1, 1:-1] = 1
    border = R.boundary_complexity(1.0, 1), R.boundary_complexity(1.0, mask=1 - inside)
    assert float(border[0](x)) == pytest.approx(float(border[1](x)), rel=1e-6)


def test_near():
    x, target = image((6, 5, 3)), image((6, 5, 3))
    assert float(R.near(target, 3.0)(x)) == pytest.approx(3 * ((x - target) ** 2).mean(), rel=1e-5)
    slope = jax.jit(jax.grad(lambda t: R.near(t)(x)))(target)  # of a traced image
    np.testing.assert_allclose(slope, 2 * (target - x) / x.size, atol=1e-6)
    with pytest.raises(ArgumentError, match=r"\(6, 5, 3\).*\(5, 6, 3\)"):
        R.near(target)(jnp.zeros((5, 6, 3)))


TARGET = image((6, 5, 3))
VARIANTS = {
    "l1": [lambda: R.l1(1.0), lambda: R.l1(np.float64(2), center=1), lambda: R.l1(jnp.float32(3), 0.5)],
    "l2": [lambda: R.l2(1.0), lambda: R.l2(2, center=np.float32(0.5))],
    "total_variation": [lambda: R.total_variation(1.0), lambda: R.total_variation(2)],
    "p_norm": [lambda: R.p_norm(1.0), lambda: R.p_norm(2, 1, np.float64(0))],
    "l_infinity": [lambda: R.l_infinity(1.0), lambda: R.l_infinity(2, center=1)],
    "blur": [lambda: R.blur(1.0), lambda: R.blur(2, np.float64(3))],
    "boundary_complexity": [
        lambda: R.boundary_complexity(1.0, 1),
        lambda: R.boundary_complexity(2, np.int64(2), center=1, sigma=0),
    ],
    "mask": [lambda: R.boundary_complexity(mask=TARGET[..., 0]), lambda: R.boundary_complexity(2, mask=np.ones((6, 5)))],
    "near": [lambda: R.near(TARGET), lambda: R.near(np.zeros((6, 5, 3)), 2), lambda: R.near(jnp.asarray(TARGET), 1)],
    "frequency_penalty": [lambda: R.frequency_penalty(1.0), lambda: R.frequency_penalty(2, power=1)],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    images = jnp.asarray(image((2, 6, 5, 3)))
    check_all(lambda regularizer, x: regularizer(x), VARIANTS[name], [images], atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: R.l1("much"),  # pyright: ignore
        lambda: R.l2(float("nan")),
        lambda: R.l2(1.0, center=float("inf")),
        lambda: R.total_variation([1.0, 2.0]),  # pyright: ignore
        lambda: R.frequency_penalty(1.0, power=-1.0),
        lambda: R.p_norm(1.0, 0.5),
        lambda: R.l_infinity(float("inf")),
        lambda: R.blur(1.0, -1),
        lambda: R.boundary_complexity(1.0, -1),
        lambda: R.boundary_complexity(1.0, 1.5),  # pyright: ignore
        lambda: R.boundary_complexity(mask=np.ones((4, 4, 3))),
        lambda: R.boundary_complexity(mask=np.ones((4, 5)))(jnp.zeros((5, 4, 3))),
        lambda: R.near([[[0.1]]]),  # pyright: ignore
        lambda: R.near(np.ones((1, 4, 4, 3))),
        lambda: R.near(np.ones((4, 4, 3), np.uint8)),
        lambda: R.near(np.full((4, 4, 3), 255.0)),
        lambda: R.near(np.full((4, 4, 3), np.nan)),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
