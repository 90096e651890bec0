"""The compiled programs of `reduce_images` and its kin: what is done with a chunk of images, and with chunks of their steps.

The devices are a grid: images along one axis, steps along the other.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxviz._types import Array, ArrayLike, PyTree
from jaxviz.engine._sharding import IMAGES, STEPS, sharded
from jaxviz.models import Model, for_many_steps


class Steps(Protocol):
    """Many evaluations of n images: a pytree whose leaves are what all images share, such as the weights."""

    def start(self, items: PyTree) -> tuple[PyTree, PyTree]:
        """Return what is told of each image, and what its steps need; every leaf has the axis of n images in front."""
        ...

    def step(self, items: PyTree, fixed: PyTree, numbers: Array) -> PyTree:
        """Return what some steps tell, of n images and of the steps int32 (s,); leaves of shape (n, s, ...).

        `fixed` is the second of what `start` returned; it stays on the device.
        """
        ...


class Reduction(Protocol):
    """A sum over many evaluations, for n images: a pytree whose leaves are what all images share, such as the weights."""

    def start(self, items: PyTree) -> PyTree:
        """Return what is computed once for each image; every leaf has the axis of n images in front."""
        ...

    def step(self, items: PyTree, fixed: PyTree, numbers: Array, valid: Array) -> PyTree:
        """Return the sum over some steps, the axis of n images in front.

        Args:
            items: of n images.
            fixed: what `start` returned.
            numbers: int32 (s,), which of the steps these are.
            valid: float32 (s,), 1, or 0 for steps that only fill the chunk and must add nothing.
        """
        ...

    def finish(self, items: PyTree, fixed: PyTree, sums: PyTree) -> PyTree:
        """Return what the run gives, from the sum of all steps; the axis of n images in front."""
        ...


@partial(jax.jit, static_argnums=0)
def apply_program(grid: Mesh, program: Any, items: PyTree) -> PyTree:
    return jax.shard_map(lambda program, items: program(items), **sharded(grid, (P(), P(IMAGES)), P(IMAGES)))(program, items)


@partial(jax.jit, static_argnums=0)
def fix_images(grid: Mesh, program: Any, items: PyTree) -> PyTree:
    return jax.shard_map(lambda p, items: p.start(items), **sharded(grid, (P(), P(IMAGES)), P(IMAGES)))(program, items)


@partial(jax.jit, static_argnums=0)
def tell_steps(grid: Mesh, program: Any, items: PyTree, fixed: PyTree, numbers: Array, rounds: ArrayLike) -> list[PyTree]:
    """Return what the steps int32 (most, s) tell, in a list of `most`; all but the first `rounds` are left 0."""

    def step(program: Any, items: PyTree, fixed: PyTree, numbers: Array, rounds: ArrayLike) -> PyTree:
        def tell(number: Array, told: PyTree) -> PyTree:
            more = program.step(items, fixed, numbers[number])
            return jax.tree.map(lambda rows, row: rows.at[number].set(row), told, more)

        program = _for_many_steps(program)
        like = jax.eval_shape(program.step, items, fixed, numbers[0])
        told = jax.tree.map(lambda leaf: jnp.zeros((len(numbers), *leaf.shape), leaf.dtype), like)
        return jax.lax.fori_loop(0, rounds, tell, told)

    specs = sharded(grid, (P(), P(IMAGES), P(IMAGES), P(None, STEPS), P()), P(None, IMAGES, STEPS))
    told = jax.shard_map(step, **specs)(program, items, fixed, numbers, rounds)
    return [jax.tree.map(lambda leaf, i=i: leaf[i], told) for i in range(len(numbers))]


@partial(jax.jit, static_argnums=0)
def start_sums(grid: Mesh, program: Any, items: PyTree) -> PyTree:
    def start(program: Any, items: PyTree) -> PyTree:
        fixed = program.start(items)
        one = jax.ShapeDtypeStruct((1,), jnp.int32), jax.ShapeDtypeStruct((1,), jnp.float32)
        like = jax.eval_shape(program.step, items, fixed, *one)
        return fixed, jax.tree.map(lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), like)

    return jax.shard_map(start, **sharded(grid, (P(), P(IMAGES)), (P(IMAGES), P(STEPS, IMAGES))))(program, items)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=5)
def add_steps(
    grid: Mesh,
    at_once: int,
    program: Any,
    items: PyTree,
    fixed: PyTree,
    sums: PyTree,
    first: np.int32,
    steps: ArrayLike,
    rounds: np.int32,
) -> PyTree:
    """Add `rounds` chunks of steps to the sums."""

    def step(program: Any, items: PyTree, fixed: PyTree, sums: PyTree, numbers: Array, steps: ArrayLike) -> PyTree:
        valid = (numbers < steps).astype(jnp.float32)
        more = program.step(items, fixed, jnp.minimum(numbers, steps - 1), valid)
        return jax.tree.map(lambda a, b: a + b[None], sums, more)

    specs = sharded(grid, (P(), P(IMAGES), P(IMAGES), P(STEPS, IMAGES), P(STEPS), P()), P(STEPS, IMAGES))
    spread = jax.shard_map(step, **specs)
    program = _for_many_steps(program)

    def chunk(number: Array, sums: PyTree) -> PyTree:
        numbers = first + number * at_once + jnp.arange(at_once, dtype=jnp.int32)
        return spread(program, items, fixed, sums, numbers, steps)

    return jax.lax.fori_loop(0, rounds, chunk, sums)


@partial(jax.jit, static_argnums=0)
def finish_sums(grid: Mesh, program: Any, items: PyTree, fixed: PyTree, sums: PyTree) -> PyTree:
    total = jax.tree.map(lambda leaf: leaf.sum(0), sums)

    def finish(program: Any, items: PyTree, fixed: PyTree, total: PyTree) -> PyTree:
        return program.finish(items, fixed, total)

    specs = sharded(grid, (P(), P(IMAGES), P(IMAGES), P(IMAGES)), P(IMAGES))
    return jax.shard_map(finish, **specs)(program, items, fixed, total)


def is_model(node: Any) -> bool:
    return isinstance(node, Model)


def _for_many_steps(program: Any) -> Any:
    return jax.tree.map(lambda node: for_many_steps(node) if is_model(node) else node, program, is_leaf=is_model)
