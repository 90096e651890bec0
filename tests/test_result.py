"""Results: shapes, indexing, joining, and files that come back exactly."""

from __future__ import annotations

import base64
import io
import json
import re
import stat
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxviz.result
from jaxviz import image
from jaxviz._errors import ArgumentError, SaveError, UnitError
from jaxviz.result import Result, concatenate, load_result
from tests.tiny import random_images

LABELS = ("layer3:7", "layer3:12", "logit:golf ball")


def make(
    labels: tuple[str, ...] = LABELS, samples: int = 2, size=(8, 6, 3), steps: int = 5, seed: int = 0, **settings
) -> Result:
    count = len(labels)
    return Result(
        random_images(count, samples, *size, seed=seed),
        random_images(count, samples, seed=seed + 1),
        random_images(count, samples, steps, seed=seed + 2),
        labels,
        {"steps": steps, **settings},
    )


def assert_same(a: Result, b: Result) -> None:
    for name in ("images", "scores", "history"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == np.float32
    assert a.labels == b.labels and a.settings == b.settings


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_jax_arrays_come_to_the_host() -> None:
    result = Result(jnp.zeros((1, 1, 4, 4, 3)), jnp.zeros((1, 1)), jnp.zeros((1, 1, 0)), ["a"])  # type: ignore[arg-type]
    assert isinstance(result.images, np.ndarray) and result.labels == ("a",)


@pytest.mark.parametrize(
    ("images", "scores", "history", "labels"),
    [
        ((2, 4, 4, 3), (2, 1), (2, 1, 5), "ab"),
        ((2, 1, 4, 4, 3), (2,), (2, 1, 5), "ab"),
        ((2, 1, 4, 4, 3), (2, 1), (2, 5), "ab"),
        ((2, 1, 4, 4, 3), (2, 1), (2, 2, 5), "ab"),
        ((2, 1, 4, 4, 3), (2, 1), (2, 1, 5), "abc"),
    ],
)
def test_shapes_must_agree(images, scores, history, labels) -> None:
    with pytest.raises(ArgumentError, match=r"images \(K, S, H, W, C\)"):
        Result(np.zeros(images), np.zeros(scores), np.zeros(history), tuple(labels))


def test_indexing() -> None:
    result = make()
    assert_same(result["layer3:12"], result[1])
    assert_same(result["layer3"], result[:2])
    assert_same(result[-1], result[[2]])
    assert result[0].images.shape == (1, 2, 8, 6, 3)
    assert [part.labels for part in result] == [(label,) for label in LABELS]
    assert result[[2, 0]].labels == ("logit:golf ball", "layer3:7")
    assert len(result[5:]) == 0
    with pytest.raises(UnitError, match=r"no unit 'layer3:13'\. Did you mean 'layer3:12'"):
        result["layer3:13"]
    with pytest.raises(IndexError):
        result[3]


def test_repr_names_units_and_shape() -> None:
    assert repr(make()) == "Result(3 units x 2 samples of 8x6x3: layer3:7, layer3:12, logit:golf ball)"


def test_round_trip_is_exact(tmp_path: Path) -> None:
    result = make(size=(40, 30, 3), model="tiny", objective=["layer3:7", "é"])
    folder = result.save(tmp_path / "a" / "b")
    assert_same(load_result(folder), result)
    assert_same(Result.load(str(folder)), result)
    assert files(folder) == {
        *(f"layer3-{unit:04d}-{s}.png" for unit in (7, 12) for s in (0, 1)),
        *(f"logit-golf-ball-{s}.png" for s in (0, 1)),
        *("contact_sheet.png", "images.npy", "result.json", "result.npz"),
    }
    np.testing.assert_array_equal(
        image.load(folder / "layer3-0012-1.png"), image.to_uint8(result.images[1, 1]) / np.float32(255)
    )
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.size == result.contact_sheet().size


def test_json_says_what_made_which_file(tmp_path: Path) -> None:
    settings = {"rate": np.float32(0.5), "shape": (1, 2), "nan": float("nan"), "weights": jnp.ones(2), "thing": Path, 3: None}
    folder = make(**{str(k): v for k, v in settings.items()}).save(tmp_path / "out")

    def strict(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads((folder / "result.json").read_text(), parse_constant=strict)
    assert record["settings"]["rate"] == 0.5 and record["settings"]["shape"] == [1, 2]
    assert record["settings"]["nan"] is None and record["settings"]["weights"] == [1.0, 1.0]
    assert {"python", "jaxviz", "jax", "numpy"} <= record["versions"].keys()
    assert [unit["label"] for unit in record["units"]] == list(LABELS)
    assert all((folder / name).is_file() for unit in record["units"] for name in unit["files"])
    np.testing.assert_allclose([unit["scores"] for unit in record["units"]], make().scores)


NASTY = (
    *("a:../../evil", "a:/etc/passwd", "a:C:\\x", "a:con", "nul", ".", "..", "", " ", "a:b|c<d>e?f*g\"h'", "a\nb\0c", "-rf"),
    *("layer:Ab", "layer:aB", "layer:ab", "same", "same", "日本語", "Straße", "x" * 400, "x" * 399, "a:1", "a:0001", "a-0001"),
)


def test_names_are_safe_and_unique(tmp_path: Path) -> None:
    result = make(NASTY, samples=2, size=(2, 2, 3))
    folder = result.save(tmp_path / "out")
    names = files(folder)
    assert files(tmp_path) == {"out"}, "a file outside the folder"
    assert len({name.lower() for name in names}) == 2 * len(NASTY) + 4
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}\.(png|npy|npz|json)", name) for name in names)
    assert load_result(folder).labels == NASTY


def test_nothing_is_replaced_unless_asked(tmp_path: Path) -> None:
    first, second = make(), make(("layer3:7", "layer1:0"), seed=9)
    folder = first.save(tmp_path / "out")
    (folder / "mine.png").write_text("kept")
    with pytest.raises(SaveError, match=r"holds a result already.*overwrite"):
        second.save(folder)
    assert_same(load_result(folder), first)
    second.save(folder, overwrite=True)
    assert_same(load_result(folder), second)
    assert "logit-golf-ball-0.png" not in files(folder), "a picture of the older result is left"
    assert (folder / "mine.png").read_text() == "kept"


def test_other_files_of_the_same_name_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "layer3-0007-0.png").write_text("someone's")
    with pytest.raises(SaveError, match=r"layer3-0007-0\.png"):
        make().save(tmp_path)
    assert (tmp_path / "layer3-0007-0.png").read_text() == "someone's"


