"""A hundred calls in one process: nothing is compiled again and the memory stays flat."""

from __future__ import annotations

import ctypes
import gc
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jaxviz as jv
from tests.compilations import Compilations, compilations
from tests.tiny import tiny_model

ROOT = Path(__file__).parents[2]
ONE_RESULT = 8 * 64 * 64 * 3 * 4  # bytes of the images of a call


def state(compiled: Compilations) -> dict[str, Any]:
    """Return how many programs were compiled, how many bytes live on the device, and how many this process has."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back: only what is held is counted
    except (OSError, AttributeError):
        pass
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    arrays = sum(array.nbytes for array in jax.live_arrays())
    return {"programs": compiled.programs, "arrays": arrays, "resident": resident}


def main() -> None:
    """Print the state after 20 calls, after 100 more, and after 40 whose results are held: a leak, to be seen as one."""
    mesh = jv.make_mesh(1)

    def call(i: int) -> jv.Result:
        objective = jv.channel("relu_1", [i % 12, (i + 5) % 12]) - 0.1 * i * jv.layer("relu", "square")
        options = {"steps": 1 + i % 3, "size": 64, "samples": 4, "seed": i, "learning_rate": 0.01 + 0.001 * i, "mesh": mesh}
        result = jv.visualize(tiny_model(i % 2), objective, **options)
        assert np.isfinite(result.images).all()
        return result

    with compilations() as compiled:
        for i in range(20):
            call(i)
        states = [state(compiled)]
        for i in range(20, 120):
            call(i)
        states.append(state(compiled))
        held = [call(i) for i in range(120, 160)]
        states.append(state(compiled))
    assert len(held) == 40
    print(json.dumps(states))


@pytest.mark.full
@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux's /proc")
def test_a_hundred_calls() -> None:
    """In a process of its own, so that nothing that ran before can be taken for a leak or hide one."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.test_hundred_calls"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    early, late, leaking = json.loads(done.stdout.splitlines()[-1])
    assert late["programs"] == early["programs"] > 0
    assert late["arrays"] <= early["arrays"] + ONE_RESULT
    assert late["resident"] - early["resident"] < 20 * ONE_RESULT  # of a hundred calls
    assert leaking["resident"] - late["resident"] > 20 * ONE_RESULT  # and of forty that are held


if __name__ == "__main__":
    main()
