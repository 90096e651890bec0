"""Gradient methods against Captum, and against torch with ReLUs that follow the rule, for classes and units in the middle."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxviz as jv
from jaxviz import UnsupportedError
from jaxviz.attribution import deconvnet, guided_backprop, input_x_gradient, saliency
from jaxviz.attribution._methods.gradient import Gradient
from jaxviz.attribution._target import ClassTarget
from jaxviz.models import activations, from_function
from jaxviz.models._network import Network
from jaxviz.ops import DECONVNET, EXACT, GUIDED
from tests.attribution import reference
from tests.attribution.networks import IMAGES, RESNET
from tests.compilations import compilations
from tests.contracts import check_lowers
from tests.tiny import random_images, tiny_model

METHODS = {
    "Saliency": saliency,
    "InputXGradient": input_x_gradient,
    "GuidedBackprop": guided_backprop,
    "Deconvolution": deconvnet,
}
CLASSES = [3, 7]


def with_rule(module, rule):
    """Return a copy of a torch network all of whose ReLUs, called once or more, follow a rule backwards."""
    import torch

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            context.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(context, g):  # type: ignore[override]
            (x,) = context.saved_tensors
            return {"guided": g.clamp(min=0) * (x > 0), "deconvnet": g.clamp(min=0), "exact": g * (x > 0)}[rule]

    class Layer(torch.nn.Module):
        def forward(self, x):
            return Ruled.apply(x)

    def swap(part):
        for name, child in part.named_children():
            if isinstance(child, torch.nn.ReLU):
                setattr(part, name, Layer())
            else:
                swap(child)
        return part

    return swap(copy.deepcopy(module))


def gradient(module, x, score):
    """Return torch's gradient, per unit of images in [0, 1], of the sum over images of `score(what the network returns)`."""
    tensor = reference.normalised(x).requires_grad_()
    score(module(tensor)).sum().backward()
    return reference.per_pixel(tensor.grad)


@pytest.mark.parametrize("name, head", reference.NETWORKS)
def test_captum(name, head):
    attr = pytest.importorskip("captum.attr")
    import torch

    module, model = reference.pair(name, head)
    x = reference.agreed(name, head)
    tensor, classes = reference.normalised(x), torch.as_tensor(CLASSES)
    for peer, ours in METHODS.items():
        method = getattr(attr, peer)(copy.deepcopy(module))
        signed = {"abs": False} if peer == "Saliency" else {}
        theirs = method.attribute(tensor.clone().requires_grad_(), target=classes, **signed)
        theirs = reference.nhwc(theirs) if peer == "InputXGradient" else reference.per_pixel(theirs)
        found = ours(model, x, CLASSES)
        reference.assert_close(found.maps, theirs, f"{name} {peer}")
        reference.assert_close(found.scores, module(tensor).detach().numpy()[[0, 1], CLASSES], "scores")
    np.testing.assert_array_equal(saliency(model, x, CLASSES, absolute=True).maps, np.abs(saliency(model, x, CLASSES).maps))


RULED = [("small_resnet", None), ("small_vgg_bn", None), reference.full("resnet18", None), reference.full("vgg16_bn", 64)]


@pytest.mark.parametrize("name, head", RULED)
@pytest.mark.parametrize("rule, ours", [("guided", guided_backprop), ("deconvnet", deconvnet), ("exact", saliency)])
def test_torch_with_relus_that_follow_the_rule(name, head, rule, ours):
    """Without hooks, so that a module that is called twice, as in torchvision's blocks, is beyond doubt."""
    pytest.importorskip("torch")
    module, model = reference.pair(name, head)
    x = reference.agreed(name, head)
    theirs = gradient(with_rule(module, rule), x, lambda logits: logits[[0, 1], CLASSES])
    reference.assert_close(ours(model, x, CLASSES).maps, theirs, f"{name} {rule}")


@pytest.mark.parametrize("resnet, vgg, head", [("small_resnet", "small_vgg", None), reference.full("resnet18", "vgg16", 64)])
@pytest.mark.parametrize("rule, ours", [("guided", guided_backprop), ("deconvnet", deconvnet)])
def test_units_in_the_middle_against_a_network_cut_by_hand(rule, ours, resnet, vgg, head):
    torch = pytest.importorskip("torch")
    module, model = reference.pair(resnet)
    x = reference.agreed(resnet)
    m = with_rule(module, rule)
    cut = torch.nn.Sequential(m.conv1, m.bn1, m.relu, m.maxpool, m.layer1, m.layer2, m.layer3)
    theirs = gradient(cut, x, lambda acts: acts[:, 7].mean((1, 2)))
    reference.assert_close(ours(model, x, jv.channel("layer3", 7)).maps, theirs, "a channel of layer3")
    theirs = gradient(cut[:6], x, lambda acts: acts[:, 6, 3, 2])
    found = ours(model, x, jv.neuron("layer2", 6, y=3, x=2))
    reference.assert_close(found.maps, theirs, "a unit of layer2")

    module, model = reference.pair(vgg, head)
    x = reference.agreed(vgg, head)
    conv = {"vgg16": 17, "small_vgg": 8}[vgg]
    theirs = gradient(with_rule(module, rule).features[: conv + 1], x, lambda acts: acts[:, 9].mean((1, 2)))
    reference.assert_close(ours(model, x, jv.channel(f"features.{conv}", 9)).maps, theirs, "a convolution of VGG")


