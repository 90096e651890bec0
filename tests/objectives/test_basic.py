"""Objectives against a network: names, units, classes, strings, functions."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz.models import layer_shape
from jaxviz.objectives._basic import work_ids
from jaxviz.objectives._parse import as_objective
from tests.contracts import check_all
from tests.tiny import random_images, tiny_model

MODEL = tiny_model()
SIZE = (16, 20)


def bound(objective):
    return as_objective(objective).bind(MODEL, SIZE)


def test_layer_shapes_follow_the_image():
    assert layer_shape(MODEL.network, "relu", SIZE) == (8, 10, 8)
    assert layer_shape(MODEL.network, "output", SIZE) == (5,)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("relu:3", ["relu:3"]),
        ("relu:3, 5,0-2", ["relu:3", "relu:5", "relu:0", "relu:1", "relu:2"]),
        ("relu", [f"relu:{i}" for i in range(8)]),
        ("logit:golf ball,church", ["logit:golf ball", "logit:church"]),
        ("logit:GOLF BALL", ["logit:golf ball"]),
        ("logit:4", ["logit:chain saw"]),
        ("logit", [f"logit:{name}" for name in MODEL.class_names]),
        ("fc:1-2", ["fc:1", "fc:2"]),
    ],
)
def test_strings_name_units(text, labels):
    assert list(bound(text).labels(MODEL)) == labels


@pytest.mark.parametrize("text", ["", ":3", "relu:", "relu:x", "relu:3-1", "relu:1.5", "relu:-1", "relu:1,,2"])
def test_strings_that_mean_nothing_are_refused(text):
    with pytest.raises(jv.ArgumentError):
        jv.parse(text)


def test_labels_of_the_other_objectives():
    assert bound(jv.neuron("relu", [1, 2])).labels(MODEL) == ("relu:1 neuron", "relu:2 neuron")
    assert bound(jv.neuron("relu", 1, y=2, x=[3, 4])).labels(MODEL) == ("relu:1 at y 2, x 3", "relu:1 at y 2, x 4")
    assert bound(jv.layer("relu", "square")).labels(MODEL) == ("relu square",)
    assert bound(jv.channel("relu", 1) + jv.channel("conv2", [3, 4])).labels(MODEL) == ("conv2:3", "conv2:4")


def test_a_function_finds_the_layers_it_reads():
    def both(acts, images):
        return acts["relu"].mean((1, 2, 3)) + acts["fc"][:, 0]

    assert bound(both).layers() == ("relu", "fc")
    assert bound(partial(both)).layers() == ("relu", "fc")
    assert bound(jv.objectives.from_function(both) + jv.channel("conv2", 0)).layers() == ("relu", "fc", "conv2")
    assert bound(lambda acts, images: images.mean((1, 2, 3))).layers() == ()
    assert bound(both).labels(MODEL) == ("both",)


def test_random_keys_are_named_by_the_node_and_the_unit():
    ids = work_ids(bound(jv.channel("output", [3, 1])), MODEL)
    np.testing.assert_array_equal(ids, work_ids(bound("fc:3,1"), MODEL))
    np.testing.assert_array_equal(ids, work_ids(bound("logit:3,1"), MODEL))
    assert ids[:, 1].tolist() == [3, 1]
    assert (ids[:, 0] != work_ids(bound("relu:3,1"), MODEL)[:, 0]).all()
    assert work_ids(bound(jv.layer("relu")), MODEL)[:, 1].tolist() == [0]


def test_units_outside_the_layer_say_the_range():
    with pytest.raises(jv.UnitError, match=r"relu has units 0 to 7; got 8, 90"):
        bound(jv.channel("relu", [1, 8, 90]))
    with pytest.raises(jv.UnitError, match="0 to 9"):
        bound(jv.neuron("relu", 0, x=10))
    with pytest.raises(jv.LayerError, match="relu_1"):
        bound("relu_2:0")


def test_a_layer_reduce_that_is_not_known_is_refused():
    with pytest.raises(jv.ArgumentError, match="square"):
        jv.layer("relu", "max")


def test_a_logit_needs_a_vector_of_scores():
    model = jv.from_function(lambda images: images * 2)
    with pytest.raises(jv.ArgumentError, match="classes"):
        as_objective("logit:0").bind(model, SIZE)
    assert as_objective("output:0-2").bind(model, SIZE).labels(model) == ("output:0", "output:1", "output:2")


def test_weights_from_numpy_and_jax_scale_per_unit():
    for weight in (np.array([1.0, 2.0]), jnp.array([1.0, 2.0])):
        objective = weight * jv.channel("relu", [0, 1])
        assert np.shape(objective.weight) == (2,)


def contrast(acts, images):
    return acts["relu"][..., 3].mean((1, 2)) * images.std((1, 2, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda a: jv.channel("relu", a),
        lambda a: jv.neuron("relu", a, y=a, x=2 * a),
        lambda a: jv.neuron("relu", a),
        lambda a: a * jv.layer("relu"),
        lambda a: a * jv.layer("relu", "square"),
        lambda a: a * jv.layer("relu", "norm"),
        lambda a: jv.logit(a),
        lambda a: a * jv.objectives.from_function(contrast),
        lambda a: jv.channel("relu", 3) - a * jv.logit(2) * jv.channel("relu", a) / 4,
    ],
)
def test_the_contract(make):
    """With respect to the activations: eager = jit, loop = vmap, one trace for all data, a finite gradient, every platform."""
    groups = {"relu": random_images(3, 2, 4, 5, 8) + 0.1, "output": random_images(3, 2, 5, seed=1)}
    images = random_images(2, 16, 20, 3)

    def call(objective, acts):
        return objective(acts, images).sum() + 1e-3 * sum(jnp.square(act).sum() for act in acts.values())

    check_all(call, [lambda: make(1), lambda: make(2)], [groups])
