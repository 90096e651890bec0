"""Activation maximisation: jaxviz beside PyTorch, as people write it and at its best, and beside Lucent, on this machine.

    python benchmarks/activation_maximization.py --out ascent.md
    python benchmarks/activation_maximization.py --quick       # small: do the scripts run, and do the answers agree?

Seconds a step and image of N units of a layer; lower is better. Three kinds of work, each compared with its like:
- textbook: gradient ascent on clipped pixels, the same images in all tools (last column: the largest difference, of [0, 1]);
  jaxviz computes convolutions as `jv.visualize` does on this machine, and in a row of its own ("exact") as attribution does;
- defaults: Fourier images with decorrelated colours, transforms, Adam: `jv.visualize` and Lucent's `render_vis`, as it comes
  and scaled to one size after its transforms (`fixed_image_size`), which is less work;
- diverse: the same, four samples a unit pushed apart: `jv.diversity` and Lucent's `objectives.diversity`, one weight.
Lucent's rows are left out where it is not installed.
All in turn, several times; medians; ratios with the least and the most of a turn. Compile time is apart.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
import optax
import rivals
import rivals_ascent

import jaxviz as jv

LAYERS = {
    "resnet18": ("layer1", "layer3", "layer4"),
    "resnet50": ("layer1", "layer3", "layer4"),
    "vgg16": ("features.9", "features.16", "features.30"),
}
MOVE = 2e-3  # what the first step of the textbook form moves a pixel at most; far above it, rounding decides between corners
SAMPLES, DIVERSITY = 4, 1.0  # of diverse images; the weight changes no speed
HEAD = measure.header(
    "network", "layer", "units", "work", "tool", "s a step and image", "jaxviz is faster", "compile, s", "apart"
)


def textbook(
    model: jv.Model, layer: str, units: range, start: np.ndarray, steps: int, rate: float, precision: str
) -> Callable[[], np.ndarray]:
    options: dict[str, Any] = {"param": jv.param.pixel, "optimizer": optax.sgd, "transforms": (), "ops": jv.ops.EXACT}
    options["precision"] = precision

    def run() -> np.ndarray:
        wanted = jv.channel(layer, units)
        return jv.visualize(
            model, wanted, learning_rate=rate, steps=steps, size=start.shape[:2], start=start, **options
        ).images[:, 0]

    return run


def rows(name: str, layer: str, count: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a row for each tool and kind of work, for `count` units of a layer."""
    module = rivals.torch_network(name)
    model = jv.from_torch(module, mean=rivals.MEAN, std=rivals.STD)
    units, size, steps = range(count), args.size, args.steps
    start = np.random.default_rng(0).uniform(0.4, 0.6, (size, size, 3)).astype(np.float32)
    slope = jv.attribution.saliency(model, start[None], jv.channel(layer, units)).maps
    rate = MOVE / float(np.abs(slope).max())
    same = (module, layer, units, start, steps, rate)
    work: dict[str, dict[str, Callable[[], np.ndarray]]] = {
        "textbook": {
            "jaxviz": textbook(model.fast(), layer, units, start, steps, rate, args.precision),
            "jaxviz, exact": textbook(model, layer, units, start, steps, rate, args.precision),
            "torch, best": rivals_ascent.batched(*same),
            "torch, best, compiled": rivals_ascent.batched(*same, compile=True),
            "torch.func.vmap": rivals_ascent.vmapped(*same),
            "torch, as written": rivals_ascent.eager(*same),
        },
    }
    if importlib.util.find_spec("lucent"):
        wanted = jv.channel(layer, units)
        apart = wanted - DIVERSITY * jv.diversity(layer)
        work["defaults"] = {
            "jaxviz": lambda: jv.visualize(model, wanted, steps=steps, size=size).images[:, 0],
            "Lucent": rivals_ascent.lucent(module, layer, units, size, steps, seen=None),
            "Lucent, at one size": rivals_ascent.lucent(module, layer, units, size, steps, seen=size),
        }
        work["diverse"] = {
            "jaxviz": lambda: jv.visualize(model, apart, steps=steps, size=size, samples=SAMPLES).images,
            "Lucent": rivals_ascent.lucent_diverse(module, layer, units, size, steps, SAMPLES, DIVERSITY),
        }
    for kind, tools in work.items():
        chosen = measure.chosen(tools if not args.work or kind in args.work else {}, args.tools)
        if len(chosen) <= 1:
            continue
        first = {tool: measure.timed(call) for tool, call in chosen.items()}
        times = measure.in_turn(chosen, args.repeats)
        samples = SAMPLES if kind == "diverse" else 1
        images = first["jaxviz"][1]
        for tool, (seconds, theirs) in first.items():
            yield {
                "network": name,
                "layer": layer,
                "units": count,
                "work": kind,
                "tool": tool,
                **measure.comparison(tool, seconds, times, steps * count * samples),
                "apart": float(np.abs(theirs - images).max()) if kind == "textbook" and tool != "jaxviz" else None,
            }


def line(row: dict[str, Any]) -> str:
    what = f"| {row['network']} | `{row['layer']}` | {row['units']} | {row['work']} | {row['tool']}"
    return f"{what} | {measure.columns(row)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--layers", nargs="+", help="instead of three depths of each network")
    parser.add_argument("--units", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--tools", nargs="+", default=[], help="only these rivals, such as 'torch, best' Lucent")
    parser.add_argument("--work", nargs="+", default=[], choices=["textbook", "defaults", "diverse"], help="only these")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    measure.add_options(parser)
    parser.add_argument("--quick", action="store_true", help="two units of a small network at 64 px, once")
    parser.add_argument("--out", type=Path, help="Markdown; the same numbers go to a .json beside it")
    args = parser.parse_args()
    if args.quick:
        args.networks, args.layers, args.units, args.size, args.steps, args.repeats = ["resnet18"], ["layer1"], [2], 64, 3, 1
    measure.prepare(args.devices, args.precision)
    measured = (
        row
        for name in args.networks
        for layer in args.layers or LAYERS[name]
        for count in args.units
        for row in rows(name, layer, count, args)
    )
    found = measure.collect(measured, HEAD, line, args.out, measure.machine("torch-lucent"))
    wrong = [row for row in found if row["apart"] is not None and not row["apart"] < 1e-2]
    if args.quick and wrong:
        raise SystemExit(f"Different answers: {wrong}")


if __name__ == "__main__":
    main()
