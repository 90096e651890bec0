"""Embeddings of folders and arrays: what the layer gives, pooled; streamed, resumed after a kill, refused, skipped, saved."""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxviz
from jaxviz import ArgumentError, ImageError, LayerError, SaveError
from jaxviz.inspection import embed, load_embeddings
from jaxviz.inspection._embeddings import store
from tests.compilations import compilations
from tests.killed import copy_at
from tests.tiny import random_images, tiny_model

POOLS = {
    "mean": lambda a: a.mean((1, 2)),
    "max": lambda a: a.max((1, 2)),
    "flatten": lambda a: a.reshape(len(a), -1),
    "center": lambda a: a[:, a.shape[1] // 2, a.shape[2] // 2],
}


def photos(folder: Path, count: int, seed: int = 0) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"p{i:02d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray((random_images(20, 24, 3, seed=seed + i) * 255).astype(np.uint8)).save(path)
    return paths


def expected(paths: list[Path], layer: str = "relu_1") -> np.ndarray:
    images = np.stack([jaxviz.image.load(path, 16) for path in paths])
    return np.asarray(tiny_model().activations(images, layer)[layer])


@pytest.mark.parametrize("pool", POOLS)
def test_an_array_gives_what_the_layer_gives(pool) -> None:
    images = random_images(7, 16, 16, 3)
    acts = tiny_model().activations(images, ["conv1", "avgpool"])
    made = embed(tiny_model(), images, ["conv1", "avgpool"], pool=pool, chunk=3, labels=list("abcabca"))
    np.testing.assert_allclose(made["conv1"].vectors, POOLS[pool](np.asarray(acts["conv1"])), atol=1e-6)
    np.testing.assert_allclose(made["avgpool"].vectors, acts["avgpool"], atol=1e-6)
    assert list(made) == ["conv1", "avgpool"] and made["conv1"].vectors.dtype == np.float32
    assert made["conv1"].files == tuple("0123456") and made["conv1"].labels == tuple("abcabca")
    assert made["conv1"].settings == {"model": "tiny", "layer": "conv1", "pool": pool, "size": [16, 16]}


def test_a_folder_with_other_things_in_it(tmp_path: Path) -> None:
    good = photos(tmp_path / "b", 2) + photos(tmp_path / "a" / "deep", 3, seed=5)
    (tmp_path / "b" / "p01a.txt").write_text("no image")
    (tmp_path / "a" / "cut.png").write_bytes(good[0].read_bytes()[:200])
    made = embed(tiny_model(), tmp_path, "relu_1", chunk=2, labels={"b": "bee"})
    order = [*good[2:], *good[:2]]
    assert made.files == tuple(map(str, order)) and made.labels == ("deep",) * 3 + ("bee",) * 2
    assert {one.path.name for one in made.skipped} == {"p01a.txt", "cut.png"}
    np.testing.assert_allclose(made.vectors, expected(order).mean((1, 2)), atol=1e-6)


def test_one_program_and_progress(tmp_path: Path) -> None:
    photos(tmp_path / "a", 11)
    seen: list[jaxviz.Progress] = []
    model = tiny_model()
    embed(model, tmp_path, "conv2", chunk=4, progress=seen.append)
    assert [now.images_done for now in seen] == [4, 8, 11] and {now.images for now in seen} == {11}

    with compilations() as compiled:
        embed(tiny_model(seed=1), photos(tmp_path / "b", 9), "conv2", chunk=4)  # the last batch holds one image
    assert not compiled.names


def test_saved_and_read(tmp_path: Path) -> None:
    made = embed(tiny_model(), random_images(5, 16, 16, 3), "avgpool", labels=["ä", "<b>", "", "x", "x"])
    back = load_embeddings(made.save(tmp_path / "deep" / "e.npz"))
    assert isinstance(back.vectors, np.memmap) and back.labels == made.labels and back.settings == made.settings
    np.testing.assert_array_equal(back.vectors, made.vectors)
    assert load_embeddings(back.save(tmp_path / "again.npz")).files == made.files
    assert back[[0, 2]].labels == ("ä", "") and len(back[1:3]) == 2 and back[np.array(made.labels) == "x"].files == ("3", "4")
    with np.load(tmp_path / "again.npz", allow_pickle=False) as arrays:  # any NumPy reads it
        assert arrays["vectors"].shape == (5, 12)
    (tmp_path / "broken.npz").write_bytes((tmp_path / "again.npz").read_bytes()[:300])
    for name in ("broken.npz", "absent.npz"):
        with pytest.raises(SaveError, match=name):
            load_embeddings(tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(SaveError, match=r"other\.npz"):
        load_embeddings(tmp_path / "other.npz")


def test_a_folder_of_vectors_goes_on_with_more_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BYTES", 1)  # a part for each batch
    monkeypatch.setattr(store, "BLOCK", 4 * 12 * 2)  # copied two rows at a time
    first, out = photos(tmp_path / "in", 5), tmp_path / "out"
    names = ["relu_1", "avgpool"]
    made = embed(tiny_model(), tmp_path / "in", names, chunk=2, out=out)
    assert {path.name for path in out.iterdir()} == {"run.json", "relu_1.npz", "avgpool.npz"}
    assert isinstance(made["relu_1"].vectors, np.memmap)
    np.testing.assert_allclose(made["relu_1"].vectors, expected(first).mean((1, 2)), atol=1e-6)

    stamp = (out / "relu_1.npz").stat().st_mtime_ns
    again = embed(tiny_model(), tmp_path / "in", names, chunk=2, out=out)
    assert (out / "relu_1.npz").stat().st_mtime_ns == stamp, "nothing to do, nothing written"
    np.testing.assert_array_equal(again["avgpool"].vectors, made["avgpool"].vectors)

    more = photos(tmp_path / "in" / "more", 3, seed=20)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(first[1])  # changed since
    first[2].unlink()
    computed: list[int] = []
    whole = embed(tiny_model(), tmp_path / "in", names, chunk=2, out=out, progress=lambda now: computed.append(now.images_done))
    files = [first[0], first[1], first[3], first[4], *more]
    assert whole["relu_1"].files == tuple(map(str, files)) and computed[-1] == 7 and len(computed) == 2, "four of seven anew"
    np.testing.assert_allclose(whole["relu_1"].vectors, expected(files).mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(whole["avgpool"].vectors, expected(files, "avgpool"), atol=1e-6)


def test_other_settings_are_refused(tmp_path: Path) -> None:
    photos(tmp_path / "in", 2)
    out = tmp_path / "out"
    embed(tiny_model(), tmp_path / "in", "conv1", out=out)
    with pytest.raises(SaveError, match="pool is mean there and max here"):
        embed(tiny_model(), tmp_path / "in", "conv1", pool="max", out=out)
    with pytest.raises(SaveError, match="weights is"):
        embed(tiny_model(seed=3), tmp_path / "in", "conv1", out=out)
    made = embed(tiny_model(), tmp_path / "in", "conv2", out=out, overwrite=True)
    assert made.vectors.shape == (2, 12) and {path.name for path in out.iterdir()} == {"run.json", "conv2.npz"}
    seen: list[int] = []
    options = {"out": out, "progress": lambda now: seen.append(now.images_done)}
    embed(tiny_model(), tmp_path / "in", "conv2", **options)
    assert not seen, "all is there"
    embed(tiny_model(), tmp_path / "in", "conv2", **options, overwrite=True)
    assert seen == [2], "anew"
    other = tmp_path / "other"
    other.mkdir()
    (other / "conv1.npz").write_text("somebody's")
    with pytest.raises(SaveError, match=r"conv1\.npz"):
        embed(tiny_model(), tmp_path / "in", "conv1", out=other)


@pytest.mark.parametrize("damage", ["part", "layer"])
def test_damaged_files_are_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(store, "BYTES", 1)
    paths, out = photos(tmp_path / "in", 6), tmp_path / "out"

    def stop(now: jaxviz.Progress) -> None:
        if damage == "part" and now.images_done >= 4:
            raise KeyboardInterrupt

    if damage == "part":
        with pytest.raises(KeyboardInterrupt):
            embed(tiny_model(), tmp_path / "in", "relu_1", chunk=2, out=out, progress=stop)
        parts = sorted((out / "parts").glob("*.npz"))
        assert len(parts) == 2
        parts[0].write_bytes(parts[0].read_bytes()[:-40])
    else:
        embed(tiny_model(), tmp_path / "in", "relu_1", chunk=2, out=out)
        (out / "relu_1.npz").write_bytes(b"PK")
    made = embed(tiny_model(), tmp_path / "in", "relu_1", chunk=2, out=out)
    np.testing.assert_allclose(made.vectors, expected(paths).mean((1, 2)), atol=1e-6)


@pytest.mark.parametrize("moment", [1, 3, 5])
def test_it_continues_where_it_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    monkeypatch.setattr(store, "BYTES", 1)  # a part for each batch
    paths, out = photos(tmp_path / "in", 12), tmp_path / "killed"
    call = (tiny_model(), tmp_path / "in", "relu_1")
    embed(*call, chunk=2, out=tmp_path / "out", progress=copy_at(moment, tmp_path / "out", out))
    kept = sorted((out / "parts").glob("0*.npz"))
    assert len(kept) == moment and not (out / "relu_1.npz").exists()
    (out / ".relu_1.npz.abcd1234").write_text("what a killed write leaves")
    seen: list[int] = []
    made = embed(*call, chunk=2, out=out, progress=lambda now: seen.append(now.images_done))
    assert seen[0] == 2 * len(kept) + 2, "what was kept is not computed again"
    np.testing.assert_allclose(made.vectors, expected(paths).mean((1, 2)), atol=1e-6)
    assert made.files == tuple(map(str, paths)) and {p.name for p in out.iterdir()} == {"run.json", "relu_1.npz"}
    assert json.loads((out / "run.json").read_text())["identity"]["pool"] == "mean"


def test_killed_before_the_first_part_it_starts_again(tmp_path: Path) -> None:
    photos(tmp_path / "in", 2)
    out = tmp_path / "out"
    with store.Parts(out, "embed", {}, ["conv1"]):  # killed here
        (out / "parts").mkdir()
        shutil.copytree(out, tmp_path / "killed")
    assert not out.exists(), "of a run that finished nothing nothing is left"
    assert len(embed(tiny_model(), tmp_path / "in", "conv1", out=tmp_path / "killed")) == 2


def test_a_finished_run_on_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    photos(tmp_path / "in", 3)
    call = (tiny_model(), tmp_path / "in", "conv1")
    made = embed(*call, out=tmp_path / "out")
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    again = embed(*call, out=tmp_path / "out")
    np.testing.assert_array_equal(again.vectors, made.vectors)
    photos(tmp_path / "in" / "more", 1)
    seen: list[object] = []
    with pytest.raises(SaveError, match="Read-only"):
        embed(*call, out=tmp_path / "out", progress=seen.append)
    assert not seen, "reported before the work"


def test_a_relative_folder_survives_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "else").mkdir()
    photos(tmp_path / "in", 4)
    monkeypatch.chdir(tmp_path)
    embed(tiny_model(), "in", "conv1", chunk=2, out="out", progress=lambda now: os.chdir(tmp_path / "else"))
    assert not list((tmp_path / "else").iterdir()) and len(load_embeddings(tmp_path / "out" / "conv1.npz")) == 4


def test_memory_does_not_grow_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BYTES", 100_000)
    monkeypatch.setattr(store, "BLOCK", 100_000)
    for name, count in (("first", 5), ("few", 16), ("many", 80)):
        photos(tmp_path / name, count)

    def peak(name: str) -> int:
        tracemalloc.start()
        made = embed(tiny_model(), tmp_path / name, "conv1", pool="flatten", size=64, chunk=4, out=tmp_path / "out" / name)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert made.vectors.nbytes == len(made) * 32 * 32 * 8 * 4
        return most

    peak("first")  # compiles
    few, many = peak("few"), peak("many")
    assert many - few < 600_000, "64 vectors more are 2.1 MB, their images 3.1 MB"


def test_names_that_are_not_utf8_and_arrays_with_out(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    photo = photos(folder, 1)[0]
    try:
        os.rename(os.fsencode(photo), os.fsencode(folder) + b"/\xff.png")  # noqa: PTH104
    except OSError:
        pytest.skip("this file system takes no such names")
    made = embed(tiny_model(), folder, "avgpool", out=tmp_path / "out")
    assert Path(made.files[0]).exists() and load_embeddings(tmp_path / "out" / "avgpool.npz").files == made.files
    images = random_images(3, 16, 16, 3)
    first = embed(tiny_model(), images, "avgpool", out=tmp_path / "arrays")
    images[1] = 0
    second = embed(tiny_model(), images, "avgpool", out=tmp_path / "arrays")
    np.testing.assert_allclose(second.vectors, embed(tiny_model(), images, "avgpool").vectors, atol=1e-6)
    assert not np.allclose(first.vectors[1], second.vectors[1])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"layer": "conv9"}, LayerError, "conv2"),
        ({"pool": "sum"}, ArgumentError, "mean, max, flatten, center"),
        ({"chunk": 0}, ArgumentError, "chunk"),
        ({"layer": ()}, ArgumentError, "Expected a layer"),
        ({"images": np.zeros((0, 16, 16, 3), np.float32)}, ArgumentError, "at least one"),
        ({"images": np.zeros((2, 16, 16, 3), np.uint8)}, ArgumentError, "Divide 8-bit"),
        ({"size": 8}, ArgumentError, "resize"),
        ({"labels": ["a"]}, ArgumentError, "2 labels"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, error: type[Exception], words: str) -> None:
    given = {"images": random_images(2, 16, 16, 3), "layer": "conv2", **arguments}
    with pytest.raises(error, match=words):
        embed(tiny_model(), **given)


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no files"):
        embed(tiny_model(), tmp_path, "conv1")
    (tmp_path / "a.png").write_text("no")
    with pytest.raises(ImageError, match=r"None of 1 files.*a\.png"):
        embed(tiny_model(), tmp_path, "conv1", out=tmp_path / "out")
    with pytest.raises(ArgumentError, match="mapping"):
        embed(tiny_model(), tmp_path, "conv1", labels=["a"])
