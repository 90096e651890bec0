"""The browser that other tests look through tells what goes wrong on a page."""

from __future__ import annotations

from pathlib import Path

from tests.browser import Browser, outside

PAGE = """<!doctype html><title>t</title><input id=a><p>text</p>
<script>document.querySelector('#a').addEventListener('keydown', e => document.title += e.key)</script>"""
BROKEN = "<!doctype html><script>nothing.here()</script><img src=absent.png><img src='http://example.invalid/x.png'>"


def test_it_tells_errors_requests_and_keys(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    (tmp_path / "broken.html").write_text(BROKEN)
    browser.open(tmp_path / "broken.html")
    errors = browser.errors()
    assert any("nothing is not defined" in one for one in errors) and any("absent.png" in one for one in errors)
    assert outside(browser.requests(), tmp_path) == ["http://example.invalid/x.png"]
    browser.open(tmp_path / "page.html")
    assert browser.texts("p") == ["text"] and not browser.errors()
    assert [url.rpartition("/")[2] for url in browser.requests()] == ["page.html"]
    browser.script("document.querySelector('#a').focus()")
    browser.press("b", "ARROW_DOWN")
    assert browser.driver.title == "tbArrowDown"
    browser.window(400, 500, dark=True)
    assert browser.script("return [innerWidth, matchMedia('(prefers-color-scheme: dark)').matches]") == [400, True]
    browser.window()
