"""jaxviz inspect grid | groups | atlas: pictures of activations, drawn by gradient ascent."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

import jaxviz
from jaxviz import inspection
from jaxviz._image_files import find_files
from jaxviz.cli._common import options, skipped
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect import views
from jaxviz.cli._inspect.app import inspect_app

Steps = Annotated[int, typer.Option(min=1, help="Steps of gradient ascent.")]
Power = Annotated[float, typer.Option(min=0, help="Weight of the direction against its length; larger for the direction.")]


class Layout(StrEnum):
    tsne = "tsne"
    pca = "pca"


@inspect_app.command()
def grid(
    model: options.ModelName,
    images: views.Photos,
    layer: views.LayerName,
    out: views.Kept,
    scaled: Annotated[bool, typer.Option("--scaled", help="Scale tiles by the strength of the activations.")] = False,
    steps: Steps = 64,
    tile: Annotated[int, typer.Option(min=1, help="Size of a tile in pixels.")] = 64,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw the activation at each position of photos.

    Example: jaxviz inspect grid resnet18-imagenette photo.jpg --layer layer3 --out grid
    """
    use_cpu_devices(devices)
    network = views.load(model, weights, quiet)
    photos, names = views.read_photos(network, images, size)
    shape = network.layers(photos.shape[1:3])[layer].shape
    with Bar([len(photos) * int(np.prod(shape[:-1]))], quiet) as bar:
        tiles = inspection.activation_grid(
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
    pages = {f"{name}-{layer}.png": tiles.picture(i, scaled=scaled, dark=dark) for i, name in enumerate(names)}
    arrays = {"activations": tiles.activations, "strengths": tiles.strengths, "tiles": tiles.tiles}
    views.write(out, pages, arrays, quiet)


@inspect_app.command()
def groups(
    model: options.ModelName,
    images: views.Photos,
    layer: views.LayerName,
    out: views.Kept,
    groups: Annotated[int, typer.Option(min=1, help="Number of groups of neurons.")] = 6,
    steps: Steps = 128,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    picture_size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Size of the groups' pictures; default: the network's own.")
    ] = None,
    tile: Annotated[int, typer.Option(min=16, help="Height of a picture on the page in pixels.")] = 160,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Factor a layer's activations of photos into groups of neurons; draw each group and its location.

    Example: jaxviz inspect groups resnet18-imagenette photos/*.jpg --layer layer3 --size 224 --out groups
    """
    use_cpu_devices(devices)
    network = views.load(model, weights, quiet)
    photos, _ = views.read_photos(network, images, size)
    with Bar([groups], quiet) as bar:
        factored = inspection.activation_groups(
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
    arrays = {"masks": factored.masks, "vectors": factored.vectors, "pictures": factored.pictures, "colors": factored.colors}
    views.write(out, {"groups.png": factored.picture(tile=tile, images=len(photos), dark=dark)}, arrays, quiet)


@inspect_app.command()
def atlas(
    model: options.ModelName,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Photos, and folders of photos.")],
    layer: views.LayerName,
    out: views.Kept,
    cells: Annotated[int, typer.Option(min=1, help="Number of cells along each side.")] = 12,
    members: Annotated[int, typer.Option(min=1, help="Minimum number of photos in a cell.")] = 5,
    layout: Annotated[Layout, typer.Option(help="Layout of the photos; tsne needs the extra 'embed'.")] = Layout.tsne,
    coordinates: Annotated[
        Path | None, typer.Option(metavar="FILE", help=".npy file (N, 2) with another layout of the N photos, such as UMAP.")
    ] = None,
    labels: Annotated[bool, typer.Option("--labels", help="Draw frames in class colors, and a legend.")] = False,
    whiten: Annotated[bool, typer.Option(help="Whiten directions: show what is particular about a cell.")] = True,
    steps: Steps = 64,
    tile: Annotated[int, typer.Option(min=1, help="Size of a cell in pixels.")] = 64,
    cossim_power: Power = 2.0,
    size: options.SizeText = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Photos at a time; default: 64.")] = None,
    seed: options.Seed = 0,
    dark: views.Dark = False,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw an activation atlas of folders of photos: pictures of a layer's activations, similar ones near each other.

    If the run stops, the same command continues it.

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
        drawn = inspection.activation_atlas(
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
    skipped.tell(samples.skipped)
    arrays = {
        name: getattr(drawn, name) for name in ("coordinates", "members", "cells", "counts", "vectors", "logits", "pictures")
    }
    arrays["files"] = np.array([name.encode(errors="surrogateescape") for name in samples.files])
    views.write(out, {"atlas.png": drawn.picture(labels=labels, dark=dark)}, arrays, quiet)
