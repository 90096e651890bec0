"""jaxviz gallery on the tiny network: the site that the library writes, its command on it, errors in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli
from jaxviz.cli._gallery import read_names
from tests.tiny import random_images, tiny_model

pytestmark = pytest.mark.once

QUICK = ("--size", "16", "--steps", "2", "--transforms", "none", "--devices", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())

    def run(*arguments: object) -> Result:
        call = ["gallery", "tiny", *map(str, arguments), *QUICK]
        monkeypatch.setattr(sys, "argv", ["jaxviz", *call])
        return CliRunner().invoke(cli.app, call, prog_name="jaxviz")

    return run


def test_it_writes_the_site_of_the_library(run, tmp_path: Path) -> None:
    photos, out, names = tmp_path / "my photos", tmp_path / "site", tmp_path / "names"
    for i, kind in enumerate(("a", "b", "a")):
        (photos / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(photos / kind / f"{i}.png")
    names.write_text("a fine day\nb night\n")
    given = ("--layers", "conv1:0-1,3", "--examples", photos, "-k", 2, "--folder-names", names, "--out", out)
    done = run(*given)
    assert done.exit_code == 0, done.output
    assert str(out / "index.html") in done.stdout
    page = (out / "index.html").read_text()
    assert f"jaxviz gallery tiny --layers conv1:0-1,3 --examples &#39;{photos}&#39; -k 2" in page
    assert "fine day" in (out / "layers" / "conv1" / "0003.html").read_text()
    assert not (out / "layers" / "conv1" / "0002.html").exists()
    same = jaxviz.visualize(tiny_model(), "conv1:0-1,3", steps=2, size=16, transforms=())
    np.testing.assert_allclose(jaxviz.load_result(out / "work" / "conv1").images, same.images, atol=1e-4)
    other = run(*given, "--seed", 5)
    assert other.exit_code == 1 and "seed is 0 there and 5 here" in other.stderr and "Traceback" not in other.output


def test_wrong_use_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (("--layers", "convx"), "convx"),
        (("--layers", "conv1:0", "--examples", tmp_path / "empty"), "no files"),
        (("--layers", "conv1:0", "--examples", tmp_path / "absent"), "absent"),
    ):
        done = run(*arguments, "--out", tmp_path / "site")
        assert done.exit_code == 1 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.output


def test_names_of_folders(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("n01 tench\nn02\tgolf ball\nn03\n\n")
    assert read_names(tmp_path / "names") == {"n01": "tench", "n02": "golf ball", "n03": "n03"}
    assert read_names(None) is None
