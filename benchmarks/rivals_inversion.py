"""Inversion of features in PyTorch, as people write it and at its best.

Both minimise what `jv.invert` does, written anew in PyTorch: from one image, by Adam or plain gradient descent and clipped to
[0, 1], `|phi(x) - phi(photo)|^2 / |phi(photo)|^2` plus isotropic total variation; they return the images (L, N, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rivals
from rivals_ascent import compiled, constants, cut, nchw, nhwc

Inversion = Callable[[], np.ndarray]


def eager(
    module: Any, layers: Sequence[str], photos: np.ndarray, start: np.ndarray, steps: int, rate: float, weight: float, name: str
) -> Inversion:
    """As people write it: one image and layer at a time, the whole network, and a hook that keeps the layer's values."""
    import torch

    mean, std = constants()

    def run() -> np.ndarray:
        found = []
        for layer in layers:
            kept: dict[str, Any] = {}
            handle = rivals.layer_of(module, layer).register_forward_hook(lambda _, __, value, k=kept: k.update(value=value))
            for photo in photos:
                with torch.no_grad():
                    module((nchw(photo[None]) - mean) / std)
                target = kept["value"]
                x = nchw(start[None]).clone().requires_grad_(True)
                optimizer = _optimizer(name, x, rate)
                for _ in range(steps):
                    optimizer.zero_grad()
                    module((x - mean) / std)
                    (_distance(kept["value"], target) + weight * _total_variation(x)).sum().backward()
                    optimizer.step()
                    with torch.no_grad():
                        x.clamp_(0, 1)
                found.append(nhwc(x))
            handle.remove()
        module.zero_grad()
        return np.concatenate(found).reshape(len(layers), *photos.shape)

    return run


def batched(
    module: Any,
    layers: Sequence[str],
    photos: np.ndarray,
    start: np.ndarray,
    steps: int,
    rate: float,
    weight: float,
    name: str,
    compile: bool = False,
) -> Inversion:
    """At its best: the network cut off above each layer, weights frozen, channels last, all images of a layer in one batch."""
    import torch

    networks = [cut(module, layer).requires_grad_(False).to(memory_format=torch.channels_last) for layer in layers]
    networks = [compiled(below) if compile else below for below in networks]
    mean, std = constants()

    def invert(below: Any) -> np.ndarray:
        with torch.no_grad():
            target = below((nchw(photos).to(memory_format=torch.channels_last) - mean) / std)
        x = nchw(np.repeat(start[None], len(photos), 0)).to(memory_format=torch.channels_last).requires_grad_(True)
        optimizer = _optimizer(name, x, rate)
        for _ in range(steps):
            loss = _distance(below((x - mean) / std), target) + weight * _total_variation(x)
            (x.grad,) = torch.autograd.grad(loss.sum(), x)
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        return nhwc(x)

    return lambda: np.stack([invert(below) for below in networks])


def _optimizer(name: str, x: Any, rate: float) -> Any:
    import torch

    return {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[name]([x], lr=rate)


def _distance(value: Any, target: Any) -> Any:
    """Return the squared distance of each image, relative to the target, (N,)."""
    return (value - target).square().flatten(1).sum(1) / target.square().flatten(1).sum(1)


def _total_variation(x: Any) -> Any:
    """Return sum sqrt(dx^2 + dy^2) of each image, (N,): 0 beyond the edges, and no gradient where it is flat."""
    import torch
    from torch.nn.functional import pad

    squared = pad(x.diff(dim=3), (0, 1)).square() + pad(x.diff(dim=2), (0, 0, 0, 1)).square()
    flat = squared == 0
    return torch.where(flat, 0, torch.where(flat, 1, squared).sqrt()).flatten(1).sum(1)
