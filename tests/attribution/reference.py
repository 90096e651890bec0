"""torchvision's networks beside ours with the same random weights, and images for both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from jaxviz.models import Model, forward
from jaxviz.ops import EXACT, Ops
from tests.models import reference as models
from tests.models.reference import assert_close as assert_close
from tests.models.reference import images as images


def full(*values: Any):
    """Return a case of a parametrized test that only the full tier runs."""
    return pytest.param(*values, marks=pytest.mark.full)


# Names and widths of the hidden layers for `pair`: small networks in every run, torchvision's own in the full tier.
LARGE = [("resnet18", None), ("resnet50", None), ("vgg16", 64), ("vgg16_bn", 64)]
NETWORKS = [("small_bottleneck", None), ("small_vgg_bn", None), *(full(*case) for case in LARGE)]
RESNET = ["small_resnet", full("resnet18")]
RESNETS = ["small_resnet", "small_bottleneck", full("resnet18"), full("resnet50")]


@functools.lru_cache(maxsize=4)
def pair(name: str, head: int | None = None):
    """Return torchvision's network and ours with the same random weights, 10 classes, no ReLU in place.

    In-place operations would change what hooks of the peers have kept.

    Args:
        name: such as "resnet18", "vgg16_bn" or "small_resnet".
        head: of VGG, the width of the hidden layers (for a network of a size that tests can afford).

    A test that asks for it is skipped where torch is absent.
    """
    torch = pytest.importorskip("torch")
    module = models.torch_network(name, head, **({} if head else {"num_classes": 10}))
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.inplace = False
    return module, models.model_of(name, module, **({"head": head} if head else {"classes": 10}))


@functools.lru_cache(maxsize=8)
def agreed(name: str, head: int | None = None, count: int = 2, low: float = 0.0) -> np.ndarray:
    """Return random images (count, 64, 64, 3), from `low` to 1, on which both networks of the pair open the same ReLUs.

    And choose the same maxima. A gradient jumps where the input of a ReLU is 0, so that one of millions within rounding of it
    would be 1 % of a map, while without any the two differ by one in a million.
    """
    module, model = pair(name, head)
    ours = _our_inputs(model)
    for seed in range(30):
        x = (low + (1 - low) * images(count, 64, 64, 3, seed=seed)).astype(np.float32)
        if all(map(_same_choices, _entered(module, x), ours(x))):
            return x
    raise AssertionError("in all sets of images some ReLU is too near 0, or takes the other side")


def _same_choices(theirs: tuple[str, np.ndarray], ours: tuple[str, np.ndarray]) -> bool:
    """Say whether a ReLU opens at the same places, none of them almost 0, or a max pooling chooses the same places."""
    import torch

    kind, values = theirs[0], (theirs[1], ours[1])
    assert kind == ours[0]
    if kind == "relu":
        margin = 3e-8 * np.abs(values[0]).max()
        return bool(
            ((values[0] > margin) == (values[1] > -margin)).all() and ((values[0] > -margin) == (values[1] > margin)).all()
        )
    for size, padding in ((2, 0), (3, 1)):
        pool = functools.partial(torch.nn.functional.max_pool2d, return_indices=True)
        (top, one), (_, other) = (pool(torch.from_numpy(value), size, 2, padding) for value in values)
        if ((one != other) & (top > 0)).any():
            return False
    return True


def _entered(module, x: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Return what enters every ReLU and max pooling of torch's network, in the order of calls, (N, C, H, W)."""
    import torch

    kinds = {torch.nn.ReLU: "relu", torch.nn.MaxPool2d: "max_pool"}
    found: list[tuple[str, np.ndarray]] = []
    handles = [
        part.register_forward_pre_hook(lambda part, inputs: found.append((kinds[type(part)], inputs[0].numpy())))
        for part in module.modules()
        if type(part) in kinds
    ]
    with torch.no_grad():
        module(normalised(x))
    for handle in handles:
        handle.remove()
    return found


def _our_inputs(model: Model) -> Callable[[np.ndarray], list[tuple[str, np.ndarray]]]:
    """Return a function of images that returns the same of our network."""
    kinds: list[str] = []
    values: list[jax.Array] = []

    def note(kind):
        def run(x, **options):
            kinds.append(kind)
            values.append(x)
            return getattr(EXACT, kind)(x, **options)

        return run

    @jax.jit
    def everything(model, x):
        forward(model, x, ops=Ops(relu=note("relu"), max_pool=note("max_pool")))
        return tuple(values)

    def run(x):
        with jax.default_matmul_precision("highest"):
            found = [np.asarray(value) for value in everything(model.network, x)]
        found = [np.ascontiguousarray(value.transpose(0, 3, 1, 2)) if value.ndim == 4 else value for value in found]
        return list(zip(kinds, found, strict=True))

    return run


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
