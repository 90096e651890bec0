"""One run, killed with SIGKILL at 20 seeded moments and started again each time, equals a run that was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import jaxviz as jv

ROOT = Path(__file__).parents[2]
KILLS = 20
TARGETS = ["relu_1:0-11", "conv1", "relu:0-7", "logit"]  # 33 units
OPTIONS = {"steps": 120, "size": 16, "samples": 2, "seed": 5, "chunk": 1, "transforms": ()}
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
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self.lines.extend(line.strip() for line in iter(self._process.stdout.readline, ""))

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


def test_killed_at_20_seeded_moments(tmp_path: Path) -> None:
    out, random = tmp_path / "out", np.random.default_rng(0)
    children = [Child(out, tmp_path / "cache")]
    kept: list[int] = []
    ended = 0
    for number in range(KILLS):
        children.append(Child(out, tmp_path / "cache"))
        child = children[number]
        there = kept[-1] if kept else 0
        child.go()
        if number % 4 == 3:  # at any time after the start: while the folder is opened, the program loaded, ...
            time.sleep(random.uniform(0, 1.5))
        elif number < 14:  # some chunks after those that were there, and then at any time: computing, writing, drawing
            child.wait_for(min(2 + there + int(random.integers(1, 4)), CHUNKS))
            time.sleep(random.uniform(0, 0.06))
        else:  # at the end: while the parts are put together
            child.wait_for(2 + CHUNKS)
            time.sleep(random.uniform(0, 0.12))
        child.kill()
        ended += "done" in child.lines
        kept.append(len(list((out / "parts").glob("[0-9]*.npz"))))
    assert 0 < kept[5] < CHUNKS and ended < 6, f"not where it should have been killed: {kept}, {ended} at the end"
    unbroken = tmp_path / "unbroken"
    for child in (children[KILLS], Child(unbroken, tmp_path / "cache")):
        child.go()
        child.wait_for(sys.maxsize)
        child.kill()
    result, whole = jv.load_result(out), jv.load_result(unbroken)
    for name in ("images", "scores", "history"):
        np.testing.assert_array_equal(getattr(result, name), getattr(whole, name))
    assert result.labels == whole.labels and result.settings == whole.settings
    names = {path.name for path in unbroken.iterdir()}
    assert {path.name for path in out.iterdir()} == names and len(names) == 2 * CHUNKS + 5
    for name in names - {"result.npz"}:  # a zip has the time in it
        assert (out / name).read_bytes() == (unbroken / name).read_bytes(), name
