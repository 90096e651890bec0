"""Several processes, each its share: the same images as one, through the command line."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxviz as jv
from jaxviz.engine import share
from tests.tiny import tiny_model

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
TINY = """
import sys
import jaxviz, jaxviz.cli
from tests.tiny import tiny_model
jaxviz.load = lambda name, **options: tiny_model()
sys.argv[0] = "jaxviz"
jaxviz.cli.main()
"""
TARGETS = ("relu_1:0-6", "logit:church")


def start(out: Path, count: int, number: int, port: int, *options: object) -> subprocess.Popen[str]:
    join = ("--coordinator", f"127.0.0.1:{port}", "--processes", count, "--process-id", number)
    small = ("--out", out, "--size", 16, "--chunk", 2, "--devices", 2)
    command = [sys.executable, "-c", TINY, "visualize", "tiny", *TARGETS, *map(str, (*join, *small, *options))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.full
def test_two_processes_of_two_devices_give_the_images_of_one(tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    running = [start(out, 2, number, port, "--steps", 20) for number in range(2)]
    try:
        said = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    assert "8 images of 8 units" in said[0][0] and "units" not in said[1][0], "only process 0 speaks"
    expected = jv.visualize(tiny_model(), list(TARGETS), steps=20, size=16)
    result = jv.load_result(out)
    np.testing.assert_allclose(result.images, expected.images, atol=1e-4)
    np.testing.assert_allclose(result.scores, expected.scores, rtol=1e-4)
    assert result.labels == expected.labels and not (out / "parts").exists()
    assert len(list(out.glob("*.png"))) == 9


@pytest.mark.full
def test_one_process_continues_what_two_began(tmp_path: Path) -> None:
    out, port = tmp_path / "out", free_port()
    running = [start(out, 2, number, port, "--steps", 500) for number in range(2)]
    try:
        deadline = time.monotonic() + 240
        while len(list((out / "parts").glob("0-*.npz"))) < 2:  # a chunk of each
            assert all(process.poll() is None for process in running) and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    before = {path.name for path in (out / "parts").glob("0-*.npz")}
    assert len(before) < 8 and json.loads((out / "run.json").read_text())["identity"]["steps"] == 500
    seen: list[int] = []
    # The same program as each process ran: over 500 steps another one's rounding grows to other pictures.
    options = {"steps": 500, "size": 16, "param": jv.param.fourier, "chunk": 2, "mesh": jv.make_mesh(2)}
    result = jv.visualize(tiny_model(), list(TARGETS), out=out, progress=lambda p: seen.append(p.step), **options)
    expected = jv.visualize(tiny_model(), list(TARGETS), **options)
    np.testing.assert_allclose(result.images, expected.images, atol=1e-3)
    assert seen.count(500) < 5, "chunks that were there were computed again"


@pytest.mark.parametrize(("units", "processes"), [(7, 2), (1, 3), (0, 2), (12, 5)])
def test_shares_cover_all_units_once(units: int, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: processes)
    for number in range(3):
        found: list[int] = []
        for index in range(processes):
            monkeypatch.setattr("jax.process_index", lambda index=index: index)
            found += share(number, units)
        assert sorted(found) == list(range(units))


def test_a_process_that_stopped_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.sync_global_devices", lambda name: None)

    def stop_the_other(progress: jv.Progress) -> None:
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / "failed-1").write_text("")

    with pytest.raises(jv.SaveError, match="Process 1 stopped"):
        jv.visualize(tiny_model(), TARGETS, steps=8, size=16, chunk=2, out=tmp_path, progress=stop_the_other)
    monkeypatch.undo()
    assert len(jv.visualize(tiny_model(), TARGETS, steps=8, size=16, chunk=2, out=tmp_path)) == 8


def test_a_mesh_is_cut_to_the_devices_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with pytest.raises(jv.ArgumentError, match="device of process 1"):
        jv.visualize(tiny_model(), "relu_1:0", steps=1, size=16, mesh=jv.make_mesh(1))


def test_several_processes_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(jv.ArgumentError, match="out="):
        jv.visualize(tiny_model(), "relu_1:0", steps=1, size=16)
