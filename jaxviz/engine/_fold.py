"""Run a program over a stream of images that never has to fit in memory: each device keeps a running state.

For results that are not per image: the top images, a range, a histogram. `map_images` and `reduce_images` give a result for
each image; a `Fold` gives one for all of them.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._types import Array, PyTree
from jaxviz.engine._memory import run_or_halve
from jaxviz.engine._options import FULL_PRECISION, matmul_precision
from jaxviz.engine._protocols import Folding
from jaxviz.engine._sharding import IMAGES, count_images, evaluations_at_once, local_devices, make_grid, shard

TOO_SMALL = (
    "A device has too little memory for one image. Use smaller images or fewer layers, or close what else uses the device."
)


class Fold:
    """The state of a `Folding` over the images so far, on every device.

    Args:
        program: its structure keys the compiled program; its leaves are data.
        state: what an earlier `Fold` returned, to continue from there.
        mesh, chunk, precision: see `RunOptions`.
    """

    def __init__(
        self,
        program: Folding,
        state: PyTree | None = None,
        *,
        mesh: Mesh | None = None,
        chunk: int | None = None,
        precision: str = FULL_PRECISION,
    ) -> None:
        devices = local_devices(mesh)
        self._devices, self._grid, self._precision = len(devices), make_grid(devices, len(devices)), precision
        self._each = max(1, evaluations_at_once(chunk, devices) // len(devices))  # images on a device at a time
        self._program = jax.device_put(program, NamedSharding(self._grid, P()))
        empty = jax.tree.map(np.asarray, program.start())
        parts = [empty if state is None else state] + [empty] * (len(devices) - 1)
        self._state = jax.device_put(
            jax.tree.map(lambda *leaves: np.stack(leaves), *parts), NamedSharding(self._grid, P(IMAGES))
        )
        self._begun = False

    @property
    def chunk(self) -> int:
        """Images at a time, over all devices."""
        return self._each * self._devices

    def add(self, items: PyTree, first: int) -> None:
        """Add images, the first of which has index `first` in the stream; all of them or, where it is interrupted, none.

        Raises:
            MemoryLimitError: a device has too little memory for one image.
        """
        total, done, state = count_images(items), 0, self._state
        if not self._begun:  # fewer images than places: a smaller program does
            self._each, self._begun = min(self._each, math.ceil(total / self._devices)), True
        while done < total:
            advance = partial(self._advance, state, items, first, done)
            after, chunk = run_or_halve(advance, self.chunk, self._devices, "images", TOO_SMALL)
            self._each = chunk // self._devices
            if after is not None:
                state, done = after, done + chunk
        self._state = state

    def _advance(self, state: PyTree, items: PyTree, first: int, done: int, chunk: int) -> PyTree:
        """Return the state after `chunk` more of the items, from index `done` on."""
        total = count_images(items)
        rows = np.arange(done, done + chunk)
        numbers = np.where(rows < total, first + rows, -1).astype(np.int32)
        rows = np.minimum(rows, total - 1)  # past the end the last image is repeated
        part = jax.tree.map(lambda leaf: leaf[rows], items)
        with matmul_precision(self._precision):
            placed = jax.device_put((part, numbers), NamedSharding(self._grid, P(IMAGES)))
            # Waits, so that Ctrl-C is heard and no queue grows.
            return jax.block_until_ready(_advance(self._grid, self._program, state, *placed))

    def state(self) -> PyTree:
        """Return the state of all images so far, as NumPy arrays."""
        each = jax.tree.map(np.asarray, self._state)
        whole, *others = (jax.tree.map(lambda leaf, i=i: leaf[i], each) for i in range(self._devices))
        for other in others:
            whole = jax.tree.map(np.asarray, _merge(self._program, whole, other))
        return whole


@partial(jax.jit, static_argnums=0)
def _advance(grid: Mesh, program: Folding, state: PyTree, items: PyTree, numbers: Array) -> PyTree:
    def advance(program: Folding, state: PyTree, items: PyTree, numbers: Array) -> PyTree:
        after = program.step(jax.tree.map(lambda leaf: leaf[0], state), items, numbers)
        return jax.tree.map(lambda leaf: leaf[None], after)

    inputs = (P(), P(IMAGES), P(IMAGES), P(IMAGES))
    return shard(advance, grid, inputs, P(IMAGES))(program, state, items, numbers)


@jax.jit
def _merge(program: Folding, state: PyTree, other: PyTree) -> PyTree:
    return program.merge(state, other)
