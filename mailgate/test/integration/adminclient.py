"""
A client of the admin server on its unix socket, and an observer that asks it all the time.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlencode

__all__ = ["AdminClient", "EventStream", "Observer", "series"]

_PATIENCE = 60.0

_LINE = re.compile(r"(\w+(?:\{.*\})?) (\S+)")


def series(text: str) -> dict[str, float]:
    """Return the values of a scrape in the text format, by their names with labels."""
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None and not line.startswith("#"):
            found[match[1]] = float(match[2])
    return found


def isCounter(name: str) -> bool:
    """Whether the value of a series must not fall."""
    return name.partition("{")[0].endswith(("_total", "_bucket", "_count", "_sum"))


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


class AdminClient:
    """
    Asks the admin server, each time on a new connection.

    @param path: its unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        connection = _Connection(self._path)
        try:
            if body is not None or method in ("POST", "DELETE"):
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8")
        finally:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of an answer with status 200."""
        status, text = self.ask("GET", f"/api/1/{path}" + (f"?{urlencode(query)}" if query else ""))
        assert status == 200, f"{path}: {status} {text}"
        return json.loads(text)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Return the JSON of an answer with status 200."""
        status, text = self.ask("POST", f"/api/1/{path}", body)
        assert status == 200, f"{path}: {status} {text}"
        return json.loads(text)

    def scrape(self) -> dict[str, float]:
        """Return what Prometheus gets."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200, f"{status} {text}"
        return series(text)

    def sessions(self, **query: Any) -> list[dict[str, Any]]:
        """Return the rows of all sessions that match, over all pages."""
        rows: list[dict[str, Any]] = []
        while True:
            page = self.get("sessions", **query)
            rows += page["sessions"]
            if page["next"] is None:
                return rows
            query["cursor"] = page["next"]


class Observer:
    """
    Scrapes and lists sessions until the end of the C{with} block, and notes what must not happen.

    @ivar faults: counters that fell, sessions that were listed twice, answers that failed.
    @ivar broken: how many connections have broken: a keeper that is killed breaks two at most.
    @ivar scrapes: how many scrapes there were.
    @ivar lists: how many lists there were.
    """

    def __init__(self, client: AdminClient) -> None:
        self.faults: list[str] = []
        self.scrapes = self.lists = self.broken = 0
        self._client = client
        self._before: dict[str, float] = {}
        self._lastSeen: dict[str, float] = {}
        self._longest: dict[str, float] = {}
        self._isOver = threading.Event()

    def expect(self, ids: set[str]) -> None:
        """From now on these sessions must be listed, and no others are looked for."""
        now = time.monotonic()
        self._lastSeen = dict.fromkeys(ids, now)

    def longestAbsence(self) -> float:
        """The seconds for which a session was missing in the list at most."""
        return max(self._longest.values(), default=0.0)

    def missing(self) -> list[str]:
        """The sessions whose longest absence was more than two seconds."""
        return [f"{each} for {seconds:.1f} s" for each, seconds in self._longest.items() if seconds > 2]

    @contextmanager
    def watching(self) -> Iterator[Observer]:
        """Observe in the C{with} block."""
        threads = [threading.Thread(target=self._loop, args=(each,)) for each in (self._scrape, self._list)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._isOver.set()
            for thread in threads:
                thread.join(3 * _PATIENCE)
            self._absences(set(), time.monotonic())

    def _loop(self, look: Callable[[], None]) -> None:
        while not self._isOver.is_set():
            try:
                look()
            except ConnectionError:
                # The process that answered was killed. The next one must answer.
                self.broken += 1
            except Exception as error:
                self.faults.append(f"{look.__name__}: {error!r}")
            self._isOver.wait(0.05)

    def _scrape(self) -> None:
        found = self._client.scrape()
        self.scrapes += 1
        for name, value in self._before.items():
            if name.startswith("mailgate_") and isCounter(name) and found.get(name, -1.0) < value:
                self.faults.append(f"{name} fell from {value} to {found.get(name)}")
        self._before = found

    def _list(self) -> None:
        listed = [row["id"] for row in self._client.sessions(phase="relay", limit=1000)]
        self.lists += 1
        if len(set(listed)) < len(listed):
            self.faults.append("a session is listed twice")
        self._absences(set(listed), time.monotonic())

    def _absences(self, listed: set[str], now: float) -> None:
        for each, seen in list(self._lastSeen.items()):
            if each in listed:
                with suppress(KeyError):
                    self._lastSeen[each] = now
            else:
                # An answer without it. Slow answers, as on a busy computer, are no absence.
                self._longest[each] = max(self._longest.get(each, 0.0), now - seen)


class EventStream:
    """
    Reads the events of the live page, in a thread, until it ends.

    @param path: the unix socket of the admin server.
    @ivar events: what has arrived: when (C{time.monotonic}), the name and the value of each.
    """

    def __init__(self, path: str) -> None:
        self.events: list[tuple[float, str, Any]] = []
        self._connection = _Connection(path)
        self._connection.request("GET", "/api/1/events")
        # The connection gives its own away to the answer, which ends it.
        self._socket = self._connection.sock.dup()
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200, self._answer.status
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        name = ""
        with suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            for line in self._answer:
                word, _, text = line.decode("ascii").rstrip("\n").partition(": ")
                if word == "event":
                    name = text
                elif word == "data":
                    self.events.append((time.monotonic(), name, json.loads(text)))

    @property
    def hasEnded(self) -> bool:
        """Whether the server has ended it."""
        return not self._thread.is_alive()

    def last(self, *names: str) -> Any:
        """The value of the last event of one of these names; L{None} if there is none."""
        return next((value for _, name, value in reversed(self.events) if name in names), None)

    def close(self) -> None:
        """End it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE)
        self._socket.close()
        self._answer.close()
