"""Relevance: conservation on every network, Captum where it is right, input x gradient, and each rule by hand."""

from __future__ import annotations

import copy
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxviz as jv
from jaxviz import ArgumentError, ops
from jaxviz.attribution import input_x_gradient, lrp, probability
from jaxviz.attribution._methods.lrp import Relevance, RuleName, _composite
from jaxviz.attribution._target import ClassTarget
from jaxviz.models import from_module
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import Conv
from tests import contracts
from tests.attribution import reference
from tests.attribution.networks import IMAGES, RESNET, OneLayer, relative
from tests.compilations import compilations
from tests.contracts import check_lowers
from tests.tiny import random_images, tiny_model


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z_plus", "alpha_beta", "flat", "epsilon_gamma_box"])
def test_relevance_is_conserved_through_skip_connections(rule):
    shared = lrp(RESNET, IMAGES, [[0, 3]], rule=rule)
    assert np.abs(shared.scores).min() > 0.05
    assert relative(shared.maps.sum((2, 3, 4)) - shared.scores, shared.scores) < 1e-3
    np.testing.assert_allclose(shared.delta, shared.maps.sum((2, 3, 4)) - shared.scores, atol=1e-5)


@pytest.mark.parametrize(
    "rule, residual",
    [("epsilon", "magnitude"), ("epsilon_plus_flat", "magnitude"), ("gamma", "contribution"), ("alpha_beta", "contribution")],
)
def test_what_biases_absorb_closes_the_balance(rule, residual):
    found = lrp(RESNET, IMAGES, [[0, 3]], rule=rule, bias="absorb", residual=residual)
    assert np.abs(found.extra["absorbed"]).min() > 1e-3  # there is something to account for
    assert relative(found.maps.sum((2, 3, 4)) + found.extra["absorbed"] - found.scores, found.scores) < 1e-4


@pytest.mark.full  # needs two programs that agree to the last bit
def test_lrp_0_is_input_x_gradient_on_a_resnet():
    found = lrp(RESNET, IMAGES, rule="epsilon", epsilon=0, bias="absorb")
    expected = input_x_gradient(RESNET, IMAGES)
    np.testing.assert_array_equal(found.scores, expected.scores)  # the values are the network's own, folded or not
    np.testing.assert_allclose(found.maps, expected.maps, atol=1e-5 * np.abs(expected.maps).max())


def test_a_large_epsilon_absorbs():
    small, large = (lrp(RESNET, IMAGES, 0, rule="epsilon", epsilon=e, bias="absorb") for e in (1e-6, 0.5))
    assert np.all(np.abs(large.maps.sum((1, 2, 3))) < 0.5 * np.abs(small.maps).sum((1, 2, 3)))
    assert relative(large.maps.sum((1, 2, 3)) + large.extra["absorbed"] - large.scores, large.scores) < 1e-4


def test_relevance_of_a_unit_in_the_middle():
    target = jv.channel("layer1", [3, 5])
    found = lrp(RESNET, IMAGES, target, rule="epsilon")
    assert found.maps.shape == (2, 2, 32, 32, 3) and np.abs(found.scores).min() > 1e-3
    assert relative(found.maps.sum((2, 3, 4)) - found.scores, found.scores) < 1e-3
    one = lrp(RESNET, IMAGES, jv.channel("layer1", 5), rule="epsilon")
    np.testing.assert_allclose(one.maps, found.maps[:, 1], atol=1e-5 * np.abs(one.maps).max())


def test_a_probability_says_how_far_it_is_from_conserving():
    found = lrp(tiny_model(), random_images(2, 16, 16, 3), probability(1))
    np.testing.assert_allclose(found.delta, found.maps.sum((1, 2, 3)) - found.scores, atol=1e-5)
    assert np.abs(found.delta).min() > 0.1  # of a probability of 0.2


def by_hand(kernel, offset, x, rule, **options):
    kernel, x = np.asarray(kernel, np.float32), np.asarray(x, np.float32)
    model = from_module(OneLayer(kernel, offset), mean=[0.5], std=[0.5], input_size=(1, len(kernel)))
    image = (x * 0.5 + 0.5).reshape(1, 1, -1, 1)
    return lrp(model, image, 0, rule=rule, **options).maps[0, 0, :, 0]


X, W = [0.5, -0.5, 1.0, 0.0], [2.0, 1.0, 0.6, 3.0]  # contributions 1, -0.5, 0.6 and 0


