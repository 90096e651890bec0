"""Mirror images and rolling against NumPy, and their draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import APPLY, KEYS, call, image, images

MANY = jax.random.split(KEYS[0], 600)
EACH = jax.jit(jax.vmap(lambda transform, key, image: transform(key, image), (None, 0, None)))


def test_flip():
    x = image()
    np.testing.assert_array_equal(APPLY(T.flip(1.0), KEYS[0], x), np.fliplr(x))
    np.testing.assert_array_equal(APPLY(T.flip(0.0, 1.0), KEYS[0], x), np.flipud(x))
    np.testing.assert_array_equal(APPLY(T.flip(1, 1), KEYS[0], x), x[::-1, ::-1])
    np.testing.assert_array_equal(APPLY(T.flip(0, 0), KEYS[0], x), x)


def test_flips_are_drawn_with_their_probability():
    out = np.asarray(EACH(T.flip(0.5, 0.2), MANY, np.arange(4, dtype=np.float32).reshape(2, 2, 1)))
    across, down = np.isin(out[:, 0, 0, 0], (1, 3)), np.isin(out[:, 0, 0, 0], (2, 3))
    assert abs(across.mean() - 0.5) < 0.07 and abs(down.mean() - 0.2) < 0.06
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.15


@pytest.mark.parametrize("distance", [0, 2, 7])
def test_roll_is_uniform(distance):
    h, w = 5, 20
    x = np.arange(h * w, dtype=np.float32).reshape(h, w, 1)
    out = np.asarray(EACH(T.roll(distance), MANY, x))
    rows, columns = np.divmod(out[:, 0, 0, 0].astype(int), w)
    for i in range(20):
        np.testing.assert_array_equal(out[i], np.roll(x, (-rows[i], -columns[i]), (0, 1)))
    values, counts = np.unique((-columns + 10) % w - 10, return_counts=True)
    np.testing.assert_array_equal(values, np.arange(-distance, distance + 1))
    assert counts.min() > 0.5 * len(MANY) / (2 * distance + 1)
    assert distance == 0 or len(np.unique(rows)) == h


def test_gradient_rolls_back():
    x = image()
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(T.roll(6)(KEYS[0], x) ** 2 / 2)))(x)
    np.testing.assert_array_equal(gradient, x)


VARIANTS = {
    "flip": [lambda: T.flip(), lambda: T.flip(1, np.float64(0.3))],
    "roll": [lambda: T.roll(4), lambda: T.roll(0), lambda: T.roll(np.int64(100))],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.flip(1.1),
        lambda: T.flip(0.5, -0.1),
        lambda: T.flip()(KEYS[0], jnp.zeros((4, 4))),
        lambda: T.roll(-1),
        lambda: T.roll(0.5),  # pyright: ignore
        lambda: T.roll(1)(KEYS[0], jnp.zeros((4, 4))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
