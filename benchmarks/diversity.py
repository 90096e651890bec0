"""Does diversity work? Samples of a unit with and without `jv.diverse`: how alike they are, and what each keeps of its score.

Alike: the mean pairwise cosine of the samples' Gram matrices at the unit's layer. Kept: a sample's activation over that of the
same sample, from the same start, made without diversity. The aim: alike falls by a quarter, and every sample keeps 80 %.

    python benchmarks/diversity.py --layer layer3 --units 16
"""

from __future__ import annotations

import argparse

import jax
import numpy as np

import jaxviz as jv


def alike(model: jv.Model, groups: np.ndarray, layer: str) -> np.ndarray:
    """Return the mean pairwise Gram cosine of each unit's samples, (K,)."""
    found = []
    for group in groups:
        act = np.asarray(model.activations(group, [layer])[layer])
        act = act.reshape(len(group), -1, act.shape[-1])
        gram = np.einsum("spc,spd->scd", act, act).reshape(len(group), -1)
        gram /= np.linalg.norm(gram, axis=1, keepdims=True)
        cosine = gram @ gram.T
        found.append((cosine.sum() - len(group)) / (cosine.size - len(group)))
    return np.array(found)


def heights(model: jv.Model, groups: np.ndarray, layer: str, units: np.ndarray) -> np.ndarray:
    """Return the mean activation of each unit on its samples, (K, S)."""
    acts = [np.asarray(model.activations(group, [layer])[layer]) for group in groups]
    return np.stack([act[..., unit].mean((1, 2)) for act, unit in zip(acts, units, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="layer3")
    parser.add_argument("--units", type=int, default=16, help="how many, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--weight", type=float, default=3.5)
    parser.add_argument("--floor", type=float, default=0.94)
    parser.add_argument("--enough", type=float, default=0.55)
    arguments = parser.parse_args()

    jax.config.update("jax_num_cpu_devices", 2)
    model = jv.load()
    layer = arguments.layer
    random = np.random.default_rng(arguments.seed)
    units = np.sort(random.choice(model.layers()[layer].channels, arguments.units, replace=False))
    plain = jv.channel(layer, units)
    options = {"samples": arguments.samples, "size": arguments.size, "steps": arguments.steps}
    before = jv.visualize(model, plain, **options).images
    apart = jv.diverse(plain, layer, weight=arguments.weight, floor=arguments.floor, enough=arguments.enough)
    after = jv.visualize(model, apart, **options).images
    same, less = alike(model, before, layer), alike(model, after, layer)
    kept = heights(model, after, layer, units) / heights(model, before, layer, units)
    print(f"| {layer} | alike | with diversity | fall | least kept |\n| --- | --- | --- | --- | --- |")
    for unit, a, b, k in zip(units, same, less, kept, strict=True):
        print(f"| {unit} | {a:.2f} | {b:.2f} | {100 * (1 - b / a):.0f} % | {100 * k.min():.0f} % |")
    fall = 100 * (1 - less.mean() / same.mean())
    print(f"| all | {same.mean():.2f} | {less.mean():.2f} | {fall:.0f} % | {100 * kept.min():.0f} % |")


if __name__ == "__main__":
    main()
