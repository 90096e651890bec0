"""Every torchvision VGG and ResNet, and every weight that torchvision 0.28 lists for it."""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass
from typing import Any, Literal

from jaxviz._errors import ArgumentError, near_matches

BUNDLED = "resnet18-imagenette"
"""The network that comes with the library and needs no download."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_URL = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Weights:
    """One set of pretrained weights: where it is and how its images are prepared.

    Attributes:
        architecture: Name of the network, such as `"resnet50"`.
        name: torchvision's name of the weights, such as `"IMAGENET1K_V2"`.
        file: File name on torchvision's server; the part after the last `-` begins the SHA-256 of the content.
        top1: Top-1 accuracy in percent on the ImageNet validation set, or None where there is no classifier.
        mean, std: Per channel, of images in [0, 1].
        resize, crop: Sides in pixels of the evaluation preprocessing (shorter side, then center crop).
        interpolation: Of the resize; antialiased.
        classes: Number of classes, or None where the weights have no classifier.
    """

    architecture: str
    name: str
    file: str
    top1: float | None
    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    classes: int | None = 1000

    @property
    def url(self) -> str:
        """The address to download from."""
        return _URL + self.file

    @property
    def hash_prefix(self) -> str:
        """The first 8 hexadecimal digits of the file's SHA-256."""
        found = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        assert found is not None, self.file
        return found[1]


@dataclass(frozen=True)
class Architecture:
    """One network of torchvision: its family, the arguments that build it, and its weights, best (the default) first."""

    name: str
    family: Literal["vgg", "resnet"]
    arguments: dict[str, Any]
    weights: tuple[Weights, ...]


def _vgg(name: str, config: str, *weights: Weights) -> Architecture:
    return Architecture(name, "vgg", {"config": config, "batch_norm": name.endswith("_bn")}, weights)


def _resnet(name: str, block: str, layers: tuple[int, ...], *weights: Weights, groups: int = 1, width: int = 64):
    arguments = {"block": block, "layers": layers, "groups": groups, "width_per_group": width}
    return Architecture(name, "resnet", arguments, weights)


def _v1(file: str, top1: float, **changes: Any) -> Weights:
    return Weights(file.rpartition("-")[0], "IMAGENET1K_V1", file, top1, **changes)


def _v2(file: str, top1: float) -> Weights:
    return Weights(file.rpartition("-")[0], "IMAGENET1K_V2", file, top1, resize=232)


# VGG-16 trained by the paper's authors in Caffe and ported for SSD: in 0..255 units, hence the std; its file fills the
# classifier with NaN.
_VGG16_FEATURES = Weights(
    "vgg16",
    "IMAGENET1K_FEATURES",
    "vgg16_features-amdegroot-88682ab5.pth",
    None,
    mean=(0.48235, 0.45882, 0.40784),
    std=(1 / 255, 1 / 255, 1 / 255),
    classes=None,
)

# fmt: off
ARCHITECTURES: dict[str, Architecture] = {a.name: a for a in [
    _vgg("vgg11", "A", _v1("vgg11-8a719046.pth", 69.02)),
    _vgg("vgg11_bn", "A", _v1("vgg11_bn-6002323d.pth", 70.37)),
    _vgg("vgg13", "B", _v1("vgg13-19584684.pth", 69.928)),
    _vgg("vgg13_bn", "B", _v1("vgg13_bn-abd245e5.pth", 71.586)),
    _vgg("vgg16", "D", _v1("vgg16-397923af.pth", 71.592), _VGG16_FEATURES),
    _vgg("vgg16_bn", "D", _v1("vgg16_bn-6c64b313.pth", 73.36)),
    _vgg("vgg19", "E", _v1("vgg19-dcbb9e9d.pth", 72.376)),
    _vgg("vgg19_bn", "E", _v1("vgg19_bn-c79401a0.pth", 74.218)),
    _resnet("resnet18", "basic", (2, 2, 2, 2), _v1("resnet18-f37072fd.pth", 69.758)),
    _resnet("resnet34", "basic", (3, 4, 6, 3), _v1("resnet34-b627a593.pth", 73.314)),
    _resnet("resnet50", "bottleneck", (3, 4, 6, 3),
            _v2("resnet50-11ad3fa6.pth", 80.858), _v1("resnet50-0676ba61.pth", 76.13)),
    _resnet("resnet101", "bottleneck", (3, 4, 23, 3),
            _v2("resnet101-cd907fc2.pth", 81.886), _v1("resnet101-63fe2227.pth", 77.374)),
    _resnet("resnet152", "bottleneck", (3, 8, 36, 3),
            _v2("resnet152-f82ba261.pth", 82.284), _v1("resnet152-394f9c45.pth", 78.312)),
    _resnet("resnext50_32x4d", "bottleneck", (3, 4, 6, 3),
            _v2("resnext50_32x4d-1a0047aa.pth", 81.198), _v1("resnext50_32x4d-7cdf4587.pth", 77.618),
            groups=32, width=4),
    _resnet("resnext101_32x8d", "bottleneck", (3, 4, 23, 3),
            _v2("resnext101_32x8d-110c445d.pth", 82.834), _v1("resnext101_32x8d-8ba56ff5.pth", 79.312),
            groups=32, width=8),
    _resnet("resnext101_64x4d", "bottleneck", (3, 4, 23, 3),
            _v1("resnext101_64x4d-173b62eb.pth", 83.246, resize=232), groups=64, width=4),
    _resnet("wide_resnet50_2", "bottleneck", (3, 4, 6, 3),
            _v2("wide_resnet50_2-9ba9bcbe.pth", 81.602), _v1("wide_resnet50_2-95faca4d.pth", 78.468), width=128),
    _resnet("wide_resnet101_2", "bottleneck", (3, 4, 23, 3),
            _v2("wide_resnet101_2-d733dc28.pth", 82.51), _v1("wide_resnet101_2-32ee1156.pth", 78.848), width=128),
]}
# fmt: on


def architecture(name: str) -> Architecture:
    """Return the architecture called `name`; an unknown one is an ArgumentError with near matches."""
    if name not in ARCHITECTURES:
        hint = near_matches(name, [*ARCHITECTURES, BUNDLED])
        raise ArgumentError(f"Unknown network {name!r}.{hint} `jaxviz.list_models()` lists every network and weight.")
    return ARCHITECTURES[name]


def weights(name: str, which: str | None = None) -> Weights:
    """Return one set of weights of an architecture; `which` is a torchvision name, `"DEFAULT"` or None (the default)."""
    known = architecture(name).weights
    if which is None or which == "DEFAULT":
        return known[0]
    for candidate in known:
        if candidate.name == which:
            return candidate
    names = [w.name for w in known]
    hint = near_matches(which, [*names, "DEFAULT"])
    raise ArgumentError(f"{name} has no weights {which!r}; it has {', '.join(names)}, and a file's path works too.{hint}")


def weights_of_file(file_name: str) -> Weights | None:
    """Return the weights whose file on torchvision's server is called `file_name`, or None."""
    for known in ARCHITECTURES.values():
        for candidate in known.weights:
            if candidate.file == file_name:
                return candidate
    return None


@functools.cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 class names of ImageNet in the order of torchvision's logits."""
    text = importlib.resources.files("jaxviz").joinpath("_data/imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
