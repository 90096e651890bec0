"""Where a network's affine start ends."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz import objectives
from jaxviz.attribution._affine_prefix import find_stem, pull_to_images, stem_gradients
from jaxviz.attribution._methods.gradient import gradients
from jaxviz.attribution._target import as_target
from jaxviz.models import Model, activations, from_function, from_module, no_tap
from jaxviz.ops import EXACT
from tests.models.reference import MEAN, STD, network
from tests.tiny import random_images, tiny_model

SIZE = (32, 32)


class Branches(nnx.Module):
    """A network of two convolutions of the image, whose second one joins above a ReLU."""

    def __init__(self, both: bool) -> None:
        self.one, self.two = (nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(i)) for i in range(2))
        self.both = both

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        y = tap("one", self.one(x))
        y = tap("scaled", 2 * y - 1)
        y = tap("relu", ops.relu(y))
        return tap("pooled", (y + self.two(x) if self.both else y).mean((1, 2)))


def _brightness(acts, images):
    return images.mean((1, 2, 3))


def stem(model: Model, target=None, size: tuple[int, int] = SIZE) -> str | None:
    made, _ = as_target(model, target, np.zeros((1, *size, 3), np.float32))
    return find_stem(model.network, made, size)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small_resnet", "bn1"),
        ("small_bottleneck", "bn1"),
        ("small_vgg", "features.0"),
        ("small_vgg_bn", "features.1"),
    ],
)
def test_of_torchvisions_networks(name: str, expected: str) -> None:
    model = from_module(network(name), mean=MEAN, std=STD)
    assert stem(model) == stem(model, lambda logits: logits[:, 0]) == expected


def test_of_images_so_small_that_the_first_convolution_is_one_product() -> None:
    assert stem(from_module(network("resnet18"), mean=MEAN, std=STD), size=(16, 16)) == "bn1"


def test_of_networks_of_ones_own() -> None:
    assert stem(from_module(Branches(False), input_size=SIZE)) == "scaled"
    assert stem(from_module(Branches(True), input_size=SIZE)) is None  # the image goes around it
    assert stem(from_function(lambda x: x.mean((1, 2)), input_size=SIZE)) is None  # nothing to see inside


def test_ends_below_what_is_explained() -> None:
    model = from_module(Branches(False), input_size=SIZE)
    assert stem(model, objectives.channel("relu", 1)) == "scaled"
    assert stem(model, objectives.channel("scaled", 1)) == "one"
    assert stem(model, objectives.channel("one", 1)) is None


def test_there_is_none_where_scores_see_the_image() -> None:
    model = from_module(Branches(False), input_size=SIZE)
    assert stem(model, objectives.channel("relu", 1) + objectives.from_function(_brightness)) is None


def test_gradients_above_it_pulled_back_are_the_gradients() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(3, 16, 16, 3))
    target, index = as_target(model, [[0, 4]], x)
    size = x.shape[1:3]
    values = activations(model.network, x, ("conv1",))["conv1"]
    found = jax.jit(lambda v: stem_gradients(model.network, target, "conv1", v, index, size))(values)
    maps = jax.jit(lambda g: pull_to_images(model.network, "conv1", x, jnp.swapaxes(g, 0, 1)))(found)
    _, wanted, _ = gradients(model.network, target, x, index)
    np.testing.assert_allclose(jnp.swapaxes(maps, 0, 1), wanted, atol=1e-6 * float(jnp.abs(wanted).max()))
