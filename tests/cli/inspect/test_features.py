"""jaxviz inspect filters, weights, maps, grid, groups, atlas, occlusion on the tiny network: what each writes and refuses."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import jaxviz
from jaxviz import cli, inspection
from tests.tiny import random_images, tiny_model

PHOTO = ("--size", "16", "--devices", "1")
STEP = ("--steps", "1", *PHOTO)
RENDER = ("--tile", "4", *STEP)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxviz, "load", lambda name, **options: tiny_model())
    fast = functools.partial(jaxviz.visualize, param=jaxviz.param.pixel, transforms=())  # compiles in no time
    for module in ("_directions.grid", "_directions.neuron_groups", "_directions.atlas"):
        monkeypatch.setattr(f"jaxviz.inspection.{module}.visualize", fast)

    def run(command: str, *arguments: object) -> Result:
        return CliRunner().invoke(cli.app, ["inspect", command, "tiny", *map(str, arguments)], prog_name="jaxviz")

    return run


def photos(folder: Path, count: int = 2) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(jaxviz.image.to_uint8(random_images(16, 16, 3, seed=i))).save(folder / f"p{i}.png")
    return [folder / f"p{i}.png" for i in range(count)]


def loaded(paths: list[Path]) -> np.ndarray:
    return np.stack([jaxviz.image.load(path, 16) for path in paths])


def arrays(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "arrays.npz", allow_pickle=False) as found:
        return dict(found)


def check_pictures(out: Path, done: Result, *names: str) -> None:
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.glob("*.png")} == set(names)
    for name in names:
        assert str(out / name) in done.stdout
        assert np.asarray(Image.open(out / name)).std() > 1


def test_filters_and_weights(run, tmp_path: Path) -> None:
    out = tmp_path / "filters"
    check_pictures(out, run("filters", "--units", "1-3,6", "--scale", "each", "--out", out), "filters.png")
    np.testing.assert_array_equal(arrays(out)["weights"], inspection.filters(tiny_model(), units=[1, 2, 3, 6]).weights)
    out = tmp_path / "weights"
    done = run("weights", "--layer", "conv2", "--outputs", "2,0", "--inputs", "3-5", "--dark", "--out", out)
    check_pictures(out, done, "weights.png")
    np.testing.assert_array_equal(arrays(out)["weights"], inspection.weights(tiny_model(), "conv2", [2, 0], [3, 4, 5]).weights)


def test_maps(run, tmp_path: Path) -> None:
    paths, out = photos(tmp_path / "in"), tmp_path / "out"
    paths.append(photos(tmp_path / "other", 1)[0])  # of the same name
    done = run("maps", *paths, "--layers", "relu_1, fc", "--top", "3", "--view", "overlay", "--out", out, *PHOTO)
    spatial = [f"{name}-relu_1{field}.png" for name in ("p0", "p1", "p0_2") for field in ("", "-field")]
    check_pictures(out, done, *spatial, *(f"{name}-fc.png" for name in ("p0", "p1", "p0_2")))
    expected = inspection.feature_maps(tiny_model(), loaded(paths), ["relu_1", "fc"], channels=3)
    np.testing.assert_allclose(arrays(out)["relu_1/maps"], expected["relu_1"].maps, atol=1e-6)
    np.testing.assert_array_equal(arrays(out)["fc/channels"], expected["fc"].channels)
    chosen = run("maps", paths[0], "--layers", "conv1", "--channels", "4,2", "--position", "1,2", "--out", out, "-q", *PHOTO)
    assert chosen.exit_code == 0 and chosen.stdout == "" and arrays(out)["conv1/channels"].tolist() == [[4, 2]]


def test_grid_and_groups_go_on_in_their_folders(run, tmp_path: Path) -> None:
    paths, out = photos(tmp_path / "in", 1), tmp_path / "grid"
    call = ("grid", *paths, "--layer", "relu_1", "--out", out, *RENDER)
    check_pictures(out, run(*call), "p0-relu_1.png")
    made = arrays(out)
    assert made["tiles"].shape == (1, 4, 4, 4, 4, 3)
    again = run(*call, "--scaled")
    assert again.exit_code == 0 and (arrays(out)["tiles"] == made["tiles"]).all()
    other = run(*call, "--seed", "1")
    assert other.exit_code == 1 and "seed" in other.stderr
    out = tmp_path / "groups"
    done = run("groups", *paths, "--layer", "relu_1", "--groups", "2", "--picture-size", "12", "--out", out, *STEP)
    check_pictures(out, done, "groups.png")
    assert arrays(out)["masks"].shape == (1, 2, 4, 4) and arrays(out)["pictures"].shape == (2, 12, 12, 3)


def test_atlas_streams_a_folder_and_tells_what_it_skipped(run, tmp_path: Path) -> None:
    photos(tmp_path / "in", 12)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    where, out = tmp_path / "where.npy", tmp_path / "in" / "out"
    np.save(where, np.random.default_rng(0).uniform(size=(12, 2)))
    call = ("atlas", tmp_path / "in", "--layer", "conv1", "--cells", "2", "--members", "1", "--out", out, *RENDER)
    done = run(*call, "--coordinates", where, "--labels")
    check_pictures(out, done, "atlas.png")
    assert "notes.txt" in done.stderr
    made = arrays(out)
    assert [Path(name.decode()).name for name in made["files"]][:2] == ["p0.png", "p1.png"] and len(made["files"]) == 12
    np.testing.assert_allclose(made["coordinates"], np.load(where), atol=1e-6)
    again = run(*call, "--coordinates", where)
    assert again.exit_code == 0 and (arrays(out)["pictures"] == made["pictures"]).all()


def test_occlusion(run, tmp_path: Path) -> None:
    paths, out = photos(tmp_path / "in"), tmp_path / "out"
    done = run("occlusion", *paths, "--window", "8", "--stride", "4x8", "--target", "church", "--out", out, *PHOTO)
    check_pictures(out, done, "occlusion.png")
    expected = inspection.occlusion_map(tiny_model(), loaded(paths), "church", window=8, stride=(4, 8))
    np.testing.assert_allclose(arrays(out)["scores"], expected.scores, atol=1e-5)
    np.testing.assert_array_equal(arrays(out)["classes"], expected.classes)


@pytest.mark.parametrize(
    ("command", "arguments", "status", "message"),
    [
        ("filters", ("--units", "3-1"), 2, "0-15,40"),
        ("filters", ("--layer", "conv2"), 1, "1 or 3"),
        ("weights", ("--layer", "relu"), 1, "kernel"),
        ("maps", ("PHOTO", "--layers", "conv9"), 1, "conv1"),
        ("maps", ("PHOTO", "--layers", "conv1", "--position", "3"), 2, "3,5"),
        ("maps", ("PHOTO", "--layers", "conv1", "--position", "99,0"), 1, "(99, 0)"),
        ("maps", ("FOLDER", "--layers", "conv1"), 1, "is a folder"),
        ("maps", ("missing.jpg", "--layers", "conv1"), 1, "no such file"),
        ("grid", ("PHOTO", "--layer", "fc"), 1, "no positions"),
        ("atlas", ("FOLDER", "--layer", "conv1", "--members", "0"), 2, "members"),
        ("atlas", ("missing", "--layer", "conv1"), 1, "missing"),
        ("occlusion", ("PHOTO", "--window", "999"), 1, "window"),
        ("occlusion", ("PHOTO", "--target", "church,tench"), 1, "one target"),
    ],
)
def test_wrong_use_is_one_line(run, tmp_path: Path, command: str, arguments, status: int, message: str) -> None:
    (path,) = photos(tmp_path / "in", 1)
    given = [{"PHOTO": path, "FOLDER": path.parent}.get(word, word) for word in arguments]
    done = run(command, *given, "--out", tmp_path / "out", *([] if command in ("filters", "weights") else PHOTO))
    assert done.exit_code == status and message in done.stderr and "Traceback" not in done.output
    assert not (tmp_path / "out" / "arrays.npz").exists()
