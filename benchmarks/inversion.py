"""Inversion of features: jaxviz beside PyTorch, as people write it and at its best, on this machine.

    python benchmarks/inversion.py --out inversion.md
    python benchmarks/inversion.py --quick          # small: do the scripts run, and do the answers agree?

Seconds a step and image of N images inverted from each of several layers; lower is better. All do the same: from one image,
`jv.invert`'s loss (relative squared distance of the layer's activations, plus total variation), pixels clipped to [0, 1].
"Apart" is how far an image is from jaxviz's, of [0, 1]: the mean over the pixels, of the layer and image where that is largest.
Where a gradient is within rounding of 0, Adam takes a whole step one way or the other, so single pixels differ by more.
jaxviz also measures in the end how near each image came, which the others do not.
All in turn, several times; medians; ratios with the least and the most of a turn. Compile time is apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import optax
import rivals
import rivals_inversion

import jaxviz as jv

LAYERS = {
    "resnet18": ("layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("layer1", "layer2", "layer3", "layer4"),
    "vgg16": ("features.9", "features.16", "features.23", "features.30"),
}
RATES = {"adam": 0.02, "sgd": 20.0}  # the gradient of a relative distance is small
SMOOTH = 0.1  # of total variation, a pixel: the default of `jv.invert`
HEAD = measure.header(
    "network", "layers", "images", "optimiser", "tool", "s a step and image", "jaxviz is faster", "compile, s", "apart"
)


def ours(
    model: jv.Model,
    precision: str,
    layers: list[str],
    photos: np.ndarray,
    start: np.ndarray,
    steps: int,
    rate: float,
    weight: float,
    name: str,
) -> Callable[[], np.ndarray]:
    options: dict[str, Any] = {"optimizer": getattr(optax, name), "learning_rate": rate, "steps": steps, "start": start}
    options["precision"] = precision
    smooth = jv.regularizers.total_variation(weight)
    return lambda: jv.invert(model, photos, layers, regularizers=smooth, **options).images


def rows(name: str, count: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a row for each tool, for `count` images and all layers of a network."""
    module = rivals.torch_network(name)
    model = jv.from_torch(module, mean=rivals.MEAN, std=rivals.STD)
    layers, size, steps = list(args.layers or LAYERS[name]), args.size, args.steps
    random = np.random.default_rng(0)
    coarse = random.uniform(size=(count, max(2, size // 16), max(2, size // 16), 3)).astype(np.float32)
    photos = np.clip(np.asarray(jv.image.resize(coarse, (size, size))), 0, 1)  # smooth, as photos are
    start = random.uniform(0.4, 0.6, (size, size, 3)).astype(np.float32)
    same = (layers, photos, start, steps, RATES[args.optimizer], SMOOTH / size**2, args.optimizer)
    tools: dict[str, Callable[[], np.ndarray]] = {
        "jaxviz": ours(model, args.precision, *same),
        "torch, best": rivals_inversion.batched(module, *same),
        "torch, best, compiled": rivals_inversion.batched(module, *same, compile=True),
        "torch, as written": rivals_inversion.eager(module, *same),
    }
    wanted = measure.chosen(tools, args.tools)
    first = {tool: measure.timed(call) for tool, call in wanted.items()}
    times = measure.in_turn(wanted, args.repeats)
    images = first["jaxviz"][1]
    for tool, (seconds, theirs) in first.items():
        yield {
            "network": name,
            "layers": layers,
            "images": count,
            "optimizer": args.optimizer,
            "tool": tool,
            **measure.comparison(tool, seconds, times, steps * count * len(layers)),
            "apart": None if tool == "jaxviz" else float(np.abs(theirs - images).mean((2, 3, 4)).max()),
            "moved": float(np.abs(theirs - start).mean((2, 3, 4)).min()),
        }


def line(row: dict[str, Any]) -> str:
    layers = ", ".join(f"`{layer}`" for layer in row["layers"])
    what = f"| {row['network']} | {layers} | {row['images']} | {row['optimizer']} | {row['tool']}"
    return f"{what} | {measure.columns(row)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--layers", nargs="+", help="instead of four depths of each network")
    parser.add_argument("--images", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--tools", nargs="+", default=[], help="only these rivals, such as 'torch, best'")
    parser.add_argument("--optimizer", default="adam", choices=list(RATES))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    measure.add_options(parser)
    parser.add_argument("--quick", action="store_true", help="two images and layers of a small network at 64 px, once")
    parser.add_argument("--out", type=Path, help="Markdown; the same numbers go to a .json beside it")
    args = parser.parse_args()
    if args.quick:
        args.networks, args.layers, args.images, args.size, args.steps = ["resnet18"], ["conv1", "maxpool"], [2], 64, 4
        args.repeats = 1
    measure.prepare(args.devices, args.precision)
    measured = (row for name in args.networks for count in args.images for row in rows(name, count, args))
    found = measure.collect(measured, HEAD, line, args.out, measure.machine())
    wrong = [row for row in found if row["apart"] is not None and not row["apart"] < 1e-2 * row["moved"]]
    if args.quick and wrong:
        raise SystemExit(f"Different answers: {wrong}")


if __name__ == "__main__":
    main()
