# -*- test-case-name: mailgate.test.integration.test_browser -*-
"""
A client of the W3C WebDriver protocol, as far as these tests need it.

Selenium would bring 12 MB, with programs for four systems, and seven more packages for what is a handful of requests
in JSON.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["BACKSPACE", "ENTER", "ESCAPE", "SHIFT", "SPACE", "TAB", "WebDriver", "WebDriverError"]

_PATIENCE = 60.0
"""Seconds for one command. Chromium starts in one second on an idle computer."""

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key of the reference of an element. (WebDriver, section 12)"""

BACKSPACE, TAB, ENTER, SHIFT, ESCAPE, SPACE = "\ue003", "\ue004", "\ue007", "\ue008", "\ue00c", " "
"""Keys without a character. (WebDriver, section 17.4.2)"""


class WebDriverError(Exception):
    """
    The driver refused a command.

    @ivar error: the error's word, such as C{no such element}.
    """

    def __init__(self, error: str, message: str) -> None:
        super().__init__(f"{error}: {message}")
        self.error = error


class WebDriver:
    """
    One browser, which a driver starts and controls.

    @param port: the port of the driver on 127.0.0.1.
    @param capabilities: what the browser must be, as the command New Session has it.
    @ivar capabilities: what the browser is.
    """

    def __init__(self, port: int, capabilities: Mapping[str, Any]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        self._session = ""
        begun = self.command("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"/{begun['sessionId']}"
        self.capabilities: dict[str, Any] = begun["capabilities"]

    def command(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """
        Send one command.

        @param method: of HTTP.
        @param path: below the session.
        @param body: the arguments; L{None} for commands without any.
        @return: the value of the answer.
        @raise WebDriverError: the driver refused it.
        """
        text = None if body is None else json.dumps(body)
        self._connection.request(method, f"/session{self._session}{path}", text)
        value = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(value["error"], value["message"])
        return value

    def quit(self) -> None:
        """End the browser."""
        self.command("DELETE", "")
        self._connection.close()

    def go(self, url: str) -> None:
        """Open C{url}, and wait until it is loaded."""
        self.command("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """
        Run a script in the page, whatever the page's policy says about scripts.

        @param script: the body of a function.
        @param arguments: its C{arguments}, of JSON's kinds.
        @return: what it returns, or what the promise that it returns resolves to.
        @raise WebDriverError: it threw an error.
        """
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, selector: str) -> str:
        """
        Return the reference of the first element that matches.

        @param selector: of CSS.
        @raise WebDriverError: there is none.
        """
        found: str = self.command("POST", "/element", {"using": "css selector", "value": selector})[_ELEMENT]
        return found

    def click(self, selector: str) -> None:
        """
        Click the first element that matches, as a user does: it must be visible, and no other element may cover it.

        @param selector: of CSS.
        @raise WebDriverError: it cannot be clicked.
        """
        self.command("POST", f"/element/{self.find(selector)}/click", {})

    def type(self, selector: str, text: str) -> None:
        """
        Type into a field, behind what it holds.

        @param selector: of CSS.
        @param text: characters and keys.
        """
        self.command("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """
        Press keys one after the other, wherever the focus is.

        @param keys: characters or keys; of L{SHIFT} and a key in one text, the first is held down.
        """
        actions = []
        for each in keys:
            actions += [{"type": "keyDown", "value": key} for key in each]
            actions += [{"type": "keyUp", "value": key} for key in reversed(each)]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, selector: str) -> str:
        """
        Return the text of an element as a user sees it.

        @param selector: of CSS.
        """
        text: str = self.command("GET", f"/element/{self.find(selector)}/text")
        return text

    def cookies(self) -> list[dict[str, Any]]:
        """Return the cookies of the page, also those that scripts cannot see."""
        found: list[dict[str, Any]] = self.command("GET", "/cookie")
        return found

    def log(self, kind: str) -> list[dict[str, Any]]:
        """
        Return the entries of a log since the last call.

        @param kind: C{browser} for the console, C{performance} for events of the DevTools protocol.
        """
        found: list[dict[str, Any]] = self.command("POST", "/se/log", {"type": kind})
        return found

    def devtools(self, method: str, **parameters: Any) -> Any:
        """
        Send a command of the DevTools protocol.

        @param method: such as C{Emulation.setEmulatedMedia}.
        @param parameters: of the method.
        @return: its result.
        """
        return self.command("POST", "/goog/cdp/execute", {"cmd": method, "params": parameters})
