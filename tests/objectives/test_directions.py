"""Directions against the formula written out in NumPy, position by position."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from tests.contracts import check_all
from tests.tiny import tiny_model

MODEL = tiny_model()
SIZE = (16, 20)
RNG = np.random.default_rng(0)
ACT = RNG.normal(size=(2, 4, 5, 8)).astype(np.float32)
IMAGES = np.zeros((2, 16, 20, 3), np.float32)
VECTOR = RNG.normal(size=8).astype(np.float32)


def by_hand(x, v, power):
    dot = float(np.dot(x, v))
    cosine = dot / ((1e-4 + np.linalg.norm(x)) * (1e-4 + np.linalg.norm(v)))
    return dot * max(0.1, cosine) ** power


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_a_direction_is_the_mean_of_lucids_formula(power):
    got = jv.direction("relu", VECTOR, cossim_power=power)({"relu": jnp.asarray(ACT)}, IMAGES)
    want = [np.mean([by_hand(x, VECTOR, power) for x in act.reshape(-1, 8)]) for act in ACT]
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_one_hot_direction_is_the_channel():
    acts = {"relu": jnp.asarray(ACT)}
    np.testing.assert_allclose(jv.direction("relu", np.eye(8)[3])(acts, IMAGES), jv.channel("relu", 3)(acts, IMAGES), rtol=1e-6)


@pytest.mark.parametrize(("y", "x"), [(None, None), (0, 4), (3, None)])
def test_a_direction_at_a_position(y, x):
    got = jv.direction_neuron("relu", VECTOR, y=y, x=x, cossim_power=1)({"relu": jnp.asarray(ACT)}, IMAGES)
    row, column = (2 if y is None else y), (2 if x is None else x)
    np.testing.assert_allclose(got, [by_hand(act[row, column], VECTOR, 1) for act in ACT], rtol=1e-5)


@pytest.mark.parametrize("shape", [(4, 5), (2, 3), (6, 7), (6, 3)])
def test_a_tensor_direction_is_cut_about_the_center(shape):
    tensor = RNG.normal(size=(*shape, 8)).astype(np.float32)
    h, w = min(4, shape[0]), min(5, shape[1])
    part = tensor[(shape[0] - h) // 2 :][:h, (shape[1] - w) // 2 :][:, :w]
    cut = ACT[:, (4 - h) // 2 :][:, :h, (5 - w) // 2 :][:, :, :w]
    want = [np.mean([by_hand(a[i, j], part[i, j], 2) for i in range(h) for j in range(w)]) for a in cut]
    got = jv.tensor_direction("relu", tensor, cossim_power=2)({"relu": jnp.asarray(ACT)}, IMAGES)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda scale: jv.direction("relu", VECTOR * scale, cossim_power=scale),
        lambda scale: jv.direction_neuron("relu", VECTOR * scale, y=int(scale), x=2, cossim_power=scale),
        lambda scale: jv.tensor_direction("relu", np.stack([[VECTOR] * 2] * 2) * scale, cossim_power=scale),
    ],
)
def test_the_contract(make):
    groups = RNG.normal(size=(3, 2, 4, 5, 8)).astype(np.float32)

    def call(objective, act):
        return objective({"relu": act}, jnp.zeros((2, 16, 20, 3)))

    check_all(call, [lambda: make(1.0), lambda: make(2.0)], [groups])


@pytest.mark.full
def test_many_directions_are_many_units():
    vectors = RNG.normal(size=(3, 8)).astype(np.float32)
    result = jv.visualize(MODEL, jv.direction("relu", vectors, cossim_power=1), size=SIZE, steps=20, samples=2)
    assert result.labels == ("relu direction:0", "relu direction:1", "relu direction:2")
    assert (result.history[..., -1] > result.history[..., 0]).all()
    alone = jv.visualize(MODEL, jv.direction("relu", vectors[1], cossim_power=1), size=SIZE, steps=20, samples=2)
    np.testing.assert_allclose(alone.images[0], result.images[1], atol=1e-4)


def test_directions_that_do_not_fit_are_refused():
    for wrong in (np.ones(7), np.ones((2, 9))):
        with pytest.raises(jv.ArgumentError, match="8 channels"):
            jv.direction("relu", wrong).bind(MODEL, SIZE)
    with pytest.raises(jv.ArgumentError, match="shape"):
        jv.direction("relu", np.ones((1, 2, 8)))
    with pytest.raises(jv.ArgumentError, match="finite"):
        jv.direction("relu", [np.nan] * 8)
    with pytest.raises(jv.ArgumentError, match="no positions"):
        jv.tensor_direction("fc", np.ones((1, 1, 5))).bind(MODEL, SIZE)
    with pytest.raises(jv.UnitError, match="0 to 9"):
        jv.direction_neuron("relu", VECTOR, x=10).bind(MODEL, SIZE)
