"""The page of points: its files and data, that names cannot break out, and in a browser that mouse and keys work."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxviz
from jaxviz import ArgumentError, SaveError
from jaxviz.inspection import Embeddings, neighbors, write_page
from jaxviz.inspection._embeddings import page as _page
from tests.browser import Browser, outside

pytestmark = pytest.mark.once

EVIL = "</script><script>document.title='taken'</script><img src=x onerror=document.title='taken'>"


def embeddings(count: int, labels: tuple[str, ...] = ("church", "golf ball"), folder: str = "/data/in") -> Embeddings:
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    files = tuple(f"{folder}/{labels[i % len(labels)].replace('/', '_')}/p{i}.png" for i in range(count))
    return Embeddings(vectors, files, tuple(labels[i % len(labels)] for i in range(count)))


def coloured(count: int) -> np.ndarray:
    """Images (N, 20, 24, 3), each of one colour of its own."""
    i = np.arange(count)
    return np.broadcast_to(np.stack([i * 37 % 256, i * 91 % 256, i * 53 % 256], -1)[:, None, None], (count, 20, 24, 3)).astype(
        np.uint8
    )


def data_of(page: Path) -> dict[str, Any]:
    text = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    assert text
    return json.loads(text[1])


def test_what_the_page_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_page, "ACROSS", 3)  # three sheets of 9, 9 and 2
    made, points = embeddings(20), np.random.default_rng(1).normal(size=(20, 2)) * [3, 1]
    seen: list[tuple[int, int]] = []
    page = write_page(tmp_path / "page", points, made, images=coloured(20), title="Ä & B", progress=lambda *at: seen.append(at))
    data, found = data_of(page), neighbors(made, k=9)
    assert page == tmp_path / "page" / "index.html" and seen[-1] == (20, 20) and len(seen) == 20
    assert data["names"][:2] == ["church/p0.png", "golf ball/p1.png"], "no folder that all have in common"
    assert [kind["name"] for kind in data["classes"]] == ["church", "golf ball"] and data["class"][:3] == [0, 1, 0]
    assert data["near"] == found.indices.tolist()
    np.testing.assert_allclose(data["far"], found.distances, atol=1e-4)
    at = np.array([data["x"], data["y"]], float).T
    extent = (points.max(0) - points.min(0)).max()
    np.testing.assert_allclose(at[:, 0], (points[:, 0] - points[:, 0].min()) / extent * 10000, atol=1)
    np.testing.assert_allclose(at[:, 1], (points[:, 1].max() - points[:, 1]) / extent * 10000, atol=1)
    assert "<title>Ä &amp; B</title>" in page.read_text(encoding="utf-8")
    assert data["sheets"] == [f"thumbnails/sheet-{n}.jpg" for n in range(3)]
    for i in range(20):
        photo = np.asarray(Image.open(tmp_path / "page" / f"photos/{i:05d}.jpg"))
        sheet = np.asarray(Image.open(tmp_path / "page" / data["sheets"][i // 9]))
        y, x = (v * data["tile"] + data["tile"] // 2 for v in divmod(i % 9, 3))
        for shown in (photo[80, 80], sheet[y, x]):
            assert np.abs(shown.astype(int) - coloured(20)[i, 0, 0]).max() < 12
    write_page(tmp_path / "page", points[:4], made[:4], images=coloured(4))
    assert len(list((tmp_path / "page" / "photos").iterdir())) == 4, "pictures of the older page are gone"
    assert [one.name for one in (tmp_path / "page" / "thumbnails").iterdir()] == ["sheet-0.jpg"]


def test_files_are_read_and_gone_ones_are_grey(tmp_path: Path) -> None:
    made = embeddings(3, folder=str(tmp_path))
    for file in made.files[:2]:
        jaxviz.image.save(file, np.full((10, 30, 3), 0.5))
    write_page(tmp_path / "page", np.eye(3, 2), made)
    shown = [np.asarray(Image.open(tmp_path / "page" / f"photos/{i:05d}.jpg")) for i in range(3)]
    assert {one.shape for one in shown} == {(160, 160, 3)}
    assert abs(int(shown[0][0, 0, 0]) - 128) < 4 and abs(int(shown[2][0, 0, 0]) - 160) < 4


@pytest.mark.parametrize("count", [1, 2])
def test_few_points_in_one_place(tmp_path: Path, count: int) -> None:
    data = data_of(write_page(tmp_path, np.zeros((count, 2)), embeddings(count, ("",)), images=coloured(count)))
    assert data["classes"] == [] and data["class"] == [-1] * count and data["width"] == data["height"] == 1
    assert data["near"] == ([[]] if count == 1 else [[1], [0]])


def test_names_cannot_break_out(tmp_path: Path) -> None:
    made = embeddings(4, (EVIL, "a\udcffb"))
    page = write_page(tmp_path, np.eye(4, 2), made, images=coloured(4), title=EVIL, subtitle=EVIL)
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 2 and "<img src=x" not in text and "onerror=document" in text
    assert data_of(page)["classes"] == [{"name": EVIL, "color": "#1f77b4"}, {"name": "a\\udcffb", "color": "#ff7f0e"}]


def test_what_somebody_else_has_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "00001.jpg").write_text("somebody's")
    with pytest.raises(SaveError, match="photos"):
        write_page(tmp_path, np.eye(4, 2), embeddings(4), images=coloured(4))
    assert (tmp_path / "photos" / "00001.jpg").read_text() == "somebody's" and not (tmp_path / "index.html").exists()
    write_page(tmp_path, np.eye(4, 2), embeddings(4), images=coloured(4), overwrite=True)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path, np.eye(4, 2), embeddings(4), images=coloured(4), progress=stop)
    assert "not finished" in (tmp_path / "index.html").read_text()
    assert data_of(write_page(tmp_path, np.eye(4, 2), embeddings(4), images=coloured(4)))["width"] > 1


@pytest.mark.parametrize(
    ("points", "options", "words"),
    [
        (np.zeros((3, 2)), {}, r"points \(4, 2\)"),
        (np.full((4, 2), np.nan), {}, "finite"),
        (np.zeros((4, 2)), {"images": coloured(3)}, "4 images"),
        (np.zeros((4, 2)), {"near": neighbors(np.eye(3, dtype=np.float32), k=1)}, "all 4 images"),
    ],
)
def test_wrong_arguments_are_told(tmp_path: Path, points: np.ndarray, options: dict, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        write_page(tmp_path, points, embeddings(4), **{"images": coloured(4), **options})


# In a browser -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    points = np.stack([np.cos(angle), np.sin(angle)], -1)  # point 0 is furthest to the right
    return write_page(folder, points, embeddings(60, ("church", EVIL, "golf ball")), images=coloured(60), title="60 points")


def state(browser: Browser, **expected: str) -> dict[str, str]:
    """Wait until the page has drawn what is expected, and return all that it tells."""
    deadline = time.monotonic() + 10
    while True:
        found = browser.script("return Object.assign({}, document.body.dataset)")
        if all(found.get(name) == value for name, value in {"ready": "true", **expected}.items()):
            return found
        assert time.monotonic() < deadline, f"expected {expected}, the page says {found}"
        time.sleep(0.05)


def moved(browser: Browser, x: float, y: float, click: bool = False) -> None:
    """Point at a place of the map, or click there, with events that the browser itself makes."""
    box = browser.script("const b = document.querySelector('#map').getBoundingClientRect(); return [b.x, b.y]")
    kinds = ("mouseMoved", "mousePressed", "mouseReleased") if click else ("mouseMoved",)
    for kind in kinds:
        button = {"button": "left", "clickCount": 1} if click and kind != "mouseMoved" else {}
        browser.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": box[0] + x, "y": box[1] + y, **button})


def test_it_loads_offline_without_errors_and_shows_all(browser: Browser, site: Path) -> None:
    browser.window(1200, 800)
    browser.open(site)
    told = state(browser)
    assert int(told["pictures"]) + int(told["dots"]) == 60 and int(told["pictures"]) > 20
    assert browser.driver.title == "60 points", "no name has run as a script"
    assert browser.texts("#classes button span:nth-child(2)") == [EVIL, "church", "golf ball"]
    assert not browser.errors() and not outside(browser.requests(), site.parent)


def test_keys_choose_pictures_and_neighbors_are_shown(browser: Browser, site: Path) -> None:
    browser.window(1200, 800)
    browser.open(site)
    state(browser)
    browser.script("document.querySelector('#search').focus()")
    browser.press(*"p7.png", "ENTER")
    state(browser, kept="7")
    assert browser.texts("#name") == [f"{EVIL.replace('/', '_')}/p7.png"]
    assert browser.script("return document.querySelector('#photo').alt").startswith("Picture ")
    assert "1 found" in browser.texts("#found")[0] and browser.address.endswith("#7")
    near = neighbors(embeddings(60), k=9)
    assert len(browser.all("#near button")) == 9
    assert "Nearest" in browser.script("return document.querySelector('#said').textContent")
    browser.all("#near button")[2].click()
    state(browser, kept=str(near.indices[7, 2]))
    browser.open(site, "#15")  # the topmost point of the circle
    state(browser, kept="15")
    browser.script("document.querySelector('#map').focus()")
    browser.press("ARROW_RIGHT")
    state(browser, kept="14")
    browser.press("ARROW_LEFT", "ARROW_LEFT")
    state(browser, kept="16")
    before = browser.script("return document.body.dataset.pictures")
    browser.press(*"+++++++")
    time.sleep(0.2)
    assert state(browser, kept="16")["pictures"] != before
    for _ in range(30):
        browser.script(
            "document.querySelector('#map').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowDown', shiftKey: true}))"
        )
    browser.press("-", "-")
    time.sleep(0.2)
    told = state(browser)
    assert int(told["pictures"]) + int(told["dots"]) > 0, "the map cannot be lost out of sight"
    browser.press("0", "ESCAPE")
    state(browser, kept="-1", pictures=before)
    assert not browser.errors()


def test_the_mouse_points_keeps_and_zooms(browser: Browser, site: Path) -> None:
    browser.window(1200, 800)
    browser.open(site)
    state(browser)
    width, height = browser.script("const m = document.querySelector('#map'); return [m.clientWidth, m.clientHeight]")
    right = (width + min(width, height) - 80) / 2 - 1
    moved(browser, right, height / 2)
    over = state(browser)["over"]
    assert int(over) in (59, 0, 1) and browser.all("#card")[0].is_displayed()
    moved(browser, right, height / 2, click=True)
    state(browser, kept=over)
    moved(browser, width / 2, height / 2)  # nothing is there
    state(browser, kept=over, over="-1")
    moved(browser, right, height / 2, click=True)
    state(browser, kept="-1")
    browser.all("#in")[0].click()
    browser.all("#in")[0].click()
    deadline = time.monotonic() + 5
    while int(state(browser)["pictures"]) + int(state(browser)["dots"]) == 60 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert int(state(browser)["pictures"]) + int(state(browser)["dots"]) < 60, "those outside of the window are not drawn"
    browser.all("#reset")[0].click()
    assert not browser.errors()


def test_classes_are_switched_off_and_colours_follow_the_reader(browser: Browser, site: Path) -> None:
    browser.window(1200, 800)
    browser.open(site)
    state(browser)
    count = lambda: sum(int(state(browser)[name]) for name in ("pictures", "dots"))  # noqa: E731
    buttons = browser.all("#classes button")
    buttons[1].click()
    time.sleep(0.2)
    assert count() == 40 and [b.get_attribute("aria-pressed") for b in buttons] == ["true", "false", "true"]
    browser.all("#none")[0].click()
    time.sleep(0.2)
    assert count() == 0
    browser.all("#every")[0].click()
    time.sleep(0.2)
    assert count() == 60
    paper = "return getComputedStyle(document.body).backgroundColor"
    light = browser.script(paper)
    browser.window(1200, 800, dark=True)
    dark = browser.script(paper)
    browser.all("#theme")[0].click()
    assert browser.script(paper) == light != dark
    browser.window(1200, 800)
    browser.script("localStorage.removeItem('jaxviz theme')")
    assert not browser.errors()
