"""Integrated gradients against Captum's, their completeness, and what they cost."""

from __future__ import annotations

import copy
import dataclasses

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz import attribution, engine, objectives
from jaxviz._errors import ArgumentError
from jaxviz.attribution import integrated_gradients
from jaxviz.attribution._methods.integrated_gradients import RULES, path_program, quadrature
from jaxviz.attribution._target import as_target
from jaxviz.models import from_function, from_module
from jaxviz.models._taps import no_tap
from jaxviz.ops import EXACT
from tests.attribution.kinks import assert_images_close
from tests.attribution.reference import NETWORKS, RESNET, RESNETS, assert_close, images, nhwc, normalised, pair
from tests.compilations import compilations
from tests.contracts import convolutions
from tests.tiny import random_images, tiny_model

CLASSES = np.array([3, 7, 1])
CAPTUM = {
    "gauss_legendre": "gausslegendre",
    "trapezoid": "riemann_trapezoid",
    "riemann_left": "riemann_left",
    "riemann_right": "riemann_right",
    "riemann_middle": "riemann_middle",
}


def captum_of(module, x: np.ndarray, base: np.ndarray | None, rule: str, steps: int, multiply: bool = True):
    attr = pytest.importorskip("captum.attr")
    import torch

    method = attr.IntegratedGradients(module, multiply_by_inputs=multiply)
    baselines = 0 if base is None else normalised(base)
    maps, delta = method.attribute(
        normalised(x),
        baselines,
        torch.from_numpy(CLASSES[: len(x)]),
        n_steps=steps,
        method=CAPTUM[rule],
        return_convergence_delta=True,
        internal_batch_size=8,
    )
    return nhwc(maps), delta.detach().numpy()


@pytest.mark.parametrize("rule", RULES)
def test_quadrature_integrates(rule: str) -> None:
    for steps in (2, 7, 50):
        points, weights = quadrature(rule, steps)  # type: ignore[arg-type]
        assert points.shape == weights.shape == (steps,) and points.dtype == np.float64
        assert abs(weights.sum() - 1) < 1e-12
        assert points.min() >= 0 and points.max() <= 1 and np.all(np.diff(points) > 0)
    centred = rule not in ("riemann_left", "riemann_right")
    assert abs((weights * points).sum() - 0.5) < (1e-12 if centred else 0.0101)
    error = abs((weights * np.exp(points)).sum() - (np.e - 1))
    assert error < {"gauss_legendre": 1e-14, "trapezoid": 1e-4, "riemann_middle": 1e-4}.get(rule, 0.02)


def test_captums_trapezoid_adds_up_to_less() -> None:
    points, weights = quadrature("trapezoid", 50, "captum")
    assert abs(weights.sum() - 0.98) < 1e-12
    np.testing.assert_array_equal(points, quadrature("trapezoid", 50)[0])


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_equals_captum(name: str, head: int | None) -> None:
    pytest.importorskip("torch")
    module, model = pair(name, head)
    x = images(3, 32, 32, 3)
    ours = integrated_gradients(model, x, CLASSES, steps=3)
    theirs, delta = captum_of(module, x, None, "gauss_legendre", 3)
    assert_images_close(ours.maps, theirs, name)
    np.testing.assert_allclose(ours.delta, delta, atol=0.01 * np.abs(ours.scores).max())


def mean_pool(x: jax.Array, *, window: tuple[int, int], stride: tuple[int, int], padding) -> jax.Array:
    sides = (1, *window, 1), (1, *stride, 1), ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, *sides) / np.prod(window)


class Smooth(nnx.Module):
    """A network with softplus for ReLU and average for max pooling; its weights stay data of the program."""

    def __init__(self, network: nnx.Module) -> None:
        self.network = network

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        return tap("out", self.network(x, ops=dataclasses.replace(ops, relu=jax.nn.softplus, max_pool=mean_pool)))


