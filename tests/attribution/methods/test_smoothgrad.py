"""SmoothGrad, its square and VarGrad against Captum's NoiseTunnel and loops over the same noise, and what they cost."""

from __future__ import annotations

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import attribution, engine
from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz.attribution import integrated_gradients, smoothgrad, smoothgrad_squared, vargrad
from jaxviz.attribution._methods.noise_tunnel import as_inner
from jaxviz.attribution._methods.smoothgrad_programs import MeanGradient, Noisy, noisy
from jaxviz.attribution._target import as_target
from jaxviz.models import from_function
from jaxviz.ops import EXACT
from tests.attribution.kinks import assert_images_close
from tests.attribution.reference import assert_close, full, images, nhwc, normalised, pair
from tests.compilations import compilations
from tests.contracts import convolutions
from tests.tiny import random_images, tiny_model

TINY, X = tiny_model(), random_images(3, 16, 16, 3)
METHODS = {"smoothgrad": smoothgrad, "smoothgrad_sq": smoothgrad_squared, "vargrad": vargrad}
IDS = np.array([5, 9, 2], np.int32)


def drawn(x: np.ndarray, samples: int, noise: float = 0.15, seed: int = 0, ids: np.ndarray | None = None) -> np.ndarray:
    """Return the noisy images (samples, N, H, W, C) that the methods look at."""
    ids = np.zeros(len(x), np.int32) if ids is None else ids
    return np.asarray(
        noisy(jnp.asarray(x), jnp.asarray(ids), jnp.float32(noise), jnp.int32(seed), jnp.arange(samples, dtype=jnp.int32))
    )


def gradient(model, x: np.ndarray, target: int) -> np.ndarray:
    from jaxviz.models import forward

    return np.asarray(jax.grad(lambda x: forward(model.network, x)[:, target].sum())(jnp.asarray(x)))


INNER = ("saliency", "input_x_gradient", "guided_backprop")
TUNNELS = [
    ("small_resnet", "smoothgrad", "saliency"),
    ("small_resnet", "smoothgrad", "guided_backprop"),
    ("small_resnet", "smoothgrad_sq", "input_x_gradient"),
    ("small_resnet", "vargrad", "saliency"),
    *(full("resnet18", kind, inner) for kind in METHODS for inner in INNER),
]


@pytest.mark.parametrize(("name", "kind", "inner"), TUNNELS)
def test_equals_captums_noise_tunnel(monkeypatch: pytest.MonkeyPatch, name: str, kind: str, inner: str) -> None:
    """Over the noise that ours has drawn, given to Captum's."""
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = pair(name)
    x, samples = images(3, 32, 32, 3), 3
    noise = drawn(x, samples, ids=IDS) - x  # (samples, N, H, W, C)
    given = nchw(noise.swapaxes(0, 1).reshape(-1, 32, 32, 3) / std())
    monkeypatch.setattr(torch, "normal", lambda *args: given)
    single = {"saliency": attr.Saliency, "input_x_gradient": attr.InputXGradient, "guided_backprop": attr.GuidedBackprop}
    method = attr.NoiseTunnel(single[inner](module))
    theirs = method.attribute(normalised(x), nt_type=kind, nt_samples=samples, target=torch.tensor([3, 7, 1]))
    theirs = nhwc(theirs)
    ours = METHODS[kind](model, x, [3, 7, 1], inner=inner, samples=samples, absolute=inner == "saliency", ids=IDS)
    power = 0 if inner == "input_x_gradient" else 1 if kind == "smoothgrad" else 2
    assert_images_close(ours.maps, theirs / std() ** power, f"{kind} of {inner}")


def std() -> np.ndarray:
    from tests.models.reference import STD

    return np.asarray(STD, np.float32)


