"""What a site says is what the network computes; what is finished stays; folders of others are refused."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxviz
from jaxviz import ArgumentError, LayerError, SaveError, UnitError
from jaxviz.gallery import _layer
from jaxviz.gallery._chart import number
from jaxviz.gallery._pages import script_json
from jaxviz.result import load_result
from tests.gallery.conftest import EVIL, LAYERS, SETTINGS
from tests.tiny import tiny_model

pytestmark = pytest.mark.once

VOID = {"meta", "link", "img", "input", "rect", "line", "image", "br", "circle", "path"}


class Page(HTMLParser):
    """Every element of a page with its attributes, and its text; an element that is not closed is an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open, f"{path}: {self._open} left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open += [] if tag in VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def search_of(site: Path) -> dict[str, Any]:
    text = (site / "search.js").read_text()
    return json.loads(re.fullmatch(r"jaxviz\.found\((.*)\);\n", text)[1])  # type: ignore[index]


def test_every_link_and_picture_of_every_page_is_there(site: Path) -> None:
    pages = [path for path in site.rglob("*.html")]
    assert len(pages) == 1 + 3 + 8 + 7 + 5
    for path in pages:
        page = Page(path)
        targets = [one.get("href", "") for tag, one in page.elements if tag in ("a", "link", "image")]
        targets += [one["src"] for tag, one in page.elements if tag in ("img", "script")]
        for target in targets:
            assert not re.match(r"[a-z]+:(?!,)|//", target), f"{path}: {target} is not beside the page"
            name = target.partition("#")[0]
            assert not name or target == "data:," or (path.parent / name).is_file(), f"{path}: {target} is missing"
        for picture in page.all("img"):
            assert picture["alt"] and picture["width"] and picture["height"], f"{path}: {picture}"


def test_names_of_files_and_classes_are_text(site: Path) -> None:
    shown = ""
    for path in site.rglob("*.html"):
        page = Page(path)
        assert not [name for _, one in page.elements for name in one if name.startswith("on")], path
        assert "{{" not in page.text.replace("{{ 7 * 7 }}", "") and "49" not in re.findall(r"c & (\S+)", page.text)
        shown += page.text
    assert EVIL in shown and "a\"b'c & {{ 7 * 7 }}" in shown
    assert "<" not in (site / "search.js").read_text() and EVIL in search_of(site)["words"]
    for text in ("</script>", "\u2028", "<!--", "\udcff", "é"):
        assert json.loads(script_json({text: [text]})) == {text: [text]}
        assert re.fullmatch(r"[ -;=?-~]*", script_json(text)), "neither < nor > nor anything but ASCII"


def test_a_unit_shows_what_the_network_computes(site: Path, photos: Path) -> None:
    model = tiny_model()
    result = load_result(site / "work" / "relu_1")
    again = jaxviz.visualize(model, "relu_1:0-5,8", size=16, steps=3, transforms=(), samples=2)
    np.testing.assert_allclose(result.images, again.images, atol=1e-4)
    page = Page(site / "layers" / "relu_1" / "0008.html")
    assert number(float(again.scores[6].mean())) in page.text
    peak = float(np.asarray(model.activations(np.asarray(again.images[6, :1]), "relu_1")["relu_1"])[..., 8].max())
    assert number(peak) in page.text
    with Image.open(site / "layers" / "relu_1" / "0008-1.webp") as picture:
        assert picture.size == (16, 16)
        error = np.asarray(picture.convert("RGB"), np.float32) / 255 - again.images[6, 1]
    assert np.abs(error).mean() < 0.1
    paths = sorted(photos.rglob("*.png"))
    acts = model.activations(np.stack([jaxviz.image.load(path, 16) for path in paths]), "relu_1")["relu_1"]
    best = np.asarray(acts)[..., 8].reshape(12, -1).max(1)
    order = np.argsort(-best, kind="stable")[:3]
    listed = [one["title"] for one in page.all("img") if "title" in one]
    assert listed == [paths[i].relative_to(photos).as_posix() for i in order]
    assert all(number(float(best[i])) in page.text for i in order)


def test_the_search_knows_all_units(site: Path) -> None:
    data = search_of(site)
    assert [one["name"] for one in data["layers"]] == ["conv1", "relu_1", "fc"]
    assert [row[:3] for row in data["units"] if row[0] == 2] == [
        [2, i, name] for i, name in enumerate(("tench", "golf ball", "church", "gas pump", "chain saw"))
    ]
    assert [row[1] for row in data["units"] if row[0] == 1] == [0, 1, 2, 3, 4, 5, 8]


