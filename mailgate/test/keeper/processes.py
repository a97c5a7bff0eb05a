"""
Processes for the keeper's tests: what they have counted and their sessions are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from mailgate.watch.tally import Tally, Totals

LOGIN = ("imap", "plain", "accepted")
NAMES = count(1)


class Watcher:
    """Stands in for L{mailgate.watch.watcher.Watcher}: a tally, gauges and stories that a test sets."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.gauges: Totals = {}
        self.stories: list[Any] = []

    def totals(self) -> Totals:
        return self.tally.totals()

    def survey(self, gateways: Sequence[Any]) -> Any:
        return Survey(self)

    def takeStories(self) -> list[Any]:
        stories, self.stories = self.stories, []
        return stories


class Survey:
    """Stands in for L{mailgate.watch.census.Survey}. It has two slices."""

    def __init__(self, watcher: Watcher) -> None:
        self.totals: Totals = {}
        self._watcher = watcher

    def __iter__(self) -> Iterator[None]:
        yield
        yield
        self.totals = {**self._watcher.totals(), **self._watcher.gauges}


class View:
    """Stands in for L{mailgate.keeper.view.ProcessView}: it answers with its C{sessions}."""

    def __init__(self, member: str) -> None:
        self.member = member
        self.watcher: Any = Watcher()
        self.sessions: dict[str, Any] = {}

    def gateways(self) -> Sequence[Any]:
        return ()

    def login(self, seconds: float = 0.1) -> None:
        """Count a login."""
        self.watcher.tally.count("mailgate_logins", LOGIN)
        self.watcher.tally.observe("mailgate_login_seconds", ("imap",), seconds)

    @property
    def logins(self) -> int:
        return int(self.watcher.tally.counters["mailgate_logins"].get(LOGIN, 0))

    def answer(self, word: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        if word == "bad":
            raise ValueError("the address is not valid")
        if word == "broken":
            raise RuntimeError("broken")
        if word == "many":
            return iter([{"number": number, "text": "x" * arguments["long"]} for number in range(arguments["many"])])
        if word == "endless":
            return (number for number in count())
        if word != "sessions":
            raise KeyError(word)
        return (self.sessions[each] for each in list(self.sessions) if each in self.sessions)


def turn(clock: Any) -> None:
    """One turn of the event loop: what it calls later waits for the next one, also if that is at once."""
    for call in [each for each in clock.getDelayedCalls() if each.getTime() <= clock.seconds()]:
        if call.active():
            clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


def newView() -> Any:
    """A process with a name of its own."""
    return View(f"p{next(NAMES):04}")


def story(at: int, user: str = "joe", kind: str = "login", **more: Any) -> dict[str, Any]:
    """A story that ended C{at} seconds after a certain moment."""
    minutes, seconds = divmod(at, 60)
    return {"kind": kind, "user": user, "at": f"2026-11-28T10:{minutes:02}:{seconds:02}.000Z", "id": str(at), **more}
