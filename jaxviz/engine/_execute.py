"""Run units of work in chunks over every device of a mesh: the only place that knows about batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._errors import ArgumentError
from jaxviz._types import PyTree
from jaxviz.engine import _ascent
from jaxviz.engine._ascent import BLOCK, Recipe, Unit
from jaxviz.engine._plan import Plan, make_plan, units_per_device

AXIS = "units"
CALLS = 4  # steps between two reports of progress where each step is a call


@dataclass(frozen=True)
class Progress:
    """Where a run is: reported after every block of steps."""

    images_done: int
    images: int
    step: int  # of the chunk that runs
    steps: int
    images_per_second: float  # finished images, extrapolated from the steps done so far, compile time left out
    seconds_left: float


@dataclass(frozen=True)
class Chunk:
    """The finished units `first` to `first + len(images)` of a run."""

    first: int
    images: np.ndarray  # (k, S, H, W, C)
    scores: np.ndarray  # (k, S)
    history: np.ndarray  # (k, S, steps)


def make_mesh(devices: int | None = None) -> Mesh:
    """Return a one-axis mesh of the first `devices` devices, or of all of them."""
    available = jax.devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ArgumentError(f"Expected 1 to {len(available)} devices, as many as JAX sees here; got {devices}.")
    return jax.make_mesh((devices or len(available),), (AXIS,), axis_types=(AxisType.Auto,), devices=available[:devices])


def run(
    recipe: Recipe,
    units: Unit,
    steps: int,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    compiled_loop: bool | None = None,
) -> Iterator[Chunk]:
    """Yield the units of work, finished, a chunk at a time and in order.

    Args:
        recipe: what all units share; replicated on every device.
        units: every leaf has the axis of K units in front; sharded.
        steps: of gradient ascent, 0 or more.
        mesh: a mesh of any shape; None for all devices.
        chunk: units at once on the whole mesh (rounded up to a multiple of its devices); None chooses.
        precision: of convolutions and products, as in `jax.default_matmul_precision`; None leaves the caller's.
        progress: called after every block of steps.
        compiled_loop: whether the steps of a block are one compiled loop or calls of a compiled step. None for a loop except
            on CPU, where XLA runs convolutions inside a loop at less than half their speed (ResNet-18 at 128 pixels: 106 ms
            of processor time a step and image, and 48 outside).
    """
    mesh = mesh or make_mesh()
    mesh = Mesh(mesh.devices.reshape(-1), (AXIS,), axis_types=(AxisType.Auto,))
    loop = mesh.devices.flat[0].platform != "cpu" if compiled_loop is None else compiled_loop
    total, samples = units.keys.shape[:2]
    context = partial(jax.default_matmul_precision, precision) if precision else contextlib.nullcontext
    with context():  # entered for each call and never held over a yield: it is the thread's, not the generator's
        recipe = jax.device_put(recipe, NamedSharding(mesh, P()))
        per_device = chunk and -(-chunk // mesh.size)
        per_device = per_device or units_per_device(samples, mesh.devices.flat[0], partial(_memory, recipe, units, mesh))
    plan = make_plan(total, per_device, mesh.size)
    tell = _reporter(plan, samples, steps, progress)
    for first in plan.starts:
        with context():
            part = jax.device_put(_rows(units, first, plan.chunk), NamedSharding(mesh, P(AXIS)))
            done = _run_chunk(mesh, recipe, part, steps, loop, partial(tell, first))
        keep = min(plan.chunk, total - first)
        yield Chunk(first, *(array[:keep] for array in done))


def _run_chunk(
    mesh: Mesh, recipe: Recipe, part: Unit, steps: int, loop: bool, tell: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, scores and history of one chunk, in blocks of steps."""
    advance, at_once = (_block, BLOCK) if loop else (_steps, CALLS)
    carry = _start(mesh, recipe, part)
    history = [np.zeros((*part.keys.shape, 0), np.float32)]
    for step in range(0, steps, at_once):
        now = min(at_once, steps - step)
        carry, values = advance(mesh, recipe, part, carry, np.int32(step), np.int32(now))
        history.append(np.asarray(values)[:, :, :now])  # waits for the block, so that Ctrl-C is heard between blocks
        tell(step + now)
    images, scores = _finish(mesh, recipe, part, carry)
    return np.asarray(images), np.asarray(scores), np.concatenate(history, axis=2)


