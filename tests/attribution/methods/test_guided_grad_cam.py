"""Guided Grad-CAM: equal to Captum, and the product of its two halves."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution as at
from jaxviz._errors import ArgumentError
from jaxviz.attribution._methods.guided_grad_cam import GuidedGradCam, nearest
from jaxviz.attribution._target import as_target
from tests.attribution.reference import agreed, assert_close, full, normalised, pair, per_pixel
from tests.contracts import PLATFORMS
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize(
    "name, head, layer, path",
    [
        ("small_resnet", None, "layer4", "layer4.0"),
        ("small_vgg", None, "features.20", "features.20"),
        full("resnet18", None, "layer4", "layer4.1"),
        full("vgg16", 64, "features.30", "features.30"),
    ],
)
def test_equal_to_captum(name: str, head: int | None, layer: str, path: str) -> None:
    captum = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name, head)
    x = agreed(name, head)
    classes = np.asarray(model(x)).argsort(-1)[:, -1]
    made = captum.GuidedGradCam(module, module.get_submodule(path))
    theirs = per_pixel(made.attribute(normalised(x), torch.from_numpy(classes)))
    assert_close(at.guided_grad_cam(model, x, classes, layer=layer, interpolation="nearest").maps, theirs)


def test_the_product_of_its_halves() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    for target in (3, [[0, 3]], None, at.probability(2)):
        ours = at.guided_grad_cam(model, x, target)
        product = at.guided_backprop(model, x, target).maps * at.grad_cam(model, x, target).maps[..., None]
        np.testing.assert_allclose(ours.maps, product, atol=1e-6)
        assert ours.layer == "relu_1" and not ours.spatial


@pytest.mark.parametrize("size", [(14, 28), (21, 23), (7, 10)])
def test_nearest_is_torchs(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    maps = random_images(2, 7, 10)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], size, mode="nearest")[:, 0]
    np.testing.assert_array_equal(nearest(jnp.asarray(maps), size), theirs.numpy())


def test_one_forward_pass_serves_both_halves() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(1, 64, 64, 3))
    target, index = as_target(model, 1, x)
    program = GuidedGradCam(model.network, target, ("relu_1",), "bilinear")
    items = {"images": x, "index": jnp.asarray(index)}
    text = jax.jit(lambda p, i: p(i)).lower(program, items).compile().as_text()
    assert text.count("convolution(") == 2 + 1  # two forwards, one backwards: the first one's gradient is a matrix product


def test_lowers_for_every_platform() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    target, index = as_target(model, [[0, 1]], x)
    program = GuidedGradCam(model.network, target, ("relu", "relu_1"), "nearest")
    items = {"images": x, "index": jnp.asarray(index)}
    assert jax.export.export(jax.jit(lambda p, i: p(i)), platforms=PLATFORMS)(program, items).platforms == PLATFORMS


def test_errors() -> None:
    with pytest.raises(ArgumentError, match="'bilinear' or 'nearest'"):
        at.guided_grad_cam(tiny_model(), random_images(1, 16, 16, 3), interpolation="cubic")  # type: ignore[arg-type]
