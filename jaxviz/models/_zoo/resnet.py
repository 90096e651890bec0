"""ResNet (He et al., 2015), ResNeXt (Xie et al., 2016) and Wide ResNet (Zagoruyko and Komodakis, 2016).

As in torchvision, the stride of a bottleneck is on its 3 x 3 convolution (known as version 1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from flax import nnx

from jaxviz._errors import ArgumentError
from jaxviz._types import Array
from jaxviz.models._taps import Tap, no_tap, scope
from jaxviz.models._zoo.layers import AvgPool, BatchNorm, Conv, Linear, MaxPool, around, both
from jaxviz.ops import EXACT, Ops

# (block, layers, groups, width_per_group) of every network that has a name.
CONFIGS: dict[str, tuple[Literal["basic", "bottleneck"], tuple[int, int, int, int], int, int]] = {
    "resnet18": ("basic", (2, 2, 2, 2), 1, 64),
    "resnet34": ("basic", (3, 4, 6, 3), 1, 64),
    "resnet50": ("bottleneck", (3, 4, 6, 3), 1, 64),
    "resnet101": ("bottleneck", (3, 4, 23, 3), 1, 64),
    "resnet152": ("bottleneck", (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": ("bottleneck", (3, 4, 6, 3), 32, 4),
    "resnext101_32x8d": ("bottleneck", (3, 4, 23, 3), 32, 8),
    "resnext101_64x4d": ("bottleneck", (3, 4, 23, 3), 64, 4),
    "wide_resnet50_2": ("bottleneck", (3, 4, 6, 3), 1, 128),
    "wide_resnet101_2": ("bottleneck", (3, 4, 23, 3), 1, 128),
}


class _Block(nnx.Module):
    """The convolutions of a block, each with its normalization, and the projection of its input where it has one."""

    def __init__(self, in_channels: int, convs: Sequence[Conv], stride: int, rngs: nnx.Rngs | None):
        for i, conv in enumerate(convs, start=1):
            setattr(self, f"conv{i}", conv)
            setattr(self, f"bn{i}", BatchNorm(conv.kernel.shape[-1]))
        self.depth = len(convs)
        out_channels = convs[-1].kernel.shape[-1]
        projection = [
            Conv(in_channels, out_channels, both(1), stride=both(stride), rngs=rngs),
            BatchNorm(out_channels),
        ]
        self.downsample = nnx.List(projection if stride != 1 or in_channels != out_channels else [])

    def __call__(self, x: Array, *, tap: Tap, ops: Ops) -> Array:
        y = x
        for i in range(1, self.depth + 1):
            y = tap(f"conv{i}", getattr(self, f"conv{i}")(y, ops))
            y = tap(f"bn{i}", getattr(self, f"bn{i}")(y, ops))
            if i < self.depth:
                y = tap("relu" if i == 1 else f"relu_{i - 1}", ops.relu(y))
        for i, layer in enumerate(self.downsample):
            x = tap(f"downsample.{i}", layer(x, ops))
        y = tap("add", ops.add(y, x))
        return tap(f"relu_{self.depth - 1}", ops.relu(y))


class BasicBlock(_Block):
    """Two 3 x 3 convolutions."""

    expansion = 1

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, groups: int, width: int, dilation: int, rngs: nnx.Rngs | None
    ):
        if (groups, width, dilation) != (1, 64, 1):
            raise ArgumentError(
                "A basic block has no groups, width or dilation, in torchvision either: expected groups=1, "
                f"width_per_group=64 and no dilation; got {groups}, {width} and {dilation}."
            )
        convs = [
            Conv(in_channels, channels, both(3), stride=both(stride), padding=around(1), rngs=rngs),
            Conv(channels, channels, both(3), padding=around(1), rngs=rngs),
        ]
        super().__init__(in_channels, convs, stride, rngs)


class Bottleneck(_Block):
    """1 x 1, 3 x 3 and 1 x 1 convolutions."""

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, groups: int, width: int, dilation: int, rngs: nnx.Rngs | None
    ):
        inner = int(channels * (width / 64)) * groups
        convs = [
            Conv(in_channels, inner, both(1), rngs=rngs),
            Conv(
                inner,
                inner,
                both(3),
                stride=both(stride),
                padding=around(dilation),
                dilation=both(dilation),
                groups=groups,
                rngs=rngs,
            ),
            Conv(inner, channels * self.expansion, both(1), rngs=rngs),
        ]
        super().__init__(in_channels, convs, stride, rngs)


class ResNet(nnx.Module):
    """torchvision's ResNet, with its names: `conv1`, `layer1.0.relu_1`, `layer4`, `fc`, ...

    Args:
        block: "basic" (ResNet 18 and 34) or "bottleneck".
        layers: the number of blocks in each of the four stages.
        groups, width_per_group: of the 3 x 3 convolutions (ResNeXt, Wide ResNet).
        replace_stride_with_dilation: for `layer2`, `layer3` and `layer4`, whether to keep the resolution.
        num_classes, in_channels: sizes of the two ends.
        rngs: for random initial weights; without it they are zero, to be filled from a file.

    >>> from flax import nnx
    >>> import jax.numpy as jnp
    >>> logits = lambda images: ResNet("basic", (2, 2, 2, 2), rngs=nnx.Rngs(0))(images)
    >>> jax.eval_shape(logits, jnp.zeros((1, 64, 48, 3))).shape
    (1, 1000)
    """

    def __init__(
        self,
        block: Literal["basic", "bottleneck"],
        layers: Sequence[int],
        *,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Sequence[bool] = (False, False, False),
        num_classes: int = 1000,
        in_channels: int = 3,
        rngs: nnx.Rngs | None = None,
    ):
        kind = {"basic": BasicBlock, "bottleneck": Bottleneck}[block]
        self.conv1 = Conv(in_channels, 64, both(7), stride=both(2), padding=around(3), rngs=rngs)
        self.bn1 = BatchNorm(64)
        self.maxpool = MaxPool(both(3), both(2), around(1))
        channels, dilation = 64, 1
        for stage, (count, dilate) in enumerate(zip(layers, (False, *replace_stride_with_dilation), strict=True), start=1):
            width = 64 * 2 ** (stage - 1)
            stride = 1 if stage == 1 or dilate else 2
            blocks = []
            for i in range(count):
                blocks.append(
                    kind(
                        channels,
                        width,
                        stride=stride if i == 0 else 1,
                        groups=groups,
                        width=width_per_group,
                        # The first block of a dilated stage still has the dilation of the stage before.
                        dilation=dilation,
                        rngs=rngs,
                    )
                )
                channels = width * kind.expansion
                dilation = dilation * 2 if dilate and i == 0 else dilation
            setattr(self, f"layer{stage}", nnx.List(blocks))
        self.avgpool = AvgPool(both(1))
        self.fc = Linear(channels, num_classes, rngs=rngs)
        config = (block, tuple(layers), groups, width_per_group)
        plain = not any(replace_stride_with_dilation)
        # The name under which a weight file brings this network back, "" where there is none.
        self.architecture = next((name for name, known in CONFIGS.items() if known == config and plain), "")

    def __call__(self, x: Array, *, tap: Tap = no_tap, ops: Ops = EXACT) -> Array:
        """Return logits (N, classes) of normalized images float32 (N, H, W, C) of any size."""
        x = tap("conv1", self.conv1(x, ops))
        x = tap("bn1", self.bn1(x, ops))
        x = tap("relu", ops.relu(x))
        x = tap("maxpool", self.maxpool(x, ops))
        for stage in range(1, 5):
            for i, block in enumerate(getattr(self, f"layer{stage}")):
                x = block(x, tap=scope(tap, f"layer{stage}.{i}"), ops=ops)
        x = tap("avgpool", self.avgpool(x, ops))
        x = tap("flatten", x.reshape(x.shape[0], -1))
        return tap("fc", self.fc(x, ops))
