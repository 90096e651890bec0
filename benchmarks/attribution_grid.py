"""One picture of every attribution method on real photographs, with the bundled network.

    python benchmarks/attribution_grid.py --photos imagenette/val --out attribution.png

Photographs as rows, methods as columns, each image's top class explained. What a method cannot do on the network is said and
left out. `--samples` limits the methods that draw many (RISE, SmoothGrad, ...), for a quick look.
"""

from __future__ import annotations

import argparse
import inspect
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

import jaxviz as jv
from jaxviz.attribution import METHODS


def some_photos(folder: Path, count: int, size: int, seed: int) -> np.ndarray:
    """Return photographs (count, size, size, 3) from different folders, as far as there are."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not paths:
        raise SystemExit(f"no photographs in {folder}")
    order = np.random.default_rng(seed).permutation(len(paths))
    first = {paths[i].parent: i for i in reversed(order)}
    chosen = [*sorted(first.values(), key=list(order).index), *(i for i in order if i not in first.values())][:count]
    return np.stack([jv.image.load(paths[i], size) for i in chosen])


def fewer(method: str, samples: int | None) -> dict[str, Any]:
    """Return a limit on how many samples a method draws, where it would draw more."""
    parameters = inspect.signature(METHODS[method]).parameters
    much = samples is not None and "samples" in parameters and parameters["samples"].default > samples
    return {"samples": samples} if much else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of photographs")
    parser.add_argument("--samples", type=int, help="at most, of the methods that draw some")
    parser.add_argument("--methods", help="with commas between them; all unless given")
    parser.add_argument("--across", type=int, default=9, help="methods beside each other")
    arguments = parser.parse_args()

    jax.config.update("jax_num_cpu_devices", 2)
    model = jv.load()
    photos = some_photos(arguments.photos, arguments.images, arguments.size, arguments.seed)
    made = []
    for method in arguments.methods.split(",") if arguments.methods else METHODS:
        begun = time.perf_counter()
        try:
            made.append(jv.attribute(model, photos, method, **fewer(method, arguments.samples)))
        except jv.UnsupportedError as error:
            print(f"{method}: {error}")
            continue
        words = sorted(set(made[-1].diagnosis.flat) - {"ok"})
        print(f"{method}: {time.perf_counter() - begun:.1f} s with compiling {', '.join(words)}".rstrip(), flush=True)
    page = jv.attribution.compare(made, photos, across=arguments.across, title=f"{model.name}, {arguments.size} px")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
