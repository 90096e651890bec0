"""jaxviz gallery."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

import jaxviz
from jaxviz._visualize.options import RenderOptions
from jaxviz.cli._app import app
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.progress import Bar


@app.command()
def gallery(
    model: options.ModelName,
    layers: Annotated[
        str,
        typer.Option(
            metavar="LAYERS",
            help="All units of layers, or some: layer3,layer4:0-31,40. logit: the classes.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="SITE", help="Folder of the site; an unfinished one is continued.")],
    examples: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Photos, in folders named by class. Repeatable."),
    ] = None,
    top: Annotated[int, typer.Option("-k", "--top", min=1, help="Number of photos for each unit.")] = 9,
    samples: options.Samples = 1,
    negative: Annotated[bool, typer.Option("--negative", help="Also show the opposite direction of each unit.")] = False,
    similar: Annotated[int, typer.Option(min=0, help="Number of similar units for each unit.")] = 9,
    steps: options.Steps = 256,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    learning_rate: options.LearningRate = None,
    param: Annotated[str | None, typer.Option(metavar="PARAM", help="As for `jaxviz visualize`.")] = None,
    transforms: Annotated[str | None, typer.Option(metavar="LIST", help="As for `jaxviz visualize`.")] = None,
    folder_names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Names for the photos' folders: lines with a folder, a space and its name."),
    ] = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: options.ChunkSize = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a static site of layers: pictures, top-activating photos and similar units for every unit.

    Open SITE/index.html; it needs no server and no network connection. If the run stops, the same command continues it, also
    with more layers.

    Example: jaxviz gallery resnet18-imagenette --layers layer3,layer4 --examples photos --size 128 --out site
    """
    use_cpu_devices(devices)
    render: RenderOptions = {"mesh": jaxviz.make_mesh(devices)}
    if learning_rate is not None:
        render["learning_rate"] = learning_rate
    if chunk is not None:
        render["chunk"] = chunk
    if param is not None:
        render["param"] = options.read_param(param)
    if transforms is not None:
        render["transforms"] = options.read_transforms(transforms)
    pixels, names = options.read_size(size), read_names(folder_names)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    begun, bar = time.perf_counter(), Bar([], quiet)
    try:
        with ExitStack() as stack:

            def report(what: str, now: jaxviz.Progress) -> None:
                if not bar.is_shown:  # only after every argument is checked
                    stack.enter_context(bar)
                bar.report_part(what, now)

            page = jaxviz.gallery.build(
                network,
                layers,
                examples=examples or None,
                out=out,
                k=top,
                samples=samples,
                negative=negative,
                similar=similar,
                steps=steps,
                size=pixels,
                seed=seed,
                folder_names=names,
                command=shlex.join(["jaxviz", *sys.argv[1:]]),
                overwrite=overwrite,
                progress=report,
                **render,
            )
    except KeyboardInterrupt:
        typer.echo(f"jaxviz: interrupted; finished parts are in {out}: the same command continues", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        typer.echo(f"Done in {time.perf_counter() - begun:.0f} s: {page}")


def read_names(path: Path | None) -> dict[str, str] | None:
    """Read lines such as `n01440764 tench`: a folder and its name."""
    lines = options.read_lines(path)
    return None if lines is None else {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[-1] for line in lines}
