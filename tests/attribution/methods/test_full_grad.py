"""FullGrad: equal to pytorch-grad-cam, complete, and no loop over channels."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import attribution as at
from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz.attribution._methods.full_grad import FullGrad
from jaxviz.attribution._target import as_target
from tests.attribution.pgc import pgc_map
from tests.attribution.reference import NETWORKS, assert_close, images, pair
from tests.compilations import compilations
from tests.contracts import PLATFORMS, convolutions
from tests.models.reference import network
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize("name, head", NETWORKS)
def test_equal_to_pgc_and_complete(name: str, head: int | None) -> None:
    module, model = pair(name, head)
    x = images(2, 32, 32, 3)
    classes = np.asarray(model(x)).argsort(-1)[[0, 1], [-1, -3]]
    found = at.full_grad(model, x, classes, convention="pytorch-grad-cam")
    from_least = found.maps - found.maps.min((1, 2), keepdims=True)
    expected = pgc_map("FullGrad", module, [], x, classes)
    assert_close(from_least / (1e-7 + from_least.max((1, 2), keepdims=True)), expected)
    assert found.delta is not None and np.abs(found.delta).max() < 1e-4 * np.abs(found.scores).max()


def test_by_definition_one_channel_after_the_other() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(1, 16, 16, 3))
    module = model.module()
    mean, std = model.mean, model.std

    def score(image, after_conv2):
        z = jax.nn.relu(module.conv1((image - mean) / std, jv.ops.EXACT))  # type: ignore[attr-defined]
        z = jax.nn.relu(module.conv2(z, jv.ops.EXACT) + after_conv2)  # type: ignore[attr-defined]
        return module.fc(z.mean((1, 2)), jv.ops.EXACT)[0, 3]  # type: ignore[attr-defined]

    bias = np.random.default_rng(0).normal(size=12).astype(np.float32)
    module.conv2.bias[...] = jnp.asarray(bias)  # type: ignore[attr-defined]
    ours = at.full_grad(jv.models.from_module(module, mean=mean, std=std, input_size=(16, 16)), x, 3)
    on_image, on_conv2 = jax.grad(score, (0, 1))(x, jnp.zeros((1, 4, 4, 12)))

    def scaled(channel: np.ndarray) -> np.ndarray:
        size = np.abs(channel)
        scale = np.ptp(size)
        return np.asarray(jax.image.resize(jnp.asarray((size - size.min()) / (scale or 1)), (16, 16), "linear"))

    expected = sum(scaled(np.asarray((x - mean) * on_image)[0, ..., c]) for c in range(3))
    expected = expected + sum(scaled(bias[c] * np.asarray(on_conv2)[0, ..., c]) for c in range(12))
    assert_close(ours.maps[0], expected)


def test_the_scale_of_the_score_changes_nothing_but_under_pgc() -> None:
    model, x = tiny_model(), random_images(1, 16, 16, 3)
    whole = at.full_grad(model, x, lambda logits: logits[:, 1]).maps
    assert_close(at.full_grad(model, x, lambda logits: 1e-6 * logits[:, 1]).maps, whole)
    weaker = at.full_grad(model, x, lambda logits: 1e-6 * logits[:, 1], convention="pytorch-grad-cam").maps
    assert np.abs(weaker - whole).max() > 0.1


def test_k_targets_chunks_and_no_recompilation() -> None:
    model, x = tiny_model(), random_images(3, 16, 16, 3)
    many = at.full_grad(model, x, [[0, 3]])
    assert many.maps.shape == (3, 2, 16, 16) and many.delta is not None and many.delta.shape == (3, 2)
    for k, one in enumerate((0, 3)):
        np.testing.assert_allclose(at.full_grad(model, x, one, chunk=1).maps, many.maps[:, k], rtol=1e-4, atol=1e-4)
    with compilations() as compiled:
        at.full_grad(tiny_model(seed=1), 1 - x, [[4, 1]])
    assert not compiled.names


def test_a_target_in_the_middle() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    found = at.full_grad(model, x, jv.channel("relu", 2))
    assert found.maps.any() and found.delta is not None and np.abs(found.delta).max() < 1e-5


def test_one_backward_pass_and_a_resize_for_each_size_of_map() -> None:
    model = jv.models.from_module(network("small_resnet"))
    x = jnp.asarray(images(1, 64, 64, 3))
    target, index = as_target(model, 1, x)
    items = {"images": x, "index": jnp.asarray(index)}
    # 12 convolutions forwards, and backwards once each.
    assert convolutions(lambda p, i: p(i), FullGrad(model.network, target), items) == 2 * 12
    lowered = jax.jit(lambda p, i: p(i)).lower(FullGrad(model.network, target), items)
    forward = jax.jit(lambda m, i: jv.models.forward(m, i)).lower(model.network, x)
    assert lowered.cost_analysis()["flops"] < 3 * forward.cost_analysis()["flops"]


def test_lowers_for_every_platform() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    target, index = as_target(model, [[0, 1]], x)
    items = {"images": x, "index": jnp.asarray(index)}
    exported = jax.export.export(jax.jit(lambda p, i: p(i)), platforms=PLATFORMS)(FullGrad(model.network, target), items)
    assert exported.platforms == PLATFORMS


def test_errors() -> None:
    function, x = jv.models.from_function(lambda images: images.mean((1, 2))), random_images(1, 8, 8, 3)
    with pytest.raises(UnsupportedError, match="pure function"):
        at.full_grad(function, x)
    with pytest.raises(ArgumentError, match="None or 'pytorch-grad-cam'"):
        at.full_grad(tiny_model(), random_images(1, 16, 16, 3), convention="max")  # type: ignore[arg-type]
