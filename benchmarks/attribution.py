"""Attribution: jaxviz beside Captum and pytorch-grad-cam, the same weights, images and classes, on this machine.

    python benchmarks/attribution.py --out attribution.md
    python benchmarks/attribution.py --quick            # small: do the scripts run, and do the answers agree?

Each row times one method on a batch: the rival, jaxviz and jaxviz with `model.fast()` in turn, several times (long calls once),
and the median of each. jaxviz's compile time is apart. "Apart" is how far the maps are from the rival's, by their largest
value, in the median image ("random": each draws its own noise or masks), for Eigen-CAMs with the sign that fits better; "off
by" is how far `fast()` is from jaxviz's own. Where an input lies within rounding of a ReLU's zero, tools may take different
sides of it, and single images differ by more: in 224 x 224 noise most do.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
import rivals

import jaxviz as jv

LAYERS = {"resnet18": "layer4", "resnet50": "layer4", "vgg16": "features.30"}
RIVALS = {"Captum": rivals.captum, "pytorch-grad-cam": rivals.pytorch_grad_cam, "torch, as published": rivals.published}
SLOW = ("score_cam", "ablation_cam", "full_grad", "occlusion", "rise")  # up to minutes of a CPU: fewer images
LONG = 10.0  # seconds of a call that is timed once, not `repeats` times
RANDOM = ("smoothgrad", "rise")
SIGN = ("eigen_cam", "eigen_grad_cam")  # those of pytorch-grad-cam have their sign by chance
OPTIONS: dict[str, dict[str, Any]] = {
    "occlusion": {"window": 32, "stride": 16},
    "smoothgrad": {"samples": rivals.SAMPLES, "noise": 0.1},
    "integrated_gradients": {"steps": rivals.STEPS},
    "rise": {"samples": rivals.MASKS, "normalize": "expectation"},
    "grad_cam_plus_plus": {"convention": "pytorch-grad-cam"},  # which adds 1e-6 to its denominator
    "ablation_cam": {"convention": "pytorch-grad-cam"},  # not 0 in place of a channel, but what makes the score fall
}


def as_pgc(maps: np.ndarray, size: int) -> np.ndarray:
    """Return maps at the layer's size as pytorch-grad-cam does: nothing below 0, then enlarged, then from 0 to 1."""
    maps = np.asarray(jv.image.resize(np.maximum(maps, 0)[..., None], (size, size)))[..., 0]
    maps = maps - maps.min((1, 2), keepdims=True)
    return maps / (1e-7 + maps.max((1, 2), keepdims=True))


def difference(ours: Sequence[np.ndarray], theirs: np.ndarray) -> float:
    """Return the largest difference, by the largest value, of the median image, each with that one of `ours` that fits best."""
    axes = tuple(range(1, theirs.ndim))
    most = np.abs(theirs).max(axes)
    found = [np.abs(maps - theirs).max(axes) / np.where(most == 0, 1, most) for maps in ours]  # a CAM may be 0 everywhere
    return float(np.median(np.min(found, 0)))


def rows(name: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure a row for each method that a rival has too, on one network."""
    module = rivals.torch_network(name)
    model = jv.from_torch(module, mean=rivals.MEAN, std=rivals.STD)
    fast = model.fast()
    images = np.random.default_rng(0).uniform(size=(args.batch, args.size, args.size, 3)).astype(np.float32)
    classes = [int(c) for c in np.random.default_rng(1).integers(0, model.num_classes, args.batch)]
    for tool, rival in RIVALS.items():
        methods = rival(module, images, classes, LAYERS[name])
        for method in [m for m in methods if not args.methods or m in args.methods]:
            count = min(args.batch, args.slow_batch) if method in SLOW else args.batch
            options = OPTIONS.get(method, {}) | ({"layer": LAYERS[name]} if "cam" in method else {})
            options |= {"images": images[:count], "method": method, "target": classes[:count], "precision": args.precision}
            explain = functools.partial(jv.attribute, **options)
            calls = {
                "jaxviz": lambda explain=explain: explain(model).maps,
                "fast": lambda explain=explain: explain(fast).maps,
                tool: rival(module, images[:count], classes[:count], LAYERS[name])[method],
            }
            first = {which: measure.timed(call) for which, call in calls.items()}
            maps, fast_maps, theirs = (value for _, value in first.values())
            if tool == "pytorch-grad-cam" and method in SIGN:
                raw = explain(model, resize=False).maps
                ours = [as_pgc(raw, args.size), as_pgc(-raw, args.size)]
            else:
                ours = [as_pgc(maps, args.size) if tool == "pytorch-grad-cam" else maps]
            times = measure.in_turn(calls, 1 if first[tool][0] > LONG else args.repeats)
            yield {
                "network": name,
                "method": method,
                "images": count,
                "rival": tool,
                "seconds": times,
                "faster": measure.ratio(times[tool], times["jaxviz"]),
                "fast_faster": measure.ratio(times[tool], times["fast"]),
                "compile_s": max(0.0, first["jaxviz"][0] - statistics.median(times["jaxviz"])),
                "fast_difference": difference([fast_maps], maps),
                "difference": None if method in RANDOM else difference(ours, theirs),
            }


HEAD = measure.header(
    "network",
    "method",
    "images",
    "rival",
    "rival, s",
    "jaxviz, s",
    "times faster",
    "apart",
    "`fast()`, s",
    "times faster",
    "off by",
    "compile, s",
)


def line(row: dict[str, Any]) -> str:
    apart = "random" if row["difference"] is None else f"{row['difference']:.0e}"
    theirs, ours, fast = (f"{statistics.median(row['seconds'][name]):.3f}" for name in (row["rival"], "jaxviz", "fast"))
    faster, fast_faster = ("{:.2f} ({:.2f} to {:.2f})".format(*row[name]) for name in ("faster", "fast_faster"))
    what = f"| {row['network']} | `{row['method']}` | {row['images']} | {row['rival']} | {theirs}"
    off = f"{row['fast_difference']:.0e}"
    return f"{what} | {ours} | {faster} | {apart} | {fast} | {fast_faster} | {off} | {row['compile_s']:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--methods", nargs="+", default=[])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--slow-batch", type=int, default=1, help=f"images of {', '.join(SLOW)}")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    measure.add_options(parser)
    parser.add_argument("--quick", action="store_true", help="small images and one network")
    parser.add_argument("--out", type=Path, help="Markdown; the same numbers go to a .json beside it")
    args = parser.parse_args()
    if args.quick:
        args.networks, args.batch, args.size, args.repeats = ["resnet18"], 2, 64, 1
    measure.prepare(args.devices, args.precision)
    measured = (row for name in args.networks for row in rows(name, args))
    found = measure.collect(measured, HEAD, line, args.out, measure.machine("captum", "grad-cam"))
    wrong = [row for row in found if row["difference"] is not None and not row["difference"] < 1e-3]
    if args.quick and wrong:
        raise SystemExit(f"Different answers: {wrong}")


if __name__ == "__main__":
    main()
