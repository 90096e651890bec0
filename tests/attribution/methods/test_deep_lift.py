"""DeepLIFT: completeness on every network, and Captum on networks where it is right."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxviz as jv
from jaxviz import ops
from jaxviz.attribution import deep_lift, input_x_gradient, probability
from jaxviz.models import from_module
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import Conv, Linear
from jaxviz.ops._rules.deep_lift import rescaled_max_pool, rescaled_relu
from tests.attribution import reference
from tests.attribution.networks import IMAGES, RESNET, relative
from tests.compilations import compilations
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize("name", ["mean", "black", "blur", "images"])
def test_contributions_add_up_on_a_resnet(name):
    baseline = random_images(2, 32, 32, 3, seed=5) if name == "images" else name
    found = deep_lift(RESNET, IMAGES, [[0, 3]], baseline=baseline)
    change = found.scores - found.extra["baseline_scores"]
    assert np.abs(change).min() > 0.01
    assert relative(found.maps.sum((2, 3, 4)) - change, change) < 1e-3
    np.testing.assert_allclose(found.delta, found.maps.sum((2, 3, 4)) - change, atol=1e-5)
    if name != "blur":
        images = {"mean": np.broadcast_to(RESNET.mean, IMAGES.shape), "black": 0 * IMAGES, "images": baseline}[name]
        np.testing.assert_allclose(found.extra["baseline_scores"], np.asarray(RESNET(images))[:, [0, 3]], atol=1e-4)


def test_targets_in_the_middle_and_not_linear_ones():
    for target in (jv.channel("layer1", [3, 5]), probability([[0, 1]])):
        found = deep_lift(RESNET, IMAGES, target, baseline="black")
        change = found.scores - found.extra["baseline_scores"]
        assert found.maps.shape == (2, 2, 32, 32, 3) and np.abs(change).min() > 1e-4
        assert relative(found.delta, change) < 1e-3
    one = deep_lift(RESNET, IMAGES, probability(1), baseline="black")
    np.testing.assert_allclose(one.maps, found.maps[:, 1], atol=1e-5 * np.abs(one.maps).max())


def test_multipliers_are_the_contributions_without_the_difference():
    found, multipliers = (deep_lift(RESNET, IMAGES, 1, multiply=m) for m in (True, False))
    difference = IMAGES - np.asarray(RESNET.mean)
    np.testing.assert_allclose(multipliers.maps * difference, found.maps, atol=1e-6 * np.abs(found.maps).max())
    np.testing.assert_allclose(multipliers.delta, found.delta, atol=1e-5)


@pytest.mark.full  # needs two passes that agree to the last bit
def test_an_image_that_is_its_own_baseline_has_the_gradient_as_multipliers():
    found = deep_lift(RESNET, IMAGES, 1, baseline=IMAGES, multiply=False)
    gradient = jv.attribution.saliency(RESNET, IMAGES, 1)
    np.testing.assert_allclose(found.maps, gradient.maps, atol=1e-5 * np.abs(gradient.maps).max())
    assert not np.any(deep_lift(RESNET, IMAGES, 1, baseline=IMAGES).maps)


def test_relu_by_hand():
    x, base = jnp.array([2.0, 2.0, -1.0, -1.0, 3.0, -3.0, 0.0]), jnp.array([1.0, -2.0, 3.0, -2.0, 3.0, -3.0, 0.0])
    y, pull = jax.vjp(rescaled_relu, x, base)
    np.testing.assert_array_equal(y, jax.nn.relu(x))
    np.testing.assert_allclose(pull(jnp.ones(7))[0], [1, 0.5, 0.75, 0, 1, 0, 0])


@pytest.mark.parametrize("window, stride, padding", [((2, 2), (2, 2), ((0, 0), (0, 0))), ((3, 3), (2, 2), ((1, 1), (1, 1)))])
@pytest.mark.parametrize("kind", ["normal", "ties", "zeros"])
def test_max_pool_gives_away_what_changed(window, stride, padding, kind):
    rng = np.random.default_rng(0)
    x, base = rng.normal(size=(2, 2, 7, 8, 3)).astype(np.float32)
    if kind == "ties":  # few values, many windows of zeros in both
        x, base = (np.maximum(np.round(2 * v) - 1, 0).astype(np.float32) for v in (x, base))
    if kind == "zeros":
        x, base = np.zeros_like(x), np.zeros_like(base)
    options = {"window": window, "stride": stride, "padding": padding}
    y, pull = jax.vjp(lambda x: rescaled_max_pool(x, base, **options), x)
    exact = lambda x: ops.max_pool(x, **options)  # noqa: E731
    np.testing.assert_array_equal(y, exact(x))
    g = rng.normal(size=y.shape).astype(np.float32)
    multipliers = np.asarray(pull(g)[0])
    changes = np.asarray((y - exact(base)) * g)
    np.testing.assert_allclose((multipliers * (x - base)).sum((1, 2)), changes.sum((1, 2)), atol=1e-4)
    # Each window alone: its multipliers lie between 0 and the gradient.
    for i, j in ((0, 0), (1, 2), (2, 1)):
        here = np.zeros_like(g)
        here[:, i, j] = 1
        alone = np.asarray(pull(here)[0])
        assert alone.min() >= 0 and alone.max() <= 1 + 1e-6
        np.testing.assert_allclose((alone * (x - base)).sum((1, 2)), (y - exact(base))[:, i, j], atol=1e-6)
    if kind == "zeros":  # nothing has changed: the gradient, to the first of equals
        np.testing.assert_array_equal(multipliers, jax.vjp(exact, x)[1](g)[0])


def test_a_linear_network_has_input_x_gradient():
    class Line(nnx.Module):
        def __init__(self):
            self.conv, self.fc = Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)), Linear(4, 2, rngs=nnx.Rngs(1))

        def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
            return tap("fc", self.fc(tap("mean", self.conv(x, ops).mean((1, 2))), ops))

    model, x = from_module(Line(), mean=[0.5] * 3, std=[0.2] * 3, input_size=(8, 8)), random_images(2, 8, 8, 3)
    expected = input_x_gradient(model, x, [0, 1], baseline="black").maps
    np.testing.assert_allclose(deep_lift(model, x, [0, 1], baseline="black").maps, expected, atol=1e-7)


def test_chunks_batches_and_compilations():

    x = random_images(5, 16, 16, 3)
    whole = deep_lift(tiny_model(), x, [0, 1, 2, 3, 4], chunk=8)
    alone = deep_lift(tiny_model(), x[3:4], 3, chunk=8)
    scale = np.abs(whole.maps).max()
    np.testing.assert_allclose(deep_lift(tiny_model(), x, [0, 1, 2, 3, 4], chunk=2).maps, whole.maps, atol=1e-6 * scale)
    np.testing.assert_allclose(alone.maps[0], whole.maps[3], atol=1e-6 * scale)
    # One baseline for all, run once, is the same as one for each.
    each = deep_lift(tiny_model(), x, [0, 1, 2, 3, 4], baseline=np.full_like(x, 0.5))
    np.testing.assert_allclose(each.maps, deep_lift(tiny_model(), x, [0, 1, 2, 3, 4], baseline=0.5).maps, atol=1e-6 * scale)
    other = tiny_model(1)
    with compilations() as compiled:
        deep_lift(other, random_images(5, 16, 16, 3, seed=1), 2, baseline="black", chunk=8)
    assert not compiled.names


def test_costs_one_forward_and_one_backward_pass_and_the_baseline():
    from jaxviz.attribution._methods.deep_lift import DeepLift
    from jaxviz.attribution._target import ClassTarget

    x = random_images(8, 32, 32, 3)
    program = DeepLift(RESNET.network, ClassTarget(False), jnp.zeros((1, 32, 32, 3)), True)
    items = {"images": x, "index": np.zeros((8, 1), np.int32)}
    flops = jax.jit(lambda p, i: p(i)).lower(program, items).cost_analysis()["flops"]
    forward = jax.jit(lambda m, x: jv.models.forward(m, x)).lower(RESNET.network, x).cost_analysis()["flops"]
    assert flops < 2.5 * forward


def test_lowers_everywhere():
    from jaxviz.attribution._methods.deep_lift import DeepLift
    from jaxviz.attribution._target import ClassTarget
    from tests.contracts import check_lowers

    program = DeepLift(RESNET.network, ClassTarget(True), jnp.zeros((1, 32, 32, 3)), True)
    check_lowers(lambda p, i: p(i), program, {"images": IMAGES, "index": np.zeros((2, 2), np.int32)}, gradient=False)


class Twin(nnx.Module):
    """What Captum's DeepLift can do: no module is used twice, and between max pooling and any ReLU is a convolution."""

    def __init__(self, module):
        def array(tensor):
            return jnp.asarray(tensor.detach().numpy())

        self.conv1 = Conv(3, 8, (3, 3), padding=((1, 1), (1, 1)), use_bias=True)
        self.conv2 = Conv(8, 12, (3, 3), stride=(2, 2), use_bias=True)
        self.conv3 = Conv(12, 8, (3, 3), padding=((1, 1), (1, 1)), use_bias=True)
        self.fc = Linear(200, 4)
        for ours, theirs in ((self.conv1, module[0]), (self.conv2, module[2]), (self.conv3, module[4])):
            ours.kernel[...], ours.bias[...] = array(theirs.weight).transpose(2, 3, 1, 0), array(theirs.bias)
        self.fc.kernel[...], self.fc.bias[...] = array(module[7].weight).T, array(module[7].bias)

    def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
        x = ops.relu(tap("conv1", self.conv1(x, ops)))
        x = ops.max_pool(tap("conv2", self.conv2(x, ops)), window=(2, 2), stride=(2, 2))
        x = tap("relu", ops.relu(tap("conv3", self.conv3(x, ops)))).transpose(0, 3, 1, 2)
        return tap("fc", self.fc(x.reshape(x.shape[0], -1), ops))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("baseline", [0.5, "images"])
