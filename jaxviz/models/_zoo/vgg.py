"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014."""

from __future__ import annotations

from flax import nnx

from jaxviz._types import Array
from jaxviz.models._taps import Tap, no_tap
from jaxviz.models._zoo.layers import AvgPool, BatchNorm, Conv, Dropout, Linear, MaxPool, ReLU, around, both
from jaxviz.ops import EXACT, Ops

# Channels of each 3 x 3 convolution, in torchvision's letters; 0 is a max pooling.
CONFIGS: dict[str, tuple[int, ...]] = {
    "A": (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "B": (64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    "D": (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    "E": (64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0),
}
NAMES = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


class VGG(nnx.Module):
    """torchvision's VGG, with its names: `features.N`, `avgpool`, `flatten`, `classifier.N`.

    Args:
        config: "A", "B", "D" or "E": VGG 11, 13, 16 or 19.
        batch_norm: whether a batch normalization follows every convolution.
        num_classes, in_channels: sizes of the two ends.
        rngs: for random initial weights; without it they are zero, to be filled from a file.

    >>> from flax import nnx
    >>> import jax.numpy as jnp
    >>> logits = lambda images: VGG("A", rngs=nnx.Rngs(0))(images)
    >>> jax.eval_shape(logits, jnp.zeros((1, 64, 48, 3))).shape
    (1, 1000)
    """

    def __init__(
        self,
        config: str,
        *,
        batch_norm: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
        rngs: nnx.Rngs | None = None,
    ):
        # The name under which a weight file brings this network back.
        self.architecture = NAMES[config] + ("_bn" if batch_norm else "")
        layers: list[nnx.Module] = []
        for channels in CONFIGS[config]:
            if channels == 0:
                layers.append(MaxPool(both(2), both(2)))
                continue
            layers.append(Conv(in_channels, channels, both(3), padding=around(1), use_bias=True, rngs=rngs))
            layers += [BatchNorm(channels), ReLU()] if batch_norm else [ReLU()]
            in_channels = channels
        self.features = nnx.List(layers)
        self.avgpool = AvgPool(both(7))
        self.classifier = nnx.List(
            [
                Linear(512 * 7 * 7, 4096, rngs=rngs),
                ReLU(),
                Dropout(),
                Linear(4096, 4096, rngs=rngs),
                ReLU(),
                Dropout(),
                Linear(4096, num_classes, rngs=rngs),
            ]
        )

    def __call__(self, x: Array, *, tap: Tap = no_tap, ops: Ops = EXACT) -> Array:
        """Return logits (N, classes) of normalized images float32 (N, H, W, C), H and W at least 32."""
        for i, layer in enumerate(self.features):
            x = tap(f"features.{i}", layer(x, ops))
        x = tap("avgpool", self.avgpool(x, ops))
        # torch flattens channels first; doing so too keeps `flatten` and the weights of `classifier.0` the same.
        x = tap("flatten", x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1))
        for i, layer in enumerate(self.classifier):
            x = tap(f"classifier.{i}", layer(x, ops))
        return x
