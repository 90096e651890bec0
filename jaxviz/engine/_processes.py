"""Runs of several processes (`jax.distributed`) in one folder: who computes what, and how they wait for each other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from jaxviz._atomic import names_in, write_atomically
from jaxviz._errors import SaveError
from jaxviz._result_files import PARTS
from jaxviz._run_folder import HINT

PATIENCE = 120.0  # seconds that a network file system may take to show what another machine has written
_MARK = "failed-"


def share(number: int, units: int) -> range:
    """Return which units of objective `number` this process computes; who takes the remainder changes with the objective."""
    processes = jax.process_count()
    turn = (jax.process_index() + number) % processes
    return range(units * turn // processes, units * (turn + 1) // processes)


def is_alone() -> bool:
    """Whether this process is the only one of the run."""
    return jax.process_count() == 1


def prepare_together(folder: Path, prepare: Callable[[], None]) -> None:
    """Let process 0 prepare the folder while the others wait.

    Raises:
        SaveError: of process 0, once the others no longer wait for it.
    """
    problem: SaveError | None = None
    if jax.process_index() == 0:
        try:
            prepare()
            for name in names_in(folder / PARTS):
                if name.startswith(_MARK):
                    (folder / PARTS / name).unlink(missing_ok=True)
        except SaveError as error:
            problem = error
    if not is_alone():
        multihost_utils.sync_global_devices("jaxviz: the folder is prepared")
    if problem:
        raise problem


def mark_failed(folder: Path, error: BaseException | None) -> None:
    """Tell the other processes that this one stopped."""
    if not is_alone():
        with suppress(OSError):
            path = folder / PARTS / f"{_MARK}{jax.process_index()}"
            write_atomically(path, lambda file: file.write(str(error).encode()))


def wait_for(folder: Path, ready: Callable[[], bool], patience: float = math.inf) -> None:
    """Wait for what other processes write.

    Raises:
        SaveError: another process stopped, or nothing came in time.
    """
    start, pause = time.monotonic(), 0.05
    while not ready():
        failed = [name for name in names_in(folder / PARTS) if name.startswith(_MARK)]
        if failed:
            raise SaveError(f"Process {failed[0].removeprefix(_MARK)} stopped before its units were finished. {HINT}")
        if time.monotonic() - start >= patience:
            raise SaveError(
                f"Process {jax.process_index()} does not find in '{folder}' what it and the others wrote. "
                "All need one folder, on a file system that they share, that nobody else changes."
            )
        time.sleep(pause)
        pause = min(2 * pause, 2.0)
