"""pytorch-grad-cam, and its own last steps for comparing raw maps with what it returns."""

from __future__ import annotations

import copy
import functools
import importlib
from collections.abc import Sequence

import numpy as np
import pytest

from tests.attribution.reference import full, normalised
from tests.torch_reference import import_torchvision

# A network, the width of a VGG's hidden layers, our name of a layer and the path of the module that it is in torchvision's.
SMALL = (
    ("small_resnet", None, "layer4", "layer4.0"),
    ("small_bottleneck", None, "layer3", "layer3.0"),
    ("small_vgg_bn", None, "features.27", "features.27"),
)
LARGE = (
    ("resnet18", None, "layer4", "layer4.1"),
    ("resnet50", None, "layer4", "layer4.2"),
    ("resnet50", None, "layer3", "layer3.5"),
    ("vgg16", 64, "features.30", "features.30"),
    ("vgg16_bn", 64, "features.42", "features.42"),
)
CASES = (*SMALL, *(full(*case) for case in LARGE))


def pgc():
    """Import pytorch-grad-cam, or skip the test."""
    import_torchvision()
    return pytest.importorskip("pytorch_grad_cam")


def pgc_map(name: str, module, path: str | list[str], images: np.ndarray, classes, *, double: bool = False) -> np.ndarray:
    """Return the map (N, H, W) that the class `name` of pytorch-grad-cam makes, of one class for each image.

    Args:
        name, module, path: its class, the network, the paths of layers.
        images, classes: ours.
        double: compute with 64 bits, where what it subtracts is not known well enough with 32.
    """
    pgc()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    module, x = (copy.deepcopy(module).double(), normalised(images).double()) if double else (module, normalised(images))
    layers = [module.get_submodule(one) for one in ([path] if isinstance(path, str) else path)]
    with getattr(importlib.import_module("pytorch_grad_cam"), name)(module, layers) as made:
        return made(x, [ClassifierOutputTarget(int(c)) for c in classes])


def pgc_raw_maps(names: Sequence[str], module, path: str, images: np.ndarray, classes) -> dict[str, np.ndarray]:
    """Return the maps (N, h, w) of several classes before their last steps, from one forward and one backward pass."""
    pgc()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    package, found = importlib.import_module("pytorch_grad_cam"), {}
    targets = [ClassifierOutputTarget(int(c)) for c in classes]
    with package.GradCAM(module, [module.get_submodule(path)]) as made:
        made(normalised(images), targets)
        pair = made.activations_and_grads
        values, gradients = pair.activations[0].numpy(), pair.gradients[0].numpy()
        for name in names:
            kind = getattr(package, name)
            one = kind.__new__(kind)  # without hooks of its own
            one.activations_and_grads = pair
            found[name] = one.get_cam_image(None, None, targets, values, gradients, False)
    return found


def last_steps(maps: np.ndarray, size: int) -> np.ndarray:
    """Return raw maps (N, h, w) after pytorch-grad-cam's own steps: cut off, scaled, resized, scaled."""
    from pytorch_grad_cam.utils.image import scale_cam_image

    return scale_cam_image(np.maximum(scale_cam_image(np.maximum(maps, 0), (size, size)), 0))


@functools.cache
def quiet() -> None:
    """Switch off its progress bars."""
    import tqdm

    tqdm.tqdm.__init__ = functools.partialmethod(tqdm.tqdm.__init__, disable=True)
