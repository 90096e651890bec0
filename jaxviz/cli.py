"""The command line: jaxviz models | layers | visualize.

Exit status: 0 done, 1 an error that one line explains, 2 a wrong use of the command line, 130 Ctrl-C.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import jax
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from typer.core import TyperGroup

import jaxviz
from jaxviz import engine, objectives, param, regularizers
from jaxviz._errors import ArgumentError, JaxvizError
from jaxviz.models import verify as verify_models
from jaxviz.result import versions

_MODEL_HELP = "A network of `jaxviz models`, such as resnet18-imagenette (bundled) or resnet50."
_WEIGHTS_HELP = "A file (.pth, .pt, .safetensors), or the name of torchvision's weights (IMAGENET1K_V1, ...)."


class _Group(TyperGroup):
    """Commands whose typed errors are one line and exit status 1, and whose Ctrl-C is exit status 130."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except JaxvizError as error:
            typer.echo(f"jaxviz: {error}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("jaxviz: interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Group,
    name="jaxviz",
    help="See what the units, layers and classes of a convolutional network respond to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Run the command line of `sys.argv`."""
    try:
        app(prog_name="jaxviz")
    except KeyboardInterrupt:  # outside a command, for example while it is being read
        raise SystemExit(130) from None


class ParamName(StrEnum):
    fourier = "fourier"
    pixel = "pixel"


class TransformName(StrEnum):
    standard = "standard"
    none = "none"


class Precision(StrEnum):
    default = "default"
    high = "high"
    highest = "highest"


def _show_version(show: bool) -> None:
    if show:
        typer.echo(", ".join(f"{name} {number}" for name, number in versions().items() if name in ("jaxviz", "jax")))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def models(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="With --verify: only these.")] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Download each network's weights, load them and compare with torchvision, one line a weight. "
            "Needs a network connection, torch and torchvision.",
        ),
    ] = False,
) -> None:
    """List the networks and their weights, or verify these."""
    if verify:
        failed = 0
        for record in verify_models(*(names or ()), progress=True):
            typer.echo(str(record))
            failed += not record.ok
        raise typer.Exit(1 if failed else 0)
    if names:
        raise typer.BadParameter("names go with --verify; `jaxviz layers NAME` shows one network.")
    typer.echo(str(jaxviz.list_models()))


@app.command()
def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)],
    weights: Annotated[str | None, typer.Option(metavar="FILE|NAME", help=_WEIGHTS_HELP)] = None,
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Image size that the shapes are for; the network's own if not given.")
    ] = None,
) -> None:
    """List the layers of a network.

    Name, kind, shape, channels and receptive field / stride of every value that can be visualized.
    """
    typer.echo(str(jaxviz.load(model, weights=weights, progress=True).layers(_size(size))))