def nchw(x: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("inner", ["saliency", "integrated_gradients"])
def test_statistics_of_a_loop(inner: str) -> None:
    """Mean, mean of squares and variance, in float64, of maps of the noisy images one by one."""
    samples, options = 6, {"steps": 4, "baseline": "black"} if inner == "integrated_gradients" else {}
    seen = drawn(X, samples, noise=0.05)
    if inner == "saliency":
        maps = np.stack([gradient(TINY, x, 2) for x in seen]).astype(np.float64)
    else:
        inside = random_images(3, 16, 16, 3) * 0.4 + 0.3  # so that the noisy images are images, too
        seen = drawn(inside, samples, noise=0.05)
        maps = np.stack([integrated_gradients(TINY, x, 2, **options).maps for x in seen]).astype(np.float64)
    x = X if inner == "saliency" else inside
    common = {"inner": inner, "inner_options": options, "samples": samples, "noise": 0.05}
    assert_close(smoothgrad(TINY, x, 2, **common).maps, maps.mean(0), tolerance=2e-6)
    assert_close(smoothgrad_squared(TINY, x, 2, **common).maps, (maps**2).mean(0), tolerance=4e-6)
    assert_close(vargrad(TINY, x, 2, **common).maps, maps.var(0), tolerance=2e-5)


@pytest.mark.parametrize(
    ("inner", "options"), [("grad_cam", {"layer": "conv2", "relu": False}), ("layer_cam", {"layer": "relu", "resize": False})]
)
def test_around_class_activation_maps(inner: str, options: dict) -> None:
    """The mean and the variance of the maps of the noisy images one by one, of two targets, with the map's own axes."""
    samples = 5
    method = attribution.METHODS[inner]
    inside = X * 0.4 + 0.3
    maps = np.stack([method(TINY, x, [[2, 0]], **options).maps for x in drawn(inside, samples, noise=0.05)]).astype(np.float64)
    common = {"inner": inner, "inner_options": options, "samples": samples, "noise": 0.05}
    found = smoothgrad(TINY, inside, [[2, 0]], **common)
    assert found.maps.shape == maps.shape[1:] and found.layer == options["layer"]
    assert_close(found.maps, maps.mean(0), tolerance=4e-6)
    assert_close(vargrad(TINY, inside, [[2, 0]], **common).maps, maps.var(0), tolerance=4e-5)


def test_a_small_variance_of_large_maps_is_not_lost() -> None:
    """The gradient of 1000 x + x^2 / 2 is 1000 + x: its variance is the noise's, a ten-millionth of the mean square."""
    model = from_function(_steep)
    seen = drawn(X, 50, noise=0.3)
    found = vargrad(model, X, 0, samples=50, noise=0.3)
    np.testing.assert_allclose(found.maps, seen.astype(np.float64).var(0), rtol=2e-3)


def _steep(x: jax.Array) -> jax.Array:
    return (1000 * x + x**2 / 2).sum((1, 2, 3))[:, None]


def test_noise_is_normal_of_the_size_asked_for() -> None:
    noise = drawn(np.zeros((2, 32, 32, 3), np.float32), 20, noise=0.2, ids=np.array([0, 1], np.int32))
    assert abs(noise.std() - 0.2) < 0.002 and abs(noise.mean()) < 0.002
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.02  # of two images
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05  # of two samples


def test_no_noise_is_the_method_itself() -> None:
    plain = attribution.saliency(TINY, X, 1).maps
    np.testing.assert_allclose(smoothgrad(TINY, X, 1, samples=5, noise=0).maps, plain, atol=1e-6)
    assert list(vargrad(TINY, X, 1, samples=4, noise=0, chunk=3).diagnosis) == ["zero everywhere"] * 3


def test_the_class_is_that_of_the_clean_image() -> None:
    """Even under noise so strong that most noisy images are of another class."""
    top = np.asarray(TINY(X)).argmax(-1)
    for inner in ("saliency", "integrated_gradients"):
        options = {"inner": inner, "inner_options": {"steps": 2} if inner != "saliency" else None, "samples": 4, "noise": 2.0}
        found = smoothgrad(TINY, X, **options)
        np.testing.assert_array_equal(found.classes, top)
        assert_close(found.maps, smoothgrad(TINY, X, top, **options).maps, tolerance=1e-6)


def test_chunks_and_company_change_nothing() -> None:
    whole = vargrad(TINY, X, [[0, 4]], samples=20, chunk=60, ids=IDS)
    for chunk in (7, 24):
        found = vargrad(TINY, X, [[0, 4]], samples=20, chunk=chunk, ids=IDS)
        assert np.abs(found.maps - whole.maps).max() <= 1e-6 * np.abs(whole.maps).max()
    alone = vargrad(TINY, X[2:], [[0, 4]], samples=20, ids=IDS[2:])
    assert np.abs(alone.maps - whole.maps[2:]).max() <= 1e-6 * np.abs(whole.maps).max()
    other = vargrad(TINY, X[2:], [[0, 4]], samples=20, ids=[7])
    assert np.abs(other.maps - whole.maps[2:]).max() > 1e-2 * np.abs(whole.maps).max()


def test_k_targets_are_k_runs() -> None:
    many = smoothgrad(TINY, X, [[0, 4]], samples=4)
    assert many.maps.shape == (3, 2, 16, 16, 3)
    for k, one in enumerate((0, 4)):
        assert_close(many.maps[:, k], smoothgrad(TINY, X, one, samples=4).maps, tolerance=1e-6)


def test_other_counts_noise_seeds_and_statistics_compile_nothing() -> None:
    for method in METHODS.values():  # means have a program, the other two share one
        method(TINY, X, 1, samples=32, chunk=24, ids=IDS)
    other = tiny_model(1)
    with compilations() as compiled:
        for method in METHODS.values():
            method(other, X[::-1], 2, samples=50, noise=0.3, seed=4, ids=IDS, chunk=24)
    assert not compiled.names


def stepped(samples: int):
    target, index = as_target(TINY, 1, X)
    inner = as_inner("saliency", TINY, target, jnp.asarray(X), None).program
    program = Noisy(inner, jnp.int32(0), jnp.float32(0.1), jnp.int32(0), jnp.float32(samples), False)
    items = {"images": X, "index": index, "ids": IDS}
    return jax.jit(program.step), (items, program.start(items), np.arange(4, dtype=np.int32), np.ones(4, np.float32))


@pytest.mark.parametrize("ids", [None, IDS])
@pytest.mark.parametrize("inner", ["saliency", "guided_backprop"])
def test_means_through_the_stem_are_those_of_whole_gradients(inner: str, ids: np.ndarray | None) -> None:
    """Of absolute maps there is no such short cut: beside Captum in `test_equals_captums_noise_tunnel`."""
    target, index = as_target(TINY, [[0, 4]], X)
    items = {"images": X, "index": index} | ({} if ids is None else {"ids": ids})
    program = as_inner(inner, TINY, target, jnp.asarray(X), None).program
    numbers = jnp.float32(0.2), jnp.int32(3), jnp.float32(5)
    whole = engine.reduce_images(Noisy(program, jnp.int32(0), *numbers, False), items, 5)
    ours = engine.reduce_images(MeanGradient(TINY.network, target, *numbers, "conv1", program.ops), items, 5)
    found = smoothgrad(TINY, X, [[0, 4]], inner=inner, samples=5, noise=0.2, seed=3, ids=ids)
    for name in ("maps", "scores", "index"):
        np.testing.assert_allclose(ours[name], whole[name], atol=1e-6 * np.abs(whole["maps"]).max())
    np.testing.assert_array_equal(found.maps, ours["maps"])


def test_a_step_of_means_is_a_pass_above_the_stem_and_one_convolution_of_noise() -> None:
    target, index = as_target(TINY, 1, X)
    program = MeanGradient(TINY.network, target, jnp.float32(0.1), jnp.int32(0), jnp.float32(4), "conv1", EXACT)
    items = {"images": X, "index": index}
    args = items, program.start(items), np.arange(4, dtype=np.int32), np.ones(4, np.float32)
    assert convolutions(jax.jit(program.step), *args) == 3
    assert jax.export.export(jax.jit(program.step), platforms=("cpu", "cuda", "tpu"))(*args).platforms == ("cpu", "cuda", "tpu")


def test_a_step_is_a_forward_and_a_backward_pass_and_lowers_everywhere() -> None:
    step, args = stepped(8)
    assert convolutions(step, *args) == 4
    assert jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*args).platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"inner": "salience"}, "saliency"),
        ({"inner_options": {"steps": 3}}, "steps"),
        ({"inner": "grad_cam", "inner_options": {"layers": "conv2"}}, "layer, relu, resize"),
        ({"inner": "integrated_gradients", "inner_options": {"step": 3}}, "rule"),
        ({"samples": 0}, "samples"),
        ({"noise": -0.1}, "noise"),
        ({"seed": -1}, "seed"),
        ({"ids": [1, 2]}, "3 whole numbers"),
        ({"ids": [1.5, 2, 3]}, "whole"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        attribution.attribute(TINY, X, "smoothgrad", 1, **options)


def test_a_function_has_no_guided_backprop() -> None:
    with pytest.raises(UnsupportedError):
        smoothgrad(from_function(_steep), X, 0, inner="guided_backprop", samples=2)
