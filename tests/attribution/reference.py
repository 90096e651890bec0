"""torchvision's networks beside ours with the same random weights, and images for both."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from jaxviz.models import Model
from tests.models import reference as models
from tests.models.reference import assert_close as assert_close
from tests.models.reference import images as images


@functools.lru_cache(maxsize=4)
def pair(name: str, head: int | None = None):
    """Return torchvision's network and ours with the same random weights, 10 classes, no ReLU in place.

    In-place operations would change what hooks of the peers have kept.

    Args:
        name: such as "resnet18" or "vgg16_bn".
        head: of VGG, the width of the hidden layers (for a network of a size that tests can afford).

    A test that asks for it is skipped where torch is absent.
    """
    torch = pytest.importorskip("torch")
    module = models.torch_network(name, head, **({} if head else {"num_classes": 10}))
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.inplace = False
    return module, models.model_of(name, module, **({"head": head} if head else {"classes": 10}))


def normalised(x: np.ndarray):
    """Return images (N, H, W, 3) in [0, 1] as torch's normalised (N, 3, H, W)."""
    import torch

    mean, std = np.asarray(models.MEAN, np.float32), np.asarray(models.STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(((x - mean) / std).transpose(0, 3, 1, 2)))


def nhwc(x) -> np.ndarray:
    """Return a torch tensor (N, C, H, W) as NumPy (N, H, W, C)."""
    return x.detach().numpy().transpose(0, 2, 3, 1)


def per_pixel(gradient) -> np.ndarray:
    """Return torch's gradient of normalised images (N, C, H, W) as one of images in [0, 1], (N, H, W, C)."""
    return nhwc(gradient) / np.asarray(models.STD, np.float32)


def model_only(name: str, head: int | None = None) -> Model:
    """Return our network of the pair."""
    return pair(name, head)[1]
