"""How much a device computes at a time: throughput decides on CPU, memory on accelerators; halved where memory is short."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import jax

from jaxviz._errors import MemoryLimitError
from jaxviz._types import Device

T = TypeVar("T")

CPU_IMAGES = 8  # images on a device at a time: larger batches do not raise CPU throughput
ACCELERATOR_IMAGES = 512  # keeps chunks short, and saves frequent, where memory would hold more
MEMORY_SHARE = 0.8  # of the device's limit; the rest is for fragmentation and for the next chunk's inputs


@dataclass(frozen=True)
class Plan:
    """`chunk` units run at once, a multiple of the number of devices; the last chunk is padded."""

    units: int
    chunk: int

    @property
    def starts(self) -> range:
        """The first unit of every chunk."""
        return range(0, self.units, self.chunk)


def make_plan(units: int, per_device: int, devices: int) -> Plan:
    """Spread the units evenly over chunks of at most `per_device` units on each device, so that padding is small."""
    most = max(1, per_device) * devices
    chunks = math.ceil(units / most)
    even = math.ceil(units / chunks)
    return Plan(units, math.ceil(even / devices) * devices)


def units_per_device(samples: int, device: Device, memory: Callable[[int], int]) -> int:
    """Return how many units, of `samples` images each, one device should hold.

    Args:
        samples: images in a unit.
        device: a device of the mesh; all are assumed to be alike.
        memory: returns the bytes that the program needs for 1 or 2 units on a device; called only where the device states its
            limit.
    """
    if device.platform == "cpu":
        return max(1, CPU_IMAGES // samples)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    most = max(1, ACCELERATOR_IMAGES // samples)
    return most if limit is None else min(most, fit_memory(memory(1), memory(2), int(limit * MEMORY_SHARE)))


def fit_memory(one: int, two: int, limit: int) -> int:
    """Return the units that fit `limit` bytes, at least 1, when 1 and 2 need `one` and `two` (memory is affine in units)."""
    each = max(1, two - one)
    return max(1, 1 + (limit - one) // each)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether a device had too little memory to compile or run a program."""
    # RESOURCE_EXHAUSTED starts the message, except where the compiler's autotuner passes it on.
    return isinstance(error, MemoryLimitError) or "RESOURCE_EXHAUSTED" in str(error)


def run_or_halve(run: Callable[[int], T], size: int, devices: int, kind: str, too_small: str) -> tuple[T | None, int]:
    """Return (`run(size)`, size), or (None, half the size) with a warning where a device has too little memory.

    The arrays of a chunk that fails live in the frames of `run`, and are free when this function returns.

    Args:
        run: computes a chunk of `size`; it has no effect where it fails.
        size: how many are computed at a time on all devices, a multiple of `devices`.
        devices: the smallest size.
        kind: plural noun for the warning: "units", "images" or "steps".
        too_small: message of the error.

    Raises:
        MemoryLimitError: the smallest size does not fit either.
    """
    try:
        return run(size), size
    except (jax.errors.JaxRuntimeError, MemoryLimitError) as error:
        if not is_out_of_memory(error):
            raise
    if size <= devices:
        raise MemoryLimitError(too_small)
    half = size // devices // 2 * devices
    warnings.warn(f"Too little memory for {size} {kind} at once: trying {half}.", stacklevel=3)
    return None, half