@pytest.mark.parametrize(
    "rule, offset, options, expected",
    [
        ("epsilon", 0.0, {"epsilon": 0.0}, [1, -0.5, 0.6, 0]),
        ("epsilon", 0.0, {"epsilon": 0.1}, np.array([1, -0.5, 0.6, 0]) * 1.1 / 1.2),
        ("epsilon", 0.4, {"epsilon": 0.0, "bias": "absorb"}, [1, -0.5, 0.6, 0]),
        ("epsilon", 0.42, {"epsilon": 0.0}, [1 + 0.2, -0.5 + 0.1, 0.6 + 0.12, 0]),
        ("z_plus", 0.0, {}, [1.1 / 1.6, 0, 1.1 * 0.6 / 1.6, 0]),
        ("z_plus", 0.4, {"bias": "absorb"}, [1.5 / 2, 0, 1.5 * 0.6 / 2, 0]),
        ("z_plus", 0.4, {}, [1.5 / 1.6, 0, 1.5 * 0.6 / 1.6, 0]),
        ("z_plus", -2.0, {"bias": "absorb"}, [0, -0.9 * 0.5 / 2.5, 0, 0]),
        ("z_plus", -2.0, {}, [0, -0.9, 0, 0]),
        ("gamma", 0.0, {"gamma": 0.5}, np.array([1.5, -0.5, 0.9, 0]) * 1.1 / 1.9),
        ("gamma", 0.1, {"gamma": 0.5, "bias": "absorb"}, np.array([1.5, -0.5, 0.9, 0]) * 1.2 / 2.05),
        ("gamma", -2.0, {"gamma": 0.5, "bias": "absorb"}, np.array([1, -0.75, 0.6, 0]) * -0.9 / (1.6 - 0.75 - 3)),
        ("alpha_beta", 0.0, {}, [2 * 1.1 / 1.6, -1.1, 2 * 1.1 * 0.6 / 1.6, 0]),
        ("alpha_beta", 0.0, {"alpha": 1.0, "beta": 0.0}, [1.1 / 1.6, 0, 1.1 * 0.6 / 1.6, 0]),
    ],
)
def test_rules_by_hand(rule, offset, options, expected):
    np.testing.assert_allclose(by_hand(W, offset, X, rule, **options), expected, rtol=1e-5, atol=1e-6)


def test_without_any_opposing_contribution_alpha_beta_keeps_all():
    np.testing.assert_allclose(by_hand([1.0, 2.0], 0.0, [1.0, 0.5], "alpha_beta"), [1, 1], rtol=1e-6)


def test_a_bias_without_allies_is_shared_among_all():
    # z = 3 - 1 - 0.5 and no positive contribution, so the z+ rule leaves all of it to the bias.
    np.testing.assert_allclose(by_hand([-2.0, 1.0], 3.0, [0.5, -0.5], "z_plus"), [1.5 * 2 / 3, 1.5 / 3], rtol=1e-6)
    np.testing.assert_allclose(by_hand([-2.0, 1.0], 3.0, [0.5, -0.5], "z_plus", bias="absorb"), [0, 0])


def test_an_input_of_nothing_but_zeros_has_nobody_to_share_a_bias_with():
    for rule in ("epsilon", "z_plus", "gamma", "alpha_beta"):
        np.testing.assert_array_equal(by_hand([1.0, -2.0], 0.5, [0.0, 0.0], rule), [0, 0])


class OneConvolution(nnx.Module):
    """A convolution with padding and a ReLU, then a sum, for the rules of the first convolution."""

    def __init__(self):
        self.conv = Conv(3, 4, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), use_bias=True, rngs=nnx.Rngs(0))
        self.conv.bias[...] = jnp.asarray([0.3, -0.2, 0.1, 0.4])

    def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
        x = tap("relu", ops.relu(tap("conv", self.conv(x, ops))))
        return tap("sum", x.reshape(x.shape[0], -1).sum(1, keepdims=True))


