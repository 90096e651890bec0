"""Train the network that jaxviz ships: torchvision's ResNet-18 on Imagenette's ten classes.

Two phases. A standard one with progressive resizing, then adversarial fine-tuning in an L2 ball, because the units of an
adversarially trained network give by far the clearer pictures. A phase is one or more one-cycle schedules, each with 0.3 times
the peak of the one before. Every epoch is saved, so an interrupted run continues.

    python weights/train.py --data imagenette/ --bfloat16 --out weights/resnet18-imagenette.safetensors
    python weights/train.py --data imagenette/ --bfloat16 --out judge.safetensors --seed 1 \\
        --standard 64x4,80x4,96x3 --adversarial

The folder holds `train/<WordNet id>/*.JPEG` and `val/<WordNet id>/*.JPEG`. Needs torch and torchvision (extra `test`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jaxviz.models._files.checkpoint import write

CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PHOTO = 224  # pixels a side of a photo in memory
TEST_SIZE = 128
RADIUS_SIZE = 112  # the L2 radius is stated at this size and scales with the side, so that the mean change of a pixel stays


@dataclass(frozen=True)
class Stage:
    """Epochs at one image size."""

    size: int
    epochs: int


def stages(text: str) -> tuple[Stage, ...]:
    """Read `"64x5,96x4"` as 5 epochs at 64 pixels, then 4 at 96."""
    return tuple(Stage(*map(int, part.split("x"))) for part in text.split(",") if part)


def cycle_name(phase: str, number: int) -> str:
    return phase if number == 0 else f"{phase}-{number + 1}"


def read_photos(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all photos as uint8 (N, 3, 224, 224) and their classes as int64 (N,), in a fixed order."""
    paths = [(path, label) for label, wnid in enumerate(CLASSES) for path in sorted((folder / wnid).iterdir())]
    photos = np.empty((len(paths), PHOTO, PHOTO, 3), np.uint8)
    for i, (path, _) in enumerate(paths):
        with Image.open(path) as image:
            photos[i] = np.asarray(image.convert("RGB").resize((PHOTO, PHOTO), Image.Resampling.BILINEAR))
    return torch.from_numpy(photos).permute(0, 3, 1, 2), torch.tensor([label for _, label in paths])


