"""Cold start and many calls: from `import` to the first image, with and without JAX's compilation cache, and 100 calls.

    python benchmarks/cold_start.py --out cold_start.md
    python benchmarks/cold_start.py --quick         # small: do the scripts run, and is the cache used?

Each start is a process of its own, which imports a tool, makes or loads a ResNet-18, and one image of one unit:
- jaxviz and its bundled network; with an empty folder as JAX's persistent compilation cache; with that folder again, filled;
- PyTorch, a hook and a loop as people write it; Lucent's `render_vis`, where it is installed. Both with random weights.
Seconds from before the import, all in turn, several times: medians with the least and the most; and the most memory that the
process held. The second table is of 100 calls of `jv.visualize` in one process, each for another unit, so that nothing but the
program is kept; what XLA compiled is counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}  # keep all
COMPILED = "/jax/core/compile/backend_compile_duration"  # what JAX calls it when XLA compiles a program
RATE = 2.0


def start_jaxviz(args: argparse.Namespace) -> Callable[[], Any]:
    import jaxviz as jv

    def image() -> Any:
        model = jv.load()
        return jv.visualize(model, jv.channel(args.layer, 0), steps=args.steps, size=args.size).images

    return image


def start_torch(args: argparse.Namespace) -> Callable[[], Any]:
    import numpy as np
    import rivals
    import rivals_ascent

    rivals.import_torchvision()

    def image() -> Any:
        start = np.random.default_rng(0).uniform(0.4, 0.6, (args.size, args.size, 3)).astype(np.float32)
        return rivals_ascent.eager(rivals.torch_network("resnet18"), args.layer, [0], start, args.steps, RATE)()

    return image


def start_lucent(args: argparse.Namespace) -> Callable[[], Any]:
    import rivals
    import rivals_ascent

    rivals.import_torchvision()
    import lucent.optvis.render  # noqa: F401

    return lambda: rivals_ascent.lucent(
        rivals.torch_network("resnet18"), args.layer, [0], args.size, args.steps, seen=args.size
    )()


STARTS = {"jaxviz": start_jaxviz, "torch, as written": start_torch, "Lucent": start_lucent}


def one_start(args: argparse.Namespace) -> dict[str, Any]:
    """Return what a start took, in the process that was started for it."""
    begun = time.perf_counter()
    image = STARTS[args.start](args)
    imported = time.perf_counter() - begun
    image()
    seconds = time.perf_counter() - begun
    from measure import peak_memory

    return {"import_s": imported, "image_s": seconds, "memory": peak_memory()}


def many_calls(args: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of each call, what was compiled before the second call and after, and the most memory so far."""
    import jax
    from measure import peak_memory, timed

    import jaxviz as jv

    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(seconds) if event == COMPILED else None
    )
    model = jv.load()
    seconds, memory, counts = [], [], []
    for unit in range(args.calls):
        wanted = jv.channel(args.layer, unit % model.layers(args.size)[args.layer].channels)
        seconds.append(timed(lambda w=wanted: jv.visualize(model, w, steps=args.steps, size=args.size))[0])
        memory.append(peak_memory())
        counts.append(len(compiled))
    return {"seconds": seconds, "memory": memory, "compiled": counts}