@pytest.mark.parametrize("rule, table", [("guided", GUIDED), ("deconvnet", DECONVNET), ("exact", EXACT)])
def test_windows_of_zeros_give_their_gradient_to_the_first_as_in_torch(rule, table):
    """A ReLU's zeros, then max pooling: deconvnet passes what arrives at them on, so which of the equals gets it shows."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2, 8, 10, 3)) - 1.2).astype(np.float32)
    g = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    _, pull = jax.vjp(lambda x: table.max_pool(table.relu(x), window=(2, 2), stride=(2, 2)), x)
    tensor = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    network = with_rule(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.MaxPool2d(2)), rule)
    out = network(tensor)
    assert (out == 0).float().mean() > 0.3  # windows of zeros only
    out.backward(torch.from_numpy(g.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(pull(g)[0], reference.nhwc(tensor.grad), atol=1e-6)


def flops(k: int, target: ClassTarget = ClassTarget(True), ops=EXACT) -> float:  # noqa: B008
    items = {"images": IMAGES, "index": np.zeros((len(IMAGES), k), np.int32)}
    return jax.jit(lambda p, i: p(i)).lower(Gradient(RESNET.network, target, ops), items).cost_analysis()["flops"]


def stem_gradient_flops() -> float:
    """Return the FLOPs of the first convolution's gradient: a loop over images and targets, of which one turn is counted."""

    def gradient(network: Network, images: np.ndarray) -> jax.Array:
        values, pull = jax.vjp(lambda x: activations(network, x, ("conv1",))["conv1"], images)
        return pull(jnp.ones_like(values))[0]

    return jax.jit(gradient).lower(RESNET.network, IMAGES).cost_analysis()["flops"]


@pytest.mark.parametrize("ops", [EXACT, GUIDED, DECONVNET])
def test_k_targets_share_one_forward_pass(ops):
    forward = jax.jit(lambda m, x: jv.models.forward(m, x)).lower(RESNET.network, IMAGES).cost_analysis()["flops"]
    backward = flops(3, ops=ops) - flops(2, ops=ops)
    assert 0.7 * forward < backward < 1.3 * forward
    assert abs(flops(3, ops=ops) - forward - 3 * backward - stem_gradient_flops()) < 0.15 * forward


def test_k_targets_are_what_each_is_alone():
    for method in (saliency, guided_backprop, deconvnet):
        many = method(RESNET, IMAGES, [[1, 4], [0, 4]])
        assert many.maps.shape == (2, 2, 32, 32, 3) and many.classes.tolist() == [[1, 4], [0, 4]]
        for k, classes in enumerate(([1, 0], 4)):
            alone = method(RESNET, IMAGES, classes)
            np.testing.assert_allclose(many.maps[:, k], alone.maps, atol=1e-6 * np.abs(alone.maps).max())
            np.testing.assert_allclose(many.scores[:, k], alone.scores, rtol=1e-6)


def test_input_x_gradient_is_the_product():
    x = random_images(2, 16, 16, 3)
    gradient = saliency(tiny_model(), x, 1).maps
    for baseline, colour in (("mean", 0.5), ("black", 0), (np.float32([0.1, 0.2, 0.3]), np.float32([0.1, 0.2, 0.3]))):
        found = input_x_gradient(tiny_model(), x, 1, baseline=baseline)
        np.testing.assert_allclose(found.maps, gradient * (x - colour), rtol=1e-5, atol=1e-9)


def test_the_same_alone_in_chunks_and_in_any_batch():
    x = random_images(5, 16, 16, 3)
    for method in (saliency, guided_backprop, deconvnet, input_x_gradient):
        whole, scale = method(tiny_model(), x, [0, 1, 2, 3, 4], chunk=8), 1e-6
        scale *= np.abs(whole.maps).max()
        np.testing.assert_allclose(method(tiny_model(), x, [0, 1, 2, 3, 4], chunk=2).maps, whole.maps, atol=scale)
        np.testing.assert_allclose(method(tiny_model(), x[3:4], 3).maps[0], whole.maps[3], atol=scale)


@pytest.mark.parametrize("method", [saliency, guided_backprop, deconvnet])
def test_another_image_class_or_network_compiles_nothing(method):

    method(tiny_model(), random_images(2, 16, 16, 3), 0)
    other = tiny_model(1)
    with compilations() as compiled:
        method(other, random_images(2, 16, 16, 3, seed=1), "church")
    assert not compiled.names


def test_networks_that_cannot_be_looked_into():
    model = from_function(lambda x: x.mean((1, 2)), input_size=(16, 16))
    x = random_images(1, 16, 16, 3)
    np.testing.assert_allclose(saliency(model, x, 1).maps[0, 3, 4], [0, 1 / 256, 0], rtol=1e-5)
    for method in (guided_backprop, deconvnet):
        with pytest.raises(UnsupportedError, match="pure function"):
            method(model, x, 0)


def test_a_blank_map_says_so():
    found = guided_backprop(tiny_model(), random_images(2, 16, 16, 3), jv.channel("conv1", 0) * 0.0)
    assert found.diagnosis.tolist() == ["zero everywhere"] * 2


@pytest.mark.parametrize("ops", [EXACT, GUIDED, DECONVNET])
def test_lowers_everywhere(ops):
    items = {"images": random_images(2, 16, 16, 3), "index": np.zeros((2, 2), np.int32)}
    check_lowers(lambda p, i: p(i), Gradient(tiny_model().network, ClassTarget(True), ops), items, gradient=False)
