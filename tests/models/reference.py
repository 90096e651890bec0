"""torchvision's networks with random weights, their values and gradients, for comparing ours with."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxviz.models import Model, Network
from jaxviz.models._files.checkpoint import to_state
from jaxviz.models._from_module import preprocessing
from jaxviz.models._zoo.layers import BatchNorm, Conv, Linear
from jaxviz.models._zoo.registry import architecture
from jaxviz.models._zoo.resnet import ResNet
from jaxviz.models._zoo.vgg import CONFIGS, VGG
from tests.torch_reference import import_torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VGGS = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]
RESNETS = [
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
]


def others_in_full(names, *fast):
    """Return parameters for all names; those that are not `fast` are in the full tier."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.full) for name in names]


def randomise(module, seed: int = 0):
    """Fill a torch network with random weights and BatchNorm statistics that keep activations of moderate size."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    blocks = [m for m in module.modules() if type(m).__name__ in ("BasicBlock", "Bottleneck")]
    last = {id(getattr(m, "bn3", m.bn2)) for m in blocks}
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)):
                fan_in = part.weight[0].numel()
                part.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.uniform_(-0.1, 0.1, generator=generator)
            elif "BatchNorm" in type(part).__name__:
                # The end of a residual branch is damped, or the values would double with every block.
                size = 0.3 if id(part) in last else 1.0
                part.weight.uniform_(0.5 * size, 1.5 * size, generator=generator)
                part.bias.uniform_(-0.3, 0.3, generator=generator)
                part.running_mean.uniform_(-0.3, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
    return module.eval()


# torchvision's classes with one block a stage, and VGG 11, an eighth as wide: every kind of layer, and nothing to wait for.
# Name -> (name of the network whose class it is, arguments of that class).
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "small_resnet": ("resnet18", {"block": "basic", "layers": (1, 1, 1, 1)}),
    "small_bottleneck": ("resnet50", {"block": "bottleneck", "layers": (1, 1, 1, 1)}),
    "small_vgg": ("vgg11", {"config": "A"}),
    "small_vgg_bn": ("vgg11_bn", {"config": "A", "batch_norm": True}),
}
NARROWER = 8


def _narrow(channels: int) -> int:
    return channels if channels == 3 else channels // NARROWER


def _small_torch_network(name: str, classes: int):
    import torch
    from torchvision.models import resnet, vgg

    kind, arguments = SMALL[name]
    if kind.startswith("vgg"):
        layers = [n // NARROWER if n else "M" for n in CONFIGS[arguments["config"]]]
        module = vgg.VGG(vgg.make_layers(layers, batch_norm=kind.endswith("_bn")), num_classes=classes)
        for i, sizes in ((0, (512 // NARROWER * 49, 64)), (3, (64, 64)), (6, (64, classes))):
            module.classifier[i] = torch.nn.Linear(*sizes)
        return module
    block = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[arguments["block"]]
    module = resnet.ResNet(block, list(arguments["layers"]), num_classes=classes)
    for path, part in list(module.named_modules()):
        if isinstance(part, torch.nn.Conv2d):
            sizes = _narrow(part.in_channels), _narrow(part.out_channels)
            options = {"stride": part.stride, "padding": part.padding, "bias": False}
            module.set_submodule(path, torch.nn.Conv2d(*sizes, part.kernel_size, **options))
        elif isinstance(part, torch.nn.BatchNorm2d):
            module.set_submodule(path, torch.nn.BatchNorm2d(_narrow(part.num_features)))
    module.fc = torch.nn.Linear(_narrow(module.fc.in_features), classes)
    return module


def _small_network(name: str, classes: int):
    kind, arguments = SMALL[name]
    network = (VGG if kind.startswith("vgg") else ResNet)(**arguments, num_classes=classes)
    network.architecture = ""
    for _, part in nnx.iter_graph(network):
        if isinstance(part, Conv):
            *window, inputs, outputs = part.kernel.shape
            part.kernel = nnx.Param(jnp.zeros((*window, _narrow(inputs), outputs // NARROWER)))
            part.bias = None if part.bias is None else nnx.Param(jnp.zeros(outputs // NARROWER))
        elif isinstance(part, BatchNorm):
            part.__init__(part.scale.shape[0] // NARROWER)
    if isinstance(network, ResNet):
        network.fc = Linear(network.fc.kernel.shape[0] // NARROWER, classes)
    else:
        for i, sizes in ((0, (512 // NARROWER * 49, 64)), (3, (64, 64)), (6, (64, classes))):
            network.classifier[i] = Linear(*sizes)
    return network


def torch_network(name: str, head: int | None = None, **options):
    """Return the torch network of this name, torchvision's or of `SMALL`, with random weights.

    `head` is the width of VGG's hidden layers.
    """
    torchvision = import_torchvision()
    import torch

    with torch.device("meta"):  # no time spent on torchvision's own initialisation
        if name in SMALL:
            module = _small_torch_network(name, options["num_classes"])
        else:
            module = getattr(torchvision.models, name)(**options)
    module = module.to_empty(device="cpu")
    if head is not None:
        for i, sizes in ((0, (25088, head)), (3, (head, head)), (6, (head, 10))):
            module.classifier[i] = torch.nn.Linear(*sizes)
    return randomise(module)


def network(name: str, classes: int = 1000, head: int | None = None):
    """Return our network of this name, or of `SMALL`, its weights zero."""
    if name in SMALL:
        return _small_network(name, classes)
    entry = architecture(name)
    made = {"vgg": VGG, "resnet": ResNet}[entry.family](**entry.arguments, num_classes=classes)
    if head is not None:
        for i, sizes in ((0, (25088, head)), (3, (head, head)), (6, (head, 10))):
            made.classifier[i] = Linear(*sizes)
    return made


def model_of(name: str, module, **options) -> Model:
    """Return our network of this name with the torch network's weights."""
    tensors = {key: value.numpy() for key, value in module.state_dict().items()}
    graphdef, state = to_state(lambda: network(name, **options), tensors)
    return Model(Network(state, *preprocessing(MEAN, STD), graphdef), name)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random images float32 in [0, 1]."""
    return np.random.default_rng(seed).uniform(0, 1, shape).astype(np.float32)


def assert_close(ours, theirs, what: str = "", tolerance: float = 1e-4) -> None:
    """Assert that two arrays differ by at most `tolerance` of the largest value of the second."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} and {theirs.shape}"
    largest = np.abs(theirs).max()
    assert np.isfinite(largest) and largest > 0, f"{what}: nothing to compare"
    error = np.abs(ours - theirs).max() / largest
    assert error <= tolerance, f"{what}: differs by {error:.2e} of the largest value"
