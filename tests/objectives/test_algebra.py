"""Weighted sums must equal the sum by hand, and every leaf knows whether it has an entry per unit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import ArgumentError
from jaxviz.objectives._algebra import combine, count_units, partition
from tests.tiny import random_images

ACTS = {"a": jnp.asarray(random_images(2, 3, 5, 4)), "b": jnp.asarray(random_images(2, 7, seed=1)), "output": jnp.ones((2, 3))}
IMAGES = jnp.asarray(random_images(2, 8, 8, 3, seed=2))
A, B = np.asarray(ACTS["a"]), np.asarray(ACTS["b"])


def score(objective) -> np.ndarray:
    return np.asarray(objective(ACTS, IMAGES))


@pytest.mark.parametrize(
    ("objective", "by_hand"),
    [
        (jv.channel("a", 2), A[..., 2].mean((1, 2))),
        (jv.channel("b", 3), B[:, 3]),
        (jv.neuron("a", 1), A[:, 1, 2, 1]),
        (jv.neuron("a", 1, y=2, x=4), A[:, 2, 4, 1]),
        (jv.neuron("b", 6), B[:, 6]),
        (jv.layer("a"), A.mean((1, 2, 3))),
        (jv.layer("a", "square"), (A**2).mean((1, 2, 3))),
        (jv.layer("a", "norm"), np.sqrt((A**2).sum((1, 2, 3)))),
        (jv.logit(1), np.ones(2)),
    ],
)
def test_each_objective_is_its_formula(objective, by_hand):
    np.testing.assert_allclose(score(objective), by_hand, rtol=1e-6)


def test_weighted_sums_equal_the_sum_by_hand():
    one, two, three = jv.channel("a", 0), jv.channel("a", 3), jv.layer("b", "square")
    by_hand = 1.0 * score(one) + 3.0 * score(two) - 5.0 * score(three)
    np.testing.assert_allclose(score(1.0 * one + 3.0 * two + three * (-5.0)), by_hand, rtol=1e-6)
    np.testing.assert_allclose(score(one - two), score(one) - score(two), rtol=1e-6)
    np.testing.assert_allclose(score(one - (two - three)), score(one) - score(two) + score(three), rtol=1e-6)
    np.testing.assert_allclose(score(-(one + two) / 4), -(score(one) + score(two)) / 4, rtol=1e-6)
    np.testing.assert_allclose(score(one * two), score(one) * score(two), rtol=1e-6)
    np.testing.assert_allclose(score(sum([one, two, three])), score(one) + score(two) + score(three), rtol=1e-6)
    np.testing.assert_allclose(score(np.float32(2) * one), 2 * score(one), rtol=1e-6)


def test_arithmetic_leaves_its_operands_alone():
    one = jv.channel("a", 0)
    before = score(one)
    _ = 5 * one - one
    np.testing.assert_array_equal(score(one), before)


def test_norm_of_a_silent_layer_has_a_finite_gradient():
    gradient = jax.grad(lambda a: jv.layer("a", "norm")({"a": a}, IMAGES).sum())(jnp.zeros((2, 3, 3, 4)))
    assert np.isfinite(gradient).all()


def test_partition_separates_per_unit_leaves_and_combine_undoes_it():
    objective = jv.channel("a", range(3)) - 0.5 * jv.neuron("a", 2) + np.arange(3.0) * jv.layer("b")
    each, rest = partition(objective)
    assert [np.shape(x) for x in jax.tree.leaves(each)] == [(3,), (3,)]
    assert [np.shape(x) for x in jax.tree.leaves(rest)] == [(), (), ()]
    assert count_units(objective) == 3
    one = jax.tree.map(lambda leaf: leaf[1], each)
    by_hand = score(jv.channel("a", 1)) - 0.5 * score(jv.neuron("a", 2)) + 1.0 * score(jv.layer("b"))
    np.testing.assert_allclose(score(combine(one, rest)), by_hand, rtol=1e-6)


def test_one_unit_goes_with_many():
    objective = jv.channel("a", [0, 3]) - 0.5 * jv.channel("a", [2])
    each, rest = partition(objective)
    assert [np.shape(x) for x in jax.tree.leaves(each)] == [(2,)] and count_units(objective) == 2
    by_hand = score(jv.channel("a", 3)) - 0.5 * score(jv.channel("a", 2))
    np.testing.assert_allclose(score(combine(jax.tree.map(lambda leaf: leaf[1], each), rest)), by_hand, rtol=1e-6)


def test_terms_with_different_numbers_of_units_are_refused():
    with pytest.raises(ArgumentError, match=r"\[2, 3\]"):
        count_units(jv.channel("a", range(3)) + jv.channel("a", range(2)))


@pytest.mark.parametrize("bad", [1.5, [], [[1, 2]], "x", [0.5, 1.0]])
def test_bad_units_are_refused(bad):
    with pytest.raises(ArgumentError):
        jv.channel("a", bad)
