"""jaxviz inspect filters | weights | maps | occlusion: weights, feature maps and occlusion maps."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

import jaxviz
from jaxviz import inspection
from jaxviz.cli._attribute import read_target
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect import views
from jaxviz.cli._inspect.app import inspect_app


class Scale(StrEnum):
    shared = "shared"
    each = "each"


class View(StrEnum):
    map = "map"
    smooth = "smooth"
    overlay = "overlay"


class Order(StrEnum):
    max = "max"
    mean = "mean"


@inspect_app.command()
def filters(
    model: options.ModelName,
    out: views.Out,
    layer: Annotated[str | None, typer.Option(help="Layer with color input; default: the first convolution.")] = None,
    units: views.Numbers = None,
    scale: Annotated[Scale, typer.Option(help="Scale of the weights: one for all filters, or one for each.")] = Scale.shared,
    tile: views.Tile = None,
    dark: views.Dark = False,
    weights: options.Weights = None,
    quiet: options.Quiet = False,
) -> None:
    """Draw the filters of the first layer in color.

    Example: jaxviz inspect filters resnet18-imagenette --out filters
    """
    view = inspection.filters(views.load(model, weights, quiet), layer, views.read_units(units, "--units"))
    page = view.picture(scale.value, tile=tile or 64, dark=dark)
    views.write(out, {"filters.png": page}, {"weights": view.weights, "units": view.units}, quiet)


@inspect_app.command("weights")
def weights_command(
    model: options.ModelName,
    layer: views.LayerName,
    out: views.Out,
    outputs: views.Numbers = None,
    inputs: views.Numbers = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of outputs to draw: the strongest.")] = 16,
    columns: Annotated[int, typer.Option(min=1, help="Number of inputs to draw: the strongest.")] = 16,
    scale: Annotated[Scale, typer.Option(help="Scale of the colors: one for all, or one for each output.")] = Scale.each,
    tile: views.Tile = None,
    dark: views.Dark = False,
    weights: options.Weights = None,
    quiet: options.Quiet = False,
) -> None:
    """Draw a layer's weights, one tile for each output and input.

    Example: jaxviz inspect weights resnet18-imagenette --layer layer3.0.conv1 --out weights
    """
    network = views.load(model, weights, quiet)
    view = inspection.weights(network, layer, views.read_units(outputs, "--outputs"), views.read_units(inputs, "--inputs"))
    page = view.picture(rows=rows, columns=columns, scale=scale.value, tile=tile or 40, dark=dark)
    arrays = {"weights": view.weights, "outputs": view.outputs, "inputs": view.inputs}
    views.write(out, {"weights.png": page}, arrays, quiet)


@inspect_app.command()
def maps(
    model: options.ModelName,
    images: views.Photos,
    layers: Annotated[str, typer.Option(metavar="NAMES", help="Comma-separated layers, such as conv1,layer2,fc.")],
    out: views.Out,
    top: Annotated[int, typer.Option(min=1, help="Number of channels of each layer: each image's strongest.")] = 23,
    channels: Annotated[str | None, typer.Option(metavar="UNITS", help="Channel numbers, such as 0-15,40.")] = None,
    order: Annotated[Order, typer.Option(help="Strength of a channel: the max or mean of its map.")] = Order.max,
    view: Annotated[View, typer.Option(help="Colors, interpolated colors, or an overlay on the image.")] = View.map,
    position: Annotated[
        str | None,
        typer.Option(metavar="Y,X", help="Draw the receptive field of this position; default: that of the strongest channel."),
    ] = None,
    size: options.SizeText = None,
    tile: views.Tile = None,
    dark: views.Dark = False,
    weights: options.Weights = None,
    devices: options.Devices = None,
    quiet: options.Quiet = False,
) -> None:
    """Draw where a layer's channels are active in photos, and the receptive field of its strongest unit.

    Example: jaxviz inspect maps resnet18-imagenette photo.jpg --layers layer2,layer4 --view overlay --out maps
    """
    use_cpu_devices(devices)
    network = views.load(model, weights, quiet)
    photos, names = views.read_photos(network, images, size)
    place = views.read_position(position)
    chosen = views.read_units(channels, "--channels")
    layer_names = [name.strip() for name in layers.split(",")]
    maps_by_layer = inspection.feature_maps(
        network,
        photos,
        layer_names,
        channels=top if chosen is None else chosen,
        order=order.value,
        mesh=jaxviz.make_mesh(devices),
    )
    pages, arrays = {}, {}
    for layer, feature_maps in maps_by_layer.items():
        arrays |= {
            f"{layer}/maps": feature_maps.maps,
            f"{layer}/channels": feature_maps.channels,
            f"{layer}/strengths": feature_maps.strengths,
        }
        for i, name in enumerate(names):
            pages[f"{name}-{layer}.png"] = feature_maps.picture(i, view=view.value, tile=tile or 112, dark=dark)
            if feature_maps.is_spatial and feature_maps.receptive_field is not None:
                pages[f"{name}-{layer}-field.png"] = feature_maps.draw_receptive_field(
                    *(place or feature_maps.strongest_position(i)), i
                )
    views.write(out, pages, arrays, quiet)


@inspect_app.command()
def occlusion(
    model: options.ModelName,
    images: views.Photos,
    out: views.Out,
    target: Annotated[
        str | None, typer.Option(metavar="TARGET", help="Class or objective; default: the probability of the top class.")
    ] = None,
    window: Annotated[str | None, typer.Option(metavar="N|HxW", help="Pixels; default: a quarter of the image.")] = None,
    stride: Annotated[str | None, typer.Option(metavar="N|HxW", help="Pixels; default: a quarter of the window.")] = None,
    size: options.SizeText = None,
    tile: views.Tile = None,
    dark: views.Dark = False,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Evaluations of the network at a time.")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Occlude windows of photos one by one, and draw the network's output for each.

    Example: jaxviz inspect occlusion resnet18-imagenette photo.jpg --window 32 --stride 8 --out occlusion
    """
    use_cpu_devices(devices)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    photos, _ = views.read_photos(network, images, size)
    with Bar([len(photos)], quiet) as bar:
        occluded = inspection.occlusion_map(
            network,
            photos,
            read_target(target, network),
            window=options.read_size(window),
            stride=options.read_size(stride),
            chunk=chunk,
            mesh=jaxviz.make_mesh(devices),
            progress=bar.report_alone,
        )
    arrays = {
        "scores": occluded.scores,
        "classes": occluded.classes,
        "whole": occluded.whole,
        "maps": occluded.attribution.maps,
    }
    views.write(out, {"occlusion.png": occluded.picture(tile=tile or 224, dark=dark)}, arrays, quiet)
