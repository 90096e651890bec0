"""Activation maximisation in PyTorch, as people write it and at its best, and Lucent as released.

The PyTorch ones do the same work as ours in its textbook form: from one image, `x = clip(x + rate * gradient, 0, 1)` of the
mean of a channel over the positions, for each of several units; they return the images (N, H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rivals

Ascent = Callable[[], np.ndarray]


def eager(module: Any, layer: str, units: Sequence[int], start: np.ndarray, steps: int, rate: float) -> Ascent:
    """As people write it: a loop over the units, the whole network, and a hook that keeps the layer's values."""
    import torch

    mean, std = constants()

    def run() -> np.ndarray:
        kept: dict[str, Any] = {}
        handle = rivals.layer_of(module, layer).register_forward_hook(lambda _, __, value: kept.update(value=value))
        found = []
        for unit in units:
            x = nchw(start[None])
            for _ in range(steps):
                x.requires_grad_(True)
                module((x - mean) / std)
                (gradient,) = torch.autograd.grad(kept["value"][:, unit].mean((1, 2)).sum(), x)
                x = (x.detach() + rate * gradient).clamp(0, 1)
            found.append(x)
        handle.remove()
        return nhwc(torch.cat(found))

    return run


def batched(
    module: Any, layer: str, units: Sequence[int], start: np.ndarray, steps: int, rate: float, compile: bool = False
) -> Ascent:
    """At its best: the network cut off above the layer, weights frozen, channels last, all units in one batch."""
    import torch

    below = cut(module, layer).requires_grad_(False).to(memory_format=torch.channels_last)
    below = compiled(below) if compile else below
    mean, std = constants()
    index = torch.tensor(list(units), device=rivals.device())[:, None, None, None]

    def step(x: Any) -> Any:
        x = x.detach().requires_grad_(True)
        value = below((x - mean) / std)
        chosen = value.gather(1, index.expand(-1, 1, *value.shape[2:]))
        (gradient,) = torch.autograd.grad(chosen.mean((1, 2, 3)).sum(), x)
        return (x.detach() + rate * gradient).clamp(0, 1)

    def run() -> np.ndarray:
        x = nchw(np.repeat(start[None], len(units), 0)).to(memory_format=torch.channels_last)
        for _ in range(steps):
            x = step(x)
        return nhwc(x)

    return run


def vmapped(module: Any, layer: str, units: Sequence[int], start: np.ndarray, steps: int, rate: float) -> Ascent:
    """`torch.func`: the gradient of one unit's image, vmapped over the units."""
    import torch
    from torch.func import functional_call, grad, vmap

    below = cut(module, layer).requires_grad_(False)
    weights = {**dict(below.named_parameters()), **dict(below.named_buffers())}
    mean, std = constants()

    def score(x: Any, unit: Any) -> Any:
        value = functional_call(below, weights, ((x[None] - mean) / std,))
        return value[0].index_select(0, unit[None]).mean()

    slope = vmap(grad(score))
    index = torch.tensor(list(units), device=rivals.device())

    def run() -> np.ndarray:
        x = nchw(np.repeat(start[None], len(units), 0))
        for _ in range(steps):
            x = (x + rate * slope(x, index)).clamp(0, 1)
        return nhwc(x)

    return run


def lucent(module: Any, layer: str, units: Sequence[int], size: int, steps: int, *, seen: int | None) -> Ascent:
    """Lucent's `render_vis` with its defaults at this size: Fourier image, its transforms, Adam; a call for each unit.

    Its transforms leave images of changing size, 236 to 260 px of 224; with `seen` they are scaled to that before the network.
    """
    from lucent.optvis import param, render

    hooked = layer.replace(".", "_")
    options: dict[str, Any] = {"thresholds": (steps,), "progress": False, "show_image": False, "fixed_image_size": seen}

    def run() -> np.ndarray:
        made = [render.render_vis(module, f"{hooked}:{unit}", lambda: param.image(size), **options) for unit in units]
        return np.concatenate([images[0] for images in made])

    return run


def lucent_diverse(module: Any, layer: str, units: Sequence[int], size: int, steps: int, samples: int, weight: float) -> Ascent:
    """As `lucent`, with several images of each unit and `objectives.diversity` subtracted; returns (N, S, H, W, 3)."""
    from lucent.optvis import objectives, param, render

    hooked = layer.replace(".", "_")
    options: dict[str, Any] = {"thresholds": (steps,), "progress": False, "show_image": False, "fixed_image_size": size}

    def images(unit: int) -> np.ndarray:
        wanted = objectives.channel(hooked, unit) - weight * objectives.diversity(hooked)
        return render.render_vis(module, wanted, lambda: param.image(size, batch=samples), **options)[0]

    return lambda: np.stack([images(unit) for unit in units])


def cut(module: Any, layer: str) -> Any:
    """Return the network up to a layer, as torchvision's feature extractor cuts it."""
    rivals.import_torchvision()
    from torch import nn
    from torchvision.models.feature_extraction import create_feature_extractor

    class Below(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.extractor = create_feature_extractor(module, [layer])

        def forward(self, x: Any) -> Any:
            return self.extractor(x)[layer]

    return Below().eval()


def compiled(below: Any) -> Any:
    """`torch.compile`; on a GPU with CUDA graphs, so that no time is spent on starting kernels."""
    import torch

    return torch.compile(below, mode="reduce-overhead" if rivals.device() == "cuda" else "default")


def constants() -> tuple[Any, ...]:
    import torch

    values = (torch.tensor(v, dtype=torch.float32, device=rivals.device()) for v in (rivals.MEAN, rivals.STD))
    return tuple(value[None, :, None, None] for value in values)


def nchw(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(rivals.device())


def nhwc(images: Any) -> np.ndarray:
    return images.detach().contiguous().cpu().numpy().transpose(0, 2, 3, 1)
