"""What a network computes beside its table of operations: what is linear is explained rightly, anything else is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import UnsupportedError
from jaxviz.attribution import deep_lift, input_x_gradient, lrp
from jaxviz.models import from_function, from_module
from tests.attribution.networks import Glue, OneLayer
from tests.tiny import random_images


@pytest.mark.parametrize(
    "fn, name",
    [
        (jax.nn.relu, "relu"),
        (jax.nn.softmax, "reduce_max|exp|stop"),
        (lambda x: x @ jnp.ones((4, 3)), "dot_general"),
        (lambda x: x * x, "mul"),
        (lambda x: x / (1 + x), "div"),
        (jax.jit(jnp.tanh), "tanh"),
    ],
)
def test_what_is_not_linear_outside_of_the_table_is_refused(fn, name):
    model = from_module(Glue(fn), input_size=(8, 8))
    for method in (lrp, deep_lift):
        with pytest.raises(UnsupportedError, match=name):
            method(model, random_images(1, 8, 8, 3), 0)
    middle = lrp(model, random_images(1, 8, 8, 3), jv.channel("relu", 1))  # what is refused lies above this one
    assert abs(middle.delta[0]) < 1e-5


def test_what_is_linear_outside_of_the_table_has_relevance_in_proportion():
    fn = jax.jit(lambda x: jnp.concatenate([2 * x[:, ::-1], x[:, :2] - x[:, 1:3] / 3], axis=1))
    model = from_module(Glue(fn), input_size=(8, 8))
    x = random_images(2, 8, 8, 3)
    for target in (1, 4):
        found = lrp(model, x, target, rule="epsilon", epsilon=0)
        np.testing.assert_allclose(found.maps, input_x_gradient(model, x, target).maps, atol=1e-6)
        assert np.abs(lrp(model, x, target).delta).max() < 1e-5


def test_networks_without_a_table_or_a_first_convolution():
    x = random_images(1, 16, 16, 3)
    with pytest.raises(UnsupportedError, match="ops"):
        lrp(from_function(lambda x: x.mean((1, 2)), input_size=(16, 16)), x, 0)
    flat = from_module(OneLayer(np.ones(768, np.float32), 0.0), mean=[0.5] * 3, std=[0.5] * 3, input_size=(16, 16))
    with pytest.raises(UnsupportedError, match="first convolution"):
        lrp(flat, x, 0, rule="epsilon_gamma_box")