@partial(jax.jit, static_argnums=0)
def _start(mesh: Mesh, recipe: Recipe, units: Unit) -> PyTree:
    return _spread(mesh, _ascent.start, 1, 0)(recipe, units)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _block(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, first: np.int32, steps: np.int32) -> PyTree:
    return _spread(mesh, _ascent.block, 2, 2)(recipe, units, carry, first, steps)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _step(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, number: np.int32) -> PyTree:
    return _spread(mesh, _ascent.step, 2, 1)(recipe, units, carry, number)


def _steps(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, first: np.int32, steps: np.int32) -> PyTree:
    """The same as `_block`, one call a step."""
    values = []
    for number in range(first, first + steps):
        carry, value = _step(mesh, recipe, units, carry, np.int32(number))
        values.append(value)
    return carry, np.stack([np.asarray(value) for value in values], axis=2)


@partial(jax.jit, static_argnums=0)
def _finish(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree) -> PyTree:
    return _spread(mesh, _ascent.finish, 2, 0)(recipe, units, carry)


def _spread(mesh: Mesh, fn: Callable, mapped: int, scalars: int) -> Callable:
    """Map `fn(recipe, *mapped, *scalars)` over units, each device its own: no collectives, whatever the function is."""
    many = jax.vmap(fn, in_axes=(None, *[0] * mapped, *[None] * scalars))
    specs = (P(), *[P(AXIS)] * mapped, *[P()] * scalars)
    # The loop's counters are the same on every device and its images are not: nothing for the checker of varying axes to check.
    return jax.shard_map(many, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


def _rows(units: Unit, first: int, chunk: int) -> Unit:
    """Return `chunk` units from `first` on; past the end the last one is repeated, and dropped from the results."""
    rows = np.minimum(np.arange(first, first + chunk), units.keys.shape[0] - 1)
    return jax.tree.map(lambda leaf: leaf[rows], units)


def _memory(recipe: Recipe, units: Unit, mesh: Mesh, per_device: int) -> int:
    """Return the bytes that the compiled program needs on one device for so many units."""
    part = jax.device_put(_rows(units, 0, per_device * mesh.size), NamedSharding(mesh, P(AXIS)))
    carry = jax.eval_shape(partial(_start, mesh), recipe, part)
    analysis = _block.lower(mesh, recipe, part, carry, np.int32(0), np.int32(1)).compile().memory_analysis()
    if analysis is None:  # a backend that does not tell: as if nothing were needed, so the plateau decides
        return 0
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def _reporter(plan: Plan, samples: int, steps: int, report: Callable[[Progress], None] | None) -> Callable[[int, int], None]:
    """Return what is told `(first unit of the chunk, its steps done)`; the first block, which compiles, only sets the clock."""
    origin: list[tuple[float, int]] = []

    def tell(first: int, step: int) -> None:
        if report is None:
            return
        now, done = time.perf_counter(), first * steps + plan.chunk * step
        if not origin:
            origin.append((now, done))
        seconds, counted = now - origin[0][0], done - origin[0][1]
        speed = counted / seconds if counted else 0.0  # unit-steps a second
        left = (plan.chunk * len(plan.starts) * steps - done) / speed if speed else float("inf")
        finished = min(plan.units, first + (plan.chunk if step == steps else 0)) * samples
        report(Progress(finished, plan.units * samples, step, steps, speed * samples / steps, left))

    return tell
