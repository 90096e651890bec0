"""Run units of work in chunks over every device of a mesh: the only place that knows about batches of units."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._types import PyTree
from jaxviz.engine import _ascent
from jaxviz.engine._ascent import BLOCK, Recipe, Unit
from jaxviz.engine._memory import Plan, is_out_of_memory, make_plan, run_or_halve, units_per_device
from jaxviz.engine._options import matmul_precision
from jaxviz.engine._progress import Clock, Progress
from jaxviz.engine._sharding import UNITS, is_cpu, local_devices, loops_well, make_line, shard
from jaxviz.engine._status import diagnose
from jaxviz.result import Arrays

CPU_BLOCK = 4  # steps between two reports of progress on CPU
TOO_SMALL = (
    "A device has too little memory for one unit of {samples} images. Ask for fewer samples, a smaller size or a smaller "
    "network, or close what else uses the device."
)


@dataclass(frozen=True)
class Stage:
    """One scale of a run, from coarse to fine."""

    recipe: Recipe  # shared by all units
    units: Unit
    steps: int


@dataclass(frozen=True)
class Chunk:
    """Finished units `first` to `stop` of a run."""

    first: int
    arrays: Arrays

    @property
    def stop(self) -> int:
        return self.first + len(self.arrays.images)


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
    """Yield the finished units of work, a chunk at a time and in order.

    A chunk for which a device has too little memory is halved, with a warning, until it fits.

    Args:
        stages: scales of the same K units, one after the other. The recipe is replicated on every device; every leaf of `units`
            has the axis of K units in front, and is sharded.
        snapshots: numbers of steps after which the images are recorded.
        mesh: a mesh of any shape; None for all devices.
        chunk: units at once on the whole mesh (rounded up to a multiple of its devices); None chooses.
        precision: see `RunOptions`; None keeps the caller's.
        progress: called after every block of steps.
        compiled_loop: whether a block of steps is one compiled loop or calls of a compiled step. None decides by `loops_well`.
        skip: returns whether the units `first` to `stop` are finished already; such a chunk is neither computed nor yielded.

    Raises:
        ArgumentError: no device of the mesh belongs to this process.
        MemoryLimitError: a device has too little memory for one unit.
    """
    mesh = make_line(local_devices(mesh))
    loop = loops_well(mesh, [stages[0].recipe.network]) if compiled_loop is None else compiled_loop
    total, restarts, samples = stages[-1].units.keys.shape[:3]
    too_small = TOO_SMALL.format(samples=restarts * samples)
    with matmul_precision(precision):  # never held over a yield
        stages = [replace(stage, recipe=jax.device_put(stage.recipe, NamedSharding(mesh, P()))) for stage in stages]
        per_device = -(-chunk // mesh.size) if chunk else _fitting(stages[-1], mesh)
    plan = make_plan(total, per_device, mesh.size)
    clock = Clock(total, samples, sum(stage.steps for stage in stages), progress)
    left = _left(plan, 0, skip)
    while left:
        first = left[0]

        def run_chunk(size: int, first: int = first, later: int = len(left) - 1) -> Chunk:
            parts = [_part(stage, first, size, mesh) for stage in stages]
            arrays = _run_chunk(mesh, parts, snapshots, loop, partial(clock.tick, first, size, size * later))
            return Chunk(first, arrays.rows(slice(total - first)))

        with matmul_precision(precision):
            done, size = run_or_halve(run_chunk, plan.chunk, mesh.size, "units", too_small)
        if done is None:
            plan = Plan(total, size)
            left = _left(plan, first, skip)
        else:
            yield done
            left.pop(0)


def _left(plan: Plan, first: int, skip: Callable[[int, int], bool]) -> list[int]:
    """Return the first unit of each chunk that is still to be computed, from unit `first` on."""
    return [a for a in range(first, plan.units, plan.chunk) if not skip(a, min(a + plan.chunk, plan.units))]


def _run_chunk(
    mesh: Mesh, stages: Sequence[Stage], snapshots: Sequence[int], loop: bool, report: Callable[[int], None]
) -> Arrays:
    """Return the arrays of a `Chunk`, computed in blocks of steps."""
    advance, at_once = _block if loop else _steps, CPU_BLOCK if is_cpu(mesh) else BLOCK
    history = [np.zeros((*stages[0].units.keys.shape, 0), np.float32)]
    looks: list[np.ndarray] = []
    before, carry, step = stages[0], _start(mesh, stages[0].recipe, stages[0].units), 0
    for stage in stages:
        if stage is not before:
            carry = _grow(mesh, (before.recipe, stage.recipe), (before.units, stage.units), carry)
        before, end = stage, step + stage.steps
        while step < end:
            now = min(at_once, *(stop - step for stop in (end, *snapshots) if stop > step))
            carry, values = advance(mesh, stage.recipe, stage.units, carry, np.int32(step), np.int32(now))
            history.append(np.asarray(values)[..., :now])  # waits for the block, so that Ctrl-C is heard between blocks
            step += now
            report(step)
            if step in snapshots:
                looks.append(np.asarray(_images(mesh, stage.recipe, carry)))
    unit = _finish(mesh, before.recipe, before.units, carry)
    images, scores = np.asarray(unit.images), np.asarray(unit.scores)
    best = np.arange(len(scores)), np.asarray(unit.restart)
    path = np.concatenate(history, axis=3)[best]
    empty = np.zeros((*scores.shape, 0, *images.shape[2:]), np.float32)
    snapshot_images = np.concatenate([empty, *(_resized(look[best], images.shape)[:, :, None] for look in looks)], axis=2)
    diagnosis = diagnose(scores, path, np.asarray(unit.moved), np.asarray(unit.finite))
    return Arrays(images, scores, path, diagnosis, snapshot_images)


@partial(jax.jit, static_argnums=0)
def _start(mesh: Mesh, recipe: Recipe, units: Unit) -> PyTree:
    return _each_unit(mesh, _ascent.start, 1, 0)(recipe, units)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _block(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, first: np.int32, steps: np.int32) -> PyTree:
    return _each_unit(mesh, _ascent.block, 2, 2)(recipe, units, carry, first, steps)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _step(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, number: np.int32) -> PyTree:
    return _each_unit(mesh, _ascent.step, 2, 1)(recipe, units, carry, number)


def _steps(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree, first: np.int32, steps: np.int32) -> PyTree:
    """Run the steps of `_block`, one call a step."""
    values: list[PyTree] = []
    for number in range(first, first + steps):
        carry, value = _step(mesh, recipe, units, carry, np.int32(number))
        values.append(value)
    return carry, np.stack([np.asarray(value) for value in values], axis=3)


@partial(jax.jit, static_argnums=0)
def _grow(mesh: Mesh, recipes: tuple[Recipe, Recipe], units: tuple[Unit, Unit], carry: PyTree) -> PyTree:
    return _each_unit(mesh, _ascent.grow, 2, 0)(recipes, units, carry)


@partial(jax.jit, static_argnums=0)
def _images(mesh: Mesh, recipe: Recipe, carry: PyTree) -> PyTree:
    return _each_unit(mesh, _ascent.images, 1, 0)(recipe, carry)


@partial(jax.jit, static_argnums=0)
def _finish(mesh: Mesh, recipe: Recipe, units: Unit, carry: PyTree) -> PyTree:
    return _each_unit(mesh, _ascent.finish, 2, 0)(recipe, units, carry)


def _each_unit(mesh: Mesh, fn: Callable[..., PyTree], mapped: int, scalars: int) -> Callable[..., PyTree]:
    """Return `fn(recipe, *mapped, *scalars)` mapped over units, sharded over devices: no collectives, whatever `fn` is."""
    many = jax.vmap(fn, in_axes=(None, *[0] * mapped, *[None] * scalars))
    return shard(many, mesh, (P(), *[P(UNITS)] * mapped, *[P()] * scalars), P(UNITS))


def _part(stage: Stage, first: int, chunk: int, mesh: Mesh) -> Stage:
    """Return `chunk` units from `first` on; past the end the last unit is repeated, and dropped from the results."""
    rows = np.minimum(np.arange(first, first + chunk), stage.units.keys.shape[0] - 1)
    units = jax.tree.map(lambda leaf: leaf[rows], stage.units)
    return replace(stage, units=jax.device_put(units, NamedSharding(mesh, P(UNITS))))


def _fitting(stage: Stage, mesh: Mesh) -> int:
    """Return how many units a device should hold; 1 where not even the trial programs can be compiled."""
    _, restarts, samples = stage.units.keys.shape
    try:
        return units_per_device(restarts * samples, mesh.devices.flat[0], partial(_memory, stage, mesh))
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return 1


def _memory(stage: Stage, mesh: Mesh, per_device: int) -> int:
    """Return the bytes that the compiled program needs on one device for `per_device` units."""
    recipe, units = stage.recipe, _part(stage, 0, per_device * mesh.size, mesh).units
    carry = jax.eval_shape(partial(_start, mesh), recipe, units)
    analysis = _block.lower(mesh, recipe, units, carry, np.int32(0), np.int32(1)).compile().memory_analysis()
    if analysis is None:  # unknown to the backend: counted as nothing, so that the plateau decides
        return 0
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def _resized(images: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a snapshot, taken perhaps at a coarser scale, at the size of the finished images."""
    return images if images.shape == shape else np.asarray(jax.image.resize(images, shape, "cubic")).clip(0, 1)