@app.command()
def visualize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL_HELP)],
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="LAYER:UNITS",
            help="What to maximise: layer4:0-15, layer3:3,9,20-31, layer2 (all its channels), 'logit:golf ball,church', "
            "logit (all classes). `jaxviz layers` lists the layers.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the pictures, the contact sheet and the arrays; continued if begun.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Images per unit, each from its own random start.")] = 1,
    steps: Annotated[int, typer.Option(min=0, help="Steps of gradient ascent.")] = 256,
    size: Annotated[
        str | None, typer.Option(metavar="N|HxW", help="Image size in pixels; the network's own if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same images.")] = 0,
    learning_rate: Annotated[float, typer.Option(help="Step size of the optimiser (Adam).")] = 0.01,
    param_name: Annotated[
        ParamName, typer.Option("--param", help="Optimise frequencies with decorrelated colours, or plain pixels.")
    ] = ParamName.fourier,
    transforms: Annotated[
        TransformName, typer.Option(help="Random jitter, scale and rotation at every step, or nothing.")
    ] = TransformName.standard,
    regularizer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=WEIGHT",
            help="Subtract a penalty: l1, l2, total_variation or frequency_penalty, such as total_variation=0.001. "
            "May be given several times.",
        ),
    ] = None,
    weights: Annotated[str | None, typer.Option(metavar="FILE|NAME", help=_WEIGHTS_HELP)] = None,
    class_names: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Names of the classes, one a line, for weights that bring none.")
    ] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices to use, in each process; all of them if not given. On CPU: cores.")
    ] = None,
    chunk: Annotated[int | None, typer.Option(min=1, help="Units at a time; chosen for the machine if not given.")] = None,
    precision: Annotated[
        Precision, typer.Option(help="Of convolutions on GPU and TPU; highest is full float32.")
    ] = Precision.default,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start anew, whatever run or result the folder holds.")
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of several processes: where process 0 is found by all.")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="With --coordinator: how many there are.")] = None,
    process_id: Annotated[int | None, typer.Option(min=0, help="With --coordinator: which one this is, from 0.")] = None,
    distributed: Annotated[
        bool, typer.Option("--distributed", help="Several processes that find each other: on SLURM, TPU pods, under Open MPI.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show errors only.")] = False,
) -> None:
    """Render what units, layers or classes respond to most.

    Every finished chunk is saved at once: stopped in whatever way, the same command again continues.

    Example: jaxviz visualize resnet18-imagenette logit layer4:0-15 --size 128 --out out

    On several machines, with a folder that all share: `srun jaxviz visualize ... --distributed` on SLURM, the same
    command in every process on a TPU pod, or each with --coordinator HOST:PORT --processes N --process-id I.
    """
    _use_cpu_devices(devices)
    _join(coordinator, processes, process_id, distributed)
    quiet = quiet or jax.process_index() != 0
    penalties = [_regularizer(text) for text in regularizer or ()]
    pixels = _size(size)
    network = jaxviz.load(model, weights=weights, class_names=_lines(class_names), progress=not quiet)
    counts = [len(objectives.parse(t).bind(network, pixels or network.input_size).labels(network)) for t in targets]
    start, done, total = time.perf_counter(), 0, sum(counts) * samples
    try:
        with _Bar([len(engine.share(i, count)) * samples for i, count in enumerate(counts)], quiet) as bar:
            for part in jaxviz.iter_visualize(
                network,
                targets,
                param=param.fourier if param_name is ParamName.fourier else param.pixel,
                transforms=None if transforms is TransformName.standard else (),
                regularizers=penalties,
                learning_rate=learning_rate,
                steps=steps,
                size=pixels,
                samples=samples,
                seed=seed,
                mesh=jaxviz.make_mesh(devices),
                chunk=chunk,
                precision=None if precision is Precision.default else precision.value,
                progress=bar.report,
                out=out,
                overwrite=overwrite,
            ):
                bar.finished(part.scores.size)
                done += part.scores.size
    except KeyboardInterrupt:
        kept = f"{done} of {total} images were finished" + (
            f" and are in {out}: the same command again continues" if done else ""
        )
        typer.echo(f"jaxviz: interrupted, {kept}", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        sheet = out / "contact_sheet.png"
        where = sheet if sheet.exists() else out
        typer.echo(f"{total} images of {sum(counts)} units in {time.perf_counter() - start:.0f} s: {where}")


class _Bar:
    """A progress bar over all targets, on the terminal's error stream: images, step, images a second, time left."""

    def __init__(self, images: Sequence[int], quiet: bool) -> None:
        self._ends = list(accumulate(images, initial=0))  # images that are finished when a target is
        self._done = 0
        columns = [
            TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task("", total=self._ends[-1], state="compiling")

    def __enter__(self) -> _Bar:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, trace)

    def finished(self, images: int) -> None:
        self._done += images
        self._progress.update(self._task, completed=self._done)

    def report(self, now: jaxviz.Progress) -> None:
        """Take the engine's report, which counts the current target only."""
        state = f"step {now.step}/{now.steps}"
        if now.images_per_second > 0:
            before = max(end for end in self._ends if end <= self._done)
            left = now.seconds_left + (self._ends[-1] - before - now.images) / now.images_per_second
            state += f"  {now.images_per_second:.2g} images/s  {_clock(left)} left"
        self._progress.update(self._task, state=state)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _use_cpu_devices(count: int | None) -> None:
    """Ask JAX for one host device per core, which a CPU needs to be busy; too late, and harmless, once JAX has started."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", count or cores)
    except RuntimeError:
        pass


def _join(coordinator: str | None, processes: int | None, process_id: int | None, distributed: bool) -> None:
    """Join the other processes of a run on several machines, before JAX looks at any device."""
    given = [option is not None for option in (coordinator, processes, process_id)]
    if any(given) and (distributed or not all(given)):
        raise typer.BadParameter("give --coordinator, --processes and --process-id together, or --distributed alone.")
    if distributed or all(given):
        try:
            jax.distributed.initialize(coordinator, processes, process_id)
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(f"Cannot join the other processes: {error}") from error


def _size(text: str | None) -> tuple[int, int] | None:
    """Read `"128"` or `"96x128"` (height x width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"expected a size such as 128 or 96x128 (height x width), got '{text}'.", param_hint="--size")
    return int(parts[0]), int(parts[-1])


_REGULARIZERS: dict[str, Callable[[float], Any]] = {
    "l1": regularizers.l1,
    "l2": regularizers.l2,
    "total_variation": regularizers.total_variation,
    "frequency_penalty": regularizers.frequency_penalty,
}


def _regularizer(text: str) -> Any:
    """Read `"total_variation=0.001"`."""
    name, _, weight = text.partition("=")
    try:
        return _REGULARIZERS[name.strip()](float(weight))
    except (KeyError, ValueError):
        known = ", ".join(_REGULARIZERS)
        message = f"expected NAME=WEIGHT with a name of {known}, such as l2=0.01, got '{text}'."
        raise typer.BadParameter(message, param_hint="--regularizer") from None


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"Cannot read the class names in '{path}': {error}") from error
