"""Run units of work in chunks over every device of a mesh: the only place that knows about batches."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from jaxviz.engine._memory import Plan, make_plan, units_per_device
from jaxviz.engine._progress import Clock, Progress
from jaxviz.engine._status import diagnose
from jaxviz.models import Model, calls_through_ops

AXIS = "units"
CPU_BLOCK = 4  # steps between two reports of progress on CPU
TOO_SMALL = (
    "A device has too little memory for one unit of {samples} images. Ask for fewer samples, a smaller size or a smaller "
    "network, or close what else uses the device."
)


@dataclass(frozen=True)
class Stage:
    """One scale of a run, from coarse to fine: what all units share, the units, and the steps."""

    recipe: Recipe
    units: Unit
    steps: int


@dataclass(frozen=True)
class Chunk:
    """The finished units `first` to `first + len(images)` of a run."""

    first: int
    images: np.ndarray  # (k, S, H, W, C)
    scores: np.ndarray  # (k, S)
    history: np.ndarray  # (k, S, steps)
    diagnosis: np.ndarray  # (k, S) words
    snapshots: np.ndarray  # (k, S, T, H, W, C)


def make_mesh(devices: int | None = None) -> Mesh:
    """Return a one-axis mesh of the first `devices` devices, or of all of them: of this process, if there are several."""
    available = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ArgumentError(f"Expected 1 to {len(available)} devices, as many as JAX sees here; got {devices}.")
    return _line(available[:devices])


def is_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


def loops_well(mesh: Mesh, models: Iterable[Model]) -> bool:
    """Say whether many steps of some networks are faster as one compiled loop than as calls of a compiled step.

    A loop keeps its memory from step to step; a call asks for it anew, which is a tenth of the time on CPU. But XLA's own
    gradient of a convolution is several times slower in a loop there, and networks that do not use `ops.conv` have that one.
    """
    return not is_cpu(mesh) or all(map(calls_through_ops, models))


def _line(devices: Sequence[Any]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))  # any order will do: devices never talk to each other


def run(
    stages: Sequence[Stage],
    *,
    snapshots: Sequence[int] = (),
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
        stages: scales of the same K units, one after the other. What units share is replicated on every device; every leaf
            of `units` has the axis of K units in front, and is sharded.
        snapshots: after so many steps the images are looked at.
        mesh: a mesh of any shape; None for all devices.
        chunk: units at once on the whole mesh (rounded up to a multiple of its devices); None chooses.
        precision: of convolutions and products, as in `jax.default_matmul_precision`; None leaves the caller's.
        progress: called after every block of steps.
        compiled_loop: whether the steps of a block are one compiled loop or calls of a compiled step. None for a loop, where
            `loops_well` says so.
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
    loop = loops_well(mesh, [stages[0].recipe.model]) if compiled_loop is None else compiled_loop
    total, restarts, samples = stages[-1].units.keys.shape[:3]
    context = partial(jax.default_matmul_precision, precision) if precision else contextlib.nullcontext
    with context():  # entered for each call and never held over a yield: it is the thread's, not the generator's
        stages = [replace(stage, recipe=jax.device_put(stage.recipe, NamedSharding(mesh, P()))) for stage in stages]
        per_device = chunk and -(-chunk // mesh.size)
        per_device = per_device or _fitting(stages[-1], mesh)
    plan = make_plan(total, per_device, mesh.size)
    clock = Clock(total, samples, sum(stage.steps for stage in stages), progress)
    left = _left(plan, 0, skip)
    while left:
        first, size = left[0], plan.chunk
        with context():
            tell = partial(clock.tell, first, size, size * (len(left) - 1))
            done = _try_chunk(mesh, stages, first, size, snapshots, loop, tell)
        if done is None:
            if size == mesh.size:
                raise MemoryLimitError(TOO_SMALL.format(samples=restarts * samples))
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
    mesh: Mesh,
    stages: Sequence[Stage],
    first: int,
    size: int,
    snapshots: Sequence[int],
    loop: bool,
    tell: Callable[[int], None],
) -> tuple[np.ndarray, ...] | None:
    """Return what `_run_chunk` does of `size` units, or None where a device has too little memory to compile or run it.

    Nothing of the failed chunk is left after the return: its arrays were the frames' that are gone.
    """
    try:
        return _run_chunk(mesh, [_part(stage, first, size, mesh) for stage in stages], snapshots, loop, tell)
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def is_out_of_memory(error: Exception) -> bool:
    return "RESOURCE_EXHAUSTED" in str(error)  # at the start, except where the compiler's autotuner passes it on


def _run_chunk(
    mesh: Mesh, stages: Sequence[Stage], snapshots: Sequence[int], loop: bool, tell: Callable[[int], None]
) -> tuple[np.ndarray, ...]:
    """Return what a `Chunk` holds, computed in blocks of steps."""
    advance, at_once = _block if loop else _steps, CPU_BLOCK if is_cpu(mesh) else BLOCK
    history, seen, step = [np.zeros((*stages[0].units.keys.shape, 0), np.float32)], [], 0
    before, carry = stages[0], _start(mesh, stages[0].recipe, stages[0].units)
    for stage in stages:
        if stage is not before:
            carry = _grow(mesh, (before.recipe, stage.recipe), (before.units, stage.units), carry)
        before, end = stage, step + stage.steps
        while step < end:
            now = min(at_once, *(stop - step for stop in (end, *snapshots) if stop > step))
            carry, values = advance(mesh, stage.recipe, stage.units, carry, np.int32(step), np.int32(now))
            history.append(np.asarray(values)[..., :now])  # waits for the block, so that Ctrl-C is heard between blocks
            step += now
            tell(step)
            if step in snapshots:
                seen.append(np.asarray(_images(mesh, stage.recipe, carry)))
    done = _finish(mesh, before.recipe, before.units, carry)
    images, scores = np.asarray(done.images), np.asarray(done.scores)
    best = np.arange(len(scores)), np.asarray(done.restart)
    path = np.concatenate(history, axis=3)[best]
    looks = [np.zeros((*scores.shape, 0, *images.shape[2:]), np.float32)]
    looks += [_resized(look[best], images.shape)[:, :, None] for look in seen]
    words = diagnose(scores, path, np.asarray(done.moved), np.asarray(done.finite))
    return images, scores, path, words, np.concatenate(looks, axis=2)


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
    return carry, np.stack([np.asarray(value) for value in values], axis=3)


@partial(jax.jit, static_argnums=0)
def _grow(mesh: Mesh, recipes: tuple[Recipe, Recipe], units: tuple[Unit, Unit], carry: PyTree) -> PyTree:
    return _spread(mesh, _ascent.grow, 2, 0)(recipes, units, carry)


@partial(jax.jit, static_argnums=0)
def _images(mesh: Mesh, recipe: Recipe, carry: PyTree) -> PyTree:
    return _spread(mesh, _ascent.images, 1, 0)(recipe, carry)


@partial(jax.jit, static_argnums=0)
def _finish(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree) -> PyTree:
    return _spread(mesh, _ascent.finish, 2, 0)(recipe, units, carry)


def _spread(mesh: Mesh, fn: Callable, mapped: int, scalars: int) -> Callable:
    """Map `fn(recipe, *mapped, *scalars)` over units, each device its own: no collectives, whatever the function is."""
    many = jax.vmap(fn, in_axes=(None, *[0] * mapped, *[None] * scalars))
    specs = (P(), *[P(AXIS)] * mapped, *[P()] * scalars)
    # The loop's counters are the same on every device and its images are not: nothing for the checker of varying axes to check.
    return jax.shard_map(many, mesh=mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False)


def _part(stage: Stage, first: int, chunk: int, mesh: Mesh) -> Stage:
    """Return `chunk` units from `first` on; past the end the last one is repeated, and dropped from the results."""
    rows = np.minimum(np.arange(first, first + chunk), stage.units.keys.shape[0] - 1)
    units = jax.tree.map(lambda leaf: leaf[rows], stage.units)
    return replace(stage, units=jax.device_put(units, NamedSharding(mesh, P(AXIS))))


def _fitting(stage: Stage, mesh: Mesh) -> int:
    """Return how many units a device should hold: one, where not even the trial programs can be compiled."""
    _, restarts, samples = stage.units.keys.shape
    try:
        return units_per_device(restarts * samples, mesh.devices.flat[0], partial(_memory, stage, mesh))
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1


def _memory(stage: Stage, mesh: Mesh, per_device: int) -> int:
    """Return the bytes that the compiled program needs on one device for so many units."""
    recipe, units = stage.recipe, _part(stage, 0, per_device * mesh.size, mesh).units
    carry = jax.eval_shape(partial(_start, mesh), recipe, units)
    analysis = _block.lower(mesh, recipe, units, carry, np.int32(0), np.int32(1)).compile().memory_analysis()
    if analysis is None:  # a backend that does not tell: as if nothing were needed, so the plateau decides
        return 0
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def _resized(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a snapshot of a coarse scale at the size of the finished images."""
    return images if images.shape == shape else np.asarray(jax.image.resize(images, shape, "cubic")).clip(0, 1)
