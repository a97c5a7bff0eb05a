# -*- test-case-name: mailgate.test.integration.test_browser -*-
"""
The live page in a browser, before a gateway that all tests of a process share.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mailgate.test.integration.browser import BrowserTestCase
from mailgate.test.integration.daemon import shared, slowness
from mailgate.test.integration.pagesite import TOKENS, PageSite
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.webdriver import ENTER, TAB

__all__ = ["LivePageTestCase"]

SOON = 2.0
"""The seconds within which the page shows what happened, on a computer that has a processor for each process."""


def soon() -> float:
    """Return L{SOON} for this computer and what it has to do now."""
    return SOON * slowness()


_LOOK = "document.getElementById(arguments[0]).scrollIntoView()"
"""The page asks for sessions only while they can be seen."""

_ROW = """Array.from(document.querySelectorAll(`#${arguments[0]} tbody tr`))
    .find(row => arguments[1].every(part => row.textContent.includes(part)))"""

_NUMBER = """Array.from(document.querySelectorAll("#numbers dt"))
    .find(each => each.textContent === arguments[0])?.parentNode.querySelector("dd").textContent"""


class LivePageTestCase(BrowserTestCase):
    """What tests do with the page, and look for on it."""

    def setUp(self) -> None:
        super().setUp()
        self.site = shared("page site", lambda: PageSite().start())
        self.origin = self.site.origin

    def enter(self, level: str = "admin") -> None:
        """Open the page, enter a token, and wait for the first numbers."""
        self.browser.go(f"{self.origin}/")
        self.browser.wait("document.querySelector('#access').open")
        self.browser.type("#access [name=token]", TOKENS[level] + ENTER)
        self.browser.wait("document.querySelector('#numbers dd')")

    def sees(self, condition: str, *arguments: Any, within: float = 0) -> Any:
        """
        Wait until an expression of JavaScript is true; return its value.

        @param within: the seconds for that; 0 is L{soon}.
        """
        return self.browser.wait(condition, *arguments, within=within or soon())

    def seesRow(self, section: str, *parts: str, within: float = 0) -> str:
        """Wait until a row of a table has all these texts; return its text."""
        row: str = self.sees(f"({_LOOK}, ({_ROW})?.textContent)", section, list(parts), within=within)
        return row

    def lacksRow(self, section: str, *parts: str, within: float = 0) -> None:
        """Wait until no row of a table has all these texts."""
        self.sees(f"({_LOOK}, !({_ROW}))", section, list(parts), within=within)

    def seesNumber(self, name: str, value: str, within: float = 0) -> None:
        """Wait until a number of the section Now has this text."""
        self.sees(f"({_NUMBER}) === arguments[1]", name, value, within=within)

    def seesText(self, selector: str, part: str, within: float = 0) -> None:
        """Wait until a visible element has this text."""
        condition = """Array.from(document.querySelectorAll(arguments[0]))
            .some(each => each.checkVisibility() && each.textContent.includes(arguments[1]))"""
        self.sees(condition, selector, part, within=within)

    def order(self, section: str, *parts: str) -> None:
        """Press the visible button of a row, and wait for the dialog."""
        self.seesRow(section, *parts)
        find = f"const button = [...({_ROW}).querySelectorAll('button')].filter(each => each.checkVisibility()).pop();"
        self.browser.run(f"{find} button.scrollIntoView({{block: 'center'}}); button.click()", section, list(parts))

    def confirm(self) -> str:
        """Carry out the order of the dialog, read the result, and close the dialog; return the result."""
        self.sees("document.querySelector('#order').open")
        self.browser.click("#order .go")
        self.sees("document.querySelector('#order .go').hidden")
        result = self.browser.text("#order .effect")
        self.browser.click("#order .cancel")
        self.sees("!document.querySelector('#order').open")
        return result

    def search(self, **fields: str) -> None:
        """Fill in the filter of the sessions, and press Enter."""
        last = ""
        for name, text in fields.items():
            last = f"#filter [name={name}]"
            self.browser.type(last, text)
        self.browser.type(last, ENTER)

    def tabTo(self, condition: str, *arguments: Any) -> None:
        """Press Tab until the element with the focus, C{it}, meets an expression of JavaScript."""
        for _ in range(150):
            self.browser.press(TAB)
            if self.browser.run(f"const it = document.activeElement; return Boolean({condition})", *arguments):
                return
        raise AssertionError(f"not to be reached by Tab: {condition} {arguments}")

    @contextlib.contextmanager
    def sessionOf(self, user: str, name: str = "imap") -> Iterator[RawClient]:
        """A session of a user until the end of the block."""
        client = self.site.login(user, name=name)
        try:
            yield client
        finally:
            client.close()
