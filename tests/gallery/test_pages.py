"""The site in a browser: no error, nothing asked of a network, search, sorting, keys, light and dark, code that stays text."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from jaxviz.gallery._pages import write_layer, write_map
from jaxviz.gallery._site import Layer, Site, Unit
from tests.browser import Browser, outside
from tests.gallery.conftest import EVIL

pytestmark = pytest.mark.once

CHURCH = "return jaxviz.found.data.words.indexOf('church')"


@pytest.fixture
def page(browser: Browser, site: Path, tmp_path: Path):
    """Return the browser, and see in the end that no page had anything to complain of or left the site's folder."""
    browser.leave()  # the page of another test
    found: list[str] = []
    inner = browser._forget
    here = [site, tmp_path]

    def keep() -> None:
        found.extend([*browser.errors(), *(url for url in browser.requests() if all(outside([url], one) for one in here))])

    browser._forget = keep  # type: ignore[method-assign]
    browser.window()
    yield browser
    keep()
    browser._forget = inner  # type: ignore[method-assign]
    assert not found


def numbers(browser: Browser) -> list[int]:
    """Return the units that a layer's page shows, in order."""
    shown = "return [...document.querySelectorAll('#units > li')].filter(e => !e.hidden).map(e => +e.dataset.number)"
    return browser.script(shown)


def type_in(browser: Browser, text: str) -> None:
    """Search as a reader does; the page waits a moment for more letters."""
    browser.press("/", *text)
    browser.wait("document.activeElement.id == 'search'")
    browser.script("return new Promise(done => setTimeout(done, 150))")


def focused(browser: Browser) -> str:
    return browser.script("return document.activeElement.getAttribute('href') || document.activeElement.id")


def test_from_the_map_to_a_unit_and_back_by_keys(page: Browser, site: Path) -> None:
    page.open(site / "index.html")
    page.press("ARROW_DOWN")
    assert focused(page) == "layers/conv1/index.html"
    page.press("ENTER")
    page.wait("document.body.classList.contains('units')")
    page.press("ARROW_RIGHT", "ARROW_RIGHT", "ARROW_RIGHT", "ARROW_LEFT")  # the first goes to the first tile
    assert focused(page) == "0001.html"
    page.press("ENTER")
    page.wait("document.body.classList.contains('unit')")
    assert page.address.endswith("layers/conv1/0001.html")
    page.press("ARROW_RIGHT")
    page.wait("location.pathname.endsWith('0002.html')")
    page.press("ESCAPE")
    page.wait("document.body.classList.contains('units')")
    assert focused(page) == "0002.html", "back where the reader was"
    page.press("ESCAPE")
    page.wait("document.body.classList.contains('map')")
    assert focused(page) == "layers/conv1/index.html"


def test_rows_of_a_grid(page: Browser, site: Path) -> None:
    page.window(500, 700)
    page.open(site / "layers" / "conv1" / "index.html")
    columns = page.script("return getComputedStyle(document.querySelector('#units')).gridTemplateColumns.split(' ').length")
    assert 2 <= columns < 8
    page.press("ARROW_DOWN", "ARROW_DOWN")
    assert focused(page) == f"{columns:04d}.html"
    page.press("ARROW_UP")
    assert focused(page) == "0000.html"


def test_sorting(page: Browser, site: Path) -> None:
    page.open(site / "layers" / "relu_1" / "index.html")
    assert numbers(page) == [0, 1, 2, 3, 4, 5, 8]
    tiles = "[...document.querySelectorAll('#units > li')]"
    for by, sign in (("score", -1), ("ratio", -1), ("place", 1)):
        page.script(f"document.querySelector('#sort [value={by}]').click()")
        keys = page.script(f"return {tiles}.map(e => {sign} * e.dataset.{by})")
        assert keys == sorted(keys) and sorted(numbers(page)) == [0, 1, 2, 3, 4, 5, 8], by
    first, second = numbers(page)[:2]
    page.driver.refresh()
    assert numbers(page)[:2] == [first, second], "the address remembers the order"
    page.open(site / "layers" / "relu_1" / f"{first:04d}.html")
    page.press("ARROW_RIGHT")
    page.wait(f"location.pathname.endsWith('{second:04d}.html')")  # the arrows walk in the order that was chosen


