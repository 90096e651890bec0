"""jaxviz invert, caricature, accentuate, dream: commands that optimize photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import jaxviz
from jaxviz.cli._app import app
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar

Photos = Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos; they are cropped and resized to one size.")]
Layers = Annotated[str, typer.Option(metavar="NAMES", help="Comma-separated layers, such as conv1,layer2,layer4.")]


@app.command()
def invert(
    model: options.ModelName,
    images: Photos,
    layers: Layers,
    out: options.Out,
    steps: options.Steps = 256,
    size: options.SizeText = None,
    samples: options.Samples = 1,
    seed: options.Seed = 0,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of the optimizer.")] = 0.1,
    optimizer: options.OptimizerText = "adam",
    param: options.ParamText = "pixel",
    transforms: options.TransformsText = "none",
    regularizer: options.RegularizerTexts = None,
    distance: Annotated[str, typer.Option(help="Distance between features: l2, cosine or dot.")] = "l2",
    weights: options.Weights = None,
    devices: options.Devices = None,
    chunk: options.ChunkSize = None,
    precision: options.PrecisionOption = options.Precision.default,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Reconstruct photos from the activations of layers.

    Prints the distances of features and pixels to the photo's for each layer.

    Example: jaxviz invert resnet18-imagenette photo.jpg --layers conv1,layer1,layer2,layer3,layer4 --size 128 --out out
    """
    use_cpu_devices(devices)
    image_param, image_transforms = options.read_param(param), options.read_transforms(transforms)
    regularizers, factory = options.read_regularizers(regularizer) or None, options.read_optimizer(optimizer)
    network, photos, names = _prepare(model, weights, images, size, quiet)
    layer_names = _names(layers)
    with Bar([len(photos) * samples] * len(layer_names), quiet) as bar:
        inverted = jaxviz.invert(
            network,
            photos,
            layer_names,
            param=image_param,
            transforms=image_transforms,
            regularizers=regularizers,
            optimizer=factory,
            learning_rate=learning_rate,
            distance=distance,
            steps=steps,
            samples=samples,
            seed=seed,
            chunk=chunk,
            precision=precision.value_or_none(),
            names=names,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out,
            overwrite=overwrite,
        )
    inverted.result.save(out, overwrite=True)  # with the photos' names and the distances
    if not quiet:
        width = max(map(len, layer_names))
        typer.echo(f"{'layer':<{width}}  relative distance  PSNR")
        for name, distances, ratios in zip(inverted.layers, inverted.distances, inverted.psnr, strict=True):
            typer.echo(f"{name:<{width}}  {distances.mean():17.3f}  {ratios.mean():.1f} dB")
        typer.echo(str(out / "contact_sheet.png"))


@app.command()
def caricature(
    model: options.ModelName,
    images: Photos,
    layers: Layers,
    out: options.Out,
    steps: options.Steps = 256,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    learning_rate: options.LearningRate = None,
    cossim_power: Annotated[float, typer.Option(min=0, help="Larger is nearer to the photo.")] = 1.0,
    param: options.ParamText = "fourier",
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Exaggerate photos: large activations in the direction of the photo's."""
    use_cpu_devices(devices)
    network, photos, names = _prepare(model, weights, images, size, quiet)
    layer_names = _names(layers)
    with Bar([len(photos)] * len(layer_names), quiet) as bar:
        result = jaxviz.caricature(
            network,
            photos,
            layer_names,
            cossim_power=cossim_power,
            names=names,
            param=options.read_param(param),
            learning_rate=learning_rate,
            steps=steps,
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out,
            overwrite=overwrite,
        )
    _finish(result, out, quiet)


@app.command()
def accentuate(
    model: options.ModelName,
    images: Photos,
    target: Annotated[str, typer.Option(metavar="OBJECTIVE", help="What to accentuate: layer4:7, 'logit:church', ...")],
    out: options.Out,
    penalty: Annotated[
        float | None, typer.Option(min=0, help="Weight of the distance; default: 100, or 3 with --layer.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Measure the distance in this layer; default: in pixels.")] = None,
    steps: options.Steps = 256,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    learning_rate: options.LearningRate = None,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Accentuate what a unit or class responds to in photos."""
    use_cpu_devices(devices)
    network, photos, names = _prepare(model, weights, images, size, quiet)
    with Bar([len(photos)], quiet) as bar:
        result = jaxviz.accentuate(
            network,
            photos,
            options.read_target(target),
            penalty=penalty,
            layer=layer,
            names=names,
            learning_rate=learning_rate,
            steps=steps,
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out,
            overwrite=overwrite,
        )
    _finish(result, out, quiet)


@app.command()
def dream(
    model: options.ModelName,
    images: Photos,
    target: Annotated[str, typer.Option(metavar="LAYERS", help="Comma-separated layers, or an objective.")],
    out: options.Out,
    octaves: Annotated[int, typer.Option(min=1, help="Number of sizes, each 1.4 times the one before.")] = 4,
    steps: Annotated[int, typer.Option(min=1, help="Steps at each octave.")] = 10,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    learning_rate: Annotated[float, typer.Option(help="Change of a pixel in one step.")] = 0.006,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """DeepDream: amplify what layers respond to in photos, from coarse to fine."""
    use_cpu_devices(devices)
    network, photos, _ = _prepare(model, weights, images, size, quiet)
    objective = options.read_target(target) if ":" in target or "(" in target else _names(target)
    with Bar([len(photos)], quiet) as bar:
        result = jaxviz.deepdream(
            network,
            photos,
            objective,
            octaves=octaves,
            learning_rate=learning_rate,
            steps=steps,
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out,
            overwrite=overwrite,
        )
    _finish(result, out, quiet)


def _prepare(
    model: str, weights: str | None, paths: Sequence[Path], size: str | None, quiet: bool
) -> tuple[jaxviz.Model, np.ndarray, list[str]]:
    """Return the network, the photos (N, H, W, 3) and their names."""
    network = jaxviz.load(model, weights=weights, progress=not quiet)
    pixels = options.read_size(size) or network.input_size
    return network, np.stack([jaxviz.image.load(path, pixels) for path in paths]), [path.stem for path in paths]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _finish(result: jaxviz.Result, out: Path, quiet: bool) -> None:
    result.save(out, overwrite=True)  # with the photos' names
    if not quiet:
        typer.echo(f"{len(result)} images: {out / 'contact_sheet.png'}")
