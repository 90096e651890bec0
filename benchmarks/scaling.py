"""Scaling: seconds a step and image by the number of units, of samples a unit, and of host devices; a table and a plot.

    python benchmarks/scaling.py --out scaling.md       # and scaling.json, scaling.png
    python benchmarks/scaling.py --quick                # small: does the script run?

`jv.visualize` with its defaults, of units of one layer. Three sweeps: units, with one sample
and all devices; samples, with `--fixed` units and all devices; devices, with as many units as the longest of the first sweep.
Devices are set before JAX starts, so every point is a process of its own, which makes a call that compiles and then `--calls`:
all points in turn, `--repeats` times. Medians with the least and the most; the most memory that a process held. On accelerators
say which numbers of devices there are to be: `--devices 1 2 4`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import measure

import jaxviz as jv

BUNDLED = "resnet18-imagenette"  # its weights are in the package
SWEEPS = ("units", "samples", "devices")
HEAD = measure.header("sweep", "units", "samples", "devices", "s a step and image", "image-steps a second", "compile, s", "GB")


def point(units: int, samples: int, devices: int, args: argparse.Namespace) -> dict[str, Any]:
    """Measure one point, in the process that was started for it."""
    jax.config.update("jax_num_cpu_devices", devices)
    model = jv.load(BUNDLED) if args.network == BUNDLED else jv.models.untrained(args.network)
    wanted = jv.channel(args.layer, range(units))
    options: dict[str, Any] = {"steps": args.steps, "size": args.size, "samples": samples, "mesh": jv.make_mesh(devices)}

    def call() -> None:
        jv.visualize(model, wanted, **options)

    first = measure.timed(call)[0]
    times = measure.in_turn({"jaxviz": call}, args.calls)["jaxviz"]
    each = [t / args.steps / units / samples for t in times]
    return {"seconds": each, "compile_s": max(0.0, first - statistics.median(times)), "memory": measure.peak_memory()}


def rows(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each point of each sweep; a point that is in several is measured once."""
    most = max(args.devices)
    sweeps = {
        "units": [(units, 1, most) for units in args.units],
        "samples": [(args.fixed, samples, most) for samples in args.samples],
        "devices": [(max(args.units), 1, devices) for devices in args.devices],
    }
    found: dict[tuple[int, int, int], list[dict[str, Any]]] = {p: [] for points in sweeps.values() for p in points}
    options = ("network", "layer", "size", "steps", "calls")
    same = [word for name in options for word in (f"--{name}", str(getattr(args, name)))]
    for _ in range(args.repeats):
        for one, parts in found.items():
            parts.append(measure.child(__file__, *same, "--point", *map(str, one)))
    return [
        {
            "sweep": sweep,
            "network": args.network,
            "layer": args.layer,
            **dict(zip(SWEEPS, one, strict=True)),
            "seconds": [seconds for part in found[one] for seconds in part["seconds"]],
            "compile_s": statistics.median(part["compile_s"] for part in found[one]),
            "memory": max(part["memory"] for part in found[one]),
        }
        for sweep, points in sweeps.items()
        for one in points
    ]


def line(row: dict[str, Any]) -> str:
    what = f"| {row['sweep']} | {row['units']} | {row['samples']} | {row['devices']}"
    rate = f"{1 / statistics.median(row['seconds']):.1f}"
    return f"{what} | {measure.spread(row['seconds'])} | {rate} | {row['compile_s']:.1f} | {row['memory'] / 1e9:.2f} |"


def plot(found: Sequence[dict[str, Any]], title: str, out: Path) -> None:
    """Draw image-steps a second over units, samples and devices: medians, the least and the most, and proportion dotted."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SWEEPS), figsize=(12, 3.6), layout="constrained")
    for axis, sweep in zip(axes, SWEEPS, strict=True):
        here = sorted((row for row in found if row["sweep"] == sweep), key=lambda row: row[sweep])
        x = [row[sweep] for row in here]
        rates = [[1 / t for t in row["seconds"]] for row in here]
        middle = [statistics.median(each) for each in rates]
        below = [m - min(each) for m, each in zip(middle, rates, strict=True)]
        above = [max(each) - m for m, each in zip(middle, rates, strict=True)]
        axis.errorbar(x, middle, (below, above), marker="o", capsize=3, color="black")
        axis.plot(x, [middle[0] * value / x[0] for value in x], ":", color="grey")
        axis.set_xscale("log", base=2)
        axis.set_xticks(x, map(str, x))
        axis.set_ylim(0, 1.3 * max(middle))
        axis.set_xlabel(sweep)
    axes[0].set_ylabel("image-steps a second")
    figure.suptitle(title)
    figure.savefig(out, dpi=120)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=BUNDLED, help="of `jaxviz models`; others than this have random weights")
    parser.add_argument("--layer", default="layer3")
    parser.add_argument("--units", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--samples", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--fixed", type=int, default=4, help="units of the sweep of samples")
    parser.add_argument("--devices", nargs="+", type=int, help="host devices on CPU; 1 to the number of cores unless given")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--calls", type=int, default=3, help="timed calls of a process")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="one and two samples and devices, a low layer at 32 px, once")
    parser.add_argument("--out", type=Path, help="Markdown; .json and a plot, .png, beside it")
    parser.add_argument("--point", nargs=3, type=int, help=argparse.SUPPRESS)  # in a child: units, samples, devices
    args = parser.parse_args()
    if args.point:
        units, samples, devices = args.point
        print("\n" + json.dumps(point(units, samples, devices, args)))
        return
    if args.quick:
        args.layer, args.size, args.steps, args.calls, args.repeats = "conv1", 32, 2, 2, 1
        args.units, args.samples, args.fixed, args.devices = [2], [1, 2], 2, [1, 2]
    args.devices = args.devices or list(range(1, measure.cores() + 1))
    found = rows(args)
    lines = [HEAD, *map(line, found)]
    print("\n".join(lines))
    measure.write(args.out, lines, found, measure.machine())
    if args.out is not None:
        plot(found, f"{args.network}, {args.layer}, {args.size} px", args.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