def test_z_box_and_flat_are_their_formulas():
    module = OneConvolution()
    mean, std = np.float32([0.4, 0.5, 0.6]), np.float32([0.2, 0.25, 0.3])
    model = from_module(module, mean=mean, std=std, input_size=(6, 6))
    x = random_images(1, 6, 6, 3)
    normalised = np.pad((x[0] - mean) / std, ((1, 1), (1, 1), (0, 0)))
    inside = np.pad(np.ones((6, 6, 3), np.float32), ((1, 1), (1, 1), (0, 0)))
    low, high = (np.pad(np.broadcast_to((v - mean) / std, (6, 6, 3)), ((1, 1), (1, 1), (0, 0))) for v in (0, 1))
    kernel, bias = np.asarray(module.conv.kernel[...]), np.asarray(module.conv.bias[...])
    box, flat = np.zeros((2, 8, 8, 3), np.float64)
    for i in range(3):
        for j in range(3):
            here = np.s_[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            for k in range(4):
                w = kernel[..., k]
                z = max((normalised[here] * w).sum() + bias[k], 0)
                parts = normalised[here] * w - low[here] * np.maximum(w, 0) - high[here] * np.minimum(w, 0)
                box[here] += parts / parts.sum() * z
                flat[here] += inside[here] / inside[here].sum() * z
    for rule, expected in (("z_box", box), ("flat", flat)):
        found = lrp(model, x, 0, rule=rule)
        np.testing.assert_allclose(found.maps[0], expected[1:7, 1:7], atol=1e-5)
        assert abs(found.delta[0]) < 1e-4


def lowered(rule, bias, k, platform="cpu"):
    numbers = {"epsilon": 1e-6, "gamma": 0.25, "alpha": 2.0, "beta": 1.0}
    program = Relevance(RESNET.network, ClassTarget(True), _composite(rule, numbers), bias, "contribution")
    traced = jax.jit(lambda p, i: p(i)).trace(program, {"images": IMAGES, "index": np.zeros((2, k), np.int32)})
    return traced.lower(lowering_platforms=(platform,))


def test_one_forward_pass_whatever_the_number_of_targets():
    forward = jax.jit(lambda m, x: jv.models.forward(m, x)).lower(RESNET.network, IMAGES)
    flops = {k: lowered("epsilon", "absorb", k).cost_analysis()["flops"] for k in (1, 2, 4)}
    one = forward.cost_analysis()["flops"]
    assert flops[1] < 2.4 * one  # forward and back, although every normalisation is folded
    assert flops[4] - flops[2] < 2 * 1.3 * one

    def convolutions(program) -> int:
        return program.as_text().count("stablehlo.convolution")

    # For a TPU, where 1 x 1 convolutions are convolutions too.
    layers = contracts.convolutions(lambda m, x: jv.models.forward(m, x), RESNET.network, IMAGES)
    assert layers == 7
    assert convolutions(lowered("epsilon", "absorb", 3, "tpu")) == 2 * layers
    # The sums of positive contributions, and back through the kernel and through its positive part; four times as much at the
    # first convolution, whose input has both signs.
    assert convolutions(lowered("epsilon_plus", "absorb", 3, "tpu")) == 4 * layers + 3
    assert convolutions(lowered("epsilon_plus", "share", 1, "tpu")) == 4 * layers + 3


def test_the_same_alone_in_chunks_and_in_any_batch():
    x = random_images(5, 16, 16, 3)
    whole = lrp(tiny_model(), x, [0, 1, 2, 3, 4], rule="z_plus", chunk=8)
    parts = lrp(tiny_model(), x, [0, 1, 2, 3, 4], rule="z_plus", chunk=2)
    alone = lrp(tiny_model(), x[3:4], 3, rule="z_plus")
    scale = np.abs(whole.maps).max()
    np.testing.assert_allclose(parts.maps, whole.maps, atol=1e-6 * scale)
    np.testing.assert_allclose(alone.maps[0], whole.maps[3], atol=1e-6 * scale)


def test_another_image_class_or_strength_compiles_nothing():
    lrp(tiny_model(), random_images(2, 16, 16, 3), 0, rule="epsilon_gamma_box")
    other = tiny_model(1)
    with compilations() as compiled:
        lrp(other, random_images(2, 16, 16, 3, seed=1), 3, rule="epsilon_gamma_box", epsilon=0.1, gamma=0.5)
    assert not compiled.names
    with compilations() as compiled:
        lrp(tiny_model(), random_images(2, 16, 16, 3), 0, rule="epsilon_plus")
    assert compiled.programs == 1, "another rule is another program"


def test_lowers_everywhere():

    numbers = {"epsilon": 1e-6, "gamma": 0.25, "alpha": 2.0, "beta": 1.0}
    items = {"images": IMAGES, "index": np.zeros((2, 2), np.int32)}
    for rule in ("epsilon_gamma_box", "epsilon_alpha2_beta1_flat"):
        program = Relevance(RESNET.network, ClassTarget(True), _composite(rule, numbers), "share", "magnitude")
        check_lowers(lambda p, i: p(i), program, items, gradient=False)


def test_every_name_is_a_rule_and_rules_of_ones_own():
    numbers = {"epsilon": 1e-6, "gamma": 0.25, "alpha": 2.0, "beta": 1.0}
    for name in get_args(RuleName):
        made = _composite(name, numbers)
        kinds = [type(rule).__name__ for rule in (made.conv, made.linear, made.first)]
        assert kinds[1] == "Epsilon" if name.startswith("epsilon") else kinds[0] == kinds[1]
        assert (kinds[2] == "ZBox") == name.endswith("box") and (kinds[2] == "Flat") == name.endswith("flat")
        assert kinds[0] == {"plus": "ZPlus", "alpha2": "AlphaBeta", "gamma": "Gamma"}.get(
            name.split("_")[1] if "_" in name else "", kinds[0]
        )
    model, x = tiny_model(), random_images(2, 16, 16, 3)
    own = ops.Composite(ops.gamma_rule(0.4), ops.epsilon_rule(1e-6), ops.z_box_rule())
    by_name = lrp(model, x, 0, rule="epsilon_gamma_box", gamma=0.4)
    np.testing.assert_allclose(lrp(model, x, 0, rule=own).maps, by_name.maps, atol=1e-9)
    np.testing.assert_allclose(lrp(model, x, 0, rule=ops.z_plus_rule()).maps, lrp(model, x, 0, rule="z_plus").maps, atol=1e-9)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rule": "epsilon_gama_box"}, "epsilon_gamma_box"),
        ({"rule": 3}, "A rule is"),
        ({"rule": "alpha_beta", "alpha": 3.0}, "alpha - beta = 1"),
        ({"bias": "drop"}, "bias"),
        ({"residual": "half"}, "residual"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"convention": "zennit"}, "convention"),
        ({"convention": "captum"}, "Under convention"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ArgumentError, match=message):
        lrp(tiny_model(), random_images(1, 16, 16, 3), 0, **options)


