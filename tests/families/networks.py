"""A trained network of each family of architectures: the bundled ResNet-18, and VGG at an eighth of its width, both kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
from flax import nnx
from safetensors.numpy import load_file

import jaxviz as jv
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import BatchNorm, Conv, Linear, MaxPool, ReLU, around, both
from jaxviz.ops import EXACT

CONFIG = (8, 0, 16, 0, 32, 32, 0, 64, 64, 0, 64, 64, 0)  # torchvision's "A" over 8; 0 is a max pooling
LAYERS = {"vgg": ("features.9", "features.14", "features.19"), "vgg_bn": ("features.13", "features.20", "features.27")}
SIZE = 64  # pixels that the families are compared at


class SmallVGG(nnx.Module):
    """VGG's features with torchvision's numbers, the mean over positions, and one linear layer."""

    def __init__(self, batch_norm: bool) -> None:
        layers: list[nnx.Module] = []
        channels = 3
        for width in CONFIG:
            if width == 0:
                layers.append(MaxPool(both(2), both(2)))
                continue
            layers.append(Conv(channels, width, both(3), padding=around(1), use_bias=True))
            layers += [BatchNorm(width), ReLU()] if batch_norm else [ReLU()]
            channels = width
        self.features = nnx.List(layers)
        self.fc = Linear(channels, 10)

    def __call__(self, x: Any, *, tap: Any = no_tap, ops: Any = EXACT) -> Any:
        for i, layer in enumerate(self.features):
            x = tap(f"features.{i}", layer(x, ops))
        return tap("fc", self.fc(tap("avgpool", x.mean((1, 2))), ops))


def network(family: str) -> jv.Model:
    """Return the trained network of a family: "resnet", "vgg" or "vgg_bn"."""
    if family == "resnet":
        return jv.load()
    module = SmallVGG(family == "vgg_bn")
    for name, array in load_file(Path(__file__).parent / f"{family}.safetensors").items():
        path, _, leaf = name.rpartition(".")
        if path:  # all but the accuracy
            owner = module.fc if path == "fc" else module.features[int(path.removeprefix("features."))]
            getattr(owner, leaf).set_value(jnp.asarray(array, jnp.float32))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return jv.from_module(module, mean=mean, std=std, input_size=(SIZE, SIZE), name=f"small-{family}")
