"""Networks that are torchvision modules in memory: read, refused where they differ, compared node by node."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxviz._errors import ArgumentError, UnsupportedError
from jaxviz._types import ArrayLike
from jaxviz.models import _taps
from jaxviz.models._files.checkpoint import to_state
from jaxviz.models._from_module import image_size, preprocessing, with_names
from jaxviz.models._model import Model
from jaxviz.models._network import Network
from jaxviz.models._zoo import layers as _layers
from jaxviz.models._zoo.resnet import ResNet
from jaxviz.models._zoo.vgg import VGG

TOLERANCE = 1e-4
_HELP = "Supported are torchvision's VGG and ResNet classes (ResNeXt and Wide ResNet too), unmodified in their forward."


def from_torch(
    module: Any,
    *,
    mean: ArrayLike | Sequence[float] = (0.485, 0.456, 0.406),
    std: ArrayLike | Sequence[float] = (0.229, 0.224, 0.225),
    class_names: Sequence[str] = (),
    input_size: Sequence[int] = (224, 224),
    name: str | None = None,
) -> Model:
    """Make a model of a torchvision VGG or ResNet in memory, with its weights as they are now.

    Strides, padding, dilation, groups, epsilons and the sizes of all layers are read from the module, so that smaller
    stems, dilated stages, other numbers of channels or classes, frozen batch normalization, and an `nn.Identity` in
    the place of `fc`, `maxpool` or a layer of `features` or `classifier` come across. All else is refused. Then one
    random image goes through both networks, and every node is compared. The module itself is not touched; dropout and
    batch normalization are taken in evaluation mode, whatever mode it is in.

    Args:
        module: an instance of `torchvision.models.VGG` or `torchvision.models.ResNet`.
        mean, std: of images in [0, 1], one number for each channel; ImageNet's unless given.
        class_names: one for each logit, or empty.
        input_size: (H, W) of the images it was trained on.
        name: torchvision's name for this architecture unless given.

    Raises:
        UnsupportedError: the module is of another class or has layers, hooks or options that cannot be carried over (one
            message lists all of them), or its values differ (the message has the error of each node).
        CheckpointError: a weight is NaN or infinite.
        ArgumentError: mean and std do not fit the module's channels, or the class names its logits.

    Example:
        `model = from_torch(torchvision.models.resnet18(weights="IMAGENET1K_V1"))`
    """
    kind = _class(module)
    problems = list(_hooks(module))
    reader = _Reader(problems)
    reader.forward(module, kind)
    # Built under eval_shape twice: here to find out all that is unsupported, and once more to hold the weights.
    nnx.eval_shape(lambda: reader.build(module, kind))
    if problems:
        listed = "\n  ".join(dict.fromkeys(problems))
        raise UnsupportedError(f"This {type(module).__name__} cannot be carried over:\n  {listed}\n{_HELP}")
    tensors = {key: value.detach().cpu().float().numpy() for key, value in module.state_dict().items()}
    graphdef, state = to_state(lambda: reader.build(module, kind), tensors)
    m, s = preprocessing(mean, std)
    channels = next(value for value in tensors.values() if value.ndim == 4).shape[1]
    if m.size != channels:
        raise ArgumentError(f"Expected mean and std for the {channels} channels of the network's images; got {m.size}.")
    known_as = name or getattr(nnx.merge(graphdef, state), "architecture", "") or type(module).__name__.lower()
    model = with_names(Network(state, m, s, graphdef, image_size(input_size)), known_as, class_names)
    compare(model, module)
    return model


def compare(model: Model, module: Any, size: tuple[int, int] = (64, 64)) -> None:
    """Run one random image through both networks and raise an UnsupportedError with a table where they differ."""
    rng = np.random.default_rng(0)
    # Random pixels around the mean: the module gets them normalized.
    x = rng.standard_normal((1, *size, model.in_channels)).astype(np.float32)
    names = [node.name for node in _taps.nodes(model.network, size)]
    theirs = torch_nodes(module, x, names)
    ours = _nodes(model.network, jnp.asarray(x))
    rows, worst = [], 0.0
    for node in names:
        a, b = np.asarray(ours[node]), theirs[node]
        largest = float(np.abs(b).max())
        error = float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
        relative = error / largest if largest > 0 else error
        worst = max(worst, relative) if np.isfinite(relative) else float("inf")
        mark = "" if relative <= TOLERANCE else " <--"
        rows.append(f"{node:<28} {error:>12.3g} {largest:>12.3g} {relative:>12.3g}{mark}")
    if not worst <= TOLERANCE:
        head = f"{'node':<28} {'difference':>12} {'largest':>12} {'relative':>12}"
        raise UnsupportedError(
            f"The network does not compute what the torch module computes (allowed: {TOLERANCE:g} of the largest value). "
            "The first node marked is where they part:\n" + "\n".join([head, *rows])
        )


def torch_nodes(module: Any, x: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return a torchvision module's values at its graph nodes, channels last, for normalized x (N, H, W, C)."""
    import operator

    import torch
    from torchvision.models.feature_extraction import create_feature_extractor

    own = copy.deepcopy(module).cpu().float().eval()
    for part in own.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    graph = create_feature_extractor(own, list(names))
    for node in graph.graph.nodes:  # `out += identity` would overwrite the value of the node before
        if node.target is operator.iadd:
            node.target = operator.add
    graph.recompile()
    with torch.no_grad():
        values = graph(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))))
    arrays = {name: value.numpy() for name, value in values.items()}
    return {name: a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for name, a in arrays.items()}


