"""jaxviz inspect examples: the top-activating photos of units."""

from __future__ import annotations

import re
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

import jaxviz
from jaxviz._atomic import write_atomically
from jaxviz._image_files import find_files
from jaxviz._result_files import failures
from jaxviz.cli._common import options
from jaxviz.cli._common import skipped as _skipped
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar
from jaxviz.cli._inspect.app import inspect_app
from jaxviz.inspection import top_examples


class Score(StrEnum):
    max = "max"
    mean = "mean"


@inspect_app.command()
def examples(
    model: options.ModelName,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Photos, and folders with photos in all their subfolders.")
    ],
    layers: Annotated[str, typer.Option(metavar="LAYERS", help="Comma-separated layers: layer3,layer4,fc.")],
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="Folder for arrays, contact sheets and a list; an unfinished run is continued."),
    ],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Number of photos for each unit.")] = 9,
    score: Annotated[Score, typer.Option(help="Score of a photo: the max or mean over positions of a unit's map.")] = Score.max,
    extent: Annotated[
        int | None,
        typer.Option(min=1, help="Size of a crop in the sheets in pixels; default: the receptive field."),
    ] = None,
    size: options.SizeText = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Images at a time; default: chosen for the machine.")] = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the top-activating photos of every unit of layers, in one pass.

    Writes examples.npz (for jaxviz.inspection.load_examples), examples.json (photos, scores and positions for each unit, and
    skipped files) and a contact sheet of each layer. If the run stops, the same command continues it.

    Example: jaxviz inspect examples resnet18-imagenette photos --layers layer3,layer4 --size 128 --out out
    """
    use_cpu_devices(devices)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    names = [name.strip() for name in layers.split(",")]
    total = len(find_files(images, out)[0])
    begun, done = time.perf_counter(), 0
    with Bar([max(1, total)], quiet) as bar:

        def report(now: jaxviz.Progress) -> None:
            nonlocal done
            bar.finished(now.images_done - done)
            bar.say("searching")
            done = now.images_done

        try:
            by_layer = top_examples(
                network,
                images,
                names,
                k=k,
                score=score.value,
                size=options.read_size(size),
                chunk=chunk,
                out=out,
                overwrite=overwrite,
                mesh=jaxviz.make_mesh(devices),
                precision=precision.value,
                progress=report,
            )
            seconds = time.perf_counter() - begun
            for name, layer in by_layer.items():
                bar.say(f"drawing {name}")
                sheet = Image.fromarray(layer.contact_sheet(extent=extent))
                draw = partial(sheet.save, format="JPEG", quality=90)  # a PNG would be five times as large
                with failures(out):
                    write_atomically(out / sheet_name(name), draw)
        except KeyboardInterrupt:
            kept = f"{done} of {total} files were read"
            kept += f" and their scores are in {out}: the same command continues" if done else ""
            typer.echo(f"jaxviz: interrupted, {kept}", err=True)
            raise typer.Exit(130) from None
    first = next(iter(by_layer.values()))
    _skipped.tell(first.skipped, out / "examples.json")
    if not quiet:
        words = f"{sum(map(len, by_layer.values()))} units, {len(first.files)} images in {seconds:.0f} s"
        words += f", {len(first.skipped)} files skipped" if first.skipped else ""
        typer.echo(f"{words}: {', '.join(str(out / sheet_name(name)) for name in by_layer)}")


def sheet_name(layer: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', layer)}.jpg"
