"""A hundred calls in one process: nothing is compiled again and the memory stays flat."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

import jaxviz as jv
from jaxviz.engine import _execute
from tests.tiny import tiny_model

PROGRAMS = (_execute._start, _execute._step, _execute._finish)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux's /proc")
def test_a_hundred_calls():
    def call(i: int) -> None:
        objective = jv.channel("relu_1", [i % 12, (i + 5) % 12]) - 0.1 * i * jv.layer("relu", "square")
        options = {"steps": 1 + i % 3, "size": 64, "samples": 4, "seed": i, "learning_rate": 0.01 + 0.001 * i, "mesh": mesh}
        result = jv.visualize(tiny_model(i % 2), objective, **options)
        assert np.isfinite(result.images).all()

    mesh = jv.make_mesh(1)
    for i in range(20):
        call(i)
    gc.collect()
    programs, before = [program._cache_size() for program in PROGRAMS], resident()
    for i in range(20, 120):
        call(i)
    gc.collect()
    assert [program._cache_size() for program in PROGRAMS] == programs
    one_result = 8 * 64 * 64 * 3 * 4
    assert resident() - before < 30 * one_result  # a leak of the images alone would be a hundred of them
