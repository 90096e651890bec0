"""Are the defaults good for every family of architectures? Decays and learning rates on a trained network of each.

    python -m benchmarks.defaults --photos imagenette/val

For each family and setting, over some units of three layers: the median ratio of the activation reached to the best of 500
photos, the share of units above it, and the energy in the top half of the spectrum over that of photos. Also prints what
`tests/families/test_defaults.py` freezes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import jaxviz as jv
from benchmarks.quality import photo_paths, top_half_energy
from tests.families.networks import LAYERS, SIZE, network

UNITS = {"resnet": ("layer2", "layer3", "layer4"), **LAYERS}


def targets(family: str, units: int) -> list[jv.Objective]:
    """Return the same units of three layers, spread evenly: one objective each."""
    table = network(family).layers()
    return [jv.channel(name, np.linspace(0, table[name].channels - 1, units).astype(int)) for name in UNITS[family]]


def best_of_photos(model: jv.Model, objectives: list[jv.Objective], photos: np.ndarray) -> np.ndarray:
    """Return each unit's highest mean activation on the photos."""
    rows = []
    for objective in objectives:
        layer, index = objective.units()  # type: ignore[misc]
        parts = [np.asarray(model.activations(photos[i : i + 50], layer)[layer]) for i in range(0, len(photos), 50)]
        rows.append(np.concatenate(parts).mean((1, 2)).max(0)[index])
    return np.concatenate(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--units", type=int, default=5, help="of each of three layers")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--families", default="resnet,vgg,vgg_bn")
    parser.add_argument("--decays", default="1,2,3")
    parser.add_argument("--rates", default="0.005,0.01,0.02,0.05")
    arguments = parser.parse_args()
    photos = np.stack([jv.image.load(path, SIZE) for path in photo_paths(arguments.photos, 500)])
    usual = top_half_energy(photos).mean()
    print("| family | decay | learning rate | median ratio to photos | above them | top-half energy |\n" + "| --- " * 6 + "|")
    for family in arguments.families.split(","):
        model = network(family)
        objectives = targets(family, arguments.units)
        best = best_of_photos(model, objectives, photos)
        for decay in map(float, arguments.decays.split(",")):
            for rate in map(float, arguments.rates.split(",")):
                options = {"param": jv.param.fourier(decay=decay), "learning_rate": rate, "steps": arguments.steps}
                result = jv.visualize(model, objectives, size=SIZE, **options)
                ratio = result.scores[:, 0] / np.maximum(best, 1e-6)
                energy = top_half_energy(result.images[:, 0]).mean() / usual
                row = (
                    f"{decay:g}",
                    f"{rate:g}",
                    f"{np.median(ratio):.2f}",
                    f"{100 * (ratio > 1).mean():.0f} %",
                    f"{energy:.2f}",
                )
                print(f"| {family} | {' | '.join(row)} |", flush=True)
        print(f"{family}: the best of the photos: {np.round(best, 4).tolist()}", flush=True)


if __name__ == "__main__":
    main()
