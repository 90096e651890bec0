"""Where the work runs: meshes of devices, and how much each device computes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxviz._errors import ArgumentError
from jaxviz._types import Device, PyTree
from jaxviz.models import calls_through_ops
from jaxviz.models._network import Network

UNITS = "units"
IMAGES, STEPS = "images", "steps"
CPU_EVALUATIONS = 8  # of the network, on a device at a time: larger batches do not raise CPU throughput
ACCELERATOR_EVALUATIONS = 128  # halved where memory is short


def make_mesh(devices: int | None = None) -> Mesh:
    """Return a one-axis mesh of the first `devices` devices of this process, or of all of them.

    Raises:
        ArgumentError: this process does not have as many devices.

    >>> jaxviz.make_mesh(1).size
    1
    """
    available = jax.local_devices()
    if devices is not None and not 1 <= devices <= len(available):
        raise ArgumentError(f"Expected 1 to {len(available)} devices, as many as JAX sees here; got {devices}.")
    return make_line(available[:devices])


def make_line(devices: Sequence[Device]) -> Mesh:
    """Return a mesh with all devices along the axis of units."""
    return Mesh(np.array(devices), (UNITS,), axis_types=(AxisType.Auto,))  # devices never communicate: any order is as good


def make_grid(devices: Sequence[Device], across: int) -> Mesh:
    """Return a mesh of `across` devices along the axis of images times the rest along that of steps."""
    return Mesh(np.array(devices).reshape(across, -1), (IMAGES, STEPS), axis_types=(AxisType.Auto,) * 2)


def local_devices(mesh: Mesh | None) -> list[Device]:
    """Return the devices of a mesh, or of all, that belong to this process."""
    devices: list[Device] = list((mesh or make_mesh()).devices.flat)
    local = [device for device in devices if device.process_index == jax.process_index()]
    if not local:
        raise ArgumentError(f"Expected a mesh with a device of process {jax.process_index()}; got devices of others only.")
    return local


def is_cpu(mesh: Mesh) -> bool:
    """Return whether a mesh consists of CPU devices."""
    return mesh.devices.flat[0].platform == "cpu"


def loops_well(mesh: Mesh, networks: Iterable[Network]) -> bool:
    """Return whether many steps of the networks run faster as one compiled loop than as calls of a compiled step.

    A loop keeps its memory from step to step; a call allocates it again, which takes a tenth of the time on CPU. But XLA's own
    gradient of a convolution, which networks have that do not use `ops.conv`, is several times slower inside a loop there.
    """
    return not is_cpu(mesh) or all(map(calls_through_ops, networks))


def shard(fn: Callable[..., PyTree], mesh: Mesh, inputs: Any, outputs: Any) -> Callable[..., PyTree]:
    """Return `jax.shard_map` of `fn` with the partition specs of its inputs and outputs."""
    # Loop counters are the same on every device and images are not: there is nothing for the check of varying axes to find.
    return jax.shard_map(fn, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False)


def count_images(items: PyTree) -> int:
    """Return N of a pytree whose leaves all have the axis of N images in front."""
    lengths = {len(leaf) for leaf in jax.tree.leaves(items)}
    if len(lengths) != 1 or lengths == {0}:
        raise ArgumentError(f"Expected at least one image, and as many of everything; got {sorted(lengths) or 'none'}.")
    return lengths.pop()


def largest_divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is at most `most`."""
    return max(d for d in range(1, min(number, most) + 1) if number % d == 0)


def evaluations_at_once(chunk: int | None, devices: Sequence[Device]) -> int:
    """Return how many evaluations of the network all devices run at a time; `chunk` where it is given."""
    if chunk is None:
        return (CPU_EVALUATIONS if devices[0].platform == "cpu" else ACCELERATOR_EVALUATIONS) * len(devices)
    if chunk != int(chunk) or chunk < 1:
        raise ArgumentError(f"chunk must be a whole number of at least 1; got {chunk!r}.")
    return int(chunk)