def test_a_forged_record_deletes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_text("kept")
    folder = make().save(tmp_path / "out")
    (folder / "notes.txt").write_text("kept")
    record = {"units": [{"files": ["../outside.png", str(outside), "notes.txt"]}]}
    (folder / "result.json").write_text(json.dumps(record))
    make().save(folder, overwrite=True)
    assert outside.exists() and (folder / "notes.txt").exists()


def test_folders_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SaveError, match="file"):
            make().save(folder)


def test_a_failed_write_leaves_the_old_result_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make()
    folder = first.save(tmp_path / "out")
    before = files(folder)

    def full(file, **arrays) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jaxviz.result.np, "savez", full)
    with pytest.raises(SaveError, match="out': No space left on device"):
        make(seed=5).save(folder, overwrite=True)
    assert_same(load_result(folder), first)
    assert files(folder) == before


def test_files_have_ordinary_rights(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    folder = make().save(tmp_path / "out")
    expected = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {expected}


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "text", "pickle"])
def test_damaged_results_are_named(tmp_path: Path, damage: str) -> None:
    folder = make().save(tmp_path / "out")
    path = folder / "result.npz"
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        np.savez(path, about=np.array([{"labels": []}], dtype=object))
    else:
        path.write_bytes({"empty": b"", "truncated": data[: len(data) // 2], "text": b"hello"}[damage])
    with pytest.raises(SaveError, match="out"):
        load_result(folder)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels_is_saved(tmp_path: Path, channels: int) -> None:
    result = make(size=(8, 6, channels))
    folder = result.save(tmp_path / "out")
    assert_same(load_result(folder), result)
    assert ("contact_sheet.png" in files(folder)) == (channels != 5)
    assert ("<img" in result._repr_html_()) == (channels != 5)


def test_nan_is_saved_and_shown(tmp_path: Path) -> None:
    broken = Result(np.full((1, 1, 4, 4, 3), np.nan), [[np.nan]], np.zeros((1, 1, 0)), ("layer1:0",))  # type: ignore[arg-type]
    assert np.isnan(load_result(broken.save(tmp_path / "out")).images).all()


def test_chunks_are_joined() -> None:
    whole = make(seed=3)
    assert_same(concatenate([whole[:1], whole[1:]]), whole)
    assert_same(concatenate([whole]), whole)


def test_settings_that_differ_go_to_parts() -> None:
    a = [make(("a:0", "a:1"), objective="a"), make(("a:2",), objective="a")]
    b = make(("b:0",), objective="b", extra=1)
    expected = {"steps": 5, "parts": [{"units": 3, "objective": "a"}, {"units": 1, "objective": "b", "extra": 1}]}
    at_once = concatenate([*a, b])
    in_turn = concatenate([concatenate([a[0], concatenate([a[1], b])])])
    assert at_once.settings == in_turn.settings == expected
    assert at_once.labels == in_turn.labels == ("a:0", "a:1", "a:2", "b:0")


def test_what_cannot_be_joined() -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        concatenate([])
    for other in (make(size=(4, 4, 3)), make(samples=1), make(steps=6)):
        with pytest.raises(ArgumentError, match="one image size"):
            concatenate([make(), other])


def test_images_stay_on_disk_until_they_are_looked_at(tmp_path: Path) -> None:
    whole = make(("l:0", "m:0", "l:1"), seed=2)
    loaded = load_result(whole.save(tmp_path / "out"))
    for part in (loaded, loaded[1:], loaded["m"], *loaded):
        assert on_disk(part.images)
    assert np.array_equal(np.asarray(loaded.contact_sheet()), np.asarray(whole.contact_sheet()))
    loaded.save(tmp_path / "out", overwrite=True)  # in the place of the very file that it reads
    assert_same(load_result(tmp_path / "out"), whole)


def on_disk(array: np.ndarray) -> bool:
    base = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            return True
        base = base.base
    return False


def test_the_sheet_reads_one_unit_at_a_time(tmp_path: Path) -> None:
    rows = jaxviz.result._Rows(load_result(make().save(tmp_path / "out")).images, [2, 0])
    assert rows.shape == (2, 2, 8, 6, 3) and len(rows) == 2
    np.testing.assert_array_equal(rows[0], make().images[2])


def test_results_of_the_first_format_are_read(tmp_path: Path) -> None:
    old = make()
    about = json.dumps({"format": 1, "labels": old.labels, "settings": old.settings})
    arrays = {"images": old.images, "scores": old.scores, "history": old.history}
    np.savez(tmp_path / "result.npz", about=np.array(about), **arrays)  # type: ignore[arg-type]
    assert_same(load_result(tmp_path), old)


def test_an_empty_result_comes_back(tmp_path: Path) -> None:
    assert_same(load_result(make()[:0].save(tmp_path / "out")), make()[:0])


def test_notebook() -> None:
    result = make(('layer<3>:"7"', "b:1"))
    page = result._repr_html_()
    assert "<3>" not in page and "layer&lt;3&gt;:&quot;7&quot;" in page
    picture = base64.b64decode(re.search(r"base64,([^\"]+)", page)[1])  # type: ignore[index]
    assert picture == result._repr_jpeg_()
    with Image.open(io.BytesIO(picture)) as shown:
        error = np.asarray(shown, np.float32) - np.asarray(result.contact_sheet(), np.float32)
        assert shown.format == "JPEG" and np.abs(error).mean() < 8, "the sheet, but for JPEG's losses"


@pytest.mark.parametrize(("samples", "shown"), [(1, 60), (2, 30), (100, 1)])
def test_notebook_shows_the_first_of_many(samples: int, shown: int) -> None:
    many = make(tuple(f"l:{i}" for i in range(200)), samples=samples, size=(2, 2, 3))
    assert f"The first {shown} of 200 units are shown." in many._repr_html_()
    first = many._first()
    assert first.images.shape[:2] == (shown, min(samples, 60))
    with Image.open(io.BytesIO(many._repr_jpeg_() or b"")) as picture:
        assert picture.size == first.contact_sheet().size


def test_notebook_reads_what_it_shows_and_no_more(tmp_path: Path) -> None:
    loaded = load_result(make(tuple(f"l:{i}" for i in range(90)), samples=1).save(tmp_path / "out"))
    assert on_disk(loaded._first().images) and len(loaded._first()) == 60
    # 21 GB on paper: what is read has to fit.
    huge = np.broadcast_to(np.float32(0.5), (26560, 4, 256, 256, 3))
    scores = np.zeros((26560, 4), np.float32)
    result = Result(huge, scores, scores[..., None], [f"l:{i}" for i in range(26560)])  # type: ignore[arg-type]
    assert len(result._repr_jpeg_() or b"") < 1e6


def test_notebook_shows_nothing_of_none() -> None:
    none = make()[:0]
    assert none._repr_jpeg_() is None and "0 units" in none._repr_html_() and "<img" not in none._repr_html_()
    with pytest.raises(ArgumentError, match="no units"):
        none.contact_sheet()


def test_sheet_groups_units_by_layer() -> None:
    mixed = make(("a:0", "b:0", "a:1", "no colon"), samples=1)
    sorted_ = mixed[[0, 2, 1, 3]]
    assert np.array_equal(np.asarray(mixed.contact_sheet()), np.asarray(sorted_.contact_sheet()))
    assert mixed.contact_sheet(columns=1).width < mixed.contact_sheet(columns=2).width