def captums(module, x, target, rules=None):
    import torch
    from captum.attr import LRP

    for part in module.modules():
        if rules and isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
            part.rule = rules()
    found = LRP(module).attribute(reference.normalised(x), target=torch.as_tensor(target))
    return reference.nhwc(found)


CAPTUM = [("vgg", "epsilon"), ("vgg_bn", "epsilon"), ("vgg", "gamma"), ("vgg", "z_plus")]


@pytest.mark.parametrize(
    "name, head, rule",
    [
        *(("small_" + name, None, rule) for name, rule in CAPTUM[1:]),
        *(reference.full(name.replace("vgg", "vgg16"), 64, rule) for name, rule in CAPTUM),
    ],
)
def test_captum_on_vgg(name, head, rule):
    pytest.importorskip("captum")
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, GammaRule

    module, model = reference.pair(name, head)
    # Captum's rules for signed weights divide by almost 0 where inputs are negative: images brighter than the mean.
    x = reference.agreed(name, head, low=0.0 if rule == "epsilon" else 0.65)
    peer = {"epsilon": None, "gamma": GammaRule, "z_plus": Alpha1_Beta0_Rule}[rule]
    theirs = captums(copy.deepcopy(module), x, [3, 5], peer)
    ours = lrp(model, x, [3, 5], rule=rule, convention="captum", epsilon=1e-9)
    reference.assert_close(ours.maps, theirs, f"{name} {rule}")
    if name.endswith("_bn"):  # so small an epsilon gives the same whether normalisations are folded or not
        published = lrp(model, x, [3, 5], rule=rule, bias="absorb", epsilon=1e-9)
        reference.assert_close(published.maps, theirs, f"{name} {rule}, published")


@pytest.mark.parametrize("name", reference.RESNETS)
def test_conservation_on_torchvisions_resnets(name):
    pytest.importorskip("torch")
    model = reference.model_only(name)
    x = reference.images(2, 64, 64, 3)
    found = lrp(model, x, rule="epsilon" if name in ("small_bottleneck", "resnet50") else "epsilon_gamma_box")
    assert relative(found.maps.sum((1, 2, 3)) - found.scores, found.scores) < 1e-3
    # Without any bias, even where biases absorb.
    zeroed = model.with_state(without_biases(model.state))
    found = lrp(zeroed, x, rule="epsilon", epsilon=1e-9, bias="absorb")
    assert relative(found.maps.sum((1, 2, 3)) - found.scores, found.scores) < 1e-3


def without_biases(state):
    zero = lambda path, leaf: leaf * 0 if any(name in str(path[-2:]) for name in ("'bias'", "'mean'")) else leaf  # noqa: E731
    made = jax.tree_util.tree_map_with_path(zero, state)
    changed = sum(not np.array_equal(a, b) for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(state), strict=True))
    assert changed > 20
    return made
