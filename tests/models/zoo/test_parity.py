"""Every network against torchvision's: logits, every tap and input gradients, with random weights and statistics."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxviz.models import forward
from tests.models import reference
from tests.models.reference import RESNETS, VGGS, assert_close, others_in_full

torch = pytest.importorskip("torch")


@jax.jit
def everything(model, images, direction):
    """Return all taps, and the gradient of a random direction of the logits with respect to the images."""

    def score(x):
        taps = {}

        def tap(name, value):
            taps[name] = value
            return value

        logits = forward(model, x, tap=tap)
        return (logits * direction).sum(), (logits, taps)

    with jax.default_matmul_precision("highest"):
        gradient, (logits, taps) = jax.grad(score, has_aux=True)(images)
    return logits, taps, gradient


def torch_everything(module, images, direction):
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    names = get_graph_node_names(module)[1][1:]  # all but the input
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    graph = create_feature_extractor(module, names)
    for node in graph.graph.nodes:  # `out += identity` would overwrite the value of the node before
        if getattr(node.target, "__name__", "") == "iadd":
            node.target = torch.add
    graph.recompile()
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).requires_grad_()
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (reference.MEAN, reference.STD))
    taps = graph((x - mean) / std)
    logits = taps[names[-1]]
    (gradient,) = torch.autograd.grad((logits * torch.from_numpy(direction)).sum(), x)
    to_numpy = lambda t: t.detach().numpy().transpose(0, 2, 3, 1) if t.ndim == 4 else t.detach().numpy()  # noqa: E731
    return to_numpy(logits), {name: to_numpy(value) for name, value in taps.items()}, to_numpy(gradient)


def another_side(taps, their_taps):
    """Say whether some ReLU is open in one network and shut in the other, its input within rounding of zero."""
    relus = [name for name in taps if "relu" in name or name.startswith(("features", "classifier"))]
    return any(((np.asarray(taps[name]) > 0) != (their_taps[name] > 0)).any() for name in relus)


def check(model, module, shape, *, large: bool = False):
    for seed in range(4):
        images = reference.images(*shape, seed=seed)
        direction = np.random.default_rng(seed).normal(size=(shape[0], model.num_classes)).astype(np.float32)
        ours, taps, gradient = everything(model.network, images, direction)
        theirs, their_taps, their_gradient = torch_everything(module, images, direction)
        assert [layer.name for layer in model.layers((shape[1], shape[2]))] == list(their_taps), "names or their order"
        for name, value in their_taps.items():
            assert_close(taps[name], value, name)
        assert_close(ours, theirs, "logits")
        error = np.abs(gradient - their_gradient).max() / np.abs(their_gradient).max()
        if error <= 1e-4:
            return
        # The gradient jumps where a ReLU's input is zero: one of millions on the other side is 1 % of it, while torch's
        # own float32 and float64 differ by 4e-7. Other images, then; without such a ReLU it is an error.
        assert another_side(taps, their_taps), f"the input gradient differs by {error:.2e} of the largest value"
        if large:  # with this many ReLUs hardly any images are without one
            return
    raise AssertionError("in four sets of images some ReLU took the other side")


@pytest.mark.parametrize("name", others_in_full(RESNETS, "resnet18", "resnet50", "resnext50_32x4d"))
def test_resnet(name):
    module = reference.torch_network(name)
    check(reference.model_of(name, module), module, (1, 64, 48, 3))


@pytest.mark.parametrize("name", others_in_full(VGGS, "vgg11", "vgg11_bn", "vgg16"))
def test_vgg(name):
    # The hidden layers of two networks are as wide as they are; 100 million weights each are too slow for all.
    head = None if name in ("vgg11", "vgg16_bn") else 64
    module = reference.torch_network(name, head)
    check(reference.model_of(name, module, head=head), module, (1, 48, 64, 3))


@pytest.mark.parametrize("shape", [pytest.param((2, 224, 224, 3), marks=pytest.mark.full), (1, 97, 131, 3), (1, 33, 32, 3)])
@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_other_sizes(name, shape):
    head = 16 if name == "vgg11_bn" else None
    module = reference.torch_network(name, head)
    check(reference.model_of(name, module, head=head), module, shape, large=name == "vgg11_bn" and shape[1] == 224)
