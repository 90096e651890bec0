"""Which layer class activation maps look at, and what is seen of the operations above it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz.attribution import default_layer, grad_cam
from jaxviz.attribution._cam.layers import map_layers, pools_evenly, tail_above
from jaxviz.attribution._linearity.dependence import Dependence, dependence
from jaxviz.attribution._target import as_target
from tests.attribution.reference import model_only
from tests.models.reference import network
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize(
    "name, size, expected",
    [
        ("resnet18", 224, "layer4.1.relu_1"),
        ("resnet50", 64, "layer4.2.relu_2"),
        # At 32 pixels the last stage has one position; inside its first block a map of 2 x 2 has a way around it.
        ("resnet50", 32, "layer3.5.relu_2"),
        ("vgg16", 224, "features.30"),
        ("vgg16", 32, "features.29"),
        ("vgg16_bn", 64, "features.43"),
    ],
)
def test_default_layer(name: str, size: int, expected: str) -> None:
    model = jv.models.from_module(network(name, head=64 if "vgg" in name else None), name=name)
    assert default_layer(model, (size, size)) == expected


def test_the_default_is_a_layer_like_any_other() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    assert grad_cam(model, x).layer == "relu_1"
    np.testing.assert_array_equal(grad_cam(model, x, 1).maps, grad_cam(model, x, 1, layer="relu_1").maps)


def test_no_layer_with_positions() -> None:
    function = jv.models.from_function(lambda images: images.mean((1, 2)))
    with pytest.raises(UnsupportedError, match="has no layer with more than one position"):
        grad_cam(function, random_images(1, 8, 8, 3))
    with pytest.raises(UnsupportedError, match="for images of 2 x 2"):
        grad_cam(tiny_model(), random_images(1, 2, 2, 3))


def test_names_are_resolved_and_counted_once() -> None:
    model = jv.models.from_module(network("resnet18"))
    assert map_layers(model, (64, 64), ["layer4", "layer4.1", "layer3"]) == ("layer4.1.relu_1", "layer3.1.relu_1")
    with pytest.raises(ArgumentError, match="empty list"):
        map_layers(model, (64, 64), [])


@pytest.mark.parametrize(
    "name, layer, reached, affine",
    [
        ("resnet18", "layer4", True, True),
        ("resnet18", "layer4.1.bn2", True, False),
        ("resnet18", "layer3", True, False),
        ("vgg16", "features.30", True, False),
        ("vgg16", "features.29", True, False),
    ],
)
def test_what_lies_above_is_read_from_the_operations(name: str, layer: str, reached: bool, affine: bool) -> None:
    model = jv.models.from_module(network(name, head=64 if "vgg" in name else None), input_size=(64, 64))
    target, _ = as_target(model, 1, np.zeros((1, 64, 64, 3), np.float32))
    layers = map_layers(model, (64, 64), layer)
    assert tail_above(model.network, target, layers, (64, 64)) == ((reached,), affine)


def test_a_layer_beside_the_target_is_not_reached() -> None:
    model = jv.models.from_module(network("resnet18"), input_size=(64, 64))
    target, _ = as_target(model, jv.channel("layer4.0.downsample.0", 1), np.zeros((1, 64, 64, 3), np.float32))
    # conv2 comes first, and yet the convolution of the way around it does not see it.
    assert tail_above(model.network, target, ("layer4.0.conv2", "layer3.1.relu_1"), (64, 64)).reached == (False, True)


@pytest.mark.parametrize(
    "fn, expected",
    [
        (lambda x, y: y, Dependence.NONE),
        (lambda x, y: 2 * x - x.sum() / 3 + y, Dependence.AFFINE),
        (lambda x, y: (x * y).reshape(2, 2) @ y.reshape(2, 2), Dependence.AFFINE),
        (lambda x, y: jax.jit(lambda z: z.mean())(x), Dependence.AFFINE),
        (lambda x, y: jnp.where(y > 0, x, -x)[1:], Dependence.AFFINE),
        (lambda x, y: x * x, Dependence.CURVED),
        (lambda x, y: y / x, Dependence.CURVED),
        (lambda x, y: jax.nn.relu(x), Dependence.CURVED),
        (lambda x, y: jnp.where(x > 0, y, 1.0), Dependence.CURVED),
        (lambda x, y: y[jnp.argmax(x)], Dependence.CURVED),
        (lambda x, y: jax.lax.fori_loop(0, 3, lambda _, z: 2 * z, x), Dependence.CURVED),  # not known to be linear
    ],
)
def test_dependence(fn, expected: Dependence) -> None:
    jaxpr = jax.make_jaxpr(fn)(jnp.ones(4), jnp.ones(4)).jaxpr
    assert max(dependence(jaxpr, [Dependence.AFFINE, Dependence.NONE])) == expected


def test_even_pooling_is_seen_in_the_weights() -> None:
    model = tiny_model()
    target, _ = as_target(model, 1, np.zeros((1, 16, 16, 3), np.float32))
    assert pools_evenly(model, target, "relu_1", (16, 16))
    position, _ = as_target(model, jv.neuron("relu_1", 1, y=0, x=1), np.zeros((1, 16, 16, 3), np.float32))
    assert not pools_evenly(model, position, "relu_1", (16, 16))


def test_even_pooling_of_a_resnet() -> None:
    model = model_only("small_resnet")
    target, _ = as_target(model, 1, np.zeros((1, 64, 64, 3), np.float32))
    assert pools_evenly(model, target, "layer4.0.relu_1", (64, 64))
