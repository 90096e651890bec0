"""jaxviz inspect examples on the tiny network: what it writes, skips, refuses, and that it continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli, engine
from jaxviz.inspection import load_examples, top_examples
from tests.tiny import random_images, tiny_model

QUICK = ("--layers", "conv2, fc", "--k", "3", "--size", "16", "--devices", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())

    def run(*arguments: object) -> Result:
        call = ["inspect", "examples", "tiny", *map(str, arguments)]
        return CliRunner().invoke(cli.app, call, prog_name="jaxviz")

    return run


def photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(folder / f"p{i:03}.png")
    return folder


def test_it_writes_what_the_library_finds(run, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "in", 7), tmp_path / "in" / "out"  # within the folder, and no photos of it
    (folder / "bad\x1b[31m.jpg").write_text("no image")
    done = run(folder, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output
    assert "17 units, 7 images in" in done.stdout and "1 files skipped" in done.stdout and str(out / "conv2.jpg") in done.stdout
    assert "skipped" in done.stderr and "\\x1b[31m.jpg': cannot identify" in done.stderr
    expected = top_examples(tiny_model(), sorted(folder.glob("p*.png")), ["conv2", "fc"], k=3, size=16)
    for layer, found in load_examples(out).items():
        np.testing.assert_array_equal(found.indices, expected[layer].indices)
        np.testing.assert_allclose(found.scores, expected[layer].scores, atol=1e-6)
        assert np.asarray(Image.open(out / f"{layer}.jpg")).std() > 5
    record = json.loads((out / "examples.json").read_text())
    best = record["layers"]["fc"][4][0]
    assert best["image"] == expected["fc"].files[expected["fc"].indices[4, 0]] and best["position"] == [0, 0]
    assert [one["path"].endswith("31m.jpg") for one in record["skipped"]] == [True] and record["settings"]["k"] == 3
    assert {path.name for path in out.iterdir()} == {"run.json", "examples.npz", "examples.json", "conv2.jpg", "fc.jpg"}
    again = run(folder, "--out", out, "--quiet", *QUICK)
    assert again.exit_code == 0 and again.stdout == "" and len(load_examples(out)["fc"].files) == 7


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--layers", "conv9"), 1, "conv1"),
        (("--layers", "fc", "--k", "0"), 2, "--k"),
        (("--layers", "fc", "--score", "sum"), 2, "'max', 'mean'"),
        (("--layers", "fc", "--size", "1x2x3"), 2, "--size"),
        ((), 2, "--layers"),
    ],
)
def test_wrong_use(run, tmp_path: Path, arguments, status: int, message: str) -> None:
    done = run(photos(tmp_path / "in", 1), "--out", tmp_path / "out", *arguments)
    assert done.exit_code == status and message in done.stderr and "Traceback" not in done.output


def test_rubbish_and_other_runs_are_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for words in ("There are no files", "None of 1 files"):
        done = run(tmp_path / "in", "--out", tmp_path / "out", "--quiet", *QUICK)
        assert done.exit_code == 1 and words in done.stderr and len(done.stderr.splitlines()) == 1
        (tmp_path / "in" / "a.txt").write_text("")
    photos(tmp_path / "in", 2)
    assert run(tmp_path / "in", "--out", tmp_path / "out", *QUICK).exit_code == 0
    other = run(tmp_path / "in", "--out", tmp_path / "out", *QUICK, "--k", "2")
    assert other.exit_code == 1 and "k is 3 there and 2 here" in other.stderr and "--overwrite" in other.stderr
    assert run(tmp_path / "in", "--out", tmp_path / "out", *QUICK, "--k", "2", "--overwrite").exit_code == 0


def test_interrupted_it_says_how_far_it_came_and_continues(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as an exception; `tests/cli/test_cli.py` sends the signal."""
    folder, out = photos(tmp_path / "in", 12), tmp_path / "out"
    call = [str(folder), "--chunk", "2", "--out", str(out), *QUICK]
    add, calls = engine.Fold.add, []

    def interrupt(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        add(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Fold, "add", interrupt)
        done = run(*call)
    assert done.exit_code == 130 and "of 12 files were read" in done.stderr
    assert "the same command continues" in done.stderr
    with pytest.raises(jaxviz.SaveError, match="not finished"):
        load_examples(out)
    done = run(*call)
    assert done.exit_code == 0, done.output
    expected = top_examples(tiny_model(), folder, ["conv2", "fc"], k=3, size=16, chunk=2, mesh=jaxviz.make_mesh(1))
    for layer, found in load_examples(out).items():
        for name in ("scores", "indices", "positions", "counts", "low", "high"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected[layer], name))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
