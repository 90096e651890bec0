"""Networks that several tests explain: a ResNet quick to compile, one layer alone, and one that goes its own way."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxviz as jv
from jaxviz import ops
from jaxviz.models import from_module
from jaxviz.models._taps import no_tap, scope
from jaxviz.models._zoo.layers import AvgPool, BatchNorm, Conv, Linear, MaxPool
from jaxviz.models._zoo.resnet import BasicBlock, Bottleneck
from tests.tiny import random_images


class SmallResNet(nnx.Module):
    """The stem, a bottleneck with a projection and a basic block of a ResNet, with few channels."""

    def __init__(self, rngs):
        around = ((1, 1), (1, 1))
        self.conv1, self.bn1 = Conv(3, 8, (5, 5), stride=(2, 2), padding=((2, 2), (2, 2)), rngs=rngs), BatchNorm(8)
        self.maxpool = MaxPool((3, 3), (2, 2), around)
        self.layer1 = Bottleneck(8, 12, stride=2, groups=1, width=64, dilation=1, rngs=rngs)
        self.layer2 = BasicBlock(48, 48, stride=1, groups=1, width=64, dilation=1, rngs=rngs)
        self.avgpool, self.fc = AvgPool((1, 1)), Linear(48, 6, rngs=rngs)

    def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
        x = tap("relu", ops.relu(tap("bn1", self.bn1(tap("conv1", self.conv1(x, ops)), ops))))
        x = tap("maxpool", self.maxpool(x, ops))
        x = self.layer1(x, tap=scope(tap, "layer1"), ops=ops)
        x = self.layer2(x, tap=scope(tap, "layer2"), ops=ops)
        x = tap("avgpool", self.avgpool(x, ops))
        return tap("fc", self.fc(x.reshape(x.shape[0], -1), ops))


def small_resnet(seed: int = 0) -> jv.Model:
    """Return a small ResNet whose biases and normalisations' shifts are not 0."""
    module = SmallResNet(nnx.Rngs(seed))
    draw = np.random.default_rng(seed)
    for _, part in nnx.iter_graph(module):
        if isinstance(part, BatchNorm):
            size = part.scale.shape
            for leaf, low, high in (("scale", 0.5, 1.5), ("bias", -0.3, 0.3), ("mean", -0.3, 0.3), ("var", 0.5, 2.0)):
                getattr(part, leaf)[...] = jnp.asarray(draw.uniform(low, high, size), jnp.float32)
        if isinstance(part, Linear):
            part.kernel[...] = part.kernel[...] * 30
            part.bias[...] = jnp.asarray(draw.uniform(-0.3, 0.3, 6), jnp.float32)
    return from_module(module, mean=[0.48, 0.45, 0.4], std=[0.22, 0.23, 0.24], input_size=(32, 32))


class OneLayer(nnx.Module):
    """A matrix product of given values, for rules by hand: pixels in, a score out, without a normalisation of the image."""

    def __init__(self, kernel, bias, before=None):
        self.fc = Linear(len(kernel), 1, rngs=nnx.Rngs(0))
        self.fc.kernel[...], self.fc.bias[...] = jnp.asarray(kernel)[:, None], jnp.asarray([bias])

    def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
        return tap("fc", self.fc(x.reshape(x.shape[0], -1), ops))


class Glue(nnx.Module):
    """A network whose head is `fn`, outside of the table of operations."""

    def __init__(self, fn):
        self.conv = Conv(3, 4, (3, 3), rngs=nnx.Rngs(0))
        self.fn = fn

    def __call__(self, x, *, tap=no_tap, ops=ops.EXACT):
        return tap("out", self.fn(tap("relu", ops.relu(tap("conv", self.conv(x, ops)))).mean((1, 2))))


RESNET = small_resnet()
IMAGES = random_images(2, 32, 32, 3)


def relative(error, scores) -> float:
    return float(np.max(np.abs(error) / np.abs(scores)))
