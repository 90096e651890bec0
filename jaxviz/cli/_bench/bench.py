"""jaxviz bench: the speed of this machine, as a table to compare with other machines."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import jax
import typer
from rich.console import Console
from rich.table import Table

import jaxviz
from jaxviz._result_files import versions, write_json
from jaxviz.attribution import default_layer
from jaxviz.cli._app import app
from jaxviz.cli._bench.speed import UNITS, Peak, Row, measure, peaks
from jaxviz.cli._common import options
from jaxviz.cli._common.devices import use_cpu_devices
from jaxviz.models import untrained

TASKS = ("forward", "gradient", UNITS)


@app.command()
def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Networks of `jaxviz models`, with random weights.")
    ] = None,
    batch: Annotated[str, typer.Option(metavar="N,...", help="Images, or units, at a time on each device.")] = "1,8",
    size: Annotated[int, typer.Option(min=32, help="Image size in pixels.")] = 224,
    layer: Annotated[str | None, typer.Option(help="Layer of `units`; default: the last with positions.")] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Minimum time of each measurement.")] = 2.0,
    precision: options.PrecisionOption = options.Precision.highest,
    devices: options.Devices = None,
    out: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all numbers to a file.")] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure this machine: images and steps per second, compared with the peak of its devices.

    Networks have random weights, which do not change the speed; nothing is downloaded. `units` is activation maximization with
    the defaults of `jaxviz visualize`, in image-steps per second; with several devices, on 1, 2, 4, ... of them. Medians,
    without compile time.

    Example: jaxviz bench resnet18 resnet50 --batch 1,8,32 --json here.json
    """
    use_cpu_devices(devices)
    counts = [int(number) for number in options.read_numbers(batch)]
    if not counts or min(counts) < 1:
        raise typer.BadParameter(f"expected whole numbers of at least 1, got '{batch}'.", param_hint="--batch")
    networks = [untrained(name) for name in models or ("resnet18", "resnet50", "vgg16")]
    layers = {network.name: layer or default_layer(network, (size, size)) for network in networks}
    for network in networks:
        network.resolve(layers[network.name])
    available = len(jaxviz.make_mesh(devices).devices.flat)
    machine = _machine(available)
    say = Console(stderr=True, quiet=quiet).print
    say(f"{_words(machine)}; measuring its peaks")
    top = peaks(jax.local_devices()[0], seconds / 2)
    rows: list[Row] = []
    precision_name = precision.value_or_none() or "default"
    for network in networks:
        run = partial(measure, size=size, layer=layers[network.name], precision=precision_name, seconds=seconds)
        for count in counts:
            for task in TASKS:
                say(f"{network.name}: {task}, batch {count}")
                rows.append(run(network, task, count))
        for across in _powers(available):
            say(f"{network.name}: {UNITS} on {across} devices")
            rows.append(run(network, UNITS, max(counts), devices=across))
    if out is not None:
        record = {"machine": machine, "size": size, "precision": precision.value}
        record |= {"peaks": [asdict(peak) for peak in top], "rows": [asdict(row) for row in rows]}
        write_json(out, record)
    _show(machine, top, rows, size, precision.value)


def _powers(most: int) -> list[int]:
    """Return 2, 4, 8, ... and `most` itself; 1 is always measured."""
    return sorted({*(2**i for i in range(1, most.bit_length()) if 2**i <= most), most} - {1})


def _machine(devices: int) -> dict[str, str | int]:
    device = jax.local_devices()[0]
    kind = device.device_kind if device.platform != "cpu" else _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "device": kind,
        "platform": device.platform,
        "devices": devices,
        "cores": cores,
        "host": platform.platform(),
        **versions(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _show(machine: dict[str, str | int], top: list[Peak], rows: list[Row], size: int, precision: str) -> None:
    console = Console(width=None if Console().is_terminal else 140)
    flops = next(peak.flops for peak in top if "convolution" in peak.name)
    console.print(f"{_words(machine)}; jaxviz {_versions(machine)}")
    is_shared = machine["platform"] == "cpu"  # a host device uses any idle core, so the peak of one is that of all
    for peak in top:
        console.print(f"  {peak.name}: {_engineering(peak.flops)}FLOP/s {'on all cores' if is_shared else 'per device'}")
    table = Table(title=f"{size} px, {precision} precision; units: image-steps per second with the defaults of visualize")
    for heading in ("network", "task"):
        table.add_column(heading)
    for heading in ("batch", "devices", "per second", "min to max", "FLOP/s", "of the peak", "compiling", "memory"):
        table.add_column(heading, justify="right")
    for row in rows:
        low, high = row.spread
        table.add_row(
            row.model,
            row.task,
            str(row.batch),
            str(row.devices),
            f"{row.rate:.3g}",
            f"{low:.3g} to {high:.3g}",
            _engineering(row.flops),
            f"{100 * row.flops / flops / (1 if is_shared else row.devices):.0f} %",
            f"{row.compiling:.1f} s",
            "unknown" if row.memory is None else f"{_engineering(row.memory)}B",
        )
    console.print(table)


def _words(machine: dict[str, str | int]) -> str:
    cores = f", {machine['cores']} cores" if machine["platform"] == "cpu" else ""
    return f"{machine['device']}{cores}, {machine['platform']}, {machine['devices']} devices"


def _versions(machine: dict[str, str | int]) -> str:
    return f"{machine['jaxviz']}, jax {machine['jax']}, Python {machine['python']}"


def _engineering(value: float) -> str:
    """Return 1.23e10 as '12.3 G'."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value:.3g} "
