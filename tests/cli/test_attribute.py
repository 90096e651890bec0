"""jaxviz attribute on the tiny network: what it writes, reads, skips, refuses, and that it continues."""

from __future__ import annotations

import functools
import inspect
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli
from jaxviz.attribution import METHODS
from tests.tiny import random_images, tiny_model

QUICK = ("--size", "16", "--devices", "1")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())

    def run(*arguments: object) -> Result:
        call = ["attribute", "tiny", *map(str, arguments), *QUICK]
        return CliRunner().invoke(cli.app, call, prog_name="jaxviz")

    return run


def photos(folder: Path, count: int = 3, suffix: str = "png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(folder / f"p{i}.{suffix}")
    return [folder / f"p{i}.{suffix}" for i in range(count)]


def index(out: Path) -> dict:
    return json.loads((out / "index.json").read_text())


def maps(out: Path, name: str, method: str) -> np.ndarray:
    with np.load(out / "images" / name / "maps.npz", allow_pickle=False) as arrays:
        return arrays[method]


def test_it_writes_what_the_library_computes(run, tmp_path: Path) -> None:
    given, out = photos(tmp_path / "in", 5), tmp_path / "out"
    done = run(tmp_path / "in", "--method", "saliency, input_x_gradient", "--batch", 2, "--out", out)
    assert done.exit_code == 0, done.output
    assert "5 images in" in done.stdout and str(out / "contact_sheet.png") in done.stdout and "skipped" not in done.stdout
    images = np.stack([jaxviz.image.load(path, 16) for path in given])
    for method in ("saliency", "input_x_gradient"):
        expected = jaxviz.attribute(tiny_model(), images, method)
        for i, path in enumerate(given):
            np.testing.assert_allclose(maps(out, path.stem, method), expected.maps[i], atol=1e-6)
        listed = index(out)["images"]
        assert [entry["path"] for entry in listed] == [str(path) for path in given]
        assert [entry["methods"][method]["targets"] for entry in listed] == expected.targets.tolist()
        np.testing.assert_allclose([entry["methods"][method]["scores"] for entry in listed], expected.scores, rtol=1e-5)
        assert listed[0]["methods"][method]["diagnosis"] == "ok"
    shown = jaxviz.attribution._pictures.draw(jaxviz.attribute(tiny_model(), images, "saliency"), images)
    picture = np.asarray(Image.open(out / "images" / "p3" / "saliency.png")).astype(int)
    assert np.abs(picture - shown[3]).max() <= 1
    assert np.asarray(Image.open(out / "images" / "p3" / "photo.png")).shape == (16, 16, 3)
    wide, high = Image.open(out / "contact_sheet.png").size
    assert wide > 2 * high, "two rows of three images, each of three pictures"
    assert all((out / file).is_file() for entry in index(out)["images"] for file in entry["files"])
    assert {p.name for p in out.iterdir()} == {"run.json", "images", "index.json", "contact_sheet.png"}


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS)
def test_every_method(run, tmp_path: Path, method: str) -> None:
    np.save(tmp_path / "mask.npy", np.arange(256).reshape(16, 16) // 64)
    options = {"samples": "2", "steps": "2", "mask": f'load("{tmp_path / "mask.npy"}")', "layer": "relu_1"}
    known = inspect.signature(METHODS[method]).parameters
    given = [word for name, value in options.items() if name in known for word in ("--option", f"{name}={value}")]
    done = run(*photos(tmp_path, 2), "--method", method, "--target", "church,1", *given, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert len(maps(tmp_path / "out", "p1", method)) == 2
    assert {f"{method}-church.png", f"{method}-golf-ball.png"} < {p.name for p in (tmp_path / "out/images/p0").iterdir()}


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("church", "church"),
        ("2", 2),
        ("church, golf ball,4", [["church", "golf ball", "chain saw"]]),
        ("conv2:7", jaxviz.channel("conv2", [7])),
        ("conv2:7,9", jaxviz.channel("conv2", [7, 9])),
        ('channel("conv2", 7) - 0.5 * channel("conv2", 1)', jaxviz.channel("conv2", 7) - 0.5 * jaxviz.channel("conv2", 1)),
        ('margin("church")', jaxviz.attribution.margin("church")),
        ("probability([[1, 2]])", jaxviz.attribution.probability([[1, 2]])),
    ],
)
def test_targets(run, tmp_path: Path, text: str, target) -> None:
    (path,) = photos(tmp_path, 1)
    done = run(path, "--method", "saliency", "--target", text, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    expected = jaxviz.attribute(tiny_model(), jaxviz.image.load(path, 16)[None], "saliency", target)
    np.testing.assert_allclose(maps(tmp_path / "out", "p0", "saliency"), expected.maps[0], atol=1e-6)
    assert index(tmp_path / "out")["images"][0]["methods"]["saliency"]["targets"] == expected.targets[0].tolist()


def damaged_folder(folder: Path) -> dict[str, bool]:
    """Make files of all kinds; return which of them are images that can be read."""
    photo = Image.fromarray((random_images(20, 24, 3) * 255).astype(np.uint8))
    (folder / "sub" / "deep").mkdir(parents=True)
    photo.save(folder / "plain.jpg")
    photo.convert("CMYK").save(folder / "sub" / "cmyk.jpg")
    photo.quantize(16).save(folder / "palette.gif")
    photo.convert("L").save(folder / "sub" / "deep" / "grey.png")
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).save(folder / "16bit.png")
    exif = Image.Exif()
    exif[0x112] = 6  # rotated by the camera
    photo.save(folder / "rotated.jpg", exif=exif)
    photo.resize((1, 1)).save(folder / "pixel.png")
    photo.convert("RGBA").save(folder / "no_suffix", format="PNG")
    whole = (folder / "plain.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "sub" / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    (folder / "arrays.npz").write_bytes(b"PK\x03\x04rest")
    (folder / ".hidden.jpg").write_bytes(whole)
    (folder / "sub" / "broken_link.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe.png")
    good = ["plain.jpg", "cmyk.jpg", "palette.gif", "grey.png", "16bit.png", "rotated.jpg", "pixel.png", "no_suffix"]
    bad = ["cut.jpg", "empty.png", "text.png", "notes.txt", "arrays.npz", "broken_link.png", "pipe.png"]
    return dict.fromkeys(good, True) | dict.fromkeys(bad, False)


def test_a_folder_with_all_kinds_of_files(run, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "in" / "out"  # the results are within the folder, and no photos of it
    expected = damaged_folder(folder)
    done = run(folder, folder / "plain.jpg", folder / "missing.jpg", "--method", "saliency", "--batch", 3, "--out", out)
    assert done.exit_code == 0, done.output
    assert sorted(Path(entry["path"]).name for entry in index(out)["images"]) == sorted(n for n, ok in expected.items() if ok)
    reasons = {Path(one["path"]).name: one["reason"] for one in index(out)["skipped"]}
    assert reasons.keys() == {name for name, ok in expected.items() if not ok} | {"missing.jpg"}
    assert "truncated" in reasons["cut.jpg"].lower() and "no such file" in reasons["missing.jpg"]
    assert "cannot identify" in reasons["notes.txt"] and "not a regular file" in reasons["pipe.png"]
    for name in reasons:
        assert f"{name}': {reasons[name]}" in done.stderr
    assert "8 images in" in done.stdout and "8 files skipped" in done.stdout
    rotated = jaxviz.image.load(folder / "rotated.jpg", 16)
    assert np.abs(np.asarray(Image.open(out / "images/rotated/photo.png")) / 255 - rotated).max() < 0.003
    again = run(folder, "--method", "saliency", "--batch", 3, "--out", out, "--quiet")
    assert again.exit_code == 0 and again.stdout == "" and len(index(out)["images"]) == 8, "nothing of its own was taken"


def test_nothing_but_rubbish_is_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    empty = run(tmp_path / "in", "--out", tmp_path / "out")
    assert empty.exit_code == 1 and empty.stderr.splitlines()[-1].startswith("jaxviz: There are no files")
    for i in range(2):
        (tmp_path / "in" / f"{i}.jpg").write_text("no image")
    done = run(tmp_path / "in", "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 1 and len(done.stderr.splitlines()) == 1 and done.stdout == ""
    assert "None of 2 files" in done.stderr and "0.jpg" in done.stderr
    missing = run(tmp_path / "nowhere.jpg", "--out", tmp_path / "out", "--quiet")
    assert missing.exit_code == 1 and "no such file" in missing.stderr and not (tmp_path / "out").exists()


def test_more_and_changed_photos_are_added_and_the_others_kept(run, tmp_path: Path) -> None:
    given, out = photos(tmp_path / "in", 3), tmp_path / "out"
    call = (tmp_path / "in", "--method", "saliency", "--out", out)
    assert run(*call).exit_code == 0
    made = {name: (out / "images" / name / "maps.npz").stat().st_mtime_ns for name in ("p0", "p1", "p2")}
    photos(tmp_path / "in" / "other", 1)  # of the same name as one that is there
    Image.fromarray((random_images(20, 24, 3, seed=9) * 255).astype(np.uint8)).save(given[1])
    (out / "images" / "p2" / "saliency.png").unlink()
    done = run(*call)
    assert done.exit_code == 0 and "4 images in" in done.stdout and "1 of them done before" in done.stdout
    assert (out / "images" / "p0" / "maps.npz").stat().st_mtime_ns == made["p0"]
    assert (out / "images" / "p1" / "maps.npz").stat().st_mtime_ns != made["p1"]
    assert (out / "images" / "p2" / "saliency.png").is_file() and len(index(out)["images"]) == 4
    names = {Path(entry["files"][0]).parent.name for entry in index(out)["images"]}
    assert {"p0", "p1", "p2"} < names and len(names) == 4
    fresh = jaxviz.attribute(tiny_model(), jaxviz.image.load(given[1], 16)[None], "saliency")
    np.testing.assert_allclose(maps(out, "p1", "saliency"), fresh.maps[0], atol=1e-6)


def test_other_settings_are_refused_and_replaced_only_when_asked(run, tmp_path: Path) -> None:
    given, out = photos(tmp_path / "in", 2), tmp_path / "out"
    call = (tmp_path / "in", "--method", "input_x_gradient", "--out", out)
    assert run(*call).exit_code == 0
    same = run(*call, "--option", "baseline=mean", "--batch", 1, "--chunk", 1)
    assert same.exit_code == 0 and "2 of them done before" in same.stdout, "defaults that are spelled out, other batches"
    other = run(*call, "--option", "baseline=black")
    assert other.exit_code == 1 and "baseline is mean there and black here" in other.stderr and "--overwrite" in other.stderr
    assert run(*call, "--target", "church").exit_code == 1 and run(*call, "--percentile", "90").exit_code == 1
    before = maps(out, "p0", "input_x_gradient")
    (out / "images" / "p0" / "mine.txt").write_text("")
    changed = run(given[0], "--method", "input_x_gradient", "--option", "baseline=black", "--overwrite", "--out", out)
    assert changed.exit_code == 0 and not np.allclose(maps(out, "p0", "input_x_gradient"), before)
    assert not (out / "images" / "p1").exists() and (out / "images" / "p0" / "mine.txt").exists()
    (tmp_path / "taken" / "images").mkdir(parents=True)
    assert run(*call[:-1], tmp_path / "taken").exit_code == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"identity": {"steps": 3}}')
    another = run(*call[:-1], tmp_path / "other", "--overwrite")
    assert another.exit_code == 1 and "another command" in another.stderr
    (tmp_path / "file").write_text("")
    unwritable = run(*call[:-1], tmp_path / "file")
    assert unwritable.exit_code == 1 and "Cannot save" in unwritable.stderr and "Traceback" not in unwritable.output


def test_options_reach_the_methods_that_take_them(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, dict] = {}

    def one(model, images, target=None, *, layer=None, samples=5, inner_options=None, **options):
        seen["one"] = {"layer": layer, "samples": samples, "inner_options": inner_options, **options}
        return jaxviz.attribution.saliency(model, images, target)

    def two(model, images, target=None, *, samples=5, baseline="mean", **options):
        seen["two"] = {"samples": samples, "baseline": baseline, "shape": images.shape, **options}
        return jaxviz.attribution.saliency(model, images, target)

    monkeypatch.setitem(METHODS, "one", one)
    monkeypatch.setitem(METHODS, "two", two)
    options = ["samples=3", "two.samples=4", "baseline=[0.1, 0.2, 0.3]", "inner_options={'rule': 'trapezoid'}"]
    given = [word for option in options for word in ("--option", option)]
    layers = ("--layer", "conv1,relu", "--precision", "high", "--chunk", "7")
    paths = photos(tmp_path, 5)
    done = run(*paths, "--method", "one,two", *given, *layers, "--batch", 4, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    about = seen["one"]
    assert about["samples"] == 3 and about["layer"] == ["conv1", "relu"] and about["inner_options"] == {"rule": "trapezoid"}
    assert about["precision"] == "high" and about["chunk"] == 7 and callable(about["progress"])
    assert seen["two"]["samples"] == 4 and seen["two"]["baseline"] == [0.1, 0.2, 0.3]
    assert seen["two"]["shape"] == (4, 16, 16, 3), "the last batch is filled up, so that nothing is compiled again"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--method", "salience"), 2, "saliency"),
        (("--method", "saliency", "--option", "steps=3"), 2, "absolute"),
        (("--method", "saliency", "--option", "absolute"), 2, "NAME=VALUE"),
        (("--method", "saliency", "--option", "absolute=f(3"), 2, "f(3"),
        (("--method", "saliency", "--layer", "conv2"), 2, "layer"),
        (("--method", "saliency", "--percentile", "0"), 2, "percentile"),
        (("--method", "saliency", "--batch", "0"), 2, "batch"),
        (("--method", "saliency", "--target", "churhc"), 1, "church"),
        (("--method", "saliency", "--target", "9"), 1, "9"),
        (("--method", "saliency", "--target", "conv9:1"), 1, "conv1"),
        (("--method", "saliency", "--view", "overlay", "--share", "row"), 2, "share"),
        (("--method", "saliency", "--devices", "99"), 1, "99"),
    ],
)
def test_wrong_use(run, tmp_path: Path, arguments, status: int, message: str) -> None:
    (path,) = photos(tmp_path / "in", 1)
    call = ["attribute", "tiny", str(path), "--out", str(tmp_path / "out"), "--size", "16", *arguments]
    done = CliRunner().invoke(cli.app, call, prog_name="jaxviz")
    assert done.exit_code == status and message in done.stderr and "Traceback" not in done.output
    assert not list((tmp_path / "out").glob("**/*.npz"))


def test_interrupted_it_says_how_far_it_came_and_continues(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as an exception; `tests/cli/test_cli.py` sends the signal."""
    photos(tmp_path / "in", 6)
    out, calls = tmp_path / "out", []

    def saliency(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return jaxviz.attribution.saliency(*arguments, **options)

    call = (tmp_path / "in", "--method", "saliency", "--batch", 2, "--out", out)
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "saliency", functools.wraps(jaxviz.attribution.saliency)(saliency))
        done = run(*call)
    assert done.exit_code == 130 and f"4 of 6 images were finished and are in {out}" in done.stderr
    assert "the same command again continues" in done.stderr and not (out / "index.json").exists()
    done = run(*call)
    assert done.exit_code == 0 and "6 images in" in done.stdout and "4 of them done before" in done.stdout
    assert len(index(out)["images"]) == 6
