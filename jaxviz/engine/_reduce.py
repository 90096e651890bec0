"""Run a program on many images in chunks over every device: once each, or many times with running sums.

`map_images` is for what one evaluation tells (a gradient); `map_steps` for what each of many tells (the score of every
window); `reduce_images` for sums over noise, paths and masks. Memory on the device does not grow with their number.
Programs are written for a batch of images of any size, and no image may depend on another: then chunks and devices change
nothing.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypedDict

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._errors import MemoryLimitError
from jaxviz._types import PyTree
from jaxviz.engine._execute import is_out_of_memory, loops_well
from jaxviz.engine._programs import (
    Reduction,
    Steps,
    add_steps,
    apply_program,
    finish_sums,
    fix_images,
    is_model,
    start_sums,
    tell_steps,
)
from jaxviz.engine._progress import Clock, Progress
from jaxviz.engine._sharding import (
    IMAGES,
    count_images,
    evaluations_at_once,
    largest_divisor,
    local_devices,
    make_grid,
)

ROUNDS = 4  # chunks of steps between two reports of progress


class RunOptions(TypedDict, total=False):
    """How a run is carried out, without any influence on what comes out.

    Attributes:
        mesh: the devices to use, any shape; all of this process unless given.
        chunk: evaluations of the network at once, over all devices; chosen for the machine unless given.
        precision: of convolutions and products, as in `jax.default_matmul_precision`; "highest", full float32, unless given.
        progress: called with a `Progress` after every chunk.
    """

    mesh: Mesh | None
    chunk: int | None
    precision: str
    progress: Callable[[Progress], None] | None


def map_images(
    program: Callable[[PyTree], PyTree],
    items: PyTree,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = "highest",
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> PyTree:
    """Return `program(items)` of N images, as NumPy arrays with the axis of images in front.

    Args:
        program: a callable pytree. Its structure, and that of `items`, keys the compiled program; its leaves are data.
        items: a pytree whose leaves all have the axis of N images in front; what the program returns, too.
        mesh, chunk, precision, progress: see `RunOptions`.
        cost: evaluations of the network that an image takes, for the choice of the chunk.

    Raises:
        ArgumentError: there are no images, or a wrong chunk.
        MemoryLimitError: a device has too little memory for one image.
    """
    total, devices = count_images(items), local_devices(mesh)
    across = largest_divisor(len(devices), total)
    grid = make_grid(devices[:across], across)
    at_once = max(1, evaluations_at_once(chunk, devices) // cost)
    clock = Clock(total, 1, 1, progress)

    def attempt(part: PyTree, first: int, size: int, shared: PyTree) -> PyTree:
        done = jax.tree.map(np.asarray, apply_program(grid, shared, part))
        clock.tell(first, size, max(0, total - first - size), 1)
        return done

    return _run(program, items, grid, across, at_once, precision, attempt)


def map_steps(
    program: Steps,
    items: PyTree,
    steps: int,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = "highest",
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> tuple[PyTree, PyTree]:
    """Return what `program.start` told, and what all steps told, as NumPy arrays (N, ...) and (N, steps, ...).

    As `reduce_images`, which says what the arguments are; what the steps tell is kept on the host.
    """
    return _run_steps(_tell_chunk, program, items, steps, mesh, chunk, precision, progress, cost)


def reduce_images(
    program: Reduction,
    items: PyTree,
    steps: int,
    *,
    mesh: Mesh | None = None,
    chunk: int | None = None,
    precision: str = "highest",
    progress: Callable[[Progress], None] | None = None,
    cost: int = 1,
) -> PyTree:
    """Return what a `Reduction` makes of N images and a number of steps, as NumPy arrays with the axis of images in front.

    One program is compiled for a chunk, whatever the number of steps; the sums stay on the device. Fewer images than
    devices share the devices by dividing the steps.

    Args:
        program: a `Reduction`.
        items: a pytree whose leaves all have the axis of N images in front.
        steps: of each image.
        mesh, chunk, precision, progress: see `RunOptions`.
        cost: evaluations of the network that a step of an image takes, for the choice of the chunk.

    Raises:
        ArgumentError: there are no images, or a wrong chunk.
        MemoryLimitError: a device has too little memory for one step of one image.
    """
    return _run_steps(_reduce_chunk, program, items, steps, mesh, chunk, precision, progress, cost)


def _run_steps(
    run_chunk: Callable[[Mesh, PyTree, PyTree, int, int, Callable[[int], None]], PyTree],
    program: PyTree,
    items: PyTree,
    steps: int,
    mesh: Mesh | None,
    chunk: int | None,
    precision: str,
    progress: Callable[[Progress], None] | None,
    cost: int,
) -> PyTree:
    """Run `run_chunk(grid, program, items of a chunk, steps, steps at once, tell)` on all images; halve what does not fit."""
    total, devices = count_images(items), local_devices(mesh)
    across = largest_divisor(len(devices), total)
    grid = make_grid(devices, across)
    along = len(devices) // across
    evaluations = evaluations_at_once(chunk, devices) // cost
    clock = Clock(total, 1, steps, progress)

    def attempt(part: PyTree, first: int, size: int, shared: PyTree) -> PyTree:
        tell = partial(clock.tell, first, size, max(0, total - first - size))

        def run(each: int) -> PyTree:
            return run_chunk(grid, shared, part, steps, each * along, tell)

        return _halving(run, _at_once(steps, evaluations // size // along, along), along)

    return _run(program, items, grid, across, max(1, evaluations // along), precision, attempt)


def _run(
    program: PyTree,
    items: PyTree,
    grid: Mesh,
    across: int,
    at_once: int,
    precision: str,
    attempt: Callable[[PyTree, int, int, PyTree], PyTree],
) -> PyTree:
    """Run `attempt(items of a chunk, first, size, program)` on chunks of at most `at_once` images; halve what does not fit."""
    total = count_images(items)
    chunks = math.ceil(total / max(across, at_once // across * across))
    size = math.ceil(total / chunks / across) * across
    found, first = [], 0
    with jax.default_matmul_precision(precision):
        shared = jax.device_put(program, NamedSharding(grid, P()))
        while first < total:
            rows = np.minimum(np.arange(first, first + size), total - 1)  # past the end the last one is repeated
            part = jax.device_put(jax.tree.map(lambda leaf, rows=rows: leaf[rows], items), NamedSharding(grid, P(IMAGES)))
            try:
                done = attempt(part, first, size, shared)
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                done = None
            if done is None:
                if size == across:
                    raise MemoryLimitError(
                        "A device has too little memory for one image. Use smaller images or a smaller network, fewer targets, "
                        "or close what else uses the device."
                    )
                warnings.warn(
                    f"Too little memory for {size} images at once: trying {size // across // 2 * across}.", stacklevel=3
                )
                size = size // across // 2 * across
                continue
            keep = min(size, total - first)
            found.append(jax.tree.map(lambda leaf, keep=keep: leaf[:keep], done))
            first += size
    return found[0] if len(found) == 1 else jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _at_once(steps: int, most: int, along: int) -> int:
    """Return how many steps a device does at a time: `most`, or a half, a quarter, ... of it, so that little is padding.

    Few sizes serve every number of steps, and for a large number it is always `most`: other numbers do not compile anew.
    """
    each = max(1, most)
    while each > 1 and -steps % (each * along) > max(steps / 3, 3):
        each //= 2
    return each


def _halving(run: Callable[[int], PyTree], each: int, along: int) -> PyTree:
    """Return `run(each)`, with fewer steps at a time where the memory is too small."""
    while True:
        try:
            return run(each)
        except jax.errors.JaxRuntimeError as error:
            if not is_out_of_memory(error) or each == 1:
                raise
        each //= 2
        warnings.warn(f"Too little memory for {2 * each * along} steps at once: trying {each * along}.", stacklevel=2)


def _tell_chunk(grid: Mesh, program: PyTree, items: PyTree, steps: int, at_once: int, tell: Callable[[int], None]) -> PyTree:
    (found, fixed), told, rounds = fix_images(grid, program, items), [], _rounds(program, grid)
    for first in range(0, steps, at_once * rounds):
        now = min(rounds, -(-(steps - first) // at_once))
        numbers = np.minimum(np.arange(first, first + at_once * rounds, dtype=np.int32), steps - 1).reshape(rounds, at_once)
        more = tell_steps(grid, program, items, fixed, numbers, np.int32(now))
        told += jax.tree.map(np.asarray, more)[:now]
        tell(min(first + at_once * now, steps))
    return jax.tree.map(np.asarray, found), jax.tree.map(lambda *rows: np.concatenate(rows, 1)[:, :steps], *told)


def _reduce_chunk(grid: Mesh, program: PyTree, items: PyTree, steps: int, at_once: int, tell: Callable[[int], None]) -> PyTree:
    fixed, sums = start_sums(grid, program, items)
    rounds = _rounds(program, grid)
    for first in range(0, steps, at_once * rounds):
        now = min(rounds, -(-(steps - first) // at_once))
        sums = add_steps(grid, at_once, program, items, fixed, sums, np.int32(first), np.int32(steps), np.int32(now))
        jax.block_until_ready(sums)  # so that Ctrl-C is heard, and no queue of steps grows
        tell(min(first + at_once * now, steps))
    return jax.tree.map(np.asarray, finish_sums(grid, program, items, fixed, sums))


def _rounds(program: PyTree, grid: Mesh) -> int:
    """Return how many chunks of steps one call does, in a compiled loop."""
    return ROUNDS if loops_well(grid, filter(is_model, jax.tree.leaves(program, is_leaf=is_model))) else 1