def test_search(page: Browser, site: Path) -> None:
    page.open(site / "layers" / "relu_1" / "index.html")
    type_in(page, "8")
    assert numbers(page) == [8] and page.texts("#count") == ["1 of 7 units"]
    page.press("ESCAPE")
    page.wait("document.querySelector('#count').textContent == '7 units'")
    page.press("ESCAPE")
    type_in(page, "church")
    with_church = numbers(page)
    words = "return [...document.querySelectorAll('#units > li')].filter(e => e.dataset.words.includes('church')).length"
    assert len(with_church) == page.script(words)
    page.press("ESCAPE", "ESCAPE")
    type_in(page, "nowhere")
    assert numbers(page) == [] and page.script("return !document.querySelector('#none').hidden")

    page.open(site / "index.html")
    type_in(page, "fc gas")
    assert page.texts("#results .tag b") == ["fc:gas pump"] and not page.all("#map")[0].is_displayed()
    page.press("ENTER", "ENTER")
    page.wait("location.pathname.endsWith('layers/fc/0003.html')")
    type_in(page, EVIL[:8])
    page.press("ENTER")
    page.wait("document.body.classList.contains('map')")
    assert page.address.endswith("index.html#q=%3Cimg%20src")
    page.press("ESCAPE")
    page.wait("document.querySelector('#results').hidden")


def test_the_search_begins_with_the_units_that_like_a_class_most(page: Browser, site: Path) -> None:
    page.open(site / "index.html", "#q=church")
    shown = page.texts("#results .tag b")
    of = "const d = jaxviz.found.data; return d.units.map(u => [d.layers[u[0]].name + ':' + (u[2] || u[1]), u[4]])"
    counts = {name: sum(count for word, count in said if word == page.script(CHURCH)) for name, said in page.script(of)}
    assert set(shown) == {name for name, count in counts.items() if count} | {"fc:church"}
    assert [counts[name] for name in shown] == sorted((counts[name] for name in shown), reverse=True)


def test_a_layer_of_2048_units_stays_quick(page: Browser, tmp_path: Path) -> None:
    """Far from the limit of what a reader would notice: this machine may be busy."""
    units = tuple(Unit(i, "", (float(i * 37 % 100),), (1.0,), ("ok",), place=i * 7 % 2048) for i in range(2048))
    layer = Layer("layer4", "layer4", "add", (7, 7, 2048), "the whole image", (1.0, 1.0), units, 2048)
    site = Site("big", (), "", (layer,), 1, False, (224, 224))
    write_map(site, tmp_path)
    write_layer(site, layer, tmp_path)
    folder = tmp_path / "layers" / "layer4"
    Image.new("RGB", (128, 128), "teal").save(folder / "0000-t.webp")
    for unit in units[1:]:
        (folder / f"{layer.stem(unit.number)}-t.webp").hardlink_to(folder / "0000-t.webp")
    page.open(folder / "index.html")
    asked = page.requests()
    assert len([url for url in asked if url.endswith("-t.webp")]) < 300, "thumbnails are lazy"
    assert not outside(asked, tmp_path)
    assert page.script("return performance.getEntriesByType('navigation')[0].loadEventEnd") < 10_000
    page.script("document.querySelector('#sort [value=score]').click()")
    assert [units[i].score for i in numbers(page)] == sorted((unit.score for unit in units), reverse=True)
    begun = page.script("return performance.now()")
    page.press(*["ARROW_DOWN"] * 20)
    assert page.script("return performance.now()") - begun < 4_000, "a key lays out what is in sight, not everything"
    page.open(tmp_path / "index.html")


def test_code_in_names_stays_text(page: Browser, site: Path) -> None:
    said: list[str] = []
    for path in sorted(site.rglob("*.html")):
        page.open(path)
        strangers = "return [...document.images].filter(e => !e.alt || /\\/x$/.test(e.src) || e.onerror).length"
        assert page.script(strangers) == 0, path
        broken = "return [...document.images].filter(e => e.complete && !e.naturalWidth).length"
        assert page.script(broken) == 0, path
        said += page.texts(".lead")
    assert any(EVIL in text for text in said)


def test_light_and_dark(page: Browser, site: Path) -> None:
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    page.window(dark=True)
    page.open(site / "index.html")
    dark = page.script(ground)
    page.press("t")
    light = page.script(ground)
    page.open(site / "layers" / "fc" / "index.html")
    assert page.script(ground) == light != dark, "remembered on other pages"
    page.script("localStorage.clear()")
    page.open(site / "index.html")
    assert page.script(ground) == dark, "what the system prefers"


def test_help_and_narrow_windows(page: Browser, site: Path) -> None:
    page.open(site / "index.html")
    page.press("?")
    assert page.script("return document.querySelector('#keys').open")
    page.press("ESCAPE")
    assert not page.script("return document.querySelector('#keys').open") and page.address.endswith("index.html")
    page.window(360, 640)
    for path in (site / "index.html", site / "layers" / "fc" / "index.html", site / "layers" / "relu_1" / "0008.html"):
        page.open(path)
        assert page.script("return document.documentElement.scrollWidth") <= 360, f"{path} is too wide"