@pytest.mark.full
@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_fifty_steps_equal_captum_in_float32_where_no_gradient_jumps(name: str, head: int | None) -> None:
    """With softplus for ReLU and average for max pooling in both: no step meets a kink within rounding."""
    torch = pytest.importorskip("torch")
    module, model = pair(name, head)
    smooth = copy.deepcopy(module)
    for path, part in module.named_modules():
        if isinstance(part, torch.nn.ReLU):
            smooth.set_submodule(path, torch.nn.Softplus())
        if isinstance(part, torch.nn.MaxPool2d):
            smooth.set_submodule(path, torch.nn.AvgPool2d(part.kernel_size, part.stride, part.padding))
    ours = from_module(Smooth(model.module()), mean=model.mean, std=model.std, input_size=(32, 32))
    x, options = images(2, 32, 32, 3), {"steps": 50, "baseline": tuple(np.asarray(model.mean))}
    assert_close(np.asarray(ours(x)), smooth(normalised(x)).detach().numpy())
    found = integrated_gradients(ours, x, CLASSES[:2], **options)
    for one, theirs in zip(found.maps, captum_of(smooth, x, None, "gauss_legendre", 50)[0], strict=True):
        assert_close(one, theirs, name)
    assert np.abs(found.delta / found.scores).max() < 1e-3


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_fifty_steps_equal_captum_in_float64(name: str, head: int | None) -> None:
    """On the networks as they are. In float32 some ReLUs of millions take the other side of 0, in Captum as in jaxviz."""
    pytest.importorskip("torch")
    module, model = pair(name, head)
    double, x = copy.deepcopy(module).double(), images(1, 32, 32, 3)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), model)
        ours = integrated_gradients(wide, x, CLASSES[:1], steps=50)
    assert ours.maps.dtype == np.float64
    theirs, delta = captum_of(double, x.astype(np.float64), None, "gauss_legendre", 50)
    scores = double(normalised(x.astype(np.float64))).detach().numpy()[:, CLASSES[0]]
    np.testing.assert_allclose(ours.scores, scores, rtol=1e-10)
    assert_close(ours.maps, theirs, name, tolerance=1e-6)
    np.testing.assert_allclose(ours.delta, delta, atol=1e-6 * np.abs(ours.scores).max())


@pytest.mark.parametrize("name", RESNET)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_equals_captum(rule: str, name: str) -> None:
    pytest.importorskip("torch")
    module, model = pair(name)
    x, base = images(3, 32, 32, 3), images(3, 32, 32, 3, seed=1)
    options = {"rule": rule, "steps": 4, "baseline": base}
    theirs, _ = captum_of(module, x, base, rule, 4)
    assert_images_close(integrated_gradients(model, x, CLASSES, convention="captum", **options).maps, theirs, rule)
    ours = integrated_gradients(model, x, CLASSES, **options).maps
    assert_images_close(ours, theirs / (0.75 if rule == "trapezoid" else 1), f"{rule}, weights that add up to 1")


@pytest.mark.parametrize("name", RESNET)
def test_without_the_product_equals_captum(name: str) -> None:
    pytest.importorskip("torch")
    module, model = pair(name)
    x = images(3, 32, 32, 3)
    theirs, _ = captum_of(module, x, None, "gauss_legendre", 4, multiply=False)
    ours = integrated_gradients(model, x, CLASSES, steps=4, multiply=False)
    assert_images_close(ours.maps * np.asarray(model.std), theirs)
    np.testing.assert_allclose(ours.delta, integrated_gradients(model, x, CLASSES, steps=4).delta, atol=1e-5)


@pytest.mark.parametrize("name", RESNETS)
def test_complete_on_resnets(name: str) -> None:
    """The gradient jumps at thousands of kinks on the path, so the error falls as 1 / steps by any rule."""
    pytest.importorskip("torch")
    model = pair(name)[1]
    x = images(2, 32, 32, 3)[1:]
    found = integrated_gradients(model, x, steps=512, rule="trapezoid", chunk=32)
    base = np.broadcast_to(np.asarray(model.mean), x.shape).copy()
    change = found.scores - np.asarray(model(base))[0, found.classes]
    np.testing.assert_allclose(found.delta, found.maps.sum((1, 2, 3)) - change, atol=1e-4)
    assert np.all(np.abs(found.delta) <= 1e-3 * np.abs(found.scores)), found.delta / found.scores


TINY, X = tiny_model(), random_images(3, 16, 16, 3)


def test_exact_on_a_quadratic() -> None:
    """Of f(x) = sum x^2 the map is x^2 - x'^2, by any rule that is exact for straight lines."""
    model = from_function(_squares)
    for rule in ("gauss_legendre", "trapezoid", "riemann_middle"):
        found = integrated_gradients(model, X, 0, baseline=0.25, steps=3, rule=rule)  # type: ignore[arg-type]
        np.testing.assert_allclose(found.maps, X**2 - 0.0625, atol=1e-5)
        assert np.abs(found.delta / found.scores).max() < 1e-6


def _squares(x: jax.Array) -> jax.Array:
    return (x**2).sum((1, 2, 3))[:, None]


