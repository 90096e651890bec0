"""Run a program on many images in chunks over every device: one evaluation each, or many whose outputs are kept or summed.

`map_images` runs one evaluation of each image (a gradient); `map_steps` keeps the output of each of many evaluations (the score
of every window); `reduce_images` sums over noise, paths and masks. Memory on the device does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._types import PyTree
from jaxviz.engine._memory import run_or_halve
from jaxviz.engine._options import FULL_PRECISION, matmul_precision
from jaxviz.engine._programs import (
    add_steps,
    apply_program,
    evaluate_steps,
    finish_sums,
    is_network,
    start_steps,
    start_sums,
)
from jaxviz.engine._progress import Clock, Progress
from jaxviz.engine._protocols import Reduction, Steps
from jaxviz.engine._sharding import (
    IMAGES,
    count_images,
    evaluations_at_once,
    largest_divisor,
    local_devices,
    loops_well,
    make_grid,
)

ROUNDS = 4  # chunks of steps between two reports of progress
TOO_SMALL = (
    "A device has too little memory for one image. Use smaller images or a smaller network, fewer targets, or close what else "
    "uses the device."
)

Program = TypeVar("Program")


def map_images(
    program: Callable[[PyTree], PyTree],
    items: PyTree,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = FULL_PRECISION,
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> PyTree:
    """Return `program(items)` of N images, as NumPy arrays with the axis of images in front.

    Args:
        program: a callable pytree. Its structure, and that of `items`, keys the compiled program; its leaves are data. No image
            may depend on another.
        items: a pytree whose leaves all have the axis of N images in front, as have those that the program returns.
        mesh, chunk, precision, progress: see `RunOptions`.
        cost: evaluations of the network per image, for the choice of the chunk.

    Raises:
        ArgumentError: there are no images, or `chunk` is wrong.
        MemoryLimitError: a device has too little memory for one image.
    """
    total, devices = count_images(items), local_devices(mesh)
    across = largest_divisor(len(devices), total)
    grid = make_grid(devices[:across], across)
    at_once = max(1, evaluations_at_once(chunk, devices) // cost)
    clock = Clock(total, 1, 1, progress)

    def run_chunk(program: Callable[[PyTree], PyTree], part: PyTree, first: int, size: int) -> PyTree:
        outputs = jax.tree.map(np.asarray, apply_program(grid, program, part))
        clock.tick(first, size, max(0, total - first - size), 1)
        return outputs

    return _run(run_chunk, program, items, grid, at_once, precision)


def map_steps(
    program: Steps,
    items: PyTree,
    steps: int,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = FULL_PRECISION,
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> tuple[PyTree, PyTree]:
    """Return the outputs of `program.start` (N, ...) and of all steps (N, steps, ...), as NumPy arrays.

    The arguments and errors are those of `reduce_images`; the outputs of the steps are kept on the host.
    """
    return _run_steps(_map_chunk, program, items, steps, mesh, chunk, precision, progress, cost)


def reduce_images(
    program: Reduction,
    items: PyTree,
    steps: int,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = FULL_PRECISION,
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> PyTree:
    """Return the result of a `Reduction` over N images and a number of steps, as NumPy arrays with the images in front.

    One program is compiled for a chunk, whatever the number of steps; the sums stay on the device. Where there are fewer images
    than devices, the devices divide the steps.

    Args:
        program: a `Reduction`.
        items: a pytree whose leaves all have the axis of N images in front.
        steps: number of steps of each image.
        mesh, chunk, precision, progress: see `RunOptions`.
        cost: evaluations of the network per step of an image, for the choice of the chunk.

    Raises:
        ArgumentError: there are no images, or `chunk` is wrong.
        MemoryLimitError: a device has too little memory for one step of one image.
    """
    return _run_steps(_reduce_chunk, program, items, steps, mesh, chunk, precision, progress, cost)


def _run_steps(
    run_chunk: Callable[[Mesh, Program, PyTree, int, int, Callable[[int], None]], PyTree],
    program: Program,
    items: PyTree,
    steps: int,
    mesh: Mesh | None,
    chunk: int | None,
    precision: str,
    progress: Callable[[Progress], None] | None,
    cost: int,
) -> PyTree:
    """Run `run_chunk(grid, program, items of a chunk, steps, steps at once, report)` on all images."""
    total, devices = count_images(items), local_devices(mesh)
    across = largest_divisor(len(devices), total)
    grid = make_grid(devices, across)
    along = len(devices) // across
    evaluations = evaluations_at_once(chunk, devices) // cost
    clock = Clock(total, 1, steps, progress)

    def run_all_steps(program: Program, part: PyTree, first: int, size: int) -> PyTree:
        def run(at_once: int) -> PyTree:
            return run_chunk(grid, program, part, steps, at_once, report)

        report = partial(clock.tick, first, size, max(0, total - first - size))
        outputs, at_once = None, along * _steps_at_once(steps, evaluations // size // along, along)
        while outputs is None:
            outputs, at_once = run_or_halve(run, at_once, along, "steps", TOO_SMALL)
        return outputs

    return _run(run_all_steps, program, items, grid, max(1, evaluations // along), precision)


def _run(
    run_chunk: Callable[[Program, PyTree, int, int], PyTree],
    program: Program,
    items: PyTree,
    grid: Mesh,
    at_once: int,
    precision: str,
) -> PyTree:
    """Run `run_chunk(program, items of a chunk, first, size)` on chunks of at most `at_once` images."""
    total, across = count_images(items), grid.devices.shape[0]
    chunks = math.ceil(total / max(across, at_once // across * across))
    size = math.ceil(total / chunks / across) * across
    parts: list[PyTree] = []
    first = 0

    def run(size: int) -> PyTree:
        rows = np.minimum(np.arange(first, first + size), total - 1)  # past the end the last image is repeated
        part = jax.device_put(jax.tree.map(lambda leaf: leaf[rows], items), NamedSharding(grid, P(IMAGES)))
        outputs = run_chunk(shared, part, first, size)
        return jax.tree.map(lambda leaf: leaf[: total - first], outputs)

    with matmul_precision(precision):
        shared = jax.device_put(program, NamedSharding(grid, P()))
        while first < total:
            outputs, size = run_or_halve(run, size, across, "images", TOO_SMALL)
            if outputs is not None:
                parts.append(outputs)
                first += size
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _steps_at_once(steps: int, most: int, along: int) -> int:
    """Return how many steps a device runs at a time: `most`, or a half, a quarter, ... of it, so that padding is small.

    Few sizes serve every number of steps, and a large number always gets `most`, so that another number compiles nothing new.
    """
    each = max(1, most)
    while each > 1 and -steps % (each * along) > max(steps / 3, 3):
        each //= 2
    return each


def _map_chunk(
    grid: Mesh, program: Steps, items: PyTree, steps: int, at_once: int, report: Callable[[int], None]
) -> tuple[PyTree, PyTree]:
    per_image, state = start_steps(grid, program, items)
    outputs: list[PyTree] = []
    rounds = _rounds(program, grid)
    for first in range(0, steps, at_once * rounds):
        now = min(rounds, -(-(steps - first) // at_once))
        numbers = np.minimum(np.arange(first, first + at_once * rounds, dtype=np.int32), steps - 1).reshape(rounds, at_once)
        more = evaluate_steps(grid, program, items, state, numbers, np.int32(now))
        outputs += jax.tree.map(np.asarray, more)[:now]
        report(min(first + at_once * now, steps))
    return jax.tree.map(np.asarray, per_image), jax.tree.map(lambda *rows: np.concatenate(rows, 1)[:, :steps], *outputs)


def _reduce_chunk(
    grid: Mesh, program: Reduction, items: PyTree, steps: int, at_once: int, report: Callable[[int], None]
) -> PyTree:
    state, sums = start_sums(grid, program, items)
    rounds = _rounds(program, grid)
    for first in range(0, steps, at_once * rounds):
        now = min(rounds, -(-(steps - first) // at_once))
        sums = add_steps(grid, at_once, program, items, state, sums, np.int32(first), np.int32(steps), np.int32(now))
        jax.block_until_ready(sums)  # so that Ctrl-C is heard, and no queue of steps grows
        report(min(first + at_once * now, steps))
    return jax.tree.map(np.asarray, finish_sums(grid, program, items, state, sums))


def _rounds(program: PyTree, grid: Mesh) -> int:
    """Return how many chunks of steps one call runs, in a compiled loop."""
    return ROUNDS if loops_well(grid, filter(is_network, jax.tree.leaves(program, is_leaf=is_network))) else 1
