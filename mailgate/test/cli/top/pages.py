"""
Answers of the admin server for tests of the page, an asker that remembers its questions, and terminals.
"""

from __future__ import annotations

from typing import Any

from mailgate.cli.columns import width
from mailgate.cli.top.actions import Question
from mailgate.cli.top.keys import Top
from mailgate.cli.top.screen import Screen, layout
from mailgate.cli.top.text import UNICODE, Marks, plain
from mailgate.test.cli.test_stats import STATS

__all__ = ["BACKEND", "BLOCK", "HOSTILE", "SESSION", "STORY", "Page", "overview", "texts"]

NOW = "2026-11-28T10:13:03Z"

HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "\u202eevil\u2066\u200f",
    "x" * 300,
    "王" * 300,
    "e" + "\u0301" * 300,
    "\u200b\ufeff\U000e0041",
    "line\nline\r\u2028",
    "\ud800",
    "\U0001f469\u200d\U0001f467\ufe0f",
    "\N{NO-BREAK SPACE}tab\t",
)
"""User names of clients that do not mean well."""

BACKEND: dict[str, Any] = {
    "group": "dovecot",
    "address": "10.0.0.1:143",
    "server": "",
    "state": "up",
    "reason": "",
    "seconds": None,
    "sessions": 812,
    "weight": 1,
    "logins_per_second": 2.1,
    "connect_p95": 0.002,
    "login_p95": 0.045,
    "errors_per_minute": {"timeout": 0.5, "refused": 1.5},
}

SESSION: dict[str, Any] = {
    "id": "g1.5g0qa.7k",
    "protocol": "imap",
    "server": "imaps",
    "client": {"address": "192.0.2.7", "port": 56416},
    "user": "joe@example.org",
    "backend": "10.0.0.1:143",
    "tls": {"version": "TLSv1.3"},
    "phase": "relay",
    "age": 11520.3,
    "idle": 241.0,
    "received": 12288,
    "sent": 3250585,
}

STORY: dict[str, Any] = {
    "kind": "login",
    "id": "g1.5g0qa.7j",
    "protocol": "imap",
    "client": {"address": "192.0.2.7", "port": 56412},
    "user": "ann@example.org",
    "backend": None,
    "reached": "auth",
    "outcome": "denied",
    "reason": "",
    "trouble": "denied",
    "at": "2026-11-28T10:02:11.204Z",
    "text": "Invalid login",
}


BLOCK: dict[str, Any] = {
    "id": "b7",
    "thing": "198.51.100.0/24",
    "rule": "block",
    "since": "2026-11-28T10:03:03Z",
    "until": "2026-11-28T12:03:03Z",
    "reason": "abuse",
    "count": 1,
}


def overview(**members: Any) -> dict[str, Any]:
    """An overview, with other values for these members."""
    return {
        "gateway": "g1",
        "version": "0.1.0",
        "time": NOW,
        "uptime": 93600.0,
        "loaded": "2026-11-28T08:13:03Z",
        "level": "admin",
        "reload": None,
        "stats": STATS,
        "alarms": [],
        "backends": [BACKEND, {**BACKEND, "address": "10.0.0.2:143", "state": "down", "sessions": 3, "reason": "x"}],
        "auth": [{"service": "s", "url": "http://127.0.0.1:9000/auth", "state": "up", "asking": 2, "waiting": 0}],
        "servers": [
            {
                "name": "imaps",
                "protocol": "imap",
                "listen": ["*:993 ssl"],
                "connections": 812,
                "certificates": [{"name": "a", "not_after": "2026-12-01T10:13:03Z"}],
                "tls": {"TLSv1.2": 0.1, "TLSv1.3": 0.9},
                "resumed": 0.4,
                "refused": 7,
            }
        ],
        "workers": [{"worker": "5g0qa", "pid": 4711, "accepts": True, "sessions": 812, "cpu_share": 0.04, "lag": 0.2}],
        "stuck": [{**SESSION, "phase": "auth", "waiting": 7.1}],
        "failures": [STORY],
        "blocks": [BLOCK],
        "missing": [],
        **members,
    }


class Page:
    """
    A page whose gateway and clock are those of the test.

    @ivar top: the page.
    @ivar asked: the questions that have no answer yet.
    @ivar now: the time.
    """

    def __init__(self, marks: Marks = UNICODE) -> None:
        self.asked: list[Question] = []
        self.now = 1000.0
        self.top = Top(self, lambda: self.now, lambda: self.now, marks)
        self.view = self.top.view

    def ask(self, question: Question) -> None:
        """Remember C{question}."""
        self.asked.append(question)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.top.tick()

    def purposes(self) -> list[str]:
        """What the questions without an answer are for."""
        return [question.purpose for question in self.asked]

    def take(self, purpose: str) -> Question:
        """The question that is there for C{purpose}."""
        (question,) = [each for each in self.asked if each.purpose == purpose]
        self.asked.remove(question)
        return question

    def answer(self, purpose: str, answer: Any) -> Question:
        """Answer the question for C{purpose}; return it."""
        question = self.take(purpose)
        self.top.answered(question, answer)
        return question

    def shows(self, **members: Any) -> Page:
        """Have the page get its first overview."""
        self.top.tick()
        self.answer("overview", overview(**members))
        return self

    def press(self, *keys: str) -> None:
        """Press keys; the page is drawn after each one."""
        for key in keys:
            self.top.key(key)
            self.draw()

    def draw(self, height: int = 24, cells: int = 80) -> Screen:
        """Lay the page out, as the terminal does."""
        screen = layout(self.view, height, cells)
        self.view.place, self.view.offset, self.view.page = screen.place, screen.offset, screen.page
        return screen

    def text(self, height: int = 24, cells: int = 80) -> str:
        """All lines of the page."""
        return "\n".join(texts(self.draw(height, cells)))


def texts(screen: Screen) -> list[str]:
    """The lines of a screen as texts."""
    return [plain(line) for line in screen.lines]


def isWhole(screen: Screen, height: int, cells: int) -> bool:
    """Whether a screen fills the terminal exactly, with printable characters alone."""
    lines = ["".join(span.text for span in line) for line in screen.lines]
    return len(lines) == height and all(width(line) == cells and line.isprintable() for line in lines)