def augment(photos: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Random resized crop (35 to 100 % of the area, aspect 3/4 to 4/3) and flip: float32 (N, 3, size, size) in [0, 1]."""
    out = torch.empty((len(photos), 3, size, size), memory_format=torch.channels_last)
    for i, photo in enumerate(photos):
        area, ratio = PHOTO**2 * rng.uniform(0.35, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = (min(PHOTO, round(float(np.sqrt(area * r)))) for r in (ratio, 1 / ratio))
        x, y = rng.integers(PHOTO - w + 1), rng.integers(PHOTO - h + 1)
        crop = photo[None, :, y : y + h, x : x + w]
        crop = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
        out[i] = crop.flip(-1) if rng.random() < 0.5 else crop
    return out / 255


def network(num_classes: int = len(CLASSES)) -> torch.nn.Module:
    try:
        import torchvision
    except RuntimeError:  # a PyPI torchvision beside a CPU build of torch misses two operators; declared, it imports
        from torch import library

        for name in ("nms", "qnms"):
            library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    model = torchvision.models.resnet18(num_classes=num_classes, zero_init_residual=True)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def logits(model: torch.nn.Module, images: torch.Tensor, bfloat16: bool = False) -> torch.Tensor:
    """Normalise images in [0, 1] and apply the network: float32 logits."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        return model((images - mean) / std).float()


def project(delta: torch.Tensor, radius: float) -> torch.Tensor:
    """Project each perturbation into the L2 ball."""
    norm = delta.flatten(1).norm(dim=1).clamp_min(1e-12)
    return delta * (radius / norm).clamp_max(1)[:, None, None, None]


def attack(
    model: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    radius: float,
    step: float,
    steps: int,
    bfloat16: bool = False,
) -> torch.Tensor:
    """Projected gradient ascent on the loss from a random start: images in [0, 1] within `radius` (L2) of the given ones."""
    delta = torch.randn_like(images)
    delta = delta / delta.flatten(1).norm(dim=1)[:, None, None, None] * radius * torch.rand(len(images), 1, 1, 1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # only the image's gradient: a third of the pass less
    for _ in range(steps):
        moved = (images + delta).clamp(0, 1).requires_grad_()
        loss = F.cross_entropy(logits(model, moved, bfloat16), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        gradient /= gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
        delta = project(moved.detach() + step * gradient - images, radius)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return (images + delta).clamp(0, 1).contiguous(memory_format=torch.channels_last)


def accuracy(
    model: torch.nn.Module, photos: torch.Tensor, labels: torch.Tensor, size: int, radius: float = 0.0, steps: int = 10
) -> float:
    """Top-1 accuracy at `size` pixels, clean or under an L2 attack."""
    model.eval()
    correct = 0
    for i in range(0, len(photos), 64):
        images = F.interpolate(photos[i : i + 64], (size, size), mode="bilinear", antialias=True) / 255
        images = images.contiguous(memory_format=torch.channels_last)
        if radius:
            images = attack(model, images, labels[i : i + 64], radius, 2.5 * radius / steps, steps)
        with torch.no_grad():
            correct += int((logits(model, images).argmax(1) == labels[i : i + 64]).sum())
    return correct / len(photos)


def train_cycle(
    name: str,
    model: torch.nn.Module,
    plan: tuple[Stage, ...],
    peak: float,
    radius: float,
    data: dict[str, tuple[torch.Tensor, torch.Tensor]],
    args: argparse.Namespace,
) -> None:
    """Train in place with SGD on a one-cycle schedule; the weights become their exponential moving average at the end."""
    photos, labels = data["train"]
    batches = len(photos) // args.batch
    sizes = [stage.size for stage in plan for _ in range(stage.epochs)]
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 5e-4}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=peak, momentum=0.9, nesterov=True, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=batches * len(sizes), pct_start=0.25)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.98), use_buffers=True)
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}
    saved = args.work / f"{name}-seed{args.seed}.pt"
    first = 0
    if saved.exists():
        stored = torch.load(saved, weights_only=True)
        first = stored.pop("epoch")
        for key, part in state.items():
            part.load_state_dict(stored[key])
    for epoch in range(first, len(sizes)):
        size, start, total = sizes[epoch], time.time(), 0.0
        rng = np.random.default_rng([args.seed, epoch, len(name)])
        torch.manual_seed(args.seed * 1000 + epoch)
        order = rng.permutation(len(photos))[: batches * args.batch].reshape(batches, args.batch)
        model.train()
        for i, rows in enumerate(order):
            images, target = augment(photos[rows], size, rng), labels[rows]
            if radius:
                r = radius * size / RADIUS_SIZE
                images = attack(model, images, target, r, 1.25 * r, 1, args.bfloat16)
            loss = F.cross_entropy(logits(model, images, args.bfloat16), target, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if i % 4 == 3:
                average.update_parameters(model)
            total += float(loss.detach())
        torch.save({**{key: part.state_dict() for key, part in state.items()}, "epoch": epoch + 1}, saved)
        rows = slice(None, None, 8)
        top1 = accuracy(average.module, data["val"][0][rows], data["val"][1][rows], TEST_SIZE)
        line = (
            f"{name} {epoch + 1}/{len(sizes)} at {size} px: loss {total / batches:.3f}, top-1 on every eighth photo {top1:.3f}"
        )
        print(f"{line}, {time.time() - start:.0f} s", flush=True)
    model.load_state_dict(average.module.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/, one folder per class")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write (float16)")
    parser.add_argument("--work", type=Path, default=Path("training"), help="folder for the state after every epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--bfloat16", action="store_true", help="train in bfloat16: twice as fast on CPUs with AMX or AVX-512 BF16"
    )
    cycles = {"type": stages, "nargs": "*", "metavar": "CYCLE"}
    parser.add_argument(
        "--standard", default=[stages("96x20,128x8"), stages("128x4")], help="size x epochs, in order", **cycles
    )
    parser.add_argument("--adversarial", default=[stages("112x10,128x3")], help="the same; nothing for none", **cycles)
    parser.add_argument("--radius", type=float, default=1.0, help="of the L2 ball, pixels in [0, 1], at 112 pixels")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    data = {split: read_photos(args.data / split) for split in ("train", "val")}
    torch.manual_seed(args.seed)
    model = network()
    report: dict[str, float] = {}
    for number, plan in enumerate(args.standard):
        train_cycle(cycle_name("standard", number), model, plan, 0.1 * 0.3**number, 0.0, data, args)
    report["standard_top1"] = accuracy(model, *data["val"], TEST_SIZE)
    for number, plan in enumerate(args.adversarial):
        train_cycle(cycle_name("adversarial", number), model, plan, 0.03 * 0.3**number, args.radius, data, args)
    model.half().float()  # measured as shipped
    report["top1"] = accuracy(model, *data["val"], TEST_SIZE)
    some = tuple(part[::8] for part in data["val"])
    torch.manual_seed(args.seed)
    for radius in (0.5, 1.0):
        report[f"robust_top1_l2_{radius}"] = accuracy(model, *some, RADIUS_SIZE, radius)
    metadata = {
        "architecture": "resnet18",
        "class_names": json.dumps(list(CLASSES.values())),
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        "size": json.dumps([TEST_SIZE, TEST_SIZE]),
        "report": json.dumps(report),
    }
    tensors = {k: (v.half() if v.is_floating_point() else v).numpy() for k, v in model.state_dict().items()}
    write(args.out, tensors, metadata)
    print(json.dumps(report), hashlib.sha256(args.out.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
