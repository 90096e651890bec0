"""One contact sheet of what jaxviz does beside plain activation maximisation, on the bundled network.

    python benchmarks/showcase.py --photos imagenette/val --out showcase/

Diversity, octaves, parameterisations, MACO, opacity; of photographs inversion by layer, caricatures, accentuation, DeepDream.
With `--inversion N` also the table of inversion by layer, over N photographs.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import jax
import numpy as np
import optax
from PIL import Image

import jaxviz as jv

LAYERS = ["conv1", "layer1", "layer2", "layer3", "layer4"]
CLASSES = "logit:golf ball,church"


def some_photos(folder: Path, count: int, seed: int, size: int) -> tuple[np.ndarray, list[str]]:
    """Return `count` photographs drawn from the folder, (N, size, size, 3), and their names."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    chosen = [paths[i] for i in np.random.default_rng(seed).choice(len(paths), count, replace=False)]
    return np.stack([jv.image.load(path, size) for path in chosen]), [path.stem for path in chosen]


def section(heading: str, *results: jv.Result, captions: list[str] | None = None) -> jv.plot.Section:
    """Return a section of the sheet: one sample per place, so that all sections have the same form."""
    images = np.concatenate([_opaque(result.images).reshape(-1, 1, *result.images.shape[2:4], 3) for result in results])
    names = [label for result in results for label in result.labels for _ in range(result.images.shape[1])]
    return jv.plot.Section(heading, images, captions or names)


def _opaque(images: np.ndarray) -> np.ndarray:
    """Lay images with opacity on white."""
    return images if images.shape[-1] == 3 else 1 + images[..., 3:] * (images[..., :3] - 1)


def units(model: jv.Model, size: int, steps: int) -> list[jv.plot.Section]:
    """Return the sections of units and classes."""
    render = functools.partial(jv.visualize, model, size=size, steps=steps)
    crops = [jv.transforms.random_resized_crop(size, (0.3, 0.7)), jv.transforms.noise(0.05)]
    maco = {"param": jv.param.maco, "optimizer": optax.nadam, "learning_rate": 1.0, "transforms": crops, "views": 4}
    unit = jv.channel("layer3", 40)
    params = {
        "fourier": {},
        "laplacian": {"param": jv.param.laplacian, "learning_rate": 0.05},
        "cppn": {"param": jv.param.cppn, "learning_rate": 0.003, "transforms": (), "steps": 3 * steps},
        "pixel, textbook": {"param": jv.param.pixel, "transforms": (), "learning_rate": 0.02},
        "desaturation=3": {"param": jv.param.fourier(desaturation=3)},
        "alpha, on white": {"param": jv.param.alpha},
    }
    return [
        section("four samples of layer3:40, independent", render(unit, samples=4)),
        section("the same with diversity", render(jv.diverse(unit, "layer3"), samples=4)),
        section("one scale, and four octaves", render(CLASSES), render(CLASSES, scales=4)),
        section("MACO: only the phases", render("logit:golf ball,church,gas pump,parachute", **maco)),
        section("layer3:40 by parameterisation", *(render(unit, **p) for p in params.values()), captions=list(params)),
    ]


def photographs(model: jv.Model, folder: Path, size: int, steps: int) -> list[jv.plot.Section]:
    """Return the sections of photographs."""
    photos, _ = some_photos(folder, 2, 7, size)
    inverted = jv.invert(model, photos, LAYERS, steps=steps)
    names = [f"{layer}, {ratio:.0f} dB" for layer, row in zip(LAYERS, inverted.psnr, strict=True) for ratio in row]
    near = {"penalty": 30.0, "steps": steps // 2}
    dreams = [jv.deepdream(model, photos, layer) for layer in ("layer3", "layer4")]
    given = jv.plot.Section("photographs", photos[:, None], ["photo", "photo"])
    return [
        given,
        section("inverted", inverted.result, captions=names),
        section("caricatures", jv.caricature(model, photos, LAYERS[2:], steps=steps)),
        section("accentuated", *(jv.accentuate(model, photos, f"logit:{name}", **near) for name in ("golf ball", "church"))),
        section("DeepDream", *dreams, captions=["layer3", "layer3", "layer4", "layer4"]),
    ]


def inversion_table(model: jv.Model, folder: Path, count: int, size: int) -> str:
    """Return the Markdown table of inversion by layer, over some photographs."""
    photos, _ = some_photos(folder, count, 2, size)
    found = jv.invert(model, photos, LAYERS)
    rows = [f"| {size} px, {count} photos | relative distance of features | PSNR |", "| --- | --- | --- |"]
    for layer, far, ratio in zip(LAYERS, found.distances, found.psnr, strict=True):
        rows.append(f"| `{layer}` | {far.mean():.3f} ± {far.std():.3f} | {ratio.mean():.1f} ± {ratio.std():.1f} dB |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--inversion", type=int, default=0, metavar="N", help="also the table of inversion, over N photographs")
    arguments = parser.parse_args()

    jax.config.update("jax_num_cpu_devices", 2)
    model = jv.load()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sections = units(model, arguments.size, arguments.steps)
    sections += photographs(model, arguments.photos, arguments.size, arguments.steps)
    sheet = jv.plot.contact_sheet(sections, title="jaxviz on its bundled ResNet-18", columns=10)
    Image.fromarray(sheet).save(arguments.out / "showcase.png")
    print(arguments.out / "showcase.png")
    if arguments.inversion:
        print(inversion_table(model, arguments.photos, arguments.inversion, arguments.size))


if __name__ == "__main__":
    main()
