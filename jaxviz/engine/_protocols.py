"""What the engine runs: the methods that programs over many images have.

A program is a pytree. Its leaves are data that all images share, such as weights; its structure keys the compiled program.
Programs take a batch of any size, and no image may depend on another, so that chunks and devices change nothing.
"""

from __future__ import annotations

from typing import Protocol

from jaxviz._types import Array, PyTree


class Steps(Protocol):
    """Many evaluations of each image, whose outputs are all kept. Run by `map_steps`."""

    def start(self, items: PyTree, /) -> tuple[PyTree, PyTree]:
        """Return (per-image outputs, per-image state for `step`); every leaf has the axis of n images in front."""
        ...

    def step(self, items: PyTree, state: PyTree, numbers: Array, /) -> PyTree:
        """Return the outputs of some steps, leaves of shape (n, s, ...).

        Args:
            items: of n images.
            state: from `start`; it stays on the device.
            numbers: int32 (s,), the indices of the steps.
        """
        ...


class Reduction(Protocol):
    """A sum over many evaluations of each image. Run by `reduce_images`."""

    def start(self, items: PyTree, /) -> PyTree:
        """Return the per-image state for `step`, computed once; every leaf has the axis of n images in front."""
        ...

    def step(self, items: PyTree, state: PyTree, numbers: Array, valid: Array, /) -> PyTree:
        """Return the sum over some steps, with the axis of n images in front.

        Args:
            items: of n images.
            state: from `start`.
            numbers: int32 (s,), the indices of the steps.
            valid: float32 (s,), 1, or 0 for steps that only pad the chunk and must add nothing.
        """
        ...

    def finish(self, items: PyTree, state: PyTree, sums: PyTree, /) -> PyTree:
        """Return the result from the sum over all steps, with the axis of n images in front."""
        ...


class Folding(Protocol):
    """A running state over a stream of images. Run by `Fold`."""

    def start(self) -> PyTree:
        """Return the state before the first image; arrays of fixed shapes."""
        ...

    def step(self, state: PyTree, items: PyTree, numbers: Array, /) -> PyTree:
        """Return the state after some more images.

        Args:
            state: after the images before.
            items: of n images, the axis of images in front.
            numbers: int32 (n,), rising, the images' indices in the stream; -1 for padding, which comes last.
        """
        ...

    def merge(self, state: PyTree, other: PyTree, /) -> PyTree:
        """Return the state of the images of two states, in whatever order they come."""
        ...
