"""jaxviz inspect grid | groups | atlas: what activations stand for, each drawn by gradient ascent."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import jaxviz
from jaxviz import inspection
from jaxviz._image_files import find_files
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect import views
from jaxviz.cli._inspect.app import inspect_app

Steps = Annotated[int, typer.Option(min=1, help="Steps of gradient ascent.")]
Power = Annotated[float, typer.Option(min=0, help="The higher, the more the direction counts, and not its length.")]


class Layout(StrEnum):
    tsne = "tsne"
    pca = "pca"


@inspect_app.command()
def grid(
    model: options.ModelName,
    images: views.Photos,
    layer: views.LayerName,
    out: views.Kept,
    scaled: Annotated[bool, typer.Option("--scaled", help="Sizes of tiles as the strengths of the activations.")] = False,
    steps: Steps = 64,
    tile: Annotated[int, typer.Option(min=1, help="Pixels of a tile's side.")] = 64,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw what a layer has at each position of photos.

    Example: jaxviz inspect grid resnet18-imagenette photo.jpg --layer layer3 --out grid
    """
    use_cpu_devices(devices)
    network = views.load(model, weights, quiet)
    photos, names = views.read_photos(network, images, size)
    shape = network.layers(photos.shape[1:3])[layer].shape
    with Bar([len(photos) * int(np.prod(shape[:-1]))], quiet) as bar:
        made = inspection.activation_grid(
            network,
            photos,
            layer,
            cossim_power=cossim_power,
            tile=tile,
            steps=steps,
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out / "tiles",
            overwrite=overwrite,
        )
    pages = {f"{name}-{layer}.png": made.picture(i, scaled=scaled, dark=dark) for i, name in enumerate(names)}
    arrays = {"activations": made.activations, "strengths": made.strengths, "tiles": made.tiles}
    views.write(out, pages, arrays, quiet)


@inspect_app.command()
def groups(
    model: options.ModelName,
    images: views.Photos,
    layer: views.LayerName,
    out: views.Kept,
    groups: Annotated[int, typer.Option(min=1, help="How many groups of neurons.")] = 6,
    steps: Steps = 128,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    picture_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Of the groups' pictures; the network's own if not given.")
    ] = None,
    tile: Annotated[int, typer.Option(min=16, help="Pixels of a picture's height on the page.")] = 160,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Divide what a layer makes of photos into groups of neurons, draw each and where it is.

    Example: jaxviz inspect groups resnet18-imagenette photos/*.jpg --layer layer3 --size 224 --out groups
    """
    use_cpu_devices(devices)
    network = views.load(model, weights, quiet)
    photos, _ = views.read_photos(network, images, size)
    with Bar([groups], quiet) as bar:
        made = inspection.activation_groups(
            network,
            photos,
            layer,
            groups=groups,
            cossim_power=cossim_power,
            steps=steps,
            size=options.read_size(picture_size),
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
            out=out / "groups",
            overwrite=overwrite,
        )
    arrays = {"masks": made.masks, "vectors": made.vectors, "pictures": made.pictures, "colors": made.colors}
    views.write(out, {"groups.png": made.picture(tile=tile, images=len(photos), dark=dark)}, arrays, quiet)


@inspect_app.command()
def atlas(
    model: options.ModelName,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Folders of photos with all in them, and photos.")],
    layer: views.LayerName,
    out: views.Kept,
    cells: Annotated[int, typer.Option(min=1, help="Along each side.")] = 12,
    members: Annotated[int, typer.Option(min=1, help="Photos that a cell needs at least.")] = 5,
    layout: Annotated[Layout, typer.Option(help="t-SNE needs the extra 'embed'.")] = Layout.tsne,
    coordinates: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .npy file (N, 2) of another layout of the N photos, such as UMAP.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Frames in the colours of the classes, and a legend.")] = False,
    whiten: Annotated[bool, typer.Option(help="Ask for what is particular about a cell.")] = True,
    steps: Steps = 64,
    tile: Annotated[int, typer.Option(min=1, help="Pixels of a cell's side.")] = 64,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Photos read at a time; 64 if not given.")] = None,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a small activation atlas of folders: what a layer tells apart, like near like.

    Stopped in whatever way, the same command again continues.

    Example: jaxviz inspect atlas resnet18-imagenette photos --layer layer4 --labels --out atlas
    """
    use_cpu_devices(devices)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    with Bar([len(find_files(images, out)[0])], quiet) as bar:
        read = 0

        def report(now: jaxviz.Progress) -> None:
            nonlocal read
            bar.finished(now.images_done - read)
            read = now.images_done
            bar.say("photos read")

        samples = inspection.sample_activations(
            network,
            images,
            layer,
            size=options.read_size(size),
            chunk=chunk,
            seed=seed,
            out=out,
            overwrite=overwrite,
            mesh=jaxviz.make_mesh(devices),
            progress=report,
        )
        bar.say("laid out")
        made = inspection.activation_atlas(
            network,
            samples,
            cells=cells,
            members=members,
            layout=options.load_array(str(coordinates)) if coordinates else layout.value,
            whiten=whiten,
            cossim_power=cossim_power,
            tile=tile,
            steps=steps,
            seed=seed,
            mesh=jaxviz.make_mesh(devices),
            progress=lambda now: bar.say(f"cell {now.images_done}/{now.images}, step {now.step}/{now.steps}"),
            out=out,
            overwrite=overwrite,
        )
        bar.say("done")
    for one in samples.skipped[:20]:
        typer.echo(f"jaxviz: skipped '{one.path}': {one.reason}".encode(errors="backslashreplace").decode(), err=True)
    arrays = {
        name: getattr(made, name) for name in ("coordinates", "members", "cells", "counts", "vectors", "logits", "pictures")
    }
    arrays["files"] = np.array([name.encode(errors="surrogateescape") for name in samples.files])
    views.write(out, {"atlas.png": made.picture(labels=labels, dark=dark)}, arrays, quiet)
