"""What would every unit of ResNet-50 cost? Worked out, layer by layer, from the operations of one step and a measured speed.

Units are independent: no device waits for another, so N devices take 1/Nth of the time of the steps, and each compiles the
programs of its own layers. The operations of one step (forward and gradient of one image, stopping at the layer) are XLA's
count before optimisation; the speed is measured on the machine this runs on, at `--measure`, and assumed with `--tflops`.

    python benchmarks/whole_network.py                         # measure here, and extrapolate
    python benchmarks/whole_network.py --tflops 60             # an accelerator that sustains 60 TFLOP/s in convolutions

The weights are random: cost does not depend on them, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

import jaxviz as jv

PIXEL_BYTES = 4  # float32, as results are saved


def resnet50() -> jv.Model:
    module = jv.models.ResNet("bottleneck", (3, 4, 6, 3), rngs=nnx.Rngs(0))
    return jv.models.from_module(module, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), name="resnet50")


def convolutions(model: jv.Model, size: int) -> dict[str, int]:
    """Return the channels of every convolution, by name."""
    return {layer.name: layer.channels for layer in model.layers(size) if layer.kind == "conv"}


def step_operations(model: jv.Model, layer: str, size: int) -> float:
    """Return the floating point operations of a forward pass to `layer` and of its gradient to the image."""

    def value(images: jax.Array, model: jv.Model) -> jax.Array:
        return jv.models.activations(model, images, (layer,))[layer][..., 0].mean()

    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.jit(jax.grad(value)).lower(image, model.network).cost_analysis()["flops"]


def measured_speed(model: jv.Model, layers: Sequence[str], size: int, steps: int) -> dict[str, tuple[float, float]]:
    """Return, for each layer, operations a second of `visualize` and the seconds before the first step was done."""
    found = {}
    for layer in layers:
        marks: list[tuple[float, int]] = []

        def mark(progress: jv.Progress, marks: list[tuple[float, int]] = marks) -> None:
            marks.append((time.perf_counter(), progress.step))

        begin = time.perf_counter()
        units = 8 * len(jax.devices())
        jv.visualize(model, jv.channel(layer, range(units)), steps=steps, size=size, chunk=units, progress=mark)
        (first, done), (last, end) = marks[0], marks[-1]
        found[layer] = step_operations(model, layer, size) * units * (end - done) / (last - first), first - begin
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--tflops", type=float, help="sustained TFLOP/s of one device; measured here where not given")
    parser.add_argument(
        "--compile", type=float, default=10.0, help="seconds to compile one layer's program, where not measured"
    )
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 256])
    parser.add_argument("--measure", nargs="+", default=["layer1.2.conv3", "layer3.5.conv3", "layer4.2.conv3"])
    arguments = parser.parse_args()

    if arguments.tflops is None:
        jax.config.update("jax_num_cpu_devices", 2)
    model = resnet50()
    channels = convolutions(model, arguments.size)
    each = {layer: step_operations(model, layer, arguments.size) for layer in channels}
    images = sum(channels.values()) * arguments.samples
    total = sum(each[layer] * channels[layer] for layer in channels) * arguments.samples * arguments.steps
    gigabytes = images * arguments.size**2 * 3 * PIXEL_BYTES / 1e9
    print(f"{len(channels)} layers, {sum(channels.values())} units, {images} images of {arguments.size} px")
    print(f"{total / images / arguments.steps / 1e9:.2f} GFLOP a step and image, {total / 1e15:.1f} PFLOP, {gigabytes:.1f} GB")
    if arguments.tflops is None:
        found = measured_speed(model, arguments.measure, arguments.size, 12)
        for layer, (speed, compiling) in found.items():
            print(f"{layer}: {speed / 1e9:.0f} GFLOP/s over {len(jax.devices())} devices, {compiling:.0f} s to the first steps")
        rate = float(np.median([speed for speed, _ in found.values()])) / len(jax.devices())
        compiling = float(np.median([seconds for _, seconds in found.values()]))
    else:
        rate, compiling = arguments.tflops * 1e12, arguments.compile
    for devices in arguments.devices:
        layers = -(-len(channels) // devices)
        work, start = total / rate / devices / 60, layers * compiling / 60
        print(f"{devices:>4} devices of {rate / 1e12:.2f} TFLOP/s: {work:.1f} minutes of steps, {start:.1f} of compiling")


if __name__ == "__main__":
    main()
