"""Attribution: jaxviz beside Captum and pytorch-grad-cam, the same weights, images and classes, on this machine.

    python benchmarks/attribution.py --out attribution.md
    python benchmarks/attribution.py --quick            # small: do the scripts run, and do the answers agree?

Each row times one method on a batch: both tools in turn, several times, and the median of each. jaxviz's compile time is apart.
The last column is how far the maps are from each other, by their largest value, in the median image ("random": each draws its
own noise), for Eigen-CAMs with the sign that fits better; --quick does not ask those to agree. Where an input lies within
rounding of a ReLU's zero, tools may take different sides of it, and single images differ by more: in 224 x 224 noise most do.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import rivals

import jaxviz as jv

LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.30"}
SLOW = ("score_cam", "ablation_cam", "full_grad")  # minutes of a CPU with pytorch-grad-cam: fewer images
RANDOM = ("smoothgrad",)
SIGN = ("eigen_cam", "eigen_grad_cam")  # those of pytorch-grad-cam have their sign by chance
OPTIONS: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 32, "stride": 16},
    "smoothgrad": {"samples": 25, "noise": 0.1},
    "integrated_gradients": {"steps": 50},
    "grad_cam_plus_plus": {"convention": "pgc"},  # which adds 1e-6 to its denominator
}


def difference(ours: np.ndarray, theirs: np.ndarray, normalise: bool, signs: Sequence[int]) -> float:
    """Return the largest difference, by the largest value, of the median image, each with the sign of `signs` that fits best.

    `normalise` maps as pytorch-grad-cam does.
    """
    axes = tuple(range(1, theirs.ndim))
    most = np.abs(theirs).max(axes)
    found = []
    for sign in signs:
        maps = sign * ours
        if normalise:
            maps = np.maximum(maps, 0)
            maps = maps - maps.min((1, 2), keepdims=True)
            maps = maps / (1e-7 + maps.max((1, 2), keepdims=True))
        found.append(np.abs(maps - theirs).max(axes) / np.where(most == 0, 1, most))  # a CAM may be 0 everywhere
    return float(np.median(np.min(found, 0)))


def rows(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each method that a rival has too, on one network."""
    module = rivals.torch_network(name)
    model = jv.from_torch(module, mean=rivals.MEAN, std=rivals.STD)
    images = np.random.default_rng(0).uniform(size=(args.batch, args.size, args.size, 3)).astype(np.float32)
    classes = [int(c) for c in np.random.default_rng(1).integers(0, model.num_classes, args.batch)]
    found = []
    for tool, methods in (("Captum", rivals.captum), ("pytorch-grad-cam", rivals.pytorch_grad_cam)):
        wanted = [m for m in methods(module, images, classes, LAYERS[name]) if not args.methods or m in args.methods]
        for method in wanted:
            count = min(args.batch, args.slow_batch) if method in SLOW else args.batch
            x, y = images[:count], classes[:count]
            theirs = methods(module, x, y, LAYERS[name])[method]
            has_layer = "cam" in method
            options = OPTIONS.get(method, {}) | ({"layer": LAYERS[name]} if has_layer else {})

            def ours(
                method: str = method, x: np.ndarray = x, y: list[int] = y, options: dict[str, Any] = options
            ) -> np.ndarray:
                return jv.attribute(model, x, method, y, **options).maps

            first, maps = measure.timed(ours)
            apart = difference(maps, theirs(), tool != "Captum", (1, -1) if method in SIGN else (1,))
            times = measure.in_turn({"jaxviz": ours, tool: theirs}, args.repeats)
            row = {
                "network": name,
                "method": method,
                "images": count,
                "rival": tool,
                "seconds": times,
                "faster": measure.ratio(times[tool], times["jaxviz"]),
                "compile_s": max(0.0, first - statistics.median(times["jaxviz"])),
                "difference": None if method in RANDOM else apart,
            }
            found.append(row)
            print(line(row), flush=True)
    return found


HEAD = measure.header("network", "method", "images", "rival", "jaxviz, s", "rival, s", "times faster", "compile, s", "apart")


def line(row: dict[str, Any]) -> str:
    apart = "random" if row["difference"] is None else f"{row['difference']:.0e}"
    ours, theirs = (statistics.median(row["seconds"][name]) for name in ("jaxviz", row["rival"]))
    middle, low, high = row["faster"]
    seconds = f"{ours:.3f} | {theirs:.3f} | {middle:.1f} ({low:.1f} to {high:.1f}) | {row['compile_s']:.1f}"
    return f"| {row['network']} | `{row['method']}` | {row['images']} | {row['rival']} | {seconds} | {apart} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--slow-batch", type=int, default=1, help="images of Score-CAM, Ablation-CAM and FullGrad")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--devices", type=int, help="host devices of jaxviz on CPU; one for each core unless given")
    parser.add_argument("--quick", action="store_true", help="small images and one network")
    parser.add_argument("--out", type=Path, help="Markdown; the same numbers go to a .json beside it")
    args = parser.parse_args()
    if args.quick:
        args.networks, args.batch, args.size, args.repeats = ["resnet18"], 2, 64, 1
    measure.use_all_cores(args.devices)
    print(HEAD)
    found = [row for name in args.networks for row in rows(name, args)]
    measure.write(args.out, [HEAD, *map(line, found)], found, measure.machine("captum", "grad-cam"))
    checked = [row for row in found if row["method"] not in SIGN]
    wrong = [row for row in checked if row["difference"] is not None and not row["difference"] < 1e-3]
    if args.quick and wrong:
        raise SystemExit(f"Different answers: {wrong}")


if __name__ == "__main__":
    main()