def can_import(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None


def measured(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Start every tool in turn, several times, and return a row for each."""
    import measure

    plain = {"JAX_COMPILATION_CACHE_DIR": ""}
    kinds: dict[str, Callable[[], dict[str, Any]]] = {}

    def starter(tool: str, environment: Mapping[str, str]) -> Callable[[], dict[str, Any]]:
        return lambda: measure.child(*_child_arguments(args), "--start", tool, **environment)

    with tempfile.TemporaryDirectory() as folder:
        caches = [str(Path(folder, str(i))) for i in range(args.repeats)]
        each = iter(caches)
        kinds["jaxviz"] = starter("jaxviz", plain)
        kinds["jaxviz, cache empty"] = lambda: starter("jaxviz", CACHE | {"JAX_COMPILATION_CACHE_DIR": next(each)})()
        kinds["jaxviz, cache filled"] = starter("jaxviz", CACHE | {"JAX_COMPILATION_CACHE_DIR": caches[0]})
        if can_import("torch") and can_import("torchvision"):
            kinds["torch, as written"] = starter("torch, as written", plain)
            if can_import("lucent"):
                kinds["Lucent"] = starter("Lucent", plain)
        found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in kinds}
        for _ in range(args.repeats):
            for tool, call in kinds.items():
                found[tool].append(call())
        kept = len(list(Path(caches[0]).glob("*-cache")))
    names = ("import_s", "image_s", "memory")
    rows = [{"tool": tool, **{name: [one[name] for one in ones] for name in names}} for tool, ones in found.items()]
    for row in rows:
        row["cached_programs"] = kept if "cache" in row["tool"] else None
    return rows


def _child_arguments(args: argparse.Namespace) -> list[str]:
    options = ("layer", "size", "steps", "calls")
    return [__file__, *(word for name in options for word in (f"--{name}", str(getattr(args, name))))]


def start_line(row: Mapping[str, Any]) -> str:
    from measure import spread

    memory = f"{max(row['memory']) / 1e9:.2f}"
    return f"| {row['tool']} | {spread(row['import_s'], 2)} | {spread(row['image_s'], 2)} | {memory} |"


def calls_line(row: Mapping[str, Any]) -> str:
    seconds, memory, counts = row["seconds"], row["memory"], row["compiled"]
    tenth = min(9, len(memory) - 1)
    times = f"{seconds[0]:.2f} | {statistics.median(seconds[1:]):.4f} ({min(seconds[1:]):.4f} to {max(seconds[1:]):.4f})"
    return (
        f"| {len(seconds)} | {times} | {seconds[-1]:.4f} | {memory[tenth] / 1e9:.2f} | {memory[-1] / 1e9:.2f} "
        f"| {counts[0]} | {counts[-1] - counts[0]} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="layer3")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a low layer at 32 px, two steps, ten calls, once")
    parser.add_argument("--out", type=Path, help="Markdown; the same numbers go to a .json beside it")
    parser.add_argument("--start", choices=list(STARTS), help=argparse.SUPPRESS)  # in a child: one start
    parser.add_argument("--many", action="store_true", help=argparse.SUPPRESS)  # in a child: many calls
    args = parser.parse_args()
    if args.start or args.many:
        print("\n" + json.dumps(one_start(args) if args.start else many_calls(args)))
        return
    if args.quick:
        args.layer, args.size, args.steps, args.calls, args.repeats = "conv1", 32, 2, 10, 1
    import measure  # not above: it imports JAX, which a start is to do itself

    head = measure.header("tool", "import, s", "import to first image, s", "memory, GB")
    print(head)
    found = measured(args)
    lines = [head, *map(start_line, found)]
    print("\n".join(lines[1:]), flush=True)
    calls = {"tool": "jaxviz, calls"} | measure.child(*_child_arguments(args), "--many", JAX_COMPILATION_CACHE_DIR="")
    names = (
        "calls",
        "first, s",
        "others, s",
        "last, s",
        "memory after 10, GB",
        "after all, GB",
        "compiled by first",
        "others",
    )
    more = ["", measure.header(*names), calls_line(calls)]
    print("\n".join(more))
    measure.write(args.out, [*lines, *more], [*found, calls], measure.machine("torch-lucent"))
    again = calls["compiled"][-1] - calls["compiled"][0]
    filled = next(row for row in found if row["tool"] == "jaxviz, cache filled")
    if args.quick and (again or not filled["cached_programs"]):
        raise SystemExit(f"{again} programs compiled after the first call, {filled['cached_programs']} in the cache")


if __name__ == "__main__":
    main()
