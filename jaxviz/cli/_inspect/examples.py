"""jaxviz inspect examples: which photos move the units of some layers most."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

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


@inspect_app.command()
def examples(
    model: options.ModelName,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Folders of photos with all that is in them, and photos.")
    ],
    layers: Annotated[str, typer.Option(metavar="LAYERS", help="Layers with commas between them: layer3,layer4,fc.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the arrays, a contact sheet of each layer, a list of all.")
    ],
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Photos of each unit.")] = 9,
    score: Annotated[
        str, typer.Option(metavar="max|mean", help="Of a photo for a unit: over the positions of the unit's map.")
    ] = "max",
    extent: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of a crop's side in the sheets; the receptive field if not given."),
    ] = None,
    size: options.SizeText = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: Annotated[
        int | None, typer.Option(min=1, help="Images read and computed at a time; chosen for the machine if not given.")
    ] = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the photos that move every unit of some layers most, in one pass.

    Writes examples.npz (jaxviz.inspection.load_examples reads it), examples.json (photos, scores and positions by unit,
    and what was skipped) and a contact sheet of each layer. Stopped in whatever way, the same command again continues.

    Example: jaxviz inspect examples resnet18-imagenette photos --layers layer3,layer4 --size 128 --out out
    """
    use_cpu_devices(devices)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    names = [name.strip() for name in layers.split(",")]
    total = len(find_files(images, out)[0])
    begun, done = time.perf_counter(), 0
    with Bar([max(1, total)], quiet) as bar:

        def tell(now: jaxviz.Progress) -> None:
            nonlocal done
            bar.finished(now.images_done - done)
            bar.say("looking")
            done = now.images_done

        wanted: dict[str, Any] = {"k": k, "score": score, "size": options.read_size(size), "chunk": chunk}
        try:
            found = top_examples(
                network,
                images,
                names,
                out=out,
                overwrite=overwrite,
                mesh=jaxviz.make_mesh(devices),
                precision=precision.value,
                progress=tell,
                **wanted,
            )
            seconds = time.perf_counter() - begun
            for name, layer in found.items():
                bar.say(f"drawing {name}")
                sheet = Image.fromarray(layer.contact_sheet(extent=extent))
                draw = partial(sheet.save, format="JPEG", quality=90)  # a PNG would be five times as large
                with failures(out):
                    write_atomically(out / sheet_name(name), draw)
        except KeyboardInterrupt:
            kept = f"{done} of {total} files were looked at"
            kept += f"; what they told is in {out}: the same command again continues" if done else ""
            typer.echo(f"jaxviz: interrupted, {kept}", err=True)
            raise typer.Exit(130) from None
    first = next(iter(found.values()))
    _skipped.tell(first.skipped, out / "examples.json")
    if not quiet:
        words = f"{sum(map(len, found.values()))} units, {len(first.files)} images in {seconds:.0f} s"
        words += f", {len(first.skipped)} files skipped" if first.skipped else ""
        typer.echo(f"{words}: {', '.join(str(out / sheet_name(name)) for name in found)}")


def sheet_name(layer: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._]+', '-', layer)}.jpg"
