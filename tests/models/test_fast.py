"""Networks whose kernels are prepared for many steps."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from flax import nnx

from jaxviz.models import VGG, Model, Network, ResNet, calls_through_ops, from_function, from_module, hoist_kernels
from jaxviz.ops import GUIDED
from jaxviz.ops._conv.winograd_f4 import PreparedKernel
from tests.tiny import random_images

IMAGES = random_images(4, 48, 48, 3)


@pytest.fixture(scope="module")
def model() -> Model:
    return from_module(ResNet("basic", (1, 1, 1, 1), num_classes=7, rngs=nnx.Rngs(0)), input_size=(48, 48))


def kernels(model: Model | Network) -> list[str]:
    """Return the type of every convolution's kernel, and its shape."""
    module = nnx.merge(model.graphdef, model.state)
    found = [node.kernel.get_value() for _, node in nnx.iter_graph(module) if type(node).__name__ == "Conv"]
    return [f"{type(kernel).__name__} {kernel.shape[:2]}" for kernel in found]


def test_the_same_network_with_kernels_transformed_where_that_pays(model: Model) -> None:
    ready = hoist_kernels(model.network)
    assert kernels(ready).count("HoistedKernel (3, 3)") == 5  # of stride 1: two of the first stage, one of each of the others
    assert not any("Hoisted" in one for one in kernels(model))  # the given one is as it was
    assert calls_through_ops(ready)

    def both(network: Network, **options) -> list[jax.Array]:
        from jaxviz.models import forward

        scores, pull = jax.vjp(lambda x: forward(network, x, **options)[:, 3], IMAGES)
        return [scores, pull(np.ones(4, np.float32))[0]]

    for options in ({}, {"ops": GUIDED}):
        found, wanted = (jax.jit(lambda m: both(m, **options))(m) for m in (ready, model.network))  # noqa: B023
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-4 * np.abs(theirs).max())


def test_what_has_nothing_to_prepare_stays_as_it_is(model: Model) -> None:
    function = from_function(lambda x: x.mean((1, 2)), input_size=(48, 48))
    assert hoist_kernels(function.network) is function.network
    fast = model.fast()
    assert kernels(hoist_kernels(fast.network)) == kernels(fast)
    assert any(PreparedKernel.__name__ in one for one in kernels(fast))
    small = from_module(VGG("A", num_classes=3, rngs=None), input_size=(48, 48))
    assert kernels(hoist_kernels(small.network))[0].startswith("Array")  # three channels
