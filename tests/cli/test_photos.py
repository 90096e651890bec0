"""The commands that take photos, on the tiny network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import jaxviz
from jaxviz import cli
from jaxviz.result import load_result
from tests.tiny import random_images, tiny_model

QUICK = ("--steps", "3", "--size", "16", "--devices", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())
    for i, name in enumerate(("one.png", "two.png")):
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(tmp_path / name)
    photos = [str(tmp_path / "one.png"), str(tmp_path / "two.png")]

    def run(command: str, *arguments: str):
        call = [command, "tiny", *photos, "--out", str(tmp_path / "out"), *QUICK, *arguments]
        return CliRunner().invoke(cli.app, call, prog_name="jaxviz"), tmp_path / "out"

    return run


def test_invert(run):
    done, out = run("invert", "--layers", "conv1,relu_1", "--regularizer", "total_variation=0.0001")
    assert done.exit_code == 0, done.output
    assert "conv1" in done.stdout and "dB" in done.stdout
    saved = load_result(out)
    assert saved.labels == ("conv1:one", "conv1:two", "relu_1:one", "relu_1:two") and saved.images.shape == (4, 1, 16, 16, 3)
    assert np.shape(json.loads((out / "result.json").read_text())["settings"]["psnr"]) == (2, 2)
    photos = np.stack([jaxviz.image.load(out.parent / name, 16) for name in ("one.png", "two.png")])
    tv = jaxviz.regularizers.total_variation(0.0001)
    same = jaxviz.invert(tiny_model(), photos, ["conv1", "relu_1"], steps=3, regularizers=[tv])
    np.testing.assert_allclose(saved.images, same.result.images, atol=1e-4)
    again, _ = run("invert", "--layers", "conv1,relu_1")
    assert again.exit_code == 1 and "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "labels"),
    [
        (("caricature", "--layers", "relu"), ("relu:one", "relu:two")),
        (("accentuate", "--target", "relu_1:3"), ("relu_1:3, one", "relu_1:3, two")),
        (("dream", "--target", "relu,relu_1"), None),
    ],
)
def test_the_others(run, arguments, labels):
    done, out = run(*arguments)
    assert done.exit_code == 0, done.output
    saved = load_result(out)
    assert len(saved) == 2 and saved.images.shape[2:] == (16, 16, 3) and (out / "contact_sheet.png").is_file()
    assert labels is None or saved.labels == labels


def test_a_photo_that_is_none_is_one_line_before_any_work(run, tmp_path):
    (tmp_path / "two.png").write_text("no picture")
    done, out = run("invert", "--layers", "conv1")
    assert done.exit_code == 1 and "two.png" in done.stderr and "Traceback" not in done.output and not out.exists()
