"""Networks computed anew only around a patch, against the whole network on images with the patch put in."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz.models import (
    VGG,
    Model,
    Network,
    ResNet,
    activations,
    changed_activations,
    from_function,
    from_module,
    maps_around_patches,
)
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import Conv, MaxPool
from jaxviz.ops import EXACT
from jaxviz.ops._patches import Axis
from tests.tiny import random_images


class Mixed(nnx.Module):
    """Uneven strides, paddings, dilations and windows, and a sum of two branches that see different pixels."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = Conv(3, 6, (4, 3), stride=(3, 2), padding=((2, 0), (0, 3)), use_bias=True, rngs=rngs)
        self.pool = MaxPool((3, 2), (1, 1), ((1, 1), (0, 1)))
        self.left = Conv(6, 6, (3, 3), padding=((2, 2), (2, 2)), dilation=(2, 2), rngs=rngs)
        self.right = Conv(6, 6, (1, 3), padding=((0, 0), (0, 2)), groups=2, rngs=rngs)
        self.last = Conv(6, 4, (1, 1), stride=(2, 2), rngs=rngs)

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        x = tap("stem", ops.relu(self.stem(x, ops)))
        x = tap("pool", self.pool(x, ops))
        left, right = tap("left", self.left(x, ops)), tap("right", self.right(x, ops))
        x = tap("sum", ops.add(left, right))
        return tap("last", self.last(x, ops))


class Untapped(Mixed):
    """What the pooling sees has no name."""

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        return tap("pool", self.pool(ops.relu(self.stem(x, ops)), ops))


class Own(Mixed):
    """A sum of its own making, without `ops`."""

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        x = tap("stem", self.stem(x, ops))
        return tap("sum", x + 1)


def model(kind: str) -> Model:
    rngs = nnx.Rngs(0)
    made = {
        "mixed": lambda: Mixed(rngs),
        "basic": lambda: ResNet("basic", (1, 2, 1, 1), num_classes=4, rngs=rngs),
        "bottleneck": lambda: ResNet("bottleneck", (2, 1, 1, 1), num_classes=4, rngs=rngs),
        "dilated": lambda: ResNet(
            "bottleneck", (1, 1, 1, 1), num_classes=4, replace_stride_with_dilation=(True, False, True), rngs=rngs
        ),
    }
    return from_module(made[kind](), mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4], input_size=(96, 80))


def both(network: Network, patch: tuple[int, int], places: list[list[list[int]]], names: tuple[str, ...], size=(96, 80)):
    """Return the layers' values by parts and by whole images, of versions of two images with patches at places (s, 2, 2)."""
    x, at = random_images(2, *size, 3), np.asarray(places, np.int32)
    patches = random_images(at.shape[0] * 2, *patch, 3, seed=1)
    around = maps_around_patches(network, patch, size, names)
    assert around is not None
    maps = jax.jit(lambda m, x: activations(m, x, around))(network, x)
    found = jax.jit(lambda m, *args: changed_activations(m, *args, names=names))(network, patches, at, maps, x)
    pasted = np.tile(x, (len(at), 1, 1, 1))
    for image, new, (i, j) in zip(pasted, patches, at.reshape(-1, 2), strict=True):
        image[i : i + patch[0], j : j + patch[1]] = new
    return found, jax.jit(lambda m, x: activations(m, x, names))(network, pasted)


CORNERS = [[[0, 0], [80, 64]], [[80, 0], [0, 64]], [[33, 41], [7, 60]], [[50, 1], [79, 63]]]


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        *(("mixed", patch) for patch in ((16, 16), (9, 13), (1, 1))),
        ("basic", (16, 16)),
        ("bottleneck", (9, 13)),
        ("dilated", (16, 16)),
    ],
)
def test_every_layer_is_that_of_the_whole_images(kind: str, patch: tuple[int, int]) -> None:
    made = model(kind)
    names = made.layers((96, 80)).names
    found, expected = both(made.network, patch, CORNERS, names)
    for name in names:
        scale = np.abs(expected[name]).max()
        assert np.abs(found[name] - expected[name]).max() <= 1e-5 * scale, name


def test_a_fast_network_stays_fast() -> None:
    """Prepared kernels compute the parts: what differs from the exact network is their rounding, and it does."""
    made = model("basic")
    exact, _ = both(made.network, (16, 16), CORNERS, ("layer1",))
    fast, _ = both(made.fast().network, (16, 16), CORNERS, ("layer1",))
    error = np.abs(exact["layer1"] - fast["layer1"]).max() / np.abs(exact["layer1"]).max()
    assert 0 < error <= 1e-4


@pytest.mark.full
def test_vgg_costs_a_fraction() -> None:
    """Of a window of a seventh of the side: where XLA counts, less than a third of the multiplications."""
    network = from_module(VGG("A", batch_norm=True, num_classes=4, rngs=nnx.Rngs(0)), input_size=(224, 224)).network
    names = ("features.28",)
    around = maps_around_patches(network, (32, 32), (224, 224), names)
    assert around is not None and "features.2" in around
    x, patches, at = np.zeros((1, 224, 224, 3), np.float32), np.zeros((4, 32, 32, 3), np.float32), np.zeros((4, 1, 2), np.int32)
    shapes = jax.eval_shape(lambda m, x: activations(m, x, around), network, x)
    part = jax.jit(lambda m, *args: changed_activations(m, *args, names=names)).lower(network, patches, at, shapes, x)
    whole = jax.jit(lambda m, x: activations(m, x, names)).lower(network, np.zeros((4, 224, 224, 3), np.float32))
    parts, wholes = (lowered.cost_analysis()["flops"] for lowered in (part, whole))
    assert parts < wholes / 3, (parts, wholes)


@pytest.mark.parametrize("kind", [Untapped, Own])
def test_networks_that_tell_too_little_are_computed_whole(kind: type) -> None:
    network = from_module(kind(nnx.Rngs(0)), input_size=(96, 80)).network
    assert maps_around_patches(network, (8, 8), (96, 80), ("output",)) is None


def test_nothing_is_gained_by_large_patches_or_of_functions() -> None:
    assert maps_around_patches(model("basic").network, (80, 70), (96, 80), ("output",)) is None
    assert maps_around_patches(from_function(lambda x: x.mean((1, 2))).network, (8, 8), (96, 80), ("output",)) is None


@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize(
    "ops",
    [[(3, 1, (1, 1), 1)], [(3, 2, (0, 1), 1)], [(2, 3, (0, 0), 1)], [(3, 1, (4, 4), 2), (3, 2, (1, 1), 1), (4, 3, (2, 0), 2)]],
)
def test_axis_holds_what_changes(window: int, ops: list) -> None:
    """Along a line: which outputs depend on a window, by sums of ones, at every place of the window."""
    size = 23
    for at in range(size - window + 1):
        axis, line = Axis(size, window), jnp.zeros(size).at[at : at + window].set(1)
        for k, stride, padding, dilation in ops:
            axis = axis.through(k, stride, padding, dilation)
            line = jax.lax.conv_general_dilated(
                line[None, None], jnp.ones((1, 1, k)), (stride,), [padding], rhs_dilation=(dilation,)
            )[0, 0]
        assert axis.size == len(line)
        changed, begin = np.flatnonzero(line), int(axis.start(jnp.int32(at)))
        assert 0 <= begin <= axis.size - axis.length
        assert all(begin <= place < begin + axis.length for place in changed)
