"""How many units of work a chunk holds: the throughput plateau on CPU, the memory on accelerators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CPU_IMAGES = 8  # images a device at a time: more of them gain a CPU nothing but waiting
ACCELERATOR_IMAGES = 512  # keeps chunks, and with them what is saved, frequent where memory would hold more
MEMORY_SHARE = 0.8  # of the device's limit, the rest for fragmentation and the next chunk's arrival


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
    """Spread the units evenly over chunks of at most `per_device` units on each device, so that little is padding."""
    most = max(1, per_device) * devices
    chunks = math.ceil(units / most)
    even = math.ceil(units / chunks)
    return Plan(units, math.ceil(even / devices) * devices)


def units_per_device(samples: int, device: Any, memory: Callable[[int], int]) -> int:
    """Return how many units, of `samples` images each, one device should hold.

    Args:
        samples: images in a unit.
        device: a device of the mesh; all are taken to be alike.
        memory: bytes that the program needs for 1 or 2 units on a device; called only where the device states its limit.
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
