"""Colours against torchvision's functions; what was drawn is read off the result."""

from __future__ import annotations

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.torch_reference import import_torchvision
from tests.transforms.common import APPLY, KEYS, call, image, images

EACH = jax.jit(jax.vmap(lambda transform, key, image: transform(key, image), (None, 0, None)))
MANY = jax.random.split(KEYS[0], 400)


def reference(name, x, factor):
    """torchvision's function of this name, of an image (H, W, 3)."""
    import_torchvision()
    import torch
    from torchvision.transforms import functional

    function = getattr(functional, f"adjust_{name}")
    return function(torch.from_numpy(np.moveaxis(x, -1, 0).copy()), float(factor)).numpy().transpose(1, 2, 0)


def picture():
    """Random colours with grey, black, white and pure ones; pixel (0, 0) tells the factor, (1, 3) the hue."""
    x = image(9, 12)
    x[0, 0] = [0.4, 0.5, 0.6]
    x[1, :7] = [[0.3] * 3, [0] * 3, [1] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 1], [0.7, 0.7, 0.2]]
    return x


@pytest.mark.parametrize("name, amount", [("brightness", 0.4), ("contrast", 0.9), ("saturation", 1.7)])
def test_factors_are_torchvisions(name, amount):
    x = picture()
    for key in KEYS:
        out = np.asarray(APPLY(T.color_jitter(**{name: amount}), key, x))
        # All three are linear: the channels of a pixel part by the factor times what they did.
        factor = (out[0, 0, 2] - out[0, 0, 0]) / (x[0, 0, 2] - x[0, 0, 0])
        assert max(0, 1 - amount) <= factor + 1e-5 and factor <= 1 + amount + 1e-5 and abs(factor - 1) > 0.01
        np.testing.assert_allclose(out, reference(name, x, factor), atol=1e-5)


def test_hue_is_torchvisions():
    x = picture()
    for key in KEYS:
        out = np.asarray(APPLY(T.color_jitter(hue=0.5), key, x))
        turn = (colorsys.rgb_to_hsv(*out[1, 3])[0] + 0.5) % 1 - 0.5  # what became of red
        assert abs(turn) > 0.01
        np.testing.assert_allclose(out, reference("hue", x, turn), atol=2e-5)


def test_order_and_range_of_draws():
    x = picture()
    both = APPLY(T.color_jitter(brightness=0.4, contrast=0.9), KEYS[0], x)
    one_by_one = APPLY(T.color_jitter(contrast=0.9), KEYS[0], APPLY(T.color_jitter(brightness=0.4), KEYS[0], x))
    np.testing.assert_allclose(both, one_by_one, atol=1e-6)
    factors = np.asarray(EACH(T.color_jitter(brightness=0.4), MANY, x))[:, 0, 0, 0] / x[0, 0, 0]
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4001 and abs(factors.mean() - 1) < 0.05
    np.testing.assert_array_equal(APPLY(T.color_jitter(), KEYS[0], x), x)
    grey = image(9, 12, 1)  # contrast of other images than RGB is about their mean
    out = APPLY(T.color_jitter(contrast=0.3), KEYS[0], grey)
    assert float(out.mean()) == pytest.approx(grey.mean(), abs=1e-3) and np.abs(out - grey).max() > 0.01


def test_gradient_of_hue_is_that_of_its_formula_and_finite_at_grey():
    turned = jax.jit(jax.grad(lambda x, cotangent: jnp.sum(T.color_jitter(hue=0.5)(KEYS[0], x) * cotangent)))
    x, cotangent = picture(), image(9, 12, seed=1)
    gradient = np.asarray(turned(x, cotangent))
    assert np.isfinite(gradient).all()
    step = np.zeros_like(x)
    step[0, 0, 1] = 1e-3
    ends = [float(jnp.sum(T.color_jitter(hue=0.5)(KEYS[0], x + s * step) * cotangent)) for s in (1, -1)]
    assert gradient[0, 0, 1] == pytest.approx((ends[0] - ends[1]) / 2e-3, abs=5e-3)


def test_color_shift_is_affine_in_each_channel():
    x = image(9, 12)
    out = np.asarray(EACH(T.color_shift(0.2, 0.7), MANY, x), np.float64)
    spread = out - out.mean((1, 2), keepdims=True)
    around = x - x.mean((0, 1))
    gain = (spread * around).sum((1, 2)) / (around**2).sum((0, 1))
    np.testing.assert_allclose(spread, gain[:, None, None] * around, atol=1e-5)
    shift = out.mean((1, 2)) - 0.5 - gain * (x.mean((0, 1)) - 0.5)
    for drawn, most in ((np.log(gain), 0.7), (shift, 0.2)):
        assert np.abs(drawn).max() <= most + 1e-5 and drawn.std() == pytest.approx(most / np.sqrt(3), rel=0.1)
        assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.2


VARIANTS = {
    "color_jitter": [lambda: T.color_jitter(0.1, 0.1, 0.1, 0.1), lambda: T.color_jitter(0, np.float64(2), 1, 0.5)],
    "color_shift": [lambda: T.color_shift(0.2, 0.2), lambda: T.color_shift(0, 1)],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.color_jitter(-0.1),
        lambda: T.color_jitter(hue=0.6),
        lambda: T.color_jitter(saturation=0.1)(KEYS[0], jnp.zeros((4, 4, 1))),
        lambda: T.color_jitter(hue=0.1)(KEYS[0], jnp.zeros((4, 4, 4))),
        lambda: T.color_jitter(0.1)(KEYS[0], jnp.zeros((4, 4))),
        lambda: T.color_shift(-0.1, 0),
        lambda: T.color_shift(0.1, "little"),  # pyright: ignore
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
