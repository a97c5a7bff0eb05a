# -*- test-case-name: mailgate.test.keeper.test_feed -*-
"""
Tells a keeper with a store which clients of this process are logged in, so that other gateways can count them. A keeper
without a store asks for nothing, and the process does nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.messages import ROWS_A_PART, Sessions, WireError
from mailgate.keeper.view import ProcessView
from mailgate.session import Phase, Session

__all__ = ["LONGEST_USER", "MOST_WAITING", "PAUSE", "PIECE", "Feed", "ITold"]

PAUSE = 0.1
"""Seconds for which news wait for others, to be sent together."""

PIECE = 100
"""Sessions that are told in one turn of the event loop when all are told. That takes less than a millisecond."""

MOST_WAITING = 5000
"""News that wait until the keeper reads. Beyond that it gets all sessions anew."""

LONGEST_USER = 1024
"""Bytes of a user name. Names of mail accounts are shorter; the rest of a longer one is not told."""

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_log = Logger("mailgate")


class ITold(Protocol):
    """
    Where the news go: the connection to the keeper, or the keeper of this process.

    @ivar isFull: whether it does not read what was sent.
    """

    isFull: bool

    def send(self, message: Sessions) -> None:
        """
        Send news.

        @param message: the news.
        """


class Feed:
    """
    Follows the relays of one process for the keeper that has asked for them.

    @param view: the process. Its watcher calls L{began} and L{ended} while a keeper wants that.
    @param clock: the timers.
    """

    def __init__(self, view: ProcessView, clock: IReactorTime) -> None:
        self._view = view
        self._clock = clock
        self._keeper: ITold | None = None
        self._began: dict[int, Session] = {}
        self._ended: list[str] = []
        self._timer: IDelayedCall | None = None
        self._steps: Iterator[list[Session]] | None = None
        self._turn: IDelayedCall | None = None

    # Events. They are on the path of each login.

    def began(self, session: Session) -> None:
        """
        A relay has begun.

        @param session: its record.
        """
        self._began[session.number] = session
        if self._timer is None:
            self._timer = self._clock.callLater(PAUSE, self._flush)

    def ended(self, session: Session) -> None:
        """
        A relay has ended.

        @param session: its record.
        """
        if self._began.pop(session.number, None) is None:
            self._ended.append(session.id)
            if self._timer is None:
                self._timer = self._clock.callLater(PAUSE, self._flush)

    # The keeper.

    def attached(self, keeper: ITold) -> None:
        """
        A keeper wants the sessions: it gets all of them, and then the news.

        @param keeper: where to tell them.
        """
        self._cease()
        self._keeper = keeper
        self._view.watcher.feed = self
        self._beginAnew(keeper)

    def detached(self, keeper: ITold) -> None:
        """
        A keeper is gone, or has sent this process to another one.

        @param keeper: the argument of L{attached}.
        """
        if keeper is self._keeper:
            self._keeper = self._view.watcher.feed = None
            self._cease()

    def drained(self, keeper: ITold) -> None:
        """
        The keeper reads again.

        @param keeper: the argument of L{attached}.
        """
        if keeper is self._keeper:
            self._flush()
            self._goOn()

    def _cease(self) -> None:
        self._began.clear()
        self._ended.clear()
        self._steps = None
        for timer in (self._timer, self._turn):
            if timer is not None:
                timer.cancel()
        self._timer = self._turn = None

    # Sending.

    def _flush(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        keeper = self._keeper
        if keeper is None:
            return
        if len(self._began) + len(self._ended) > MOST_WAITING:
            self._beginAnew(keeper)
        while (self._began or self._ended) and not keeper.isFull:
            began = [self._began.pop(number) for number in _first(self._began)]
            ended, self._ended = self._ended[:ROWS_A_PART], self._ended[ROWS_A_PART:]
            self._send(keeper, began, ended)

    def _send(self, keeper: ITold, began: Iterable[Session], ended: list[str]) -> None:
        serverAt = self._view.watcher.serverAt
        try:
            keeper.send(Sessions([rowOf(session, serverAt(session.server)) for session in began], ended, False, False))
        except (WireError, ValueError, TypeError):
            _log.failure("cannot tell the keeper which sessions there are")

    def _beginAnew(self, keeper: ITold) -> None:
        """Tell all sessions. What waits is among them."""
        self._cease()
        keeper.send(Sessions([], [], True, False))
        self._steps = self._all()
        self._goOn()

    def _all(self) -> Iterator[list[Session]]:
        """
        Yield all relays of now, in pieces. Those that begin meanwhile are news. One that ends meanwhile, and was not
        told yet, is left out.
        """
        crowds = [
            (factory, list(factory.connections)) for gateway in self._view.gateways() for factory in gateway.factories
        ]
        for factory, connections in crowds:
            for start in range(0, len(connections), PIECE):
                piece = connections[start : start + PIECE]
                yield [each.session for each in piece if each in factory.connections and _isRelay(each.session)]

    def _goOn(self) -> None:
        if self._steps is not None and self._turn is None:
            self._turn = self._clock.callLater(0, self._step)

    def _step(self) -> None:
        self._turn = None
        keeper, steps = self._keeper, self._steps
        if keeper is None or steps is None or keeper.isFull:
            return
        sessions = next(steps, None)
        if sessions is None:
            self._steps = None
            keeper.send(Sessions([], [], False, True))
            return
        for session in sessions:
            # It would be told twice, and its end perhaps not at all.
            self._began.pop(session.number, None)
        self._send(keeper, sessions, [])
        self._goOn()


def _isRelay(session: Session) -> bool:
    return session.phase is Phase.RELAY


def _first(began: dict[int, Session]) -> list[int]:
    return list(islice(began, ROWS_A_PART))


def rowOf(session: Session, server: str) -> list[str]:
    """
    Return what the keeper hears about a session: its id, the user (each byte as a character), the protocol, and the
    address of the client; and as JSON what it keeps for other gateways, which it need not read: the user, the protocol,
    the name of the server, the client and its port, the backend, and when the connection began, in seconds since 1970.

    @param session: its record.
    @param server: the name of the server.
    """
    user, protocol, client = session.user[:LONGEST_USER].decode("latin-1"), session.protocol, session.client
    record = [user, protocol, server, client, session.backend, round(session.started, 3)]
    return [session.id, user, protocol, session.host, _ENCODE(record)]