def test_the_first_page_says_how_it_was_made(site: Path) -> None:
    text = Page(site / "index.html").text
    assert "jaxviz.gallery.build(" in text and f"'{LAYERS}'" in text and "samples=2" in text
    assert "What 20 units of 3 layers respond to" in text and "12 photos" in text
    for name in ("jax", "seed", "steps", "files that were no photos"):
        assert name in text
    assert re.search(r"relu → conv2", text) and "avgpool" in text


def test_a_finished_site_is_not_rendered_again_and_more_layers_may_come(
    site: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    shutil.copytree(site, out)
    before = {name: (out / name).stat().st_mtime_ns for name in files(out) if name.endswith(".webp")}
    asked: list[str] = []
    inner = _layer.visualize

    def counted(model: Any, objective: Any, **given: Any) -> Any:
        asked.append(given["out"].name)
        return inner(model, objective, **given)

    monkeypatch.setattr(_layer, "visualize", counted)
    page = jaxviz.gallery.build(tiny_model(), f"{LAYERS},relu:0-1", examples=photos, out=out, **SETTINGS)
    assert asked == ["conv1", "relu", "relu_1", "fc"]
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert [one["name"] for one in search_of(out)["layers"]] == ["conv1", "relu", "relu_1", "fc"]
    assert page == out / "index.html"


def test_a_site_whose_process_was_killed_continues(photos: Path, tmp_path: Path) -> None:
    whole, killed, copied = tmp_path / "whole", tmp_path / "killed", []

    def copy(what: str, now: jaxviz.Progress) -> None:
        if what == "relu_1" and not copied:
            copied.append(shutil.copytree(whole, killed))

    options: Any = {"examples": photos, **SETTINGS, "mesh": jaxviz.make_mesh(1)}
    jaxviz.gallery.build(tiny_model(), LAYERS, out=whole, progress=copy, **options)
    assert "Still to be rendered: relu_1, fc." in Page(killed / "index.html").text
    before = (killed / "work" / "conv1" / "result.npz").stat().st_mtime_ns
    (killed / "layers" / ".0000.html.abcd1234").write_text("what a killed write leaves")
    jaxviz.gallery.build(tiny_model(), LAYERS, out=killed, **options)
    assert (killed / "work" / "conv1" / "result.npz").stat().st_mtime_ns == before
    assert files(whole) == files(killed)
    for name in files(whole):
        if name.endswith((".html", "search.js")):
            texts = [re.sub(re.escape(f"out='{out}'"), "", (out / name).read_text()) for out in (whole, killed)]
            assert texts[0] == texts[1], name


def test_a_finished_site_on_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise OSError(30, "Read-only file system")

    quick = {"out": tmp_path / "site", "size": 16, "steps": 1, "transforms": ()}
    page = jaxviz.gallery.build(tiny_model(), "conv1:0-1", **quick)
    before = {name: (tmp_path / "site" / name).stat().st_mtime_ns for name in files(tmp_path / "site")}
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.TemporaryFile", refuse)
        assert jaxviz.gallery.build(tiny_model(), "conv1:0-1", **quick) == page
        with pytest.raises(SaveError, match="Read-only"):
            jaxviz.gallery.build(tiny_model(), "conv1:0-1,relu:0", **quick)
    assert {name: (tmp_path / "site" / name).stat().st_mtime_ns for name in files(tmp_path / "site")} == before


def test_a_site_that_was_interrupted_says_so(site: Path, photos: Path, tmp_path: Path) -> None:
    def stop(what: str, now: jaxviz.Progress) -> None:
        if what == "relu":
            raise KeyboardInterrupt

    out = tmp_path / "site"
    shutil.copytree(site, out)
    with pytest.raises(KeyboardInterrupt):
        jaxviz.gallery.build(tiny_model(), f"{LAYERS},relu:0-1", examples=photos, out=out, progress=stop, **SETTINGS)
    text = Page(out / "index.html").text
    assert "Still to be rendered: relu, relu_1, fc." in text and "What 8 units of 1 layer" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 4}, "steps is 3 there and 4 here"),
        ({"k": 2}, "k is 3"),
        ({"seed": 1}, "seed is 0"),
        ({"transforms": None}, "options"),
    ],
)
def test_other_settings_are_refused(site: Path, photos: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(SaveError, match=said):
        jaxviz.gallery.build(tiny_model(), LAYERS, examples=photos, out=site, **(SETTINGS | change))


def test_other_layers_weights_and_photos_are_refused(site: Path, photos: Path) -> None:
    for model, layers, examples, said in (
        (tiny_model(seed=1), LAYERS, photos, "weights"),
        (tiny_model(), LAYERS, None, "examples"),
        (tiny_model(), "conv1", photos, "has the layer"),
        (tiny_model(), LAYERS.replace("0-5", "0-4"), photos, "other units"),
    ):
        with pytest.raises(SaveError, match=said):
            jaxviz.gallery.build(model, layers, examples=examples, out=site, **SETTINGS)


def test_overwrite_removes_its_own_files_only(tmp_path: Path) -> None:
    out = tmp_path / "site"
    quick = {"size": 16, "steps": 1, "transforms": ()}
    jaxviz.gallery.build(tiny_model(), "conv1:0-1", out=out, **quick)
    (out / "mine.txt").write_text("kept")
    jaxviz.gallery.build(tiny_model(), "conv1:2-3", out=out, overwrite=True, **quick)
    assert (out / "mine.txt").read_text() == "kept" and not (out / "layers" / "conv1" / "0001.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.html").write_text("someone's")
    with pytest.raises(SaveError, match="files of others"):
        jaxviz.gallery.build(tiny_model(), "relu:2", out=tmp_path / "other", overwrite=True, **quick)
    assert (tmp_path / "other" / "index.html").read_text() == "someone's"


def test_without_photos_units_are_compared_by_their_pictures(tmp_path: Path) -> None:
    model = tiny_model()
    jaxviz.gallery.build(model, ["conv2"], out=tmp_path / "site", size=16, steps=2, transforms=(), similar=3)
    images = load_result(tmp_path / "site" / "work" / "conv2").images[:, 0]
    peaks = np.asarray(model.activations(np.asarray(images), "conv2")["conv2"]).max((1, 2))  # (pictures, units)
    profiles = peaks - peaks.min(0)
    cosines = (profiles.T @ profiles) / np.outer(np.linalg.norm(profiles, axis=0), np.linalg.norm(profiles, axis=0))
    page = Page(tmp_path / "site" / "layers" / "conv2" / "0004.html")
    links = [one["href"] for one in page.all("a") if re.fullmatch(r"\d{4}\.html", one.get("href", "")) and "rel" not in one]
    near = [i for i in np.argsort(-cosines[4], kind="stable") if i != 4][:3]
    assert links == [f"{i:04d}.html" for i in near]
    assert "photo" not in Page(tmp_path / "site" / "index.html").text


def test_wrong_arguments(tmp_path: Path) -> None:
    out, model = tmp_path / "site", tiny_model()
    for layers, error, said in (
        ("", ArgumentError, "at least one layer"),
        ("convx", LayerError, "conv1"),
        ("conv1:99", UnitError, "0 to 7"),
        ("conv1,conv1:3", ArgumentError, "same layer"),
        ("deepdream:conv1", ArgumentError, "channels of layers"),
        ("conv1:1 - conv1:2", ArgumentError, "channels of layers"),
    ):
        with pytest.raises(error, match=said):
            jaxviz.gallery.build(model, layers, out=out)
    for given in ({"k": 0}, {"samples": 0}, {"similar": -1}, {"transparency": True}, {"snapshots": [1]}):
        with pytest.raises(ArgumentError):
            jaxviz.gallery.build(model, "conv1", out=out, **given)
    assert not out.exists()
    function = jaxviz.from_function(lambda images: images.mean((1, 2)), channels=5)
    with pytest.raises(ArgumentError, match="channels"):
        jaxviz.gallery.build(function, "output", out=out)


def test_the_opposite_direction(tmp_path: Path) -> None:
    model = tiny_model()
    jaxviz.gallery.build(model, "conv1:3", out=tmp_path, size=16, steps=20, transforms=(), negative=True)
    low = load_result(tmp_path / "work" / "conv1-negative").images[0]
    high = load_result(tmp_path / "work" / "conv1").images[0]
    acts = [np.asarray(model.activations(np.asarray(images), "conv1")["conv1"])[..., 3].mean() for images in (low, high)]
    assert acts[0] < acts[1]
    page = Page(tmp_path / "layers" / "conv1" / "0003.html")
    assert "0003-n0.webp" in [one["src"] for one in page.all("img")] and "opposite" in page.text
    with Image.open(tmp_path / "layers" / "conv1" / "0003-n0.webp") as picture:
        assert np.abs(np.asarray(picture, np.float32) / 255 - low[0]).mean() < 0.1


def test_grey_networks_and_oblong_pictures(tmp_path: Path) -> None:
    grey = jaxviz.from_function(lambda images: images.mean((1, 2)), channels=1, input_size=(12, 20), name="grey")
    jaxviz.gallery.build(grey, "output", out=tmp_path, steps=1, transforms=())
    with Image.open(tmp_path / "layers" / "output" / "0000-0.webp") as picture:
        assert picture.size == (20, 12)
    with Image.open(tmp_path / "layers" / "output" / "0000-t.webp") as picture:
        assert picture.size == (12, 12)