def test_chunks_and_company_change_nothing() -> None:
    whole = integrated_gradients(TINY, X, [[0, 4]], steps=30, chunk=96)
    largest = np.abs(whole.maps).max()
    for chunk in (7, 24):
        found = integrated_gradients(TINY, X, [[0, 4]], steps=30, chunk=chunk)
        assert np.abs(found.maps - whole.maps).max() <= 1e-6 * largest
    alone = integrated_gradients(TINY, X[1:2], [[0, 4]], steps=30)
    assert np.abs(alone.maps - whole.maps[1:2]).max() <= 1e-6 * largest


def test_k_targets_are_k_runs() -> None:
    many = integrated_gradients(TINY, X, [[0, 4]], steps=6)
    assert many.maps.shape == (3, 2, 16, 16, 3) and many.delta.shape == (3, 2)
    for k, one in enumerate((0, 4)):
        single = integrated_gradients(TINY, X, one, steps=6)
        assert_close(many.maps[:, k], single.maps, tolerance=1e-6)
        np.testing.assert_allclose(many.delta[:, k], single.delta, atol=1e-6)


def test_no_target_is_the_images_class_all_the_way() -> None:
    found = integrated_gradients(TINY, X, steps=6)
    top = np.asarray(TINY(X)).argmax(-1)
    np.testing.assert_array_equal(found.classes, top)
    assert_close(found.maps, integrated_gradients(TINY, X, top, steps=6).maps, tolerance=1e-6)


def test_other_steps_rules_images_and_classes_compile_nothing() -> None:
    integrated_gradients(TINY, X, 1, steps=32, baseline="white", chunk=24)
    other = tiny_model(1)
    with compilations() as compiled:
        for steps, rule in ((50, "gauss_legendre"), (100, "trapezoid"), (333, "riemann_left"), (1024, "riemann_middle")):
            integrated_gradients(other, X[::-1], 2, steps=steps, rule=rule, baseline="white", chunk=24)  # type: ignore[arg-type]
    assert not compiled.names


def lowered(steps: int, n: int = 2):
    """Return one step of the program of integrated gradients with a number of steps in all, 4 at a time."""
    target, index = as_target(TINY, [1] * n, X[:n])
    program = path_program(TINY, target, X.shape[1:3], *quadrature("gauss_legendre", steps))
    items = {"images": X[:n], "baseline": 0 * X[:n], "index": index}
    fixed = program.start(items)
    numbers, valid = np.arange(4, dtype=np.int32), np.ones(4, np.float32)
    return jax.jit(program.step), (items, fixed, numbers, valid)


def test_memory_and_work_of_a_step_do_not_depend_on_the_steps() -> None:
    few, many = (step.lower(*args).compile().memory_analysis() for step, args in (lowered(4), lowered(1000)))
    assert few.temp_size_in_bytes == many.temp_size_in_bytes
    assert few.argument_size_in_bytes == many.argument_size_in_bytes


def test_a_step_is_a_forward_and_a_backward_pass() -> None:
    step, args = lowered(8)
    assert convolutions(step, *args) == 2  # of two, that above the stem: one forward, one backward


@pytest.mark.parametrize("target", [[[0, 4]], objectives.channel("relu_1", [3, 5])])
def test_the_stem_changes_nothing(target) -> None:
    made, index = as_target(TINY, target, X)
    through = path_program(TINY, made, X.shape[1:3], *quadrature("gauss_legendre", 6))
    assert through.stem == "conv1"
    items = {"images": X, "baseline": 0 * X + 0.3, "index": index}
    ours, whole = (engine.reduce_images(one, items, 6) for one in (through, dataclasses.replace(through, stem=None)))
    for name in ("maps", "delta", "scores"):
        np.testing.assert_allclose(ours[name], whole[name], atol=1e-6 * np.abs(whole["maps"]).max() + 1e-7)


def test_lowers_everywhere() -> None:
    step, args = lowered(8)
    assert jax.export.export(step, platforms=("cpu", "cuda", "tpu"))(*args).platforms == ("cpu", "cuda", "tpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rule": "simpson"}, "gauss_legendre"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": 1, "rule": "trapezoid"}, "steps"),
        ({"convention": "torch"}, "captum"),
        ({"baseline": "grey"}, "baseline"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        attribution.attribute(TINY, X, "integrated_gradients", 1, **options)


def test_blank_maps_say_why() -> None:
    found = integrated_gradients(TINY, X, 1, baseline=X, steps=3)
    assert list(found.diagnosis) == ["zero everywhere"] * 3
