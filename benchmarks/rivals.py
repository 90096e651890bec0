"""The tools that jaxviz is compared with, called as their own documentation calls them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS, SAMPLES, MASKS = 20, 10, 256  # of integrated gradients, SmoothGrad and RISE: the time is proportional to them


def import_torchvision() -> Any:
    """Import torchvision; beside a CPU build of torch its wheel lacks two operators, so declare them first."""
    try:
        import torchvision
    except RuntimeError:
        from torch import library

        for name in ("nms", "qnms"):
            library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def device() -> str:
    """Return where torch computes: on a GPU where it finds one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def torch_network(name: str, seed: int = 0) -> Any:
    """Return torchvision's network with random weights, in evaluation mode, and no ReLU in place: hooks need that."""
    import torch

    torch.manual_seed(seed)
    module = getattr(import_torchvision().models, name)()
    for part in module.modules():
        if isinstance(part, torch.nn.ReLU):
            part.inplace = False
    return module.eval().to(device())


def normalised(images: np.ndarray) -> Any:
    """Return images (N, H, W, 3) in [0, 1] as torch's normalised (N, 3, H, W)."""
    import torch

    channels_first = ((images - np.float32(MEAN)) / np.float32(STD)).transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(channels_first)).to(device())


def nhwc(maps: Any) -> np.ndarray:
    """Return torch's (N, C, H, W) as NumPy (N, H, W, C), or (N, H, W) where C is 1."""
    found = maps.detach().cpu().numpy().transpose(0, 2, 3, 1)
    return found[..., 0] if found.shape[-1] == 1 else found


def layer_of(module: Any, name: str) -> Any:
    """Return the module that a dotted name means."""
    return module.get_submodule(name)


def captum(module: Any, images: np.ndarray, classes: list[int], layer: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return Captum's methods by our names, each as a function that explains the images and returns maps as ours are."""
    import torch
    from captum import attr

    x, y, std = normalised(images), torch.tensor(classes, device=device()), np.float32(STD)
    cam = attr.LayerGradCam(module, layer_of(module, layer))
    size = tuple(x.shape[2:])

    def occlusion() -> np.ndarray:
        method = attr.Occlusion(module)  # three equal channels
        return nhwc(method.attribute(x, (3, 32, 32), strides=(3, 16, 16), target=y, perturbations_per_eval=8))[..., 0]

    def smoothgrad() -> np.ndarray:
        tunnel = attr.NoiseTunnel(attr.Saliency(module))
        return nhwc(tunnel.attribute(x, nt_samples=SAMPLES, stdevs=0.5, nt_samples_batch_size=1, target=y, abs=False)) / std

    def integrated() -> np.ndarray:
        return nhwc(attr.IntegratedGradients(module).attribute(x, target=y, n_steps=STEPS, internal_batch_size=len(x)))

    def grad_cam() -> np.ndarray:
        found = cam.attribute(x, target=y, relu_attributions=True)
        return nhwc(attr.LayerAttribution.interpolate(found, size, "bilinear"))

    return {
        "saliency": lambda: nhwc(attr.Saliency(module).attribute(x, target=y, abs=False)) / std,
        "input_x_gradient": lambda: nhwc(attr.InputXGradient(module).attribute(x, target=y)),
        "guided_backprop": lambda: nhwc(attr.GuidedBackprop(module).attribute(x, target=y)) / std,
        "deconvnet": lambda: nhwc(attr.Deconvolution(module).attribute(x, target=y)) / std,
        "integrated_gradients": integrated,
        "smoothgrad": smoothgrad,
        "occlusion": occlusion,
        "grad_cam": grad_cam,
    }


PGC = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "grad_cam_elementwise": "GradCAMElementWise",
    "eigen_cam": "EigenCAM",
    "eigen_grad_cam": "EigenGradCAM",
    "score_cam": "ScoreCAM",
    "ablation_cam": "AblationCAM",
    "full_grad": "FullGrad",
}


def pytorch_grad_cam(module: Any, images: np.ndarray, classes: list[int], layer: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return pytorch-grad-cam's methods by our names; its maps are always normalised to [0, 1] and resized."""
    import pytorch_grad_cam as pgc
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    x, targets = normalised(images), [ClassifierOutputTarget(c) for c in classes]

    def run(kind: str) -> np.ndarray:
        with getattr(pgc, kind)(model=module, target_layers=[layer_of(module, layer)]) as cam:
            return cam(input_tensor=x, targets=targets)

    return {name: (lambda kind=kind: run(kind)) for name, kind in PGC.items()}


def published(module: Any, images: np.ndarray, classes: list[int], layer: str) -> dict[str, Callable[[], np.ndarray]]:
    """Return what neither tool has, in PyTorch as its authors published it: RISE, for each image all masks and then batches."""
    import torch
    from torch.nn import functional

    x, size, grid, batch = normalised(images), images.shape[1:3], 7, 32
    cell = [-(-side // grid) for side in size]

    def mask(opened: Any, shift: Any) -> Any:
        large = functional.interpolate(opened[None, None], [(grid + 1) * c for c in cell], mode="bilinear")[0, 0]
        return large[shift[0] : shift[0] + size[0], shift[1] : shift[1] + size[1]]

    def rise() -> np.ndarray:
        random = torch.Generator().manual_seed(0)
        opened = (torch.rand(MASKS, grid, grid, generator=random) < 0.5).float()
        shifts = torch.stack([torch.randint(c, (MASKS,), generator=random) for c in cell], 1)
        masks = torch.stack([mask(one, shift) for one, shift in zip(opened, shifts, strict=True)]).to(device())
        maps = []
        with torch.no_grad():
            for image, target in zip(x, classes, strict=True):
                scores = torch.cat([module(image * part[:, None])[:, target] for part in masks.split(batch)])
                maps.append(torch.einsum("s,shw->hw", scores, masks) / (MASKS * 0.5))
        return torch.stack(maps).cpu().numpy()

    return {"rise": rise}
