"""What counts as the same function, and how numbers become leaves."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxviz import ArgumentError, regularizers, transforms
from jaxviz._pytree import Function, as_static, as_tree, leaf


def test_partials_compare_by_value():
    def make(momentum=0.9):
        return as_static(partial(optax.sgd, momentum=momentum))

    assert make() == make() and hash(make()) == hash(make())
    assert make() != make(0.8)
    assert as_static(partial(optax.sgd, nesterov=True)) != as_static(partial(optax.sgd, momentum=0.9))
    assert as_static(partial(max, 1)) != as_static(partial(max, 1.0))  # another program: another dtype
    assert as_static(partial(max, (1, 2))) != as_static(partial(max, (1.0, 2)))
    nested = [as_static(partial(partial(optax.sgd, momentum=0.9), nesterov=True)) for _ in range(2)]
    assert nested[0] == nested[1]
    assert isinstance(make()(0.1), optax.GradientTransformation)


def test_unhashable_arguments_compare_by_identity():
    one = partial(max, np.zeros(3))
    assert as_static(one) == as_static(one)
    assert as_static(one) != as_static(partial(max, np.zeros(3)))


def test_functions_stay_as_they_are():
    assert as_static(jnp.sum) is jnp.sum
    with pytest.raises(ArgumentError, match="Expected a function"):
        as_static(3)  # pyright: ignore


def test_rebuilt_partial_does_not_recompile():
    traces = 0

    @jax.jit
    def run(fn, x):
        nonlocal traces
        traces += 1
        return fn(x)

    for _ in range(3):
        assert run(as_tree(partial(jnp.sum, axis=0)), jnp.ones(3)) == 3
    assert traces == 1


def test_as_tree_keeps_pytrees():
    own = jax.tree_util.Partial(jnp.multiply, jnp.float32(2))
    assert as_tree(own) is own
    assert isinstance(as_tree(jnp.sum), Function)


def test_leaf():
    for value in (2, 2.0, np.float64(2), np.float32(2), np.array(2), jnp.float32(2), jnp.int32(2)):
        assert leaf(value, "x").dtype == np.float32 and leaf(value, "x").shape == ()
    assert jax.jit(lambda v: leaf(v, "x", low=0) * 2)(3) == 6  # traced: taken as it is
    for wrong in (float("nan"), float("inf"), "1 pound", [1.0, 2.0], None, 1j):
        with pytest.raises(ArgumentError):
            leaf(wrong, "x")
    with pytest.raises(ArgumentError, match="x must be at least 0, got -1"):
        leaf(-1, "x", low=0)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        leaf(2, "x", low=0, high=1)
    with pytest.raises(ArgumentError, match="whole"):
        leaf(1.5, "x", dtype=np.int32)


def test_structures_of_two_classes_are_never_equal():
    """JAX's own dataclasses with as many fields have equal ones in some versions, and `jit` then mixes up their programs."""
    pairs = (
        (regularizers.l1(1.0), regularizers.l2(1.0)),
        (transforms.flip(), transforms.color_shift(0.1, 0.1)),
        (transforms.scale(1.0, 2.0), transforms.rotate(3.0)),
        (transforms.roll(3), regularizers.total_variation(1.0)),
    )
    for one, other in pairs:
        assert len(jax.tree.leaves(one)) == len(jax.tree.leaves(other))
        assert jax.tree.structure(one) != jax.tree.structure(other)
    for thing in [part for pair in pairs for part in pair]:
        paths, structure = jax.tree_util.tree_flatten_with_path(thing)
        again = jax.tree.unflatten(structure, [leaf for _, leaf in paths])
        assert type(again) is type(thing) and jax.tree.structure(again) == jax.tree.structure(thing)
    ((path, _), *_) = jax.tree_util.tree_flatten_with_path(regularizers.l1(1.0))[0]
    assert jax.tree_util.keystr(path) == ".weight"
