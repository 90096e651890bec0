"""Where images and steps go: a grid of devices, and how much each does at once."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxviz._errors import ArgumentError
from jaxviz._types import PyTree
from jaxviz.engine._execute import make_mesh

IMAGES, STEPS = "images", "steps"
CPU_EVALUATIONS = 8  # of the network, on a device at a time: more gain a CPU nothing
ACCELERATOR_EVALUATIONS = 128  # halved where the memory is too small


def sharded(grid: Mesh, inputs: Any, outputs: Any) -> dict[str, Any]:
    return {"mesh": grid, "in_specs": inputs, "out_specs": outputs, "check_vma": False}


def count_images(items: PyTree) -> int:
    lengths = {len(leaf) for leaf in jax.tree.leaves(items)}
    if len(lengths) != 1 or lengths == {0}:
        raise ArgumentError(f"Expected at least one image, and as many of everything; got {sorted(lengths) or 'none'}.")
    return lengths.pop()


def local_devices(mesh: Mesh | None) -> list[Any]:
    devices = (mesh or make_mesh()).devices.flat
    local = [device for device in devices if device.process_index == jax.process_index()]
    if not local:
        raise ArgumentError(f"Expected a mesh with a device of process {jax.process_index()}; got devices of others only.")
    return local


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is at most `most`."""
    return max(d for d in range(1, min(number, most) + 1) if number % d == 0)


def make_grid(devices: list[Any], across: int) -> Mesh:
    """Return a mesh of `across` devices for the images times the rest for the steps."""
    return Mesh(np.array(devices).reshape(across, -1), (IMAGES, STEPS), axis_types=(AxisType.Auto,) * 2)


def evaluations_at_once(chunk: int | None, devices: list[Any]) -> int:
    if chunk is None:
        return (CPU_EVALUATIONS if devices[0].platform == "cpu" else ACCELERATOR_EVALUATIONS) * len(devices)
    if chunk != int(chunk) or chunk < 1:
        raise ArgumentError(f"chunk must be a whole number of at least 1; got {chunk!r}.")
    return int(chunk)
