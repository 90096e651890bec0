"""Run units of work in chunks over every device of a mesh: the only place that knows about batches."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._errors import ArgumentError, MemoryLimitError
from jaxviz._types import PyTree
from jaxviz.engine import _ascent
from jaxviz.engine._ascent import BLOCK, Recipe, Unit
from jaxviz.engine._plan import Plan, make_plan, units_per_device

AXIS = "units"
CALLS = 4  # steps between two reports of progress where each step is a call
TOO_SMALL = (
    "A device has too little memory for one unit of {samples} images. Ask for fewer samples, a smaller size or a smaller "
    "network, or close what else uses the device."
)


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
    """Return a one-axis mesh of the first `devices` devices, or of all of them: of this process, if there are several."""
    available = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ArgumentError(f"Expected 1 to {len(available)} devices, as many as JAX sees here; got {devices}.")
    return _line(available[:devices])


def _line(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))  # any order will do: devices never talk to each other


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
    skip: Callable[[int, int], bool] = lambda first, stop: False,
) -> Iterator[Chunk]:
    """Yield the units of work, finished, a chunk at a time and in order.

    A chunk for which a device has too little memory is halved, with a warning, until it fits.

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
        skip: whether the units `first` to `stop` are finished already; such a chunk is neither computed nor yielded.

    Raises:
        ArgumentError: no device of the mesh is this process's.
        MemoryLimitError: a device has too little memory for one unit.
    """
    mesh = mesh or make_mesh()
    local = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    if not local:
        raise ArgumentError(f"Expected a mesh with a device of process {jax.process_index()}; got devices of others only.")
    mesh = _line(local)
    loop = mesh.devices.flat[0].platform != "cpu" if compiled_loop is None else compiled_loop
    total, samples = units.keys.shape[:2]
    context = partial(jax.default_matmul_precision, precision) if precision else contextlib.nullcontext
    with context():  # entered for each call and never held over a yield: it is the thread's, not the generator's
        recipe = jax.device_put(recipe, NamedSharding(mesh, P()))
        per_device = chunk and -(-chunk // mesh.size)
        per_device = per_device or _choose(recipe, units, mesh)
    plan = make_plan(total, per_device, mesh.size)
    clock = _Clock(total, samples, steps, progress)
    left = _left(plan, 0, skip)
    while left:
        first, size = left[0], plan.chunk
        with context():
            tell = partial(clock.tell, first, size, size * (len(left) - 1))
            done = _try_chunk(mesh, recipe, partial(_rows, units, first, size), steps, loop, tell)
        if done is None:
            if size == mesh.size:
                raise MemoryLimitError(TOO_SMALL.format(samples=samples))
            plan = Plan(total, size // mesh.size // 2 * mesh.size)
            warnings.warn(f"Too little memory for {size} units at once: trying {plan.chunk}.", stacklevel=2)
            left = _left(plan, first, skip)
            continue
        keep = min(size, total - first)
        yield Chunk(first, *(array[:keep] for array in done))
        left.pop(0)


def _left(plan: Plan, first: int, skip: Callable[[int, int], bool]) -> list[int]:
    """Return where the chunks begin that are to be computed, from unit `first` on."""
    return [a for a in range(first, plan.units, plan.chunk) if not skip(a, min(a + plan.chunk, plan.units))]


def _try_chunk(
    mesh: Mesh, recipe: Recipe, rows: Callable[[], Unit], steps: int, loop: bool, tell: Callable[[int], None]
) -> tuple[np.ndarray, ...] | None:
    """Return what `_run_chunk` does, or None where a device has too little memory, when compiling or running.

    Nothing of the failed chunk is left after the return: its arrays were the frames' that are gone.
    """
    try:
        return _run_chunk(mesh, recipe, jax.device_put(rows(), NamedSharding(mesh, P(AXIS))), steps, loop, tell)
    except jax.errors.JaxRuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return None


def _is_out_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)  # at the start, except where the compiler's autotuner passes it on


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


def _choose(recipe: Recipe, units: Unit, mesh: Mesh) -> int:
    """Return how many units a device should hold: one, where not even the trial programs can be compiled."""
    try:
        return units_per_device(units.keys.shape[1], mesh.devices.flat[0], partial(_memory, recipe, units, mesh))
    except jax.errors.JaxRuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return 1


def _memory(recipe: Recipe, units: Unit, mesh: Mesh, per_device: int) -> int:
    """Return the bytes that the compiled program needs on one device for so many units."""
    part = jax.device_put(_rows(units, 0, per_device * mesh.size), NamedSharding(mesh, P(AXIS)))
    carry = jax.eval_shape(partial(_start, mesh), recipe, part)
    analysis = _block.lower(mesh, recipe, part, carry, np.int32(0), np.int32(1)).compile().memory_analysis()
    if analysis is None:  # a backend that does not tell: as if nothing were needed, so the plateau decides
        return 0
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


class _Clock:
    """Reports progress; the first block, which compiles, only sets the clock."""

    def __init__(self, units: int, samples: int, steps: int, report: Callable[[Progress], None] | None) -> None:
        self._units, self._samples, self._steps, self._report = units, samples, steps, report
        self._origin = 0.0
        self._counted = -1  # unit-steps since then
        self._before = 0  # steps of the chunk at the last report

    def tell(self, first: int, size: int, rest: int, step: int) -> None:
        """Report `step` of the chunk of `size` units at `first`, after which `rest` units are to be computed."""
        if self._report is None:
            return
        now, last = time.perf_counter(), step == self._steps
        if self._counted < 0:
            self._origin, self._counted = now, 0
        else:
            self._counted += size * (step - self._before)
        self._before = 0 if last else step
        speed = self._counted / (now - self._origin) if self._counted else 0.0  # unit-steps a second
        left = (size * (self._steps - step) + rest * self._steps) / speed if speed else math.inf
        finished = min(self._units, first + (size if last else 0)) * self._samples
        rate = speed * self._samples / self._steps
        self._report(Progress(finished, self._units * self._samples, step, self._steps, rate, left))
