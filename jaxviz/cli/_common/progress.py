"""The progress bar of a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import accumulate
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

import jaxviz


class Bar:
    """A progress bar over all targets, on stderr: images, step, images per second, time left."""

    def __init__(self, images: Sequence[int], quiet: bool) -> None:
        self._ends = list(accumulate(images, initial=0))  # number of finished images at the end of each target
        self._done = 0
        self._from: tuple[float, int] | None = None  # time and number of the first finished images
        columns = [
            TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
        ]
        self._progress = Progress(*columns, console=Console(stderr=True), disable=quiet)
        self._task = self._progress.add_task("", total=self._ends[-1], state="compiling")

    @property
    def is_shown(self) -> bool:
        return self._progress.live.is_started

    def __enter__(self) -> Bar:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, trace)

    @property
    def done(self) -> int:
        """Number of images reported as finished."""
        return self._done

    def finished(self, images: int) -> None:
        self._done += images
        self._from = self._from or (time.perf_counter(), self._done)
        self._progress.update(self._task, completed=self._done)

    def say(self, what: str) -> None:
        """Show the current activity and the speed since the first images, whose time included compiling."""
        start, before = self._from or (0.0, self._done)
        if self._done > before:
            rate = (self._done - before) / (time.perf_counter() - start)
            what += f"  {rate:.2g} images/s  {_clock((self._ends[-1] - self._done) / rate)} left"
        self._progress.update(self._task, state=what)

    def report_part(self, what: str, now: jaxviz.Progress) -> None:
        """Show a named part of a run that has its own number of images."""
        state = what if now.steps == 1 else f"{what} step {now.step}/{now.steps}"
        if now.images_per_second > 0:
            state += f"  {now.images_per_second:.2g} images/s  {_clock(now.seconds_left)} left"
        self._progress.update(self._task, total=now.images, completed=now.images_done, state=state)

    def report_alone(self, now: jaxviz.Progress) -> None:
        """Like `report`, and call `finished` when a target's last image is done."""
        self.report(now)
        if now.images_done == now.images and now.step == now.steps:
            self.finished(now.images)

    def report(self, now: jaxviz.Progress) -> None:
        """Show the engine's report, which counts only the current target."""
        state = f"step {now.step}/{now.steps}"
        if now.images_per_second > 0:
            before = max(end for end in self._ends if end <= self._done)
            left = now.seconds_left + (self._ends[-1] - before - now.images) / now.images_per_second
            state += f"  {now.images_per_second:.2g} images/s  {_clock(left)} left"
        self._progress.update(self._task, state=state)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
