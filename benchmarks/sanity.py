"""Do the maps tell of the network? Every method's, while the network is made random from the top layer down, in one table.

The cascading sanity check of Adebayo et al., 2018: at each stage one layer more has weights as before training, and the table
gives the mean rank correlation (Spearman) of the absolute maps with those of the trained network. A method whose maps stay
alike to the end, near 1, shows edges of the image and not what the network learned.

    python benchmarks/sanity.py --photos imagenette/val --out sanity.md

Options of a method, such as fewer masks, as JSON: --options '{"rise": {"samples": 500}}'.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

import jaxviz as jv

STAGES = ("fc", "layer4", "layer3", "layer2", "layer1", "conv1+bn1")  # of a ResNet


def photos(folder: Path, count: int, size: int) -> np.ndarray:
    """Return `count` photographs spread evenly over the sorted folder, (count, size, size, 3)."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < count:
        raise SystemExit(f"{folder} holds {len(paths)} photographs; --count asks for {count}.")
    return np.stack([jv.image.load(paths[i], size) for i in np.linspace(0, len(paths) - 1, count).astype(int)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("sanity.md"), help="the table, Markdown")
    parser.add_argument("--count", type=int, default=8, help="photographs")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--model", default="resnet18-imagenette")
    parser.add_argument("--layers", nargs="+", help="stages from the top down; of a ResNet its blocks unless given")
    parser.add_argument("--methods", nargs="+", default=list(jv.attribution.METHODS), help="all unless given")
    parser.add_argument("--options", type=json.loads, default={}, help="of methods, JSON: options by method")
    parser.add_argument("--limit", type=float, default=0.5, help="a map has changed where its mean correlation is at most this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=2, help="host devices; one per core")
    args = parser.parse_args()
    if jax.config.jax_platforms in (None, "cpu"):
        jax.config.update("jax_num_cpu_devices", args.devices)
    model, images = jv.load(args.model), photos(args.photos, args.count, args.size)
    layers = args.layers or (STAGES if "resnet" in args.model else None)
    found, failed, stages = {}, {}, ()
    for name in args.methods:
        begun = time.perf_counter()
        made = jv.metrics.sanity_check(model, images, {name: args.options.get(name, {})}, layers=layers, seed=args.seed)
        stages, found, failed = made.layers, {**found, **made.found}, {**failed, **made.failed}
        print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
    table = jv.metrics.SanityCheck(stages, found, failed).markdown(args.limit)
    about = (
        f"Mean rank correlation of the absolute maps of {args.count} photographs at {args.size} px with those of the trained "
        f"network ({args.model}), all layers down to the named one being random; seed {args.seed}. "
        f"A map has changed where that is at most {args.limit:g}.\n\n"
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(about + table)
    print(about + table)


if __name__ == "__main__":
    main()
