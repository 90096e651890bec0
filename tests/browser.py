"""A headless Chromium for tests of pages: started once a process, offline, driven by Selenium over chromedriver."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--disable-extensions", "--mute-audio"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars"),  # whatever a page asks of a network fails at once
)


class Browser:
    """One window. What a page logs and asks for since it was opened is told by `errors` and `requests`."""

    def __init__(self, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        binary = next((found for name in CHROMIUM if (found := shutil.which(name))), None)
        driver = shutil.which("chromedriver")
        if binary is None or driver is None:
            pytest.skip("no Chromium with chromedriver here: apt-get install chromium chromium-driver")
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        # Both paths are given, so that Selenium Manager is never asked; offline all the same, should it be.
        environment = {**os.environ, "SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
        self.driver = webdriver.Chrome(options=options, service=Service(executable_path=driver, env=environment))
        self.driver.set_page_load_timeout(60)
        self.window()
        self.leave()  # the browser's own first page

    def window(self, width: int = 1200, height: int = 800, *, dark: bool = False) -> None:
        """Set the size of the page, and which colours the reader prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file anew, also where it is shown already."""
        self.leave()
        self.driver.get(page.resolve().as_uri() + fragment)

    def leave(self) -> None:
        """Close the page, and forget what it logged and asked for."""
        self.driver.get("about:blank")
        self._forget()

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript as the body of a function of `arguments`, and return what it returns."""
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Return the elements that a CSS selector finds."""
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Return the visible texts of the elements that a CSS selector finds; "" for hidden ones."""
        return [one.text for one in self.all(selector)]

    def press(self, *keys: str) -> None:
        """Press keys one after the other: characters, or names of Selenium's `Keys` such as "ARROW_DOWN"."""
        from selenium.webdriver import ActionChains, Keys

        chain = ActionChains(self.driver, duration=0)
        for key in keys:
            chain = chain.send_keys(getattr(Keys, key) if len(key) > 1 else key)
        chain.perform()

    def wait(self, condition: str, seconds: float = 10) -> None:
        """Wait until a JavaScript expression holds, such as after a link was followed."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds, poll_frequency=0.02).until(lambda _: self.script(f"return {condition}"), condition)

    @property
    def address(self) -> str:
        return self.driver.current_url

    def errors(self) -> list[str]:
        """Return what the console of the page holds of warnings and errors, those of scripts and of missing files."""
        return [one["message"] for one in self.driver.get_log("browser") if one["level"] in ("SEVERE", "WARNING")]

    def requests(self) -> list[str]:
        """Return the addresses that the page has asked for since it was opened, data: and about: left out."""
        messages = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        found = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [url for url in found if not url.startswith(("data:", "about:"))]

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what the window shows, or the whole page, as PNG."""
        import base64

        path.parent.mkdir(parents=True, exist_ok=True)
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        path.write_bytes(base64.b64decode(taken["data"]))

    def close(self) -> None:
        self.driver.quit()

    def _forget(self) -> None:
        for log in ("browser", "performance"):
            self.driver.get_log(log)


def started(profile: Path) -> Iterator[Browser]:
    """Yield a browser with a profile of its own; the test that asks is skipped where there is none."""
    pytest.importorskip("selenium", reason="drives the browser, in the test extra")
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()


def outside(requests: Sequence[str], folder: Path) -> list[str]:
    """Return the requests that left a folder."""
    return [url for url in requests if not url.startswith(folder.resolve().as_uri())]
