"""Top examples against NumPy over all images at once; files, crops, pictures, runs that go on."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import jaxviz
from jaxviz import ArgumentError, ImageError, LayerError, SaveError, UnitError, make_mesh
from jaxviz.inspection import TopExamples, load_examples, save_examples, top_examples
from jaxviz.inspection._examples import top_examples as _examples
from jaxviz.models import from_module, no_tap
from jaxviz.ops import EXACT
from tests.compilations import compilations
from tests.killed import copy_at
from tests.tiny import random_images, tiny_model

LAYERS = ("conv1", "relu_1", "avgpool", "fc")
FIELDS = ("scores", "indices", "positions", "counts", "low", "high")


def photos(folder: Path, count: int, first: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i:03}.png" for i in range(first, first + count)]
    for i, path in enumerate(paths, first):
        Image.fromarray((random_images(20, 24, 3, seed=i) * 255).astype(np.uint8)).save(path)
    return paths


def brute_force(model, images: np.ndarray, layer: str, k: int, mean: bool = False):
    """Sort all images of each unit in NumPy; of equal scores the earlier first."""
    maps = np.asarray(model.activations(images, [layer])[layer])
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    scores = flat.mean(1) if mean else flat.max(1)
    order = np.argsort(-scores, axis=0, kind="stable")[:k].T  # (U, k)
    units = np.arange(len(order))[:, None]
    places = flat.argmax(1)[order, units]
    positions = np.stack(np.divmod(places, maps.shape[2] if maps.ndim == 4 else 1), -1)
    return scores, scores[order, units], order, positions


def assert_same(a: TopExamples, b: TopExamples) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


@pytest.mark.parametrize(
    ("score", "k", "devices", "chunk"),
    [("max", 4, 1, 3), ("max", 4, 1, 37), ("mean", 4, 4, 8), ("max", 50, 4, 4), ("mean", 9, 2, None)],
)
def test_it_is_what_numpy_finds(score, k: int, devices: int, chunk) -> None:
    model, images = tiny_model(), random_images(37, 16, 16, 3)
    found = top_examples(model, images, LAYERS, k=k, score=score, chunk=chunk, mesh=make_mesh(devices))
    assert tuple(found) == LAYERS
    for layer, top in found.items():
        every, scores, indices, positions = brute_force(model, images, layer, k, score == "mean")
        np.testing.assert_allclose(top.scores, scores, atol=1e-5)
        np.testing.assert_array_equal(top.indices, indices)
        np.testing.assert_array_equal(top.positions, positions)
        assert top.scores.shape == (every.shape[1], min(k, 37)) and top.scores.dtype == np.float32
        np.testing.assert_allclose(top.low, every.min(0), atol=1e-5)
        np.testing.assert_allclose(top.high, every.max(0), atol=1e-5)
        assert top.counts.sum(1).tolist() == [37] * len(top) and top.edges.shape == (len(top), top.counts.shape[1] + 1)
        for unit in range(len(top)):
            near = np.abs(every[:, unit, None] - top.edges[unit]).min() < 1e-5  # rounding may move it over an edge
            assert near or (np.histogram(every[:, unit], top.edges[unit])[0] == top.counts[unit]).all()


class Signs(nnx.Module):
    """Passes pixels on, negated, and times 0: exactly, so that equal pictures score the same anywhere in a batch."""

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        return tap("signs", x * np.array([1, -1, 0], np.float32))


@pytest.mark.parametrize(("devices", "chunk"), [(1, 4), (2, 6), (4, 8)])
def test_of_equal_scores_the_earlier_image_wins(devices: int, chunk: int) -> None:
    images = np.zeros((30, 4, 4, 3), np.float32)
    white, black = [5, 9, 14, 21, 29], [i for i in range(30) if i not in (5, 9, 14, 21, 29)]
    images[white] = 1.0
    model = from_module(Signs(), input_size=(4, 4))
    top = top_examples(model, images, "signs", k=12, chunk=chunk, mesh=make_mesh(devices))["signs"]
    for unit, order in enumerate((white + black, black + white, list(range(30)))):
        assert top.indices[unit].tolist() == order[:12]


class Broken(nnx.Module):
    """Passes pixels on, with what is no number where they are white."""

    def __call__(self, x, *, tap=no_tap, ops=EXACT):
        return tap("odd", x / (x < 1))  # 1 / 0


def test_scores_that_are_not_finite_are_left_out() -> None:
    images = random_images(6, 4, 4, 3) * 0.9
    images[2] = 1.0
    top = top_examples(from_module(Broken(), input_size=(4, 4)), images, "odd", k=6)["odd"]
    assert np.isfinite(top.scores[:, :5]).all() and not np.isin(2, top.indices)
    assert (top.scores[:, 5] == -np.inf).all() and (top.indices[:, 5] == -1).all() and top.counts.sum(1).tolist() == [5] * 3
    assert len(np.unique(top.crops(0)[5])) == 1, "where there is no image, paper"


def test_files_are_read_skipped_and_told(tmp_path: Path) -> None:
    paths = photos(tmp_path / "in", 9)
    (tmp_path / "in" / "p004.png").write_bytes(b"no image")
    (tmp_path / "in" / "zz.txt").write_text("no image")
    told = []
    found = top_examples(tiny_model(), tmp_path / "in", ["relu_1", "fc"], k=3, chunk=4, progress=told.append)
    good = [path for path in paths if path.name != "p004.png"]
    images = np.stack([jaxviz.image.load(path, 16) for path in good])
    for layer, top in found.items():
        assert top.files == tuple(map(str, good)) and [one.path.name for one in top.skipped] == ["p004.png", "zz.txt"]
        np.testing.assert_array_equal(top.indices, brute_force(tiny_model(), images, layer, 3)[2])
    assert [now.images_done for now in told][-1] == told[-1].images == 10 and len(told) >= 3
    several = top_examples(tiny_model(), [str(good[3]), good[0]], "fc", k=3)["fc"]
    assert several.files == (str(good[3]), str(good[0])) and several.scores.shape == (5, 2)


def test_crops_are_the_receptive_field(tmp_path: Path) -> None:
    photos(tmp_path / "in", 5)
    top = top_examples(tiny_model(), tmp_path / "in", "relu_1", k=2)["relu_1"]
    field = top.receptive_field
    assert field is not None and field[:2] == ((7, 7), (4, 4)) and top.shape == (4, 4)
    for unit in (0, 7):
        crops = top.crops(unit)
        assert crops.shape == (2, 7, 7, 3) and crops.dtype == np.float32
        for crop, index, at in zip(crops, top.indices[unit], top.positions[unit], strict=True):
            image = np.pad(jaxviz.image.load(top.files[index], 16), ((8, 8), (8, 8), (0, 0)), constant_values=232 / 255)
            y, x, bottom, right = (side + 8 for side in field.box(*at))
            np.testing.assert_allclose(crop, image[y:bottom, x:right], atol=0.51 / 255)
    np.testing.assert_array_equal(top.crops([7, 0])[1], top.crops(0))
    assert top.crops().shape == (12, 2, 7, 7, 3) and top.crops(3, extent=9).shape == (2, 9, 9, 3)
    np.testing.assert_array_equal(top.crops(3, extent=9)[:, 1:8, 1:8], top.crops(3))
    assert top.crops(3, extent=16).shape == top.crops(3, extent=99).shape == (2, 16, 16, 3)
    logits = top_examples(tiny_model(), tmp_path / "in", "fc", k=2)["fc"]
    assert logits.shape == () and logits.crops(1).shape == (2, 16, 16, 3)
    with pytest.raises(UnitError, match="0 to 11"):
        top.crops(12)
    for path in top.files:
        Path(path).unlink()
    with pytest.raises(ImageError, match=r"p00.\.png"):
        top.crops()


def test_crops_of_an_array_are_exact() -> None:
    images = random_images(5, 16, 16, 3)
    top = top_examples(tiny_model(), images, "fc", k=2)["fc"]
    np.testing.assert_array_equal(top.crops(1), images[top.indices[1]])


def test_pictures(tmp_path: Path) -> None:
    photos(tmp_path / "in", 5)
    found = top_examples(tiny_model(), tmp_path / "in", ["relu_1", "fc"], k=3)
    picture = found["relu_1"].picture([0, 4, 2])
    sheet = found["relu_1"].contact_sheet()
    assert min(picture.shape[:2]) > 3 * 96 and sheet.shape[1] > 100 and picture.dtype == sheet.dtype == np.uint8
    marked, plain = (found["relu_1"]._pictures(0, 16, mark=mark) for mark in (True, False))
    for crop, other, at in zip(marked[0], plain[0], found["relu_1"].positions[0], strict=True):
        top, left, bottom, right = found["relu_1"].receptive_field.box(*at)
        for places, middle in zip(np.nonzero((crop != other).any(-1)), ((top + bottom) / 2, (left + right) / 2), strict=True):
            first, last = max(0, middle - 3), min(16, middle + 3)  # a step of 4 pixels, and a dark edge around it
            assert abs(places.min() - first) <= 0.5 and abs(places.max() + 1 - last) <= 0.5
    assert found["fc"]._repr_png_()[:4] == b"\x89PNG" and "5 units x 3 of 5 files" in repr(found["fc"])
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    assert found["fc"]._repr_png_() is None


def test_saved_and_loaded(tmp_path: Path) -> None:
    photos(tmp_path / "in", 6)
    (tmp_path / "in" / "a.txt").write_text("")
    found = top_examples(tiny_model(), tmp_path / "in", LAYERS, k=2)
    assert found["relu_1"].save(tmp_path / "one") == tmp_path / "one"
    assert save_examples(found, tmp_path / "all") == tmp_path / "all"
    for folder in ("one", "all"):
        back = load_examples(tmp_path / folder)["relu_1"]
        assert_same(back, found["relu_1"])
        assert all(getattr(back, f.name) == getattr(found["relu_1"], f.name) for f in dataclasses.fields(back)[7:13])
        np.testing.assert_array_equal(back.crops(3), found["relu_1"].crops(3))
    assert tuple(load_examples(tmp_path / "all")) == LAYERS
    assert load_examples(tmp_path / "all")["fc"].receptive_field is None
    with pytest.raises(SaveError, match="already"):
        found["fc"].save(tmp_path / "one")
    found["fc"].save(tmp_path / "one", overwrite=True)
    with pytest.raises(SaveError, match="no top examples"):
        load_examples(tmp_path / "in")
    whole = (tmp_path / "one" / "examples.npz").read_bytes()
    for cut in (0, 30, len(whole) // 2, len(whole) - 10):
        (tmp_path / "one" / "examples.npz").write_bytes(whole[:cut])
        with pytest.raises(SaveError, match="Cannot read"):
            load_examples(tmp_path / "one")


class Stop(Exception):
    pass


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_examples, "PAUSE", 0.0)
    photos(tmp_path / "in", 30)
    (tmp_path / "in" / "p007.png").write_bytes(b"")
    (tmp_path / "in" / "p016.png").write_bytes(b"")
    call = (tiny_model(), tmp_path / "in", ["relu_1", "fc"])
    options = {"k": 5, "chunk": 4}
    expected = top_examples(*call, **options)
    decoded = []
    monkeypatch.setattr(jaxviz.image, "load", lambda *a, _load=jaxviz.image.load: decoded.append(a) or _load(*a))
    for stop in (1, 1, 2):
        calls = itertools.count(1)

        def tell(now, calls=calls, stop=stop) -> None:
            if next(calls) > stop:
                raise Stop

        with pytest.raises(Stop):
            top_examples(*call, out=tmp_path / "out", progress=tell, **options)
        with pytest.raises(SaveError, match="not finished"):
            load_examples(tmp_path / "out")
    before = len(decoded)
    done = top_examples(*call, out=tmp_path / "out", **options)
    assert len(decoded) - before < 12, "what was seen is not read again"
    for layer in expected:
        assert_same(done[layer], expected[layer])
        assert_same(load_examples(tmp_path / "out")[layer], expected[layer])
        assert done[layer].files == expected[layer].files and len(done[layer].skipped) == 2
    before = len(decoded)
    again = top_examples(*call, out=tmp_path / "out", **options)
    assert len(decoded) == before, "a finished run is read"
    assert_same(again["fc"], expected["fc"])
    photos(tmp_path / "in", 3, first=30)
    more = top_examples(*call, out=tmp_path / "out", mesh=make_mesh(2), **options)
    assert len(decoded) - before == 3 and len(more["fc"].files) == 31
    images = np.stack([jaxviz.image.load(path, 16) for path in more["fc"].files])
    np.testing.assert_array_equal(more["relu_1"].indices, brute_force(tiny_model(), images, "relu_1", 5)[2])
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("moment", [1, 4, 6])
def test_a_run_that_was_killed_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    monkeypatch.setattr(_examples, "PAUSE", 0.0)
    photos(tmp_path / "in", 12)
    call, options = (tiny_model(), tmp_path / "in", ["relu_1", "fc"]), {"k": 5, "chunk": 2, "mesh": make_mesh(1)}
    killed, seen = tmp_path / "killed", []
    whole = top_examples(*call, out=tmp_path / "out", progress=copy_at(moment, tmp_path / "out", killed), **options)
    (killed / ".examples.npz.abcd1234").write_text("what a killed write leaves")
    again = top_examples(*call, out=killed, progress=lambda now: seen.append(now.images_done), **options)
    assert len(seen) == 6 - (moment - 1), "all but the batch that was under way is kept"
    for layer in whole:
        assert_same(again[layer], whole[layer])
    assert {path.name for path in killed.iterdir()} == {"run.json", "examples.npz", "examples.json"}


def test_a_finished_run_on_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    photos(tmp_path / "in", 4)
    call = (tiny_model(), tmp_path / "in", "fc")
    found = top_examples(*call, k=2, out=tmp_path / "out")
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert_same(top_examples(*call, k=2, out=tmp_path / "out")["fc"], found["fc"])
    photos(tmp_path / "in", 1, first=4)
    with pytest.raises(SaveError, match="Read-only"):
        top_examples(*call, k=2, out=tmp_path / "out")


def test_relative_folders_survive_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    photos(tmp_path / "in", 4)
    monkeypatch.chdir(tmp_path)
    options = {"k": 2, "chunk": 1, "out": "out", "mesh": make_mesh(1)}
    top_examples(tiny_model(), "in", "fc", progress=lambda now: os.chdir(tmp_path / "else"), **options)
    assert not list((tmp_path / "else").iterdir())
    monkeypatch.chdir(tmp_path)
    assert top_examples(tiny_model(), "in", "fc", **options)["fc"].files[3] == str(tmp_path / "in" / "p003.png")


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    paths, out = photos(tmp_path / "in", 4), tmp_path / "out"
    top_examples(tiny_model(), tmp_path / "in", "fc", k=3, out=out)
    for model, layers, options in [
        (tiny_model(), "fc", {"k": 2}),
        (tiny_model(), "relu_1", {"k": 3}),
        (tiny_model(), "fc", {"k": 3, "score": "mean"}),
        (tiny_model(), "fc", {"k": 3, "size": 20}),
        (tiny_model(seed=1), "fc", {"k": 3}),
    ]:
        with pytest.raises(SaveError, match="other settings"):
            top_examples(model, tmp_path / "in", layers, out=out, **options)
    with pytest.raises(SaveError, match=r"other files.*p000"):
        top_examples(tiny_model(), paths[1:], "fc", k=3, out=out)
    photos(tmp_path / "else", 1)[0].rename(paths[2])
    with pytest.raises(SaveError, match=r"p002\.png' has changed"):
        top_examples(tiny_model(), tmp_path / "in", "fc", k=3, out=out)
    assert len(top_examples(tiny_model(), tmp_path / "in", "fc", k=2, out=out, overwrite=True)["fc"].files) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError):
        top_examples(tiny_model(), tmp_path / "in", "fc", out=tmp_path / "file")


def test_wrong_use(tmp_path: Path) -> None:
    images = random_images(3, 16, 16, 3)
    for error, words, call in [
        (LayerError, "conv1", (images, "conv9")),
        (ArgumentError, "at least one", (images, [])),
        (ArgumentError, "channels last", (images[0], "fc")),
        (ArgumentError, "N, H, W", (images[:0], "fc")),
    ]:
        with pytest.raises(error, match=words):
            top_examples(tiny_model(), *call)
    for words, options in [("k must", {"k": 0}), ("chunk", {"chunk": 0}), ("score", {"score": "sum"}), ("size", {"size": 8})]:
        with pytest.raises(ArgumentError, match=words):
            top_examples(tiny_model(), images, "fc", **options)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="There are no files"):
        top_examples(tiny_model(), tmp_path / "empty", "fc")
    (tmp_path / "empty" / "a.png").write_text("no image")
    with pytest.raises(ImageError, match=r"None of 1 files.*a\.png"):
        top_examples(tiny_model(), tmp_path / "empty", "fc", out=tmp_path / "out")


@pytest.mark.full
def test_memory_does_not_grow(tmp_path: Path) -> None:
    photos(tmp_path / "in", 24)
    held = []

    def tell(now) -> None:
        gc.collect()
        held.append(sum(array.nbytes for array in jax.live_arrays()))

    top_examples(tiny_model(), tmp_path / "in", LAYERS, k=3, chunk=4, progress=tell, out=tmp_path / "out")
    assert len(held) == 6 and max(held) <= held[0], "what a batch needs is gone when the next one comes"


def test_one_program_for_every_batch_and_model() -> None:
    images = random_images(40, 16, 16, 3)
    top_examples(tiny_model(), images, "relu_1", k=3, chunk=8, mesh=make_mesh(1))
    with compilations() as compiled:
        top_examples(tiny_model(seed=3), images[:37], "relu_1", k=3, chunk=8, mesh=make_mesh(1))
    assert not compiled.names
    assert len(jax.devices()) == 4
