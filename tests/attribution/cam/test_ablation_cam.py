"""Ablation-CAM: equal to pytorch-grad-cam, by definition, in closed form where the score is linear in the layer."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import attribution as at
from jaxviz._errors import ArgumentError
from jaxviz.attribution._cam import ablation_cam as _ablation_cam
from jaxviz.attribution._cam.ablation_cam import AblationCam, LinearAblation
from jaxviz.attribution._target import as_target
from jaxviz.engine import make_mesh
from jaxviz.models import intervene
from tests.attribution.pgc import last_steps, pgc_map, quiet
from tests.attribution.reference import RESNET, assert_close, full, images, model_only, pair
from tests.compilations import compilations
from tests.contracts import PLATFORMS
from tests.tiny import random_images, tiny_model


def classes_of(model, x, ranks) -> np.ndarray:
    return np.take_along_axis(np.asarray(model(x)).argsort(-1), np.asarray(ranks)[:, None], 1)[:, 0]


@pytest.mark.parametrize(
    "name, head, layer, path",
    [
        ("small_resnet", None, "layer1", "layer1.0"),
        ("small_vgg_bn", None, "features.6", "features.6"),
        full("resnet18", None, "layer1", "layer1.1"),
        full("vgg16_bn", 64, "features.6", "features.6"),
    ],
)
def test_equal_to_pgc(name: str, head: int | None, layer: str, path: str) -> None:
    module, model = pair(name, head)
    x = images(2, 32, 32, 3, seed=1)
    classes = classes_of(model, x, (-1, -2))
    assert (np.take_along_axis(np.asarray(model(x)), classes[:, None], 1) > 0).all()
    quiet()
    expected = pgc_map("AblationCAM", module, path, x, classes, double=True)
    ours = at.ablation_cam(model, x, classes, layer=layer, resize=False)
    assert_close(last_steps(ours.maps, 32), expected)


@pytest.mark.parametrize("name, path", [("small_resnet", "layer4.0"), full("resnet18", "layer4.1")])
def test_closed_form_equals_pgc_whose_sign_turns_where_the_score_is_negative(name: str, path: str) -> None:
    module, model = pair(name)
    x = images(2, 64, 64, 3)
    classes = classes_of(model, x, (-1, 0))
    quiet()
    expected = pgc_map("AblationCAM", module, path, x, classes)
    found = {}
    for convention in (None, "published", "pytorch-grad-cam"):
        found[convention] = at.ablation_cam(model, x, classes, layer="layer4", resize=False, relu=False, convention=convention)
        if convention is not None:
            assert_close(last_steps(found[convention].maps, 64), expected, convention)
    scores = found[None].scores
    assert scores[0] > 0 > scores[1]
    assert_close(found["published"].maps, found[None].maps / scores[:, None, None])


@pytest.mark.parametrize("name", RESNET)
def test_pgc_fills_that_drift_from_channel_to_channel(name: str) -> None:
    module, model = pair(name)
    x = images(2, 32, 32, 3, seed=1)
    classes = classes_of(model, x, (-1, -1))
    quiet()
    # Below a convolution nothing cuts the fills off, so that the channels of a batch differ by their place in it.
    expected = pgc_map("AblationCAM", module, "bn1", x, classes)
    ours = at.ablation_cam(model, x, classes, layer="bn1", resize=False, convention="pytorch-grad-cam")
    assert_close(last_steps(ours.maps, 32), expected)


def by_loop(model, image: np.ndarray, classes: list[int], layer: str) -> np.ndarray:
    """Return what scores (K,) lose without each channel (C,), one after the other: (K, C)."""
    whole = np.asarray(model(image[None]))[0, classes]
    lost = []
    for c in range(model.layers(image.shape[0])[layer].channels):
        found, _ = intervene(model.network, image[None], ("output",), {layer: lambda value, c=c: value.at[..., c].set(0)})
        lost.append(whole - np.asarray(found["output"])[0, classes])
    return np.stack(lost, axis=1)


@pytest.mark.parametrize("layer", ["relu", "conv2", "relu_1"])
@pytest.mark.parametrize("options", [{}, {"chunk": 3, "mesh": make_mesh(2)}])
def test_weights_by_definition_whatever_the_chunk(layer: str, options: dict) -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    found = at.ablation_cam(model, x, [[3, 0]], layer=layer, **options).extra["weights"]
    for i in range(2):
        np.testing.assert_allclose(found[i], by_loop(model, x[i], [3, 0], layer), atol=1e-5)


@pytest.mark.parametrize("name", RESNET)
def test_closed_form_equals_running_the_tail_again(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model, x = model_only(name), images(2, 64, 64, 3)
    closed = at.ablation_cam(model, x, [[1, 6]])
    with monkeypatch.context() as patch:
        patch.setattr(_ablation_cam, "tail_above", lambda *_: type("Tail", (), {"affine": False}))
        again = at.ablation_cam(model, x, [[1, 6]])
    assert_close(closed.extra["weights"], again.extra["weights"])
    assert_close(closed.maps, again.maps)


def convolutions(fn, *args) -> int:
    """Return how many convolutions a compiled program keeps."""
    return jax.jit(fn).lower(*args).compile().as_text().count("convolution(")


def test_only_what_lies_above_the_layer_runs_again() -> None:
    model, x = tiny_model(), jnp.asarray(random_images(1, 16, 16, 3))
    target, index = as_target(model, 1, x)
    items = {"images": x, "index": jnp.asarray(index)}
    counts = []
    for layer, channels in (("conv1", 8), ("relu", 8), ("conv2", 12)):
        program = AblationCam(model.network, target, layer, channels, True, True, None)
        fixed = program.start(items)
        counts.append(convolutions(lambda p, *rest: p.step(*rest), program, items, fixed, jnp.arange(4), jnp.ones(4)))
    assert counts == [1, 1, 0]
    program = LinearAblation(model.network, target, "relu_1", True, True, None)
    assert str(jax.make_jaxpr(lambda p, i: p(i))(program, items)).count("conv_general_dilated[") == 2


def test_one_program_for_all() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    for layer in ("relu", "relu_1"):
        at.ablation_cam(model, x, 1, layer=layer)
    with compilations() as compiled:
        for layer in ("relu", "relu_1"):
            at.ablation_cam(tiny_model(seed=3), 1 - x, [2, 4], layer=layer)
    assert not compiled.names


def test_a_score_of_zero_is_harmless() -> None:
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    nothing = lambda logits: logits[:, 0] * 0  # noqa: E731
    for convention in (None, "published", "pytorch-grad-cam"):
        found = at.ablation_cam(model, x, nothing, convention=convention)
        assert set(found.diagnosis) == {"zero everywhere"}
    scores = np.asarray(model(x))[:, 1]
    near = at.ablation_cam(model, x[:1], _shifted(float(scores[0])), relu=False)
    assert_close(near.maps, at.ablation_cam(model, x[:1], 1, relu=False).maps)  # the loss does not depend on the score's zero


def _shifted(by: float):
    return lambda logits: logits[:, 1] - by


@pytest.mark.parametrize("make", [AblationCam, LinearAblation])
def test_lowers_for_every_platform(make) -> None:
    model, x = tiny_model(), jnp.asarray(random_images(2, 16, 16, 3))
    target, index = as_target(model, [[0, 1]], x)
    items = {"images": x, "index": jnp.asarray(index)}
    sizes = (8,) if make is AblationCam else ()
    program = make(model.network, target, "relu" if sizes else "relu_1", *sizes, True, True, "pytorch-grad-cam")

    def run(program, items):
        if not sizes:
            return program(items)
        fixed = program.start(items)
        return program.finish(items, fixed, program.step(items, fixed, jnp.arange(8), jnp.ones(8)))

    assert jax.export.export(jax.jit(run), platforms=PLATFORMS)(program, items).platforms == PLATFORMS


def test_errors() -> None:
    model, x = tiny_model(), random_images(1, 16, 16, 3)
    with pytest.raises(ArgumentError, match="None, 'published' or 'pytorch-grad-cam'"):
        at.ablation_cam(model, x, convention="captum")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="name of one layer"):
        at.ablation_cam(model, x, layer=["relu", "relu_1"])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="does not depend on the layer"):
        at.ablation_cam(model, x, jv.channel("relu", 1))
