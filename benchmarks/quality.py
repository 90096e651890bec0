"""How good are the pictures? Measured on the 8-bit PNGs, against real photographs and a network that never saw them made.

Three questions, one table each line:

1. A unit's picture against the best of many photographs: does the picture, read back from its PNG, excite the unit more?
2. A class's picture shown to a *separately trained* network (`--judge`): is the class its first answer?
3. The energy in the top half of the spectrum: noise, or structure like a photograph's?

    python benchmarks/quality.py --photos imagenette/val --judge judge.safetensors --out quality/

The judge is any network of the same classes; `weights/train.py --seed 1 --adversarial ""` trains one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np

import jaxviz as jv

LAYERS = ("layer2", "layer3", "layer4")


def photo_paths(folder: Path, count: int) -> list[Path]:
    """Return `count` photographs spread evenly over the sorted folder."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(paths) < count:
        raise SystemExit(f"{folder} holds {len(paths)} photographs; --count asks for {count}.")
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]


def channel_means(model: jv.Model, images: np.ndarray, batch: int = 50) -> dict[str, np.ndarray]:
    """Return each layer's mean over positions, (N, channels)."""
    batches = (images[i : i + batch] for i in range(0, len(images), batch))
    rows = [{k: np.asarray(v.mean((1, 2))) for k, v in model.activations(x, LAYERS).items()} for x in batches]
    return {layer: np.concatenate([row[layer] for row in rows]) for layer in LAYERS}


def top_half_energy(images: np.ndarray) -> np.ndarray:
    """Return the share of each image's energy, mean colour aside, beyond half of the Nyquist frequency: float (N,)."""
    energy = np.square(np.abs(np.fft.fft2(images, axes=(1, 2)))).sum(-1)
    frequency = np.hypot(np.fft.fftfreq(images.shape[1])[:, None], np.fft.fftfreq(images.shape[2])[None])
    return energy[:, frequency > 0.25].sum(1) / energy[:, frequency > 0].sum(1)


def saved_images(folder: Path) -> np.ndarray:
    """Read every picture of a saved result back from its PNG, (K, H, W, 3), the first sample of each unit."""
    record = json.loads((folder / "result.json").read_text())
    return np.stack([jv.image.load(folder / unit["files"][0]) for unit in record["units"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500, help="photographs to compare with")
    parser.add_argument("--model", default="resnet18-imagenette")
    parser.add_argument("--judge", type=Path, help="weights of a separately trained ResNet-18 of the same classes")
    parser.add_argument("--units", type=int, default=32, help="units of each layer, drawn with --seed")
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=2, help="host devices; one per core")
    parser.add_argument("--out", type=Path, default=Path("quality"))
    args = parser.parse_args()
    if jax.config.jax_platforms in (None, "cpu"):
        jax.config.update("jax_num_cpu_devices", args.devices)
    model = jv.load(args.model)
    paths = photo_paths(args.photos, args.count)
    photographs = np.stack([jv.image.load(path, args.size) for path in paths])
    photos = channel_means(model, photographs)
    photo_energy = float(top_half_energy(photographs).mean())
    options = {"steps": args.steps, "size": args.size, "seed": args.seed}
    rows, report = [], {"photo_top_half_energy": photo_energy, "arguments": {k: str(v) for k, v in vars(args).items()}}
    rng = np.random.default_rng(args.seed)
    for layer in LAYERS:
        units = np.sort(rng.choice(photos[layer].shape[1], args.units, replace=False))
        jv.visualize(model, jv.channel(layer, units), **options).save(args.out / layer, overwrite=True)
        images = saved_images(args.out / layer)
        made = channel_means(model, images)[layer][np.arange(len(units)), units]
        best = photos[layer][:, units].max(0)
        energy = float(top_half_energy(images).mean())
        report[layer] = {
            "units": units.tolist(),
            "picture": made.tolist(),
            "best_photo": best.tolist(),
            "top_half_energy": energy,
        }
        wins, ratio = int((made > best).sum()), float(np.median(made / np.maximum(best, 1e-6)))
        rows.append(f"| `{layer}` | {wins} of {len(units)} | {ratio:.1f} x | | {energy / photo_energy:.2f} x |")
        print(rows[-1], flush=True)
    result = jv.visualize(model, "logit", **options)
    result.save(args.out / "logit", overwrite=True)
    images = saved_images(args.out / "logit")
    energy = float(top_half_energy(images).mean())
    first = "not asked"
    if args.judge is not None:
        answers = np.asarray(jv.load("resnet18", weights=args.judge)(images)).argmax(1)
        first = f"{int((answers == np.arange(len(images))).sum())} of {len(images)}"
        report["judge"] = {"answers": answers.tolist()}
    rows.append(f"| classes | | | {first} | {energy / photo_energy:.2f} x |")
    report["logit"] = {"top_half_energy": energy}
    head = [
        f"| {args.size} px, {args.steps} steps | beats the best of {args.count} photos | median ratio to it "
        "| first answer of another network | top-half energy, to photos' |",
        "| --- | --- | --- | --- | --- |",
    ]
    (args.out / "quality.md").write_text("\n".join([*head, *rows]) + "\n")
    (args.out / "quality.json").write_text(json.dumps(report, indent=1))
    print("\n".join([*head, *rows]))


if __name__ == "__main__":
    main()
