"""What SIGKILL leaves of a run, without a process to kill: a copy of its folder, taken while it runs.

All that a killed process had written is in the copy, nothing that it would still have written, and its lock file, which holds
nothing. `tests/test_run_folder.py` and `tests/engine/test_kill.py` kill real processes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def copy_at(number: int, folder: Path, copy: Path) -> Callable[..., None]:
    """Return a `progress` that copies a run's folder when it is called the `number`th time."""
    calls = 0

    def progress(*now: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            shutil.copytree(folder, copy)

    return progress
