"""What all comparisons share: calls in turn, medians with their spread, the machine, a table and its numbers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def timed(fn: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and what it returned."""
    start = time.perf_counter()
    found = fn()
    return time.perf_counter() - start, found


def in_turn(calls: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Time every call once, then every call again, ...: what disturbs the machine disturbs all of them."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            times[name].append(timed(call)[0])
    return times


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Return the ratio of the medians, and the least and the most of the ratios of a turn."""
    each = [a / b for a, b in zip(theirs, ours, strict=True)]
    return statistics.median(theirs) / statistics.median(ours), min(each), max(each)


def chosen(tools: Mapping[str, Callable[[], Any]], names: Sequence[str]) -> dict[str, Callable[[], Any]]:
    """Return jaxviz and the named rivals, or all of them where none is named."""
    return {tool: call for tool, call in tools.items() if tool.startswith("jaxviz") or not names or tool in names}


def comparison(tool: str, first: float, times: Mapping[str, Sequence[float]], each: int) -> dict[str, Any]:
    """Return a tool's part of a row: seconds of each of a call's `each` pieces of work, jaxviz's advantage, compile time."""
    return {
        "seconds": [t / each for t in times[tool]],
        "faster": None if tool == "jaxviz" else ratio(times[tool], times["jaxviz"]),
        "compile_s": max(0.0, first - statistics.median(times[tool])),
    }


def columns(row: Mapping[str, Any]) -> str:
    """Return the columns of a `comparison`, and of how far `apart` its answers are."""
    faster = "" if row["faster"] is None else "{:.2f} ({:.2f} to {:.2f})".format(*row["faster"])
    apart = "" if row["apart"] is None else f"{row['apart']:.0e}"
    return f"{statistics.median(row['seconds']):.4f} | {faster} | {row['compile_s']:.1f} | {apart} |"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(devices: int | None, precision: str) -> None:
    """Give torch all cores as threads, and JAX one host device for each (or `devices`); torch computes in JAX's `precision`."""
    import torch

    torch.set_num_threads(cores())
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tensorfloat32"
    jax.config.update("jax_num_cpu_devices", devices or cores())


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what comparisons on any device have in common."""
    parser.add_argument("--devices", type=int, help="host devices of jaxviz on CPU; one for each core unless given")
    help = "of convolutions and products, in all tools but Lucent; the same on a CPU"
    parser.add_argument("--precision", default="highest", choices=["highest", "tensorfloat32"], help=help)


def machine(*packages: str) -> dict[str, Any]:
    """Return what was measured on: the processor, its cores, JAX's device, and the versions of some packages."""
    found = {"processor": _processor(), "cores": cores(), "device": str(jax.devices()[0]), "python": platform.python_version()}
    return found | {name: _version(name) for name in ("jax", "jaxlib", "torch", *packages)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def child(*arguments: str | Path, **environment: str) -> dict[str, Any]:
    """Run Python in a process of its own, with more environment variables, and return the JSON of its last line."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held so far.

    Its own, asked for by a child in the end: what a parent is told of its children is, on Linux, at least its own memory when
    it started them.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Return the median, and the least and the most in brackets."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def header(*columns: str) -> str:
    """Return the first two lines of a Markdown table."""
    return f"| {' | '.join(columns)} |\n{'| --- ' * len(columns)}|"


def write(out: Path | None, lines: Sequence[str], rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write a Markdown table, and all its numbers as JSON beside it."""
    if out is None:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    words = ", ".join(f"{key} {value}" for key, value in about.items())
    out.write_text("\n".join([*lines, "", f"On: {words}"]) + "\n")
    out.with_suffix(".json").write_text(json.dumps({"machine": about, "rows": list(rows)}, indent=1))


def collect(
    rows: Iterable[dict[str, Any]], head: str, line: Callable[[dict[str, Any]], str], out: Path | None, about: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return all rows; print each, and write those so far, as soon as it is measured: a run that is stopped keeps them."""
    print(head, flush=True)
    found: list[dict[str, Any]] = []
    for row in rows:
        found.append(row)
        print(line(row), flush=True)
        write(out, [head, *map(line, found)], found, about)
    return found
