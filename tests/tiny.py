"""A network small enough for tests of everything but the networks themselves."""

from __future__ import annotations

import numpy as np
from flax import nnx

from jaxviz.models import Model, from_module
from jaxviz.models._taps import no_tap
from jaxviz.models._zoo.layers import Conv, Linear
from jaxviz.ops import EXACT


class TinyNet(nnx.Module):
    """Two convolutions and a linear layer: conv1, relu, conv2, relu_1, avgpool, fc."""

    def __init__(self, classes: int = 5, *, rngs: nnx.Rngs) -> None:
        self.conv1 = Conv(3, 8, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), rngs=rngs)
        self.conv2 = Conv(8, 12, (3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), use_bias=True, rngs=rngs)
        self.fc = Linear(12, classes, rngs=rngs)

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        x = tap("relu", ops.relu(tap("conv1", self.conv1(x, ops))))
        x = tap("relu_1", ops.relu(tap("conv2", self.conv2(x, ops))))
        x = tap("avgpool", x.mean((1, 2)))
        return tap("fc", self.fc(x, ops))


def tiny_model(seed: int = 0, classes: int = 5) -> Model:
    names = ("tench", "golf ball", "church", "gas pump", "chain saw")[:classes]
    module = TinyNet(classes, rngs=nnx.Rngs(seed))
    return from_module(module, mean=[0.5] * 3, std=[0.25] * 3, class_names=names, input_size=(16, 16), name="tiny")


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
