"""Motions: positions against NumPy, draws, fusing, static shapes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ArgumentError
from jaxviz import transforms as T
from tests.contracts import check_all
from tests.transforms.common import APPLY, KEYS, call, image, images


def test_directions_and_centre():
    x = image(8, 8)
    np.testing.assert_allclose(APPLY(T.rotate([90]), KEYS[0], x), np.rot90(x), atol=1e-5)  # counter-clockwise as seen
    np.testing.assert_allclose(APPLY(T.rotate([-90]), KEYS[0], x), np.rot90(x, -1), atol=1e-5)
    odd = image(5, 8)
    np.testing.assert_allclose(APPLY(T.rotate([180]), KEYS[0], odd), odd[::-1, ::-1], atol=1e-5)
    # Twice the size about the centre: the middle of the image of a ramp grows half as fast.
    ramp = np.tile(np.arange(9, dtype=np.float32)[:, None, None] / 8, (1, 9, 1))
    np.testing.assert_allclose(APPLY(T.scale(2.0), KEYS[0], ramp)[:, 4, 0], (np.arange(9) - 4) / 16 + 0.5, atol=1e-6)


def test_motions_cancel_in_one_resample():
    """Turned and turned back, nothing is blurred or cut off, since both are one motion on an endless canvas."""
    x = image()
    there_and_back = T.compose(T.rotate([35]), T.scale(1.7), T.scale(1 / 1.7), T.rotate([-35]))
    np.testing.assert_allclose(APPLY(there_and_back, KEYS[0], x), x, atol=2e-5)
    apart = T.compose(T.rotate([35]), lambda key, image: image, T.rotate([-35]))
    assert np.abs(APPLY(apart, KEYS[0], x) - x).max() > 0.1


def test_order_of_motions():
    """Rotation by 90 degrees after a shift moves the shift too: right becomes up."""
    x = np.zeros((9, 9, 1), np.float32)
    x[4, 4] = 1
    key = next(k for k in jax.random.split(jax.random.key(1), 99) if _drawn(k, 0)[1] != 0)
    down, right = _drawn(key, 0)
    out = APPLY(T.compose(T.jitter(4, fill=0), T.rotate([90], fill=0)), key, x)[..., 0]
    assert np.unravel_index(np.argmax(out), (9, 9)) == (4 - right, 4 + down)


def _drawn(key, position):
    """The shift that a jitter(4) at this position draws, found from what it does to a single bright pixel."""
    x = np.zeros((9, 9, 1), np.float32)
    x[4, 4] = 1
    out = APPLY(T.jitter(4, fill=0), jax.random.fold_in(key, position), x)[..., 0]
    return tuple(int(i) - 4 for i in np.unravel_index(np.argmax(out), (9, 9)))


@pytest.mark.parametrize("distance", [0, 1, 4, 5])
def test_jitter_is_uniform_and_centred(distance):
    x = np.arange(1, 122, dtype=np.float32).reshape(11, 11, 1)
    out = jax.jit(jax.vmap(T.jitter(distance, fill=0), (0, None)))(jax.random.split(KEYS[0], 600), x)
    rows, columns = np.divmod(np.asarray(out[:, 5, 5, 0]).astype(int) - 1, 11)
    for moved in (5 - rows, 5 - columns):
        values, counts = np.unique(moved, return_counts=True)
        np.testing.assert_array_equal(values, np.arange(distance + 1) - distance // 2)
        assert counts.min() > 0.7 * 600 / (distance + 1)
    assert distance == 0 or abs(np.corrcoef(rows, columns)[0, 1]) < 0.15


def test_whole_pixels_are_not_interpolated():
    x = image()
    moved = T.compose(T.pad(3, 0.25), T.jitter(4, fill=0.25), T.jitter(2, fill=0.25))
    for out in (APPLY(moved, key, x) for key in KEYS):
        assert out.shape == (15, 18, 3)
        inside = np.isin(np.asarray(out), x)
        assert inside.sum() == x.size and np.all(np.asarray(out)[~inside] == 0.25)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(T.jitter(6)(KEYS[0], x) ** 2 / 2)))(x)
    assert np.all((gradient == 0) | (gradient == x)) and np.any(gradient == 0)


def test_pad():
    x = image()
    np.testing.assert_allclose(T.pad(2, 0.1)(KEYS[0], x), np.pad(x, ((2, 2), (2, 2), (0, 0)), constant_values=0.1), atol=1e-7)
    np.testing.assert_array_equal(T.pad(0)(KEYS[0], x), x)
    # Joined to a motion of the same colour it is the same; another colour is seen as what it is.
    joined = APPLY(T.compose(T.pad(4, 0.5), T.rotate([25])), KEYS[0], x)
    padded = APPLY(T.rotate([25]), KEYS[0], APPLY(T.pad(4, 0.5), KEYS[0], x))
    np.testing.assert_allclose(joined, padded, atol=1e-5)
    corners = APPLY(T.compose(T.pad(4, 0.0), T.rotate([45], fill=1.0)), KEYS[0], 0 * x)
    assert corners[0, 0, 0] == 1 and corners[5, 5, 0] == 0


def test_ranges_of_draws():
    keys = jax.random.split(KEYS[0], 400)
    scales = np.asarray(jax.vmap(T.scale(0.5, 2.0).amount.draw)(keys))
    assert 0.5 <= scales.min() < 0.52 and 1.95 < scales.max() <= 2 and abs(scales.mean() - 1.25) < 0.06
    angles = np.asarray(jax.vmap(T.rotate(30).amount.draw)(keys))
    assert -30 <= angles.min() < -28 and 28 < angles.max() <= 30
    chosen, counts = np.unique(jax.vmap(T.rotate([-3, 1, 1, 8]).amount.draw)(keys), return_counts=True)
    assert chosen.tolist() == [-3, 1, 8] and 150 < counts[1] < 250


VARIANTS = {
    "pad": [lambda: T.pad(2), lambda: T.pad(np.int64(2))],
    "rotate": [lambda: T.rotate(5), lambda: T.rotate(np.float64(30))],
    "rotate by one of some": [lambda: T.rotate([-3, 1, 8]), lambda: T.rotate([0.0, 2.0, 4.0])],
    "jitter": [lambda: T.jitter(8), lambda: T.jitter(np.int64(4)), lambda: T.jitter(0)],
    "scale": [lambda: T.scale(0.9, 1.1), lambda: T.scale(2), lambda: T.scale(jnp.float32(0.3), np.float64(3))],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name):
    check_all(call, VARIANTS[name], [KEYS, images()])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: T.pad(-1),
        lambda: T.pad(1.5),  # pyright: ignore
        lambda: T.pad(1, value=float("nan")),
        lambda: T.jitter(-1),
        lambda: T.jitter(2.5),  # pyright: ignore
        lambda: T.scale(0.0, 1.0),
        lambda: T.scale(1.2, 0.8),
        lambda: T.scale([]),
        lambda: T.scale([0.9, -1]),
        lambda: T.scale([0.9, 1.1], 2.0),
        lambda: T.rotate(-5),
        lambda: T.rotate("far"),  # pyright: ignore
        lambda: T.rotate([float("inf")]),
        lambda: T.jitter(1)(KEYS[0], jnp.zeros((2, 4, 4, 3))),
    ],
)
def test_wrong_arguments(wrong):
    with pytest.raises(ArgumentError):
        wrong()
