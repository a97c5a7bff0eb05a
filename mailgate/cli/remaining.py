# -*- test-case-name: mailgate.test.cli.test_remaining -*-
"""
While C{mailgate drain} waits: says every few seconds which sessions are left.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer, Place
from mailgate.cli.columns import plural, shown
from mailgate.cli.sessions import listed

__all__ = ["Remaining", "summary"]

EVERY = 5.0
"""Seconds between two lines."""

_MOST = 5000
"""Sessions that are counted. Of more the line says only that there are more."""

_SHOWN = 4
"""Backends that a line names."""


def summary(sessions: Sequence[Mapping[str, Any]], isCut: bool = False) -> str:
    """
    Return a line about the sessions that are left, such as C{3 sessions left: imap 2, smtp 1; at 10.0.0.1:143 3}.

    @param sessions: the sessions.
    @param isCut: whether there are more.
    """
    protocols = Counter(session.get("protocol") for session in sessions)
    backends = Counter(session.get("backend") for session in sessions if session.get("backend"))
    parts = [", ".join(f"{shown(name)} {count}" for name, count in protocols.most_common())]
    if backends:
        named = ", ".join(f"{shown(name)} {count}" for name, count in backends.most_common(_SHOWN))
        others = sum(count for _, count in backends.most_common()[_SHOWN:])
        parts.append(f"at {named}{f', others {others}' if others else ''}")
    text = f"{'more than ' if isCut else ''}{plural(len(sessions), 'session')} left"
    return f"{text}: {'; '.join(parts)}" if sessions else text


class Remaining:
    """
    Prints lines on standard error from a thread, while it is entered. If the gateway does not answer, it prints none:
    the command itself reports errors.

    @param place: where the admin server is.
    @param every: seconds between two lines.
    """

    def __init__(self, place: Place, every: float = EVERY) -> None:
        self._client = AdminClient(place, every)
        self._every = every
        self._isOver = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Remaining:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The thread ends with the process at the latest: a question may be under way.
        self._isOver.set()

    def _watch(self) -> None:
        last = ""
        while not self._isOver.wait(self._every):
            try:
                found = listed(self._client, {}, _MOST)
            except NoAnswer:
                continue
            line = summary(found.sessions, found.isCut)
            if line != last and not self._isOver.is_set():
                print(line, file=sys.stderr, flush=True)
            last = line
