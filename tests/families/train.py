"""How the two small networks of this folder were trained: VGG's shape at an eighth of its width, with and without BatchNorm.

    python tests/families/train.py --data imagenette/ --out tests/families/

Needs torch. Imagenette's photos at 96 pixels, random crops and flips, Adam with a one-cycle rate, 12 epochs: some minutes of
one CPU core each. The weights are saved in float16 in jaxviz's own layouts, with the top-1 accuracy on the validation photos:
74.4 % without and 82.0 % with BatchNorm. They are Apache-2.0 as the rest of jaxviz, and none of the photos is here.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

CONFIG = (8, 0, 16, 0, 32, 32, 0, 64, 64, 0, 64, 64, 0)  # torchvision's "A" over 8; 0 is a max pooling
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE, LARGE = 96, 112


def make(batch_norm: bool) -> tuple[nn.Sequential, nn.Linear]:
    """Return the features, with torchvision's numbers, and the classifier."""
    layers: list[nn.Module] = []
    channels = 3
    for width in CONFIG:
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(channels, width, 3, padding=1))
        nn.init.kaiming_normal_(layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
        layers += [nn.BatchNorm2d(width), nn.ReLU()] if batch_norm else [nn.ReLU()]
        channels = width
    return nn.Sequential(*layers), nn.Linear(channels, 10)


def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all photos uint8 (N, 3, LARGE, LARGE) and their classes."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(path, number) for number, name in enumerate(names) for path in sorted((folder / name).iterdir())]

    def one(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            image.draft("RGB", (LARGE, LARGE))
            return np.asarray(image.convert("RGB").resize((LARGE, LARGE), Image.Resampling.BICUBIC))

    with ThreadPoolExecutor(2) as pool:
        photos = np.stack(list(pool.map(one, (path for path, _ in files))))
    return torch.from_numpy(photos.transpose(0, 3, 1, 2).copy()), torch.tensor([number for _, number in files])


def normalised(photos: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    return (photos.float() / 255 - mean) / std


def train(batch_norm: bool, data: tuple, held_out: tuple, epochs: int, rate: float) -> dict[str, np.ndarray]:
    torch.manual_seed(0)
    features, classifier = make(batch_norm)
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), classifier).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    photos, classes = data
    steps = len(photos) // 64
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    for epoch in range(epochs):
        begun, order = time.monotonic(), torch.randperm(len(photos))
        network.train()
        for step in range(steps):
            rows = order[64 * step : 64 * (step + 1)]
            top, left = torch.randint(LARGE - SIZE + 1, (2,)).tolist()
            batch = normalised(photos[rows, :, top : top + SIZE, left : left + SIZE])
            batch = batch.flip(3) if torch.rand(()) < 0.5 else batch
            loss = nn.functional.cross_entropy(network(batch), classes[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = evaluate(network, held_out)
        print(f"epoch {epoch}: top-1 {accuracy:.3f}, {time.monotonic() - begun:.0f} s", flush=True)
    arrays = {"accuracy": np.float32(accuracy).reshape(1)}
    leaves = {"weight": "kernel", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    for name, value in [*features.state_dict(prefix="features.").items(), *classifier.state_dict(prefix="fc.").items()]:
        path, _, leaf = name.rpartition(".")
        if leaf in leaves:
            array = value.numpy()
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
            arrays[f"{path}.{'scale' if leaf == 'weight' and array.ndim == 1 else leaves[leaf]}"] = array.astype(
                np.float16
            ).copy()
    return arrays


@torch.no_grad()
def evaluate(network: nn.Module, held_out: tuple) -> float:
    network.eval()
    photos, classes = held_out
    edge = (LARGE - SIZE) // 2
    cut = photos[:, :, edge : edge + SIZE, edge : edge + SIZE].split(256)
    found = torch.cat([network(normalised(part)).argmax(1) for part in cut])
    return float((found == classes).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    data, held_out = read(arguments.data / "train"), read(arguments.data / "val")
    for name, batch_norm, rate in (("vgg", False, 3e-3), ("vgg_bn", True, 1e-2)):
        print(name)
        save_file(train(batch_norm, data, held_out, arguments.epochs, rate), arguments.out / f"{name}.safetensors")


if __name__ == "__main__":
    main()
