"""jaxviz visualize."""

from __future__ import annotations

import time
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import typer

import jaxviz
from jaxviz import engine
from jaxviz._file_names import picture_names
from jaxviz.cli._app import app
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import join_processes, use_cpu_devices
from jaxviz.cli._common.progress import Bar


class Animation(StrEnum):
    gif = "gif"
    webp = "webp"


@app.command()
def visualize(
    model: options.ModelName,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="LAYER:UNITS",
            help="What to maximize: layer4:0-15, layer3:3,9,20-31, layer2 (all its channels), 'logit:golf ball,church', "
            "logit (all classes), sums such as 'layer3:7 - 0.5*layer3:9', or as in Python: 'direction(\"layer4\", "
            'load("probes.npy"))\'. `jaxviz layers` lists the layers.',
        ),
    ],
    out: options.Out,
    samples: options.Samples = 1,
    steps: options.Steps = 256,
    size: options.SizeText = None,
    seed: options.Seed = 0,
    learning_rate: options.LearningRate = None,
    optimizer: options.OptimizerText = "adam",
    param: options.ParamText = "fourier",
    transforms: options.TransformsText = "standard",
    regularizer: options.RegularizerTexts = None,
    scales: Annotated[
        str, typer.Option(metavar="N|FACTORS", help="Coarse to fine: number of octaves, or factors such as 0.25,0.5,1.")
    ] = "1",
    restarts: Annotated[int, typer.Option(min=1, help="Starts per unit; the best one is kept.")] = 1,
    views: Annotated[int, typer.Option(min=1, help="Random transforms of each image in each step.")] = 1,
    snapshots: Annotated[
        str | None, typer.Option(metavar="STEPS", help="Save the images after these steps, such as 8,16,32, in result.npz.")
    ] = None,
    animation: Annotated[
        Animation | None, typer.Option(help="With --snapshots: also write an animation of each image.")
    ] = None,
    transparency: Annotated[
        bool, typer.Option("--transparency", help="Opacity where the objective had a gradient, as in MACO.")
    ] = False,
    gradient: Annotated[
        options.Gradient,
        typer.Option(help="redirected helps silent units, relaxed also relaxes max pooling."),
    ] = options.Gradient.redirected,
    start: Annotated[Path | None, typer.Option(metavar="IMAGE", help="Image to start from.")] = None,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: options.ChunkSize = None,
    precision: options.PrecisionOption = options.Precision.default,
    overwrite: options.Overwrite = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Several processes: address of process 0.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="With --coordinator: number of processes.")] = None,
    process_id: Annotated[int | None, typer.Option(min=0, help="With --coordinator: number of this process, from 0.")] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Several processes that find each other: SLURM, TPU pods, Open MPI.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Render images that units, layers or classes respond to most.

    Every finished chunk is saved at once. If the run stops, the same command continues it.

    Example: jaxviz visualize resnet18-imagenette logit layer4:0-15 --size 128 --out out

    On several machines with a shared folder: `srun jaxviz visualize ... --distributed` on SLURM, the same command in every
    process on a TPU pod, or --coordinator HOST:PORT --processes N --process-id I in each process.
    """
    if animation and not snapshots:
        raise typer.BadParameter("give the steps with --snapshots, such as 8,16,32.", param_hint="--animation")
    use_cpu_devices(devices, options.known_units(targets))
    join_processes(coordinator, processes, process_id, distributed)
    quiet = quiet or jax.process_index() != 0
    pixels = options.read_size(size)
    factors = options.read_numbers(scales)
    settings: jaxviz.VisualizeOptions = {
        "param": options.read_param(param),
        "transforms": options.read_transforms(transforms),
        "regularizers": options.read_regularizers(regularizer),
        "optimizer": options.read_optimizer(optimizer),
        "scales": int(factors[0]) if len(factors) == 1 and factors[0] == int(factors[0]) else factors,
        "snapshots": [int(step) for step in options.read_numbers(snapshots)],
        "transparency": transparency,
        "ops": gradient.ops(),
        "start": None if start is None else jaxviz.image.load(start),
        "precision": precision.value_or_none(),
        "learning_rate": learning_rate,
        "steps": steps,
        "size": pixels,
        "samples": samples,
        "restarts": restarts,
        "views": views,
        "seed": seed,
        "mesh": jaxviz.make_mesh(devices),
        "chunk": chunk,
        "out": out,
        "overwrite": overwrite,
    }
    objectives = [options.read_target(text) for text in targets]
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    size_or_own = pixels or network.input_size
    counts = [len(objective.bind(network, size_or_own).labels(network)) for objective in objectives]
    begun, done, total = time.perf_counter(), 0, sum(counts) * samples
    failed: list[tuple[str, str]] = []  # why an image failed, and its label
    try:
        with Bar([len(engine.share(i, count)) * samples for i, count in enumerate(counts)], quiet) as bar:
            settings["progress"] = bar.report
            for part in jaxviz.iter_visualize(network, objectives, **settings):
                bar.finished(part.scores.size)
                done += part.scores.size
                failed += [(str(part.diagnosis[k, s]), part.labels[k]) for k, s in np.argwhere(part.diagnosis != "ok")]
    except KeyboardInterrupt:
        kept = f"{done} of {total} images were finished"
        kept += f" and are in {out}: the same command continues" if done else ""
        typer.echo(f"jaxviz: interrupted, {kept}", err=True)
        raise typer.Exit(130) from None
    if animation and jax.process_index() == 0:
        _animate(out, animation)
    if not quiet:
        sheet = out / "contact_sheet.png"
        where = sheet if sheet.exists() else out
        typer.echo(f"{total} images of {sum(counts)} units in {time.perf_counter() - begun:.0f} s: {where}")
        if failed:
            typer.echo(f"{len(failed)} of {total} images failed: {_listed(failed)}")


def _animate(out: Path, kind: Animation) -> None:
    """Write an animation of the snapshots of each image beside its PNG, with the same name."""
    result = jaxviz.load_result(out)
    names = picture_names(result.labels, result.images.shape[1])
    for unit, files in zip(result.snapshots, names, strict=True):
        for images, name in zip(unit, files, strict=True):
            jaxviz.image.save_animation((out / name).with_suffix(f".{kind}"), images)


def _listed(failed: list[tuple[str, str]]) -> str:
    """Return `no gradient (layer3:0), no rise (layer4:3, ...)`."""
    words: list[str] = []
    for word in Counter(word for word, _ in failed):
        labels = list(dict.fromkeys(label for other, label in failed if other == word))
        words.append(f"{word} ({', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''})")
    return ", ".join(words)
