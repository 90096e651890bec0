"""One run, killed with SIGKILL at seeded moments and started again each time, equals a run that was never killed.

The one test that kills whole runs: `tests/test_run_folder.py` kills what all runs share, many times and fast, and each kind of
run continues from a copy of its folder (`tests/killed.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import jaxviz as jv

pytestmark = [pytest.mark.once, pytest.mark.full]

ROOT = Path(__file__).parents[2]
KILLS = 8
TARGETS = ["relu_1:0-11", "conv1", "relu:0-7", "logit"]  # 33 units
OPTIONS = {"steps": 1200, "size": 16, "samples": 2, "seed": 5, "chunk": 1, "transforms": ()}
CHUNKS = 33
CHILD = """
import sys
import jaxviz as jv
from tests.engine.test_kill import OPTIONS, TARGETS
from tests.tiny import tiny_model
model, mesh = tiny_model(), jv.make_mesh(1)
print("warm", flush=True)
sys.stdin.readline()
print("go", flush=True)
for part in jv.iter_visualize(model, TARGETS, out=sys.argv[1], mesh=mesh, **OPTIONS):
    print(part.labels[0], flush=True)
print("done", flush=True)
sys.stdin.readline()
"""


class Child:
    """A process that has imported everything and waits for the word: the next one warms up while this one works."""

    def __init__(self, out: Path, cache: Path) -> None:
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", CHILD, str(out)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        self.lines: list[str] = []
        self.times: list[float] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in iter(self._process.stdout.readline, ""):
            self.times.append(time.monotonic())
            self.lines.append(line.strip())

    def go(self) -> None:
        assert self._process.stdin is not None
        self.wait_for(1)
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.wait_for(2)

    def wait_for(self, lines: int) -> None:
        deadline = time.monotonic() + 240
        while len(self.lines) < lines and "done" not in self.lines:
            assert self._process.poll() is None and time.monotonic() < deadline, self.lines
            time.sleep(0.001)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        assert self._process.wait() == -signal.SIGKILL, "it had ended before"
        self._reader.join()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def finish(self) -> None:
        self.go()
        self.wait_for(sys.maxsize)
        self.kill()


def test_killed_at_seeded_moments(tmp_path: Path) -> None:
    out, unbroken = tmp_path / "out", tmp_path / "unbroken"
    with ExitStack() as stack:

        def child(folder: Path) -> Child:
            made = Child(folder, tmp_path / "cache")
            stack.callback(made.end)
            return made

        # How long things take here, so that the moments fall where they should on any machine.
        pace = child(unbroken)
        following = child(out)
        pace.finish()
        gaps = np.diff(pace.times[2:])
        moments, kept = killed(out, following, lambda: child(out), float(np.median(gaps[:-1])), gaps[-1])
    assert len(set(kept)) > 3 and kept[4] < CHUNKS, f"not where it should have been killed: {kept} after {moments}"
    compare(out, unbroken)


def killed(out: Path, current: Child, make: Callable[[], Child], each: float, last: float) -> tuple[list[float], list[int]]:
    """Kill and start again KILLS times, then let it finish; return the delays, and how many chunks were there after each.

    `each` is the seconds that a chunk takes, `last` those from the last chunk to the end.
    """
    random = np.random.default_rng(0)
    moments: list[float] = []
    kept = [0]
    first = 0.0  # seconds to the first chunk, with its program in the cache
    for number in range(KILLS):
        following = make()
        current.go()
        if number % 4 == 3:  # at any time after the start: while the folder is opened, the program loaded, ...
            moments.append(random.uniform(0, first + 2 * each))
        elif number < 5:  # some chunks after those that were there, and then at any time: computing, writing, drawing
            current.wait_for(min(2 + kept[-1] + int(random.integers(1, 3)), 1 + CHUNKS))
            moments.append(random.uniform(0, each))
        else:  # at the end: while the parts are put together
            current.wait_for(2 + CHUNKS)
            moments.append(random.uniform(0, last))
        time.sleep(moments[-1])
        current.kill()
        first = first or current.times[2] - current.times[1]
        kept.append(len(list((out / "parts").glob("[0-9]*.npz"))))
        current = following
    current.finish()
    return moments, kept


def compare(out: Path, unbroken: Path) -> None:
    """Everything in the two folders is the same, to the last bit."""
    result, whole = jv.load_result(out), jv.load_result(unbroken)
    for name in ("images", "scores", "history"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert result.labels == whole.labels and result.settings == whole.settings
    names = {path.name for path in unbroken.iterdir()}
    assert {path.name for path in out.iterdir()} == names and len(names) == 2 * CHUNKS + 5
    for name in names - {"result.npz"}:  # a zip has the time in it
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name
