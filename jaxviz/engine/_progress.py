"""Progress of a run, and the time it still needs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Progress of a run, reported after every block of steps."""

    images_done: int
    images: int
    step: int  # of the current chunk
    steps: int
    images_per_second: float  # finished images, extrapolated from the steps so far without compilation
    seconds_left: float


class Clock:
    """Measures and reports progress; the first block, which compiles, only sets the clock."""

    def __init__(self, units: int, samples: int, steps: int, report: Callable[[Progress], None] | None) -> None:
        self._units, self._samples, self._steps, self._report = units, samples, steps, report
        self._origin = 0.0
        self._counted = -1  # unit-steps since then
        self._before = 0  # steps of the chunk at the last report

    def tick(self, first: int, size: int, rest: int, step: int) -> None:
        """Report `step` of the chunk of `size` units from `first` on, after which `rest` units are left."""
        if self._report is None:
            return
        now, last = time.perf_counter(), step == self._steps
        if self._counted < 0:
            self._origin, self._counted = now, 0
        else:
            self._counted += size * (step - self._before)
        self._before = 0 if last else step
        speed = self._counted / (now - self._origin) if self._counted else 0.0  # unit-steps a second
        left = (size * (self._steps - step) + rest * self._steps) / speed if speed else math.inf
        finished = min(self._units, first + (size if last else 0)) * self._samples
        rate = speed * self._samples / self._steps
        self._report(Progress(finished, self._units * self._samples, step, self._steps, rate, left))
