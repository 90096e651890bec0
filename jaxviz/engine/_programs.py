"""The compiled programs of `map_images`, `map_steps` and `reduce_images`, for a chunk of images and chunks of their steps.

The devices are a grid: images along one axis, steps along the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.engine._protocols import Reduction, Steps
from jaxviz.engine._sharding import IMAGES, STEPS, shard
from jaxviz.models import hoist_kernels
from jaxviz.models._network import Network


@partial(jax.jit, static_argnums=0)
def apply_program(grid: Mesh, program: Callable[[PyTree], PyTree], items: PyTree) -> PyTree:
    """Return `program(items)`."""
    return shard(lambda program, items: program(items), grid, (P(), P(IMAGES)), P(IMAGES))(program, items)


@partial(jax.jit, static_argnums=0)
def start_steps(grid: Mesh, program: Steps, items: PyTree) -> tuple[PyTree, PyTree]:
    """Return (per-image outputs, per-image state)."""
    return shard(lambda program, items: program.start(items), grid, (P(), P(IMAGES)), P(IMAGES))(program, items)


@partial(jax.jit, static_argnums=0)
def evaluate_steps(
    grid: Mesh, program: Steps, items: PyTree, state: PyTree, numbers: ArrayLike, rounds: ArrayLike
) -> list[PyTree]:
    """Return the outputs of the steps int32 (most, s), a list of `most`; all but the first `rounds` of them are left 0."""

    def evaluate(program: Steps, items: PyTree, state: PyTree, numbers: Array, rounds: ArrayLike) -> PyTree:
        def body(number: Array, outputs: PyTree) -> PyTree:
            more = program.step(items, state, numbers[number])
            return jax.tree.map(lambda rows, row: rows.at[number].set(row), outputs, more)

        program = _hoist(program)
        like = jax.eval_shape(program.step, items, state, numbers[0])
        outputs = jax.tree.map(lambda leaf: jnp.zeros((len(numbers), *leaf.shape), leaf.dtype), like)
        return jax.lax.fori_loop(0, rounds, body, outputs)

    inputs = (P(), P(IMAGES), P(IMAGES), P(None, STEPS), P())
    outputs = shard(evaluate, grid, inputs, P(None, IMAGES, STEPS))(program, items, state, numbers, rounds)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], outputs) for i in range(len(numbers))]


@partial(jax.jit, static_argnums=0)
def start_sums(grid: Mesh, program: Reduction, items: PyTree) -> tuple[PyTree, PyTree]:
    """Return the per-image state and sums of zeros, (devices along the steps, n, ...)."""

    def start(program: Reduction, items: PyTree) -> tuple[PyTree, PyTree]:
        state = program.start(items)
        step = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.float32)
        like = jax.eval_shape(program.step, items, state, *step)
        return state, jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), like)

    return shard(start, grid, (P(), P(IMAGES)), (P(IMAGES), P(STEPS, IMAGES)))(program, items)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def add_steps(
    grid: Mesh,
    at_once: int,
    program: Reduction,
    items: PyTree,
    state: PyTree,
    sums: PyTree,
    first: np.int32,
    steps: ArrayLike,
    rounds: np.int32,
) -> PyTree:
    """Add `rounds` chunks of steps to the sums."""

    def step(program: Reduction, items: PyTree, state: PyTree, sums: PyTree, numbers: Array, steps: ArrayLike) -> PyTree:
        valid = (numbers < steps).astype(jnp.float32)
        more = program.step(items, state, jnp.minimum(numbers, steps - 1), valid)
        return jax.tree.map(lambda a, b: a + b[None], sums, more)

    inputs = (P(), P(IMAGES), P(IMAGES), P(STEPS, IMAGES), P(STEPS), P())
    step_on_grid = shard(step, grid, inputs, P(STEPS, IMAGES))
    program = _hoist(program)

    def chunk(number: Array, sums: PyTree) -> PyTree:
        numbers = first + number * at_once + jnp.arange(at_once, dtype=jnp.int32)
        return step_on_grid(program, items, state, sums, numbers, steps)

    return jax.lax.fori_loop(0, rounds, chunk, sums)


@partial(jax.jit, static_argnums=0)
def finish_sums(grid: Mesh, program: Reduction, items: PyTree, state: PyTree, sums: PyTree) -> PyTree:
    """Return what the program makes of the sums."""
    total = jax.tree.map(lambda leaf: leaf.sum(0), sums)

    def finish(program: Reduction, items: PyTree, state: PyTree, total: PyTree) -> PyTree:
        return program.finish(items, state, total)

    return shard(finish, grid, (P(), P(IMAGES), P(IMAGES), P(IMAGES)), P(IMAGES))(program, items, state, total)


def is_network(node: object) -> bool:
    """Return whether a node of a program's pytree is a network."""
    return isinstance(node, Network)


def _hoist(program: Any) -> Any:
    """Return the program with the kernel transforms of its networks hoisted out of the loop over its steps."""
    return jax.tree.map(lambda node: hoist_kernels(node) if is_network(node) else node, program, is_leaf=is_network)