def test_captum_where_it_is_right(batch, baseline):
    torch = pytest.importorskip("torch")
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 12, 3, stride=2),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(12, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(200, 4),
    ).eval()
    model = from_module(Twin(module), input_size=(22, 22))
    x = random_images(batch, 22, 22, 3)
    base = random_images(batch, 22, 22, 3, seed=1) if baseline == "images" else np.full_like(x, baseline)
    tensor = lambda v: torch.from_numpy(v.transpose(0, 3, 1, 2).copy())  # noqa: E731
    theirs, delta = attr.DeepLift(module).attribute(tensor(x), tensor(base), target=2, return_convergence_delta=True)
    assert np.abs(delta.numpy()).max() < 1e-5
    ours = deep_lift(model, x, 2, baseline=base if baseline == "images" else baseline)
    theirs = theirs.detach().numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(ours.maps, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("name, head", reference.NETWORKS)
def test_contributions_add_up_on_torchvisions_networks(name, head):
    pytest.importorskip("torch")
    model = reference.model_only(name, head)
    found = deep_lift(model, reference.images(2, 64, 64, 3), [[1, 4]], baseline="black")
    change = found.scores - found.extra["baseline_scores"]
    # Of scores, since a change may happen to be almost 0.
    assert np.max(np.abs(found.delta) / np.maximum(np.abs(change), 0.1 * np.abs(found.scores))) < 1e-3
