"""jaxviz inspect embed | neighbors | scatter on the tiny network: what they write, continue, refuse and skip."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli, inspection
from jaxviz.inspection import load_embeddings, neighbors, pca
from tests.tiny import random_images, tiny_model

CLASSES = ("a", "b", "c", "d", "e")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())

    def run(command: str, *arguments: object) -> Result:
        call = ["inspect", command, "tiny", *map(str, arguments), "--size", "16", "--devices", "1"]
        return CliRunner().invoke(cli.app, call, prog_name="jaxviz")

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five folders of four photos, and a file that is none."""
    for i, name in enumerate(CLASSES):
        (tmp_path / "in" / name).mkdir(parents=True)
        for n in range(4):
            photo = (random_images(20, 24, 3, seed=10 * i + n) * 255).astype(np.uint8)
            Image.fromarray(photo).save(tmp_path / "in" / name / f"p{n}.png")
    (tmp_path / "in" / "c" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_embed_writes_what_the_library_makes_and_goes_on(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("embed", folder, "--layer", "relu_1, avgpool", "--pool", "max", "--out", out, "--labels", "classes")
    assert done.exit_code == 0, done.output
    assert "avgpool: 20 vectors of 12 numbers, 5 classes" in done.stdout and "notes.txt" in done.stderr
    made = load_embeddings(out / "relu_1.npz")
    assert made.labels[:5] == ("tench",) * 4 + ("golf ball",)
    images = np.stack([jaxviz.image.load(path, 16) for path in made.files])
    np.testing.assert_allclose(made.vectors, tiny_model().activations(images, "relu_1")["relu_1"].max((1, 2)), atol=1e-5)
    again = run("embed", folder, "--layer", "relu_1,avgpool", "--pool", "max", "--out", out)
    assert again.exit_code == 0 and load_embeddings(out / "relu_1.npz").labels[:5] == ("a",) * 4 + ("b",)
    refused = run("embed", folder, "--layer", "relu_1,avgpool", "--out", out)
    assert refused.exit_code == 1 and "pool is max there and mean here" in refused.stderr
    assert run("embed", folder, "--layer", "avgpool", "--out", out, "--overwrite", "-q").stdout == ""


def test_neighbors_of_some_of_the_photos_and_of_others(run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("neighbors", folder, "--layer", "avgpool", "-k", 3, "--metric", "l1", "--out", out)
    assert done.exit_code == 0, done.output
    known = load_embeddings(out / "embeddings" / "avgpool.npz")
    told = json.loads((out / "neighbors.json").read_text())
    assert len(told["queries"]) == 12 and told["settings"]["metric"] == "l1"
    first = told["queries"][0]
    found = neighbors(known, np.array([0]), 3, metric="l1")
    assert first["query"] == known.files[0] and first["label"] == "a"
    assert [one["file"] for one in first["neighbors"]] == [known.files[i] for i in found.indices[0]]
    np.testing.assert_allclose([one["distance"] for one in first["neighbors"]], found.distances[0], rtol=1e-5)
    picture = Image.open(out / "neighbors.png")
    assert picture.height > 12 * 112 and picture.width > 4 * 112

    query = tmp_path / "query.png"
    Image.open(folder / "b" / "p2.png").save(query)
    asked = run("neighbors", folder, "--query", query, "--layer", "avgpool", "-k", 2, "--out", out)
    assert asked.exit_code == 0, asked.output
    nearest = json.loads((out / "neighbors.json").read_text())["queries"][0]["neighbors"][0]
    assert nearest["file"].endswith("b/p2.png") and nearest["distance"] < 1e-6

    inside = run("neighbors", folder, "--query", folder / "b" / "p2.png", "--layer", "avgpool", "--out", out)
    first = json.loads((out / "neighbors.json").read_text())["queries"][0]
    assert inside.exit_code == 0 and first["query"].endswith("b/p2.png")
    assert first["query"] not in [one["file"] for one in first["neighbors"]], "one of the photos is not its own neighbor"


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_scatter_writes_a_picture_a_table_and_a_page(run, folder: Path, method: str, monkeypatch) -> None:
    if method == "tsne":
        pytest.importorskip("sklearn")
        monkeypatch.setattr(inspection, "tsne", partial(inspection.tsne, max_iter=250))
    out = folder / "out"  # within the photos: its pictures are none of them
    call = ("scatter", folder, "--layer", "avgpool", "--method", method, "--out", out, "--pixels", 400)
    done = run(*call)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {
        *("embeddings", "scatter.png", "points.csv", "index.html", "thumbnails", "photos")
    }
    known = load_embeddings(out / "embeddings" / "avgpool.npz")
    with (out / "points.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(known.files) and [row["label"] for row in rows] == list(known.labels)
    points = np.array([[float(row["x"]), float(row["y"])] for row in rows])
    if method == "pca":
        np.testing.assert_allclose(points, pca(known).transform(known), atol=1e-5)
        assert "of the variance" in (out / "index.html").read_text()
    picture = np.asarray(Image.open(out / "scatter.png"))
    assert picture.shape[0] >= 200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    again = run(*call, "--dark", "--arrange", "dots", "--method", "pca")
    assert again.exit_code == 0 and len(list((out / "photos").iterdir())) == 20, again.output


def test_what_is_refused(run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("somebody's page")
    refused = run("scatter", folder, "--layer", "avgpool", "--out", tmp_path / "mine")
    assert refused.exit_code == 1 and "index.html" in refused.stderr
    assert (tmp_path / "mine" / "index.html").read_text() == "somebody's page"
    wrong = run("embed", folder, "--layer", "avgpol", "--out", tmp_path / "o")
    assert wrong.exit_code == 1 and "Did you mean 'avgpool'" in wrong.stderr and not (tmp_path / "o").exists()
    few = run("embed", folder / "a", "--layer", "avgpool", "--labels", "classes", "--out", tmp_path / "o")
    assert few.exit_code == 1 and "5 classes; got 1 folders" in few.stderr
    for name in ("p0.png", "p1.png"):
        (folder / "a" / name).unlink()
    two = run("scatter", folder / "a", "--layer", "avgpool", "--out", tmp_path / "o")
    assert two.exit_code == 1 and "at least 3 readable photos; got 2" in two.stderr
    (tmp_path / "empty").mkdir()
    empty = run("scatter", tmp_path / "empty", "--layer", "avgpool", "--out", tmp_path / "o")
    assert empty.exit_code == 1 and "no files" in empty.stderr


def test_labels_of_a_file(run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a  alpha beta\nb\n")
    done = run("embed", folder, "--layer", "fc", "--labels", tmp_path / "names.txt", "--out", tmp_path / "o")
    assert done.exit_code == 0, done.output
    assert load_embeddings(tmp_path / "o" / "fc.npz").labels[::4] == ("alpha beta", "b", "c", "d", "e")
