# -*- test-case-name: mailgate.test.integration.test_browser -*-
"""
A real browser: Debian's Chromium without a window, controlled by chromedriver.

All tests of a process share one, because it takes seconds to start. What the browser complains of, and what it
requests, is recorded, so that each test can say what must not have happened.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.daemon import Daemon, freePort, ifKilled, newFolder, shared
from mailgate.test.integration.programs import programPath, require
from mailgate.test.integration.webdriver import WebDriver, WebDriverError

__all__ = ["Browser", "BrowserTestCase"]

FLAGS = [
    # Tests run as root, where the sandbox of Chromium does not.
    "--no-sandbox",
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    # A page in a window that no screen shows is not drawn less often.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    # /dev/shm is small in containers.
    "--disable-dev-shm-usage",
]

_AXE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "axe", "axe.min.js")

_SERIOUS = """
const options = {resultTypes: ["violations"], ...(arguments[1] && {runOnly: arguments[1]})};
return axe.run(document.querySelector(arguments[0]), options).then(result => result.violations
    .filter(each => ["serious", "critical"].includes(each.impact))
    .map(each => `${each.id}: ${each.help}: ` + each.nodes.map(node => node.html.slice(0, 200)).join(" | ")))
"""

_HIDDEN = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


class Browser(WebDriver):
    """
    A Chromium with a new profile.

    @ivar allowed: parts of messages of the console that are expected at present.
    """

    def __init__(self) -> None:
        self._folder = newFolder("browser")
        port = freePort()
        driver = programPath("chromedriver")
        assert driver is not None
        self._driver = Daemon([driver, f"--port={port}"], os.path.join(self._folder, "chromedriver.log"))
        self._driver.ready(port)
        options = {"binary": programPath("chromium"), "args": [*FLAGS, f"--user-data-dir={self._folder}/profile"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        super().__init__(port, {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": logs})
        ifKilled("kill", str(self.capabilities["goog:processID"]))
        self.allowed: set[str] = set()

    def stop(self) -> None:
        """End it."""
        with contextlib.suppress(OSError, WebDriverError):
            self.quit()
        self._driver.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def renew(self) -> None:
        """Leave the page, and forget all that tests have set or caused."""
        self.allowed = set()
        self.look()
        self.devtools("Emulation.setScriptExecutionDisabled", value=False)
        self.devtools("Network.setCacheDisabled", cacheDisabled=False)
        self.go("about:blank")
        self.log("browser")
        self.log("performance")

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """
        Show the page in another way.

        @param width: of the window, in CSS pixels.
        @param height: of the window, in CSS pixels.
        @param scheme: C{light} or C{dark}.
        """
        # The window of Chromium cannot be as narrow as a telephone.
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def wait(self, condition: str, *arguments: Any, within: float = 20.0) -> Any:
        """
        Wait until the page shows something.

        @param condition: an expression of JavaScript; C{arguments} are its C{arguments}.
        @param within: the seconds for that at most.
        @return: the first true value.
        @raise AssertionError: it takes too long.
        """
        deadline = time.monotonic() + within
        while True:
            value = self.run(f"return {condition}", *arguments)
            if value:
                return value
            if time.monotonic() > deadline:
                shown = self.run("return document.body ? document.body.innerText : ''")
                raise AssertionError(f"not true within {within} s: {condition} {arguments}\n{shown}")
            time.sleep(0.05)

    def faults(self, origin: str) -> list[str]:
        """
        Return what must not have happened since the last call: errors and refusals of the policy on the console, and
        requests to another origin.

        @param origin: the origin of the page, such as C{http://127.0.0.1:9143}.
        """
        found = []
        for entry in self.log("browser"):
            bad = entry["level"] == "SEVERE" or entry["source"] == "security"
            if bad and not any(part in entry["message"] for part in self.allowed):
                found.append(f"{entry['source']}: {entry['message']}")
        return found + [f"request to {url}" for url in self.requests() if not url.startswith(f"{origin}/")]

    def requests(self) -> Iterator[str]:
        """Return the URLs that the browser has requested since the last call."""
        for entry in self.log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                # The user and password of HTTP's basic authentication are part of what WebDriver opens.
                yield re.sub("//[^/@]*@", "//", event["params"]["request"]["url"])

    def serious(self, within: str = "html", rule: str = "") -> list[str]:
        """
        Return the serious and critical faults that axe-core finds in the page as it is. That takes a second of CPU time
        for a page with large tables.

        @param within: the selector of the part to check.
        @param rule: the only rule to check; empty for all.
        """
        if not self.run("return typeof axe === 'object'"):
            with open(_AXE, encoding="utf-8") as opened:
                self.run(opened.read())
        found: list[str] = self.run(_SERIOUS, within, rule)
        return found

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        return bool(self.run(_HIDDEN))

    def picture(self, whole: bool = False) -> bytes:
        """
        Return the page as a PNG.

        @param whole: also the part below the window.
        """
        if whole:
            size = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        else:
            shot = self.devtools("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


class BrowserTestCase(SynchronousTestCase):
    """
    Tests with a browser. At the end of each the console must have no errors, and no request may have left the origin.

    @cvar origin: the origin of all requests.
    """

    origin = ""

    def setUp(self) -> None:
        require("chromium", "chromedriver")
        self.browser = shared("browser", Browser)
        self.browser.renew()

    def tearDown(self) -> None:
        try:
            self.assertEqual(self.browser.faults(self.origin), [])
        finally:
            # A page that stays open is drawn anew each second beside all later tests of the process.
            self.browser.go("about:blank")
