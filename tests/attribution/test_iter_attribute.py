"""Many photos, one after the other: what `attribute` gives, kept in a folder, continued, refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxviz as jv
from jaxviz.attribution import Attribution, iter_attribute
from tests.killed import copy_at
from tests.tiny import random_images, tiny_model

METHODS: dict[str, Mapping[str, Any]] = {"saliency": {}, "layer_cam": {"layer": "relu_1"}, "occlusion": {"window": 8}}
OPTIONS: dict[str, Any] = {"size": 16, "mesh": jv.make_mesh(1)}


def photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i:02d}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths, first):
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(path)
    return paths


def assert_same(actual: Attribution, expected: Attribution) -> None:
    for name in ("maps", "scores", "targets", "classes", "delta", "diagnosis"):
        a, b = getattr(actual, name), getattr(expected, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype.kind == b.dtype.kind, name
            np.testing.assert_array_equal(a, b, err_msg=name)
    assert actual.extra.keys() == expected.extra.keys()
    for name, array in actual.extra.items():
        np.testing.assert_array_equal(array, expected.extra[name])
    assert (actual.method, actual.layer, actual.spatial) == (expected.method, expected.layer, expected.spatial)
    assert actual.settings == json.loads(json.dumps(dict(expected.settings)))


@pytest.mark.parametrize("target", [None, "church", [["church", 1]]])
def test_it_gives_what_attribute_gives_and_what_is_on_disk_is_the_same(tmp_path: Path, target: Any) -> None:
    paths = photos(tmp_path / "in", 5)
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    images = np.stack([jv.image.load(path, 16) for path in paths])
    run = iter_attribute(tiny_model(), tmp_path / "in", METHODS, target, batch=2, out=tmp_path / "out", **OPTIONS)
    new = list(run)
    assert [image.path for image in new] == paths and all(image.is_new for image in new)
    assert (run.kept, run.finished, len(run.files)) == (0, 5, 6) and run.skipped[0].path.name == "notes.txt"
    for name, options in METHODS.items():
        whole = jv.attribute(tiny_model(), images, name, target, mesh=OPTIONS["mesh"], **options)
        np.testing.assert_allclose([image.attributions[name].maps[0] for image in new], whole.maps, atol=1e-6)
    again = iter_attribute(tiny_model(), tmp_path / "in", METHODS, target, out=tmp_path / "out", **OPTIONS)
    for old, image in zip(list(again), new, strict=True):
        assert not old.is_new and old.path == image.path and list(old.attributions) == list(METHODS)
        for name in METHODS:
            assert_same(old.attributions[name], image.attributions[name])
    alone = list(iter_attribute(tiny_model(), paths, METHODS, target, batch=2, **OPTIONS))
    assert_same(alone[3].attributions["saliency"], new[3].attributions["saliency"])


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_a_run_that_was_killed_continues(tmp_path: Path, moment: int) -> None:
    paths, out, killed = photos(tmp_path / "in", 10), tmp_path / "out", tmp_path / "killed"
    call = (tiny_model(), tmp_path / "in", "saliency")
    whole = list(iter_attribute(*call, batch=2, out=out, progress=copy_at(moment, out, killed), **OPTIONS))
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("images/*/maps.npz")}
    assert len(kept) == 2 * (moment - 1) and not (killed / "index.json").exists()
    (killed / "images" / "half").mkdir(parents=True)
    (killed / "images" / "half" / "photo.png").write_bytes(b"")
    (killed / "images" / "half" / ".maps.npz.abcd1234").write_bytes(b"what a killed write leaves")
    if damaged := next(iter(kept), None):
        damaged.write_bytes(damaged.read_bytes()[:100])
    with iter_attribute(*call, batch=2, out=killed, **OPTIONS) as run:
        assert run.kept == max(0, len(kept) - 1)
        again = list(run)
    assert [image.path for image in again] == paths and sum(not image.is_new for image in again) == run.kept
    for image, expected in zip(again, whole, strict=True):
        assert_same(image.attributions["saliency"], expected.attributions["saliency"])
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path != damaged)
    left = {path.relative_to(killed).as_posix() for path in killed.rglob("*")}
    assert left == {path.relative_to(out).as_posix() for path in out.rglob("*")}


def test_a_run_that_was_left_continues_and_holds_its_folder_until_then(tmp_path: Path) -> None:
    photos(tmp_path / "in", 4)
    call = (tiny_model(), tmp_path / "in", "saliency")
    run = iter_attribute(*call, batch=1, out=tmp_path / "out", **OPTIONS)
    assert next(run).is_new
    with pytest.raises(jv.SaveError, match="in use by this very process"):
        iter_attribute(*call, out=tmp_path / "out", **OPTIONS)
    run.__exit__()
    rest = iter_attribute(*call, batch=1, out=tmp_path / "out", **OPTIONS)
    assert [image.is_new for image in rest] == [False, True, True, True]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    photos(tmp_path / "in", 1)
    out = tmp_path / "out"
    list(iter_attribute(tiny_model(), tmp_path / "in", "saliency", out=out, **OPTIONS))
    for options, words in (
        ({"methods": {"saliency": {"absolute": True}}}, "absolute"),
        ({"target": "church"}, "target is None there and church here"),
        ({"look": {"percentile": 90.0}}, "percentile"),
        ({"model": tiny_model(1)}, "weights"),
    ):
        call = {"model": tiny_model(), "photos": tmp_path / "in", "methods": "saliency", **options}
        with pytest.raises(jv.SaveError, match=f"other settings.*{words}"):
            iter_attribute(**call, out=out, **OPTIONS)
        assert [image.is_new for image in iter_attribute(**call, out=out, overwrite=True, **OPTIONS)] == [True]
        list(iter_attribute(tiny_model(), tmp_path / "in", "saliency", out=out, overwrite=True, **OPTIONS))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"methods": "salience"}, jv.ArgumentError, "saliency"),
        ({"methods": []}, jv.ArgumentError, "at least one method"),
        ({"methods": {"saliency": {"steps": 3}}}, jv.ArgumentError, "absolute"),
        ({"batch": 0}, jv.ArgumentError, "batch"),
        ({"photos": "nowhere/at/all"}, jv.ImageError, "None of 1 files"),
        ({"photos": []}, jv.ImageError, "no files"),
        ({"target": "churhc"}, jv.UnitError, "church"),
    ],
)
def test_wrong_use_leaves_nothing(tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str) -> None:
    photos(tmp_path / "in", 1)
    call = {"model": tiny_model(), "photos": tmp_path / "in", "methods": "saliency", "out": tmp_path / "out", **options}
    with pytest.raises(error, match=words):
        list(iter_attribute(**call, **OPTIONS))
    assert not (tmp_path / "out").exists()


def test_relative_folders_survive_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    photos(tmp_path / "in", 3)
    monkeypatch.chdir(tmp_path)
    for _ in iter_attribute(tiny_model(), "in", "saliency", batch=1, out="out", **OPTIONS):
        os.chdir(tmp_path / "else")
    assert not list((tmp_path / "else").iterdir()) and len(list((tmp_path / "out").glob("images/*/maps.npz"))) == 3


def test_a_finished_run_on_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(30, "Read-only file system")

    photos(tmp_path / "in", 2)
    call = (tiny_model(), tmp_path / "in", "saliency")
    new = list(iter_attribute(*call, out=tmp_path / "out", **OPTIONS))
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    old = list(iter_attribute(*call, out=tmp_path / "out", **OPTIONS))
    assert_same(old[1].attributions["saliency"], new[1].attributions["saliency"])
    photos(tmp_path / "in", 1, first=2)
    with pytest.raises(jv.SaveError, match="Read-only"):
        iter_attribute(*call, out=tmp_path / "out", **OPTIONS)
