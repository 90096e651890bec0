"""jaxviz bench: the numbers are what they say, on the tiny network."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

from jaxviz import cli
from jaxviz.cli._bench import bench as _bench
from jaxviz.cli._bench import speed as _speed
from jaxviz.models import untrained
from tests.tiny import tiny_model


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_bench, "untrained", lambda name: tiny_model())
    monkeypatch.setattr(_bench, "peaks", lambda device, seconds: [_speed.Peak("3 x 3 convolution, float32", 1e9)])
    return lambda *arguments: CliRunner().invoke(cli.app, ["bench", "tiny", *map(str, arguments)], prog_name="jaxviz")


@pytest.mark.full
def test_every_task_and_number_of_devices_has_a_row(run, tmp_path: Path) -> None:
    done = run("--size", 32, "--batch", "1", "--seconds", 0.01, "--devices", 4, "--json", tmp_path / "here.json")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "here.json").read_text())
    tasks = [(row["task"], row["batch"], row["devices"]) for row in found["rows"]]
    one = [(task, 1, 1) for task in ("forward", "gradient", "units of relu_1")]
    assert tasks == [*one, ("units of relu_1", 1, 2), ("units of relu_1", 1, 4)]
    for row in found["rows"]:
        low, high = row["spread"]
        assert 0 < low <= row["rate"] <= high and row["flops"] > 0 and row["memory"] > 0 and row["compiling"] >= 0
    assert found["machine"]["jax"] == jax.__version__ and found["machine"]["devices"] == 4
    assert "units of relu_1" in done.stdout and "FLOP/s on all cores" in done.stdout and "measuring" not in done.stdout
    shares = re.findall(r"│\s+(\d+) % │", done.stdout)  # of one peak: host devices share the cores
    assert shares == [f"{100 * row['flops'] / 1e9:.0f}" for row in found["rows"]]


def test_operations_are_those_of_the_network() -> None:
    """Twice the multiplications and additions of the three layers, counted by hand; the gradient is about three times that."""
    row = _speed.measure(tiny_model(), "forward", 2, 32, "relu_1", precision="highest", seconds=0.01)
    by_hand = 2 * 2 * (16 * 16 * 8 * 27 + 8 * 8 * 12 * 72 + 12 * 5)
    each = row.flops / row.rate * row.batch  # operations of a call
    assert 0.9 * by_hand < each < 1.2 * by_hand  # the edges of padded convolutions are not multiplied
    slope = _speed.measure(tiny_model(), "gradient", 2, 32, "relu_1", precision="highest", seconds=0.01)
    assert 1.8 < slope.flops / slope.rate * slope.batch / each < 3.3


def test_a_call_is_timed_until_its_result_is_there() -> None:
    naps = iter([0.05, *[0.01] * 100])
    timing = _speed.time_calls(lambda: time.sleep(next(naps)), seconds=0.05)
    assert timing.least >= 0.01 and timing.least <= timing.median <= timing.most
    assert timing.compiling == timing.first - timing.median > 0.02


def test_peaks_are_of_a_plausible_size() -> None:
    found = _speed.peaks(jax.devices()[0], 0.01)
    assert {one.name for one in found} == {"matrix product, float32", "3 x 3 convolution, float32"}
    assert all(1e8 < one.flops < 1e14 for one in found)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [(("--batch", "0"), 2, "at least 1"), (("--batch", "many"), 1, "numbers"), (("--layer", "conv9"), 1, "conv9")],
)
def test_what_does_not_fit_is_refused(run, arguments, status, says) -> None:
    done = run("--size", 32, *arguments)
    assert done.exit_code == status and says in done.stderr


def test_untrained_networks() -> None:
    model = untrained("resnet18", num_classes=7, seed=1)
    images = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    logits = np.asarray(model(images))
    assert logits.shape == (2, 7) and np.isfinite(logits).all() and logits.std() > 1e-3 and model.name == "resnet18"
    assert np.abs(np.asarray(untrained("resnet18", num_classes=7, seed=2)(images)) - logits).max() > 1e-3
