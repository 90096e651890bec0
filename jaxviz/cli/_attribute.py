"""jaxviz attribute: which pixels of many photos matter to a class, unit or objective."""

from __future__ import annotations

import inspect
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

import jaxviz
from jaxviz._errors import ArgumentError, near_matches
from jaxviz.attribution import METHODS, iter_attribute, log_probability, margin, probability
from jaxviz.attribution._iter_attribute import default_options
from jaxviz.cli._app import app
from jaxviz.cli._common import options
from jaxviz.cli._common import skipped as _skipped
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.cli._common.expressions import evaluate
from jaxviz.cli._common.progress import Bar


class View(StrEnum):
    auto = "auto"
    overlay = "overlay"
    heat = "heat"
    signed = "signed"
    gray = "gray"
    color = "color"


class Share(StrEnum):
    map = "map"
    image = "image"


@app.command()
def attribute(
    model: options.ModelName,
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Photos, and folders of photos with all that is in them.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the pictures, the raw maps and the index; continued if begun.")
    ],
    method: Annotated[
        str, typer.Option(metavar="NAMES", help=f"With commas between them. Known: {', '.join(METHODS)}.")
    ] = "guided_backprop",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="TARGET",
            help="Each image's top class if not given; a class, 'church' or 482; several, 'church,golf ball'; "
            "an objective, layer3:7; or 'margin(\"church\")', 'probability(482)'.",
        ),
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="For methods that look at one layer; their own choice if not given.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="A method's own option: steps=100, baseline=blur; smoothgrad.samples=50 for one of several methods. "
            "May be given several times.",
        ),
    ] = None,
    size: options.SizeText = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that are read and kept in memory at a time.")] = 16,
    view: Annotated[View, typer.Option(help="How maps are drawn.")] = View.auto,
    percentile: Annotated[float, typer.Option(help="Of a map's values, that gets the last color.")] = 99.0,
    share: Annotated[Share, typer.Option(help="Which maps share this: each by itself, or an image's targets.")] = Share.map,
    weights: options.Weights = None,
    class_names: options.ClassNames = None,
    devices: options.Devices = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Evaluations of the network at a time.")] = None,
    precision: options.PrecisionOption = options.Precision.highest,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Show which pixels of photos matter to a class, unit or objective.

    Files that are no images, or damaged, are named and skipped. Every finished image is saved at once: stopped in whatever
    way, the same command again continues, also with more photos.

    Example: jaxviz attribute resnet18-imagenette photos --method saliency,guided_backprop --size 128 --out out
    """
    use_cpu_devices(devices)
    if not 0 < percentile <= 100:
        raise typer.BadParameter("expected a percentile above 0 and at most 100.", param_hint="--percentile")
    methods = read_methods(method, option, layer)
    network = jaxviz.load(model, weights=weights, class_names=options.read_lines(class_names), progress=not quiet)
    pixels = options.read_size(size) or network.input_size
    explained = read_target(target, network)
    for name in layer.split(",") if layer else ():
        network.resolve(name.strip())
    begun = time.perf_counter()
    nothing: Counter[str] = Counter()

    def report(name: str, now: jaxviz.Progress) -> None:
        bar.say(f"{name} {now.step}/{now.steps}" if now.steps > 1 else name)

    run = iter_attribute(
        network,
        images,
        methods,
        explained,
        out=out,
        size=pixels,
        batch=batch,
        look={"view": view.value, "percentile": percentile, "share": share.value},
        overwrite=overwrite,
        mesh=jaxviz.make_mesh(devices),
        chunk=chunk,
        precision=precision.value,
        progress=report,
    )
    bar = Bar([len(run.files) - run.kept], quiet)
    try:
        with run, bar:
            unlisted = len(run.skipped)
            for image in run:
                bar.finished(run.finished - run.kept + len(run.skipped) - unlisted - bar.done)
                if image.is_new:
                    nothing.update(
                        f"{name}: {w}" for name, each in image.attributions.items() for w in each.diagnosis.flat if w != "ok"
                    )
            bar.say("done")
    except KeyboardInterrupt:
        kept = f"{run.finished} of {len(run.files)} images were finished"
        kept += f" and are in {out}: the same command again continues" if run.finished else ""
        typer.echo(f"jaxviz: interrupted, {kept}", err=True)
        raise typer.Exit(130) from None
    _skipped.tell(run.skipped, out / "index.json")
    if not quiet:
        words = f"{run.finished} images in {time.perf_counter() - begun:.0f} s"
        words += f", {run.kept} of them done before" if run.kept else ""
        words += f", {len(run.skipped)} files skipped" if run.skipped else ""
        typer.echo(f"{words}: {out / 'contact_sheet.png'}")
        if nothing:
            listed = ", ".join(f"{count} of {words}" for words, count in nothing.most_common())
            typer.echo(f"{nothing.total()} maps have nothing to see in them: {listed}")


def read_target(text: str | None, network: jaxviz.Model) -> Any:
    """Read a class, several with commas, an objective such as `layer3:7`, or a call as in Python.

    Several classes, `"church,482"`, give `[["church", 482]]`: that many targets of each image.
    """
    if text is None:
        return None
    known = [name.lower() for name in network.class_names]
    if text.strip().lower() in known:  # also one that has a comma, a colon or brackets in it
        return known.index(text.strip().lower())
    if "(" in text:
        scored: dict[str, Callable[..., Any]] = {
            "probability": probability,
            "log_probability": log_probability,
            "margin": margin,
        }
        return options.read_target(text, scored)
    if ":" in text:
        return options.read_target(text)
    classes = [network.class_index(int(word) if word.strip().isdecimal() else word) for word in text.split(",")]
    return classes[0] if len(classes) == 1 else [classes]


def read_methods(names: str, texts: Sequence[str] | None, layer: str | None) -> dict[str, dict[str, Any]]:
    """Return the methods by name, each with those of the options that it takes."""
    methods: dict[str, dict[str, Any]] = {}
    for name in (part.strip() for part in names.split(",")):
        if name not in METHODS:
            near = near_matches(name, METHODS) or f" Known: {', '.join(METHODS)}."
            raise typer.BadParameter(f"there is no method '{name}'.{near}", param_hint="--method")
        methods[name] = {}
    taken = {name: default_options(name) for name in methods}
    listed = "; ".join(f"{name}: {', '.join(taken[name]) or 'none'}" for name in methods)
    for text in texts or ():
        key, sign, value = text.partition("=")
        whose, dot, key = key.strip().rpartition(".")
        users = [name for name in methods if key in taken[name] and whose in ("", name)]
        if not sign or not users:
            problem = f"expected NAME=VALUE, got '{text}'" if not sign else f"no method given takes '{whose}{dot}{key}'"
            raise typer.BadParameter(f"{problem}. Their options: {listed}.", param_hint="--option")
        for name in users:
            methods[name][key] = _value(value)
    if layer is not None:
        users = [name for name in methods if "layer" in taken[name]]
        if not users:
            raise typer.BadParameter(f"no method given looks at a layer. Their options: {listed}.", param_hint="--layer")
        for name in users:
            methods[name]["layer"] = _layers(layer)
    for name, own in methods.items():
        missing = [key for key, default in taken[name].items() if default is inspect.Parameter.empty and key not in own]
        if missing:
            raise typer.BadParameter(f"{name} needs {', '.join(f'{key}=...' for key in missing)}.", param_hint="--option")
    return methods


def _layers(text: str) -> str | list[str]:
    names = [name.strip() for name in text.split(",")]
    return names[0] if len(names) == 1 else names


def _value(text: str) -> Any:
    """Read a Python literal, a file's array, `load("masks.npy")`, or a word as it is."""
    text = text.strip()
    if text in ("True", "False", "None") or not re.fullmatch(r"[A-Za-z_][\w.\-]*", text):
        try:
            return evaluate(text, options.FILES)
        except ArgumentError as error:
            raise typer.BadParameter(str(error), param_hint="--option") from None
    return text
