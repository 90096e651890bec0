"""Run a program over a stream of images that never ends up in memory: each device keeps a running state.

For what a sum cannot say: the strongest images, a range, a histogram. `map_images` and `reduce_images` give an answer for
each image; a `Fold` gives one for all of them.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxviz._errors import MemoryLimitError
from jaxviz._types import Array, PyTree
from jaxviz.engine._execute import is_out_of_memory
from jaxviz.engine._sharding import IMAGES, count_images, evaluations_at_once, local_devices, make_grid, sharded


class Folding(Protocol):
    """What a stream of images comes to: a pytree whose leaves are what all images share, such as the weights."""

    def start(self) -> PyTree:
        """Return the state of no images; arrays of fixed shapes."""
        ...

    def step(self, state: PyTree, items: PyTree, numbers: Array) -> PyTree:
        """Return the state after some more images.

        Args:
            state: of the images before.
            items: of n images, the axis of images in front.
            numbers: int32 (n,), rising, which of all images these are; -1 for those that only fill the chunk, last.
        """
        ...

    def merge(self, state: PyTree, other: PyTree) -> PyTree:
        """Return the state of the images of two states, whatever their order."""
        ...


class Fold:
    """The state of a `Folding` over the images so far, on every device.

    Args:
        program: its structure keys the compiled program; its leaves are data.
        state: what an earlier `Fold` returned, to go on from there.
        mesh, chunk, precision: see `RunOptions`.
    """

    def __init__(
        self,
        program: Folding,
        state: PyTree | None = None,
        *,
        mesh: Mesh | None = None,
        chunk: int | None = None,
        precision: str = "highest",
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
        """Take the images number `first` and on; all of them or, where it is interrupted, none.

        Raises:
            MemoryLimitError: a device has too little memory for one image.
        """
        total, done, state = count_images(items), 0, self._state
        if not self._begun:  # where there are fewer images than places, a smaller program does
            self._each, self._begun = min(self._each, math.ceil(total / self._devices)), True
        while done < total:
            rows = np.arange(done, done + self.chunk)
            numbers = np.where(rows < total, first + rows, -1).astype(np.int32)
            rows = np.minimum(rows, total - 1)  # past the end the last one is repeated
            part = jax.tree.map(lambda leaf, rows=rows: leaf[rows], items)
            try:
                with jax.default_matmul_precision(self._precision):
                    placed = jax.device_put((part, numbers), NamedSharding(self._grid, P(IMAGES)))
                    made = _advance(self._grid, self._program, state, *placed)
                    state = jax.block_until_ready(made)  # so that Ctrl-C is heard, and no queue grows
            except jax.errors.JaxRuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if self._each == 1:
                    raise MemoryLimitError(
                        "A device has too little memory for one image. Use smaller images or fewer layers, or close what else "
                        "uses the device."
                    ) from error
                warnings.warn(
                    f"Too little memory for {self.chunk} images at once: trying {self._each // 2 * self._devices}.",
                    stacklevel=2,
                )
                self._each //= 2
                continue
            done += self.chunk
        self._state = state

    def state(self) -> PyTree:
        """Return the state of all images so far, as NumPy arrays."""
        each = jax.tree.map(np.asarray, self._state)
        whole, *others = (jax.tree.map(lambda leaf, i=i: leaf[i], each) for i in range(self._devices))
        for other in others:
            whole = jax.tree.map(np.asarray, _merge(self._program, whole, other))
        return whole


@partial(jax.jit, static_argnums=0)
def _advance(grid: Mesh, program: Any, state: PyTree, items: PyTree, numbers: Array) -> PyTree:
    def advance(program: Any, state: PyTree, items: PyTree, numbers: Array) -> PyTree:
        after = program.step(jax.tree.map(lambda leaf: leaf[0], state), items, numbers)
        return jax.tree.map(lambda leaf: leaf[None], after)

    specs = sharded(grid, (P(), P(IMAGES), P(IMAGES), P(IMAGES)), P(IMAGES))
    return jax.shard_map(advance, **specs)(program, state, items, numbers)


@jax.jit
def _merge(program: Any, state: PyTree, other: PyTree) -> PyTree:
    return program.merge(state, other)