@jax.jit
def _nodes(network: Network, x: jax.Array) -> dict[str, jax.Array]:
    found: dict[str, jax.Array] = {}

    def tap(name: str, value: jax.Array) -> jax.Array:
        found[name] = value
        return value

    with jax.default_matmul_precision("highest"):
        _taps.run(network, x, tap, _taps.EXACT)
    return found


def _class(module: Any) -> Literal["vgg", "resnet"]:
    for base in type(module).__mro__:
        if (base.__module__, base.__name__) == ("torchvision.models.vgg", "VGG"):
            return "vgg"
        if (base.__module__, base.__name__) == ("torchvision.models.resnet", "ResNet"):
            return "resnet"
    raise UnsupportedError(
        f"Expected an instance of torchvision.models.VGG or torchvision.models.ResNet; got {type(module).__module__}."
        f"{type(module).__qualname__}. {_HELP}"
    )


def _hooks(module: Any) -> Iterable[str]:
    for path, part in module.named_modules():
        # "_backward_hooks" do not change what is computed forward, so they may stay.
        if any(getattr(part, kind, None) for kind in ("_forward_hooks", "_forward_pre_hooks")):
            yield f"{path or 'the network'}: has forward hooks, which may change what it computes"


class _Reader:
    """Turns torch layers into ours, noting everything that has no counterpart."""

    def __init__(self, problems: list[str]):
        self.problems = problems

    def forward(self, module: Any, kind: str) -> None:
        """Note every part that computes with a forward of its own, and every part that torchvision does not have."""
        import torch
        from torchvision.models import resnet, vgg

        base = {"vgg": vgg.VGG, "resnet": resnet.ResNet}[kind]
        for method in ("forward", "_forward_impl"):
            if getattr(type(module), method, None) is not getattr(base, method, None) or method in vars(module):
                self.problems.append(f"the network: has its own {method}")
        parts = {"vgg": ("features", "avgpool", "classifier")}.get(
            kind, ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc")
        )
        children = [name for name, _ in module.named_children()]
        self.problems += [f"{name}: is not in torchvision's network" for name in children if name not in parts]
        for path, part in module.named_modules():
            if "forward" in vars(part):
                self.problems.append(f"{path}: has its own forward")
        for path in ("features", "classifier") if kind == "vgg" else ("layer1", "layer2", "layer3", "layer4"):
            if type(getattr(module, path)) is not torch.nn.Sequential:
                self.problems.append(f"{path}: expected a Sequential; got {self.describe(getattr(module, path))}")

    @staticmethod
    def describe(part: Any) -> str:
        text = " ".join(str(part).split())
        return text if len(text) <= 100 else text[:97] + "..."

    def refuse(self, path: str, part: Any, expected: str) -> _layers.Identity:
        self.problems.append(f"{path}: expected {expected}; got {self.describe(part)}")
        return _layers.Identity()

    def leaf(self, path: str, part: Any, *allowed: str) -> Any:
        """Return our layer for a torch layer of one of the allowed classes; exact classes, so no forward of their own."""
        name = type(part).__name__
        origin = type(part).__module__
        if name not in allowed or not (origin.startswith("torch.nn.modules") or origin == "torchvision.ops.misc"):
            return self.refuse(path, part, " or ".join(allowed))
        return getattr(self, f"_{name.lower()}")(path, part)

    def _conv2d(self, path: str, part: Any) -> Any:
        if part.padding_mode != "zeros" or isinstance(part.padding, str):
            return self.refuse(path, part, "a Conv2d with a number for its padding, of zeros")
        return _layers.Conv(
            part.in_channels,
            part.out_channels,
            tuple(part.kernel_size),
            stride=tuple(part.stride),
            padding=((part.padding[0],) * 2, (part.padding[1],) * 2),
            dilation=tuple(part.dilation),
            groups=part.groups,
            use_bias=part.bias is not None,
        )

    def _batchnorm2d(self, path: str, part: Any) -> Any:
        if part.running_mean is None or part.weight is None:
            return self.refuse(path, part, "a BatchNorm2d with running statistics, weight and bias")
        return _layers.BatchNorm(part.num_features, epsilon=part.eps)

    def _frozenbatchnorm2d(self, path: str, part: Any) -> Any:
        return _layers.BatchNorm(part.weight.shape[0], epsilon=part.eps)

    def _linear(self, path: str, part: Any) -> Any:
        return _layers.Linear(part.in_features, part.out_features, use_bias=part.bias is not None)

    def _relu(self, path: str, part: Any) -> Any:
        return _layers.ReLU()

    def _identity(self, path: str, part: Any) -> Any:
        return _layers.Identity()

    def _dropout(self, path: str, part: Any) -> Any:
        return _layers.Dropout()

    def _maxpool2d(self, path: str, part: Any) -> Any:
        pair = lambda value: value if isinstance(value, tuple) else (value, value)  # noqa: E731
        if pair(part.dilation) != (1, 1) or part.ceil_mode or part.return_indices:
            return self.refuse(path, part, "a MaxPool2d without dilation, ceil_mode and return_indices")
        top, left = pair(part.padding)
        return _layers.MaxPool(pair(part.kernel_size), pair(part.stride), ((top, top), (left, left)))

    def _adaptiveavgpool2d(self, path: str, part: Any) -> Any:
        size = part.output_size if isinstance(part.output_size, tuple) else (part.output_size,) * 2
        if None in size:
            return self.refuse(path, part, "an AdaptiveAvgPool2d with two sizes")
        return _layers.AvgPool(size)

    def build(self, module: Any, kind: str) -> nnx.Module:
        """Return our network; called under `nnx.eval_shape`."""
        return self._vgg(module) if kind == "vgg" else self._resnet(module)

    def _vgg(self, module: Any) -> VGG:
        network = VGG("A")
        features, classifier = list(module.features.children()), list(module.classifier.children())
        kinds = ("Conv2d", "BatchNorm2d", "FrozenBatchNorm2d", "ReLU", "MaxPool2d", "Dropout", "Identity")
        network.features = nnx.List([self.leaf(f"features.{i}", part, *kinds) for i, part in enumerate(features)])
        network.avgpool = self.leaf("avgpool", module.avgpool, "AdaptiveAvgPool2d", "Identity")
        kinds = ("Linear", "ReLU", "Dropout", "Identity")
        network.classifier = nnx.List([self.leaf(f"classifier.{i}", part, *kinds) for i, part in enumerate(classifier)])
        convs = sum(isinstance(layer, _layers.Conv) for layer in network.features)
        config = {8: "A", 10: "B", 13: "D", 16: "E"}.get(convs, "A")
        norms = any(isinstance(layer, _layers.BatchNorm) for layer in network.features)
        first = features[0].in_channels if hasattr(features[0], "in_channels") else 3
        reference = VGG(config, batch_norm=norms, in_channels=first)
        same = _plan(reference, "classifier.6") == _plan(network, "classifier.6")
        network.architecture = reference.architecture if same else ""
        return network

    def _resnet(self, module: Any) -> ResNet:
        stages = [list(getattr(module, f"layer{i}").children()) for i in range(1, 5)]
        known = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}
        block = {type(b).__name__ if type(b).__module__ == "torchvision.models.resnet" else "" for s in stages for b in s}
        if len(block) != 1 or not block <= set(known):
            blocks = sorted({type(b).__qualname__ for s in stages for b in s})
            self.problems.append(f"layer1 to layer4: expected blocks all BasicBlock or all Bottleneck; got {blocks}")
            return ResNet("basic", (1, 1, 1, 1))
        kind, counts = known[block.pop()], tuple(map(len, stages))
        assert kind in ("basic", "bottleneck")
        network = ResNet(kind, counts)
        norms = ("BatchNorm2d", "FrozenBatchNorm2d")
        network.conv1 = self.leaf("conv1", module.conv1, "Conv2d")
        network.bn1 = self.leaf("bn1", module.bn1, *norms)
        self.leaf("relu", module.relu, "ReLU")
        network.maxpool = self.leaf("maxpool", module.maxpool, "MaxPool2d", "Identity")
        network.avgpool = self.leaf("avgpool", module.avgpool, "AdaptiveAvgPool2d")
        network.fc = self.leaf("fc", module.fc, "Linear", "Identity")
        for i, stage in enumerate(stages, start=1):
            for j, theirs in enumerate(stage):
                path, ours = f"layer{i}.{j}", getattr(network, f"layer{i}")[j]
                for k in range(1, ours.depth + 1):
                    setattr(ours, f"conv{k}", self.leaf(f"{path}.conv{k}", getattr(theirs, f"conv{k}"), "Conv2d"))
                    setattr(ours, f"bn{k}", self.leaf(f"{path}.bn{k}", getattr(theirs, f"bn{k}"), *norms))
                self.leaf(f"{path}.relu", theirs.relu, "ReLU")
                extra = {"conv1", "bn1", "conv2", "bn2", "conv3", "bn3", "relu", "downsample"}
                for n, part in theirs.named_children():
                    if n not in extra:
                        self.refuse(f"{path}.{n}", part, "nothing")
                down = [] if theirs.downsample is None else list(theirs.downsample.children())
                if theirs.downsample is not None and len(down) != 2:
                    self.refuse(f"{path}.downsample", theirs.downsample, "a convolution and a BatchNorm2d")
                kinds = (("Conv2d",), norms)
                ours.downsample = nnx.List(
                    [self.leaf(f"{path}.downsample.{n}", part, *kinds[n]) for n, part in enumerate(down[:2])]
                )
        network.architecture = self._resnet_name(network, kind, counts, module)
        return network

    @staticmethod
    def _resnet_name(network: ResNet, block: Literal["basic", "bottleneck"], counts: tuple[int, ...], module: Any) -> str:
        stem, wide = module.conv1.in_channels, {"groups": module.groups, "width_per_group": module.base_width}
        try:
            reference = ResNet(block, counts, in_channels=stem, **wide)
        except Exception:  # numbers that no ResNet has: then it has no name either
            return ""
        return reference.architecture if _plan(reference, "fc") == _plan(network, "fc") else ""


def _plan(network: nnx.Module, head: str) -> dict[str, tuple[Any, ...]]:
    """Return the class, geometry and shapes of every layer by path, but not the number of classes."""
    plan = {}
    for path, part in nnx.iter_graph(network):
        if not isinstance(part, nnx.Module):
            continue
        where = ".".join(map(str, path))
        geometry = {k: v for k, v in vars(part).items() if isinstance(v, (int, float, tuple))}
        shape = kernel.shape if isinstance(kernel := getattr(part, "kernel", None), nnx.Param) else ()
        plan[where] = (type(part).__name__, geometry, shape[:1] if where == head else shape)
    return plan
