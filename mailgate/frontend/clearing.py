# -*- test-case-name: mailgate.test.frontend.test_clearing -*-
"""
Ends the proxied sessions of backends that an operator or a health check takes down (C{on_down = close}).

Sessions of a backend that hangs would otherwise stay there until their clients give up: those in IDLE notice nothing
for half an hour. They end over C{max_disconnect_delay}, as their clients log in again at the backends that are left.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.interfaces import IConnection
from mailgate.log.journal import Journal
from mailgate.login import Trouble
from mailgate.session import Outcome, Session
from mailgate.upstream.peer import Peer
from mailgate.upstream.upstreams import Upstreams
from mailgate.upstream.waves import offset

__all__ = ["Clearing"]


def _isAt(session: Session, peer: Peer) -> bool:
    return session.place is not None and session.place.at is peer and session.outcome is None


class Clearing:
    """
    The sessions of one generation that are ended, backend by backend.

    @param upstreams: the groups of the generation.
    @param factories: L{mailgate.frontend.factory.ProxyServerFactory} objects.
    @param clock: the time in seconds, and timers, which are exact.
    @param journal: the log.
    @param shuffle: puts a list in random order.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        factories: Iterable[Any],
        clock: IReactorTime,
        journal: Journal,
        shuffle: Callable[[list[Any]], object] = random.shuffle,
    ) -> None:
        self._upstreams = upstreams
        self._factories = factories
        self._clock = clock
        self._journal = journal
        self._shuffle = shuffle
        self._running: dict[Peer, _Round] = {}

    def down(self, peer: Peer) -> None:
        """
        C{peer} is taken down. End its sessions, if its group says so.

        @param peer: a server of a group.
        """
        group = next((each for each in self._upstreams.groups if peer in each.peers), None)
        if group is None or group.settings.onDown != "close":
            return
        before = self._running.pop(peer, None)
        if before is not None:
            before.cancel()
        sessions = [
            connection
            for factory in self._factories
            for connection in factory.connections
            if _isAt(connection.session, peer)
        ]
        if not sessions:
            return
        longest = group.settings.maxDisconnectDelay
        self._journal.warn(
            "upstream {group}: backend {backend} is taken down; its {count} sessions end within {seconds} s",
            group=group.name,
            backend=str(peer.backend),
            count=len(sessions),
            seconds=f"{longest:g}",
        )
        self._shuffle(sessions)
        self._running[peer] = _Round(self, group.name, peer, sessions, longest)
        self._running[peer].go()

    def close(self) -> None:
        """The gateway has no sessions left."""
        for each in self._running.values():
            each.cancel()
        self._running.clear()

    def stay(self, group: str, peer: Peer, left: int) -> None:
        """
        C{peer} is up again: its other sessions stay.

        @param group: the name of its group.
        @param peer: the server.
        @param left: the number of the sessions that were to end.
        """
        self.over(peer)
        self._journal.warn(
            "upstream {group}: backend {backend} is up again; its other {count} sessions stay",
            group=group,
            backend=str(peer.backend),
            count=left,
        )

    def over(self, peer: Peer) -> None:
        """
        No session of C{peer} is left that is to end.

        @param peer: the server.
        """
        # The last session may have ended the gateway, which has closed this object.
        self._running.pop(peer, None)

    @property
    def clock(self) -> IReactorTime:
        """The clock of all rounds."""
        return self._clock

    def dismiss(self, connection: IConnection) -> None:
        """
        End one session.

        @param connection: its relay.
        """
        try:
            connection.dismiss(Outcome.BACKEND_DOWN, Trouble.STOPPING)
        except Exception:
            # The others must end as well.
            self._journal.failure("closing a connection failed")


class _Round:
    """The sessions of one backend, in the order in which they end."""

    def __init__(
        self, owner: Clearing, group: str, peer: Peer, sessions: Sequence[IConnection], longest: float
    ) -> None:
        self._owner = owner
        self._group = group
        self._peer = peer
        self._left = deque(sessions)
        self._total = len(sessions)
        self._longest = longest
        self._start = owner.clock.seconds()
        self._timer: IDelayedCall | None = None

    def cancel(self) -> None:
        """End no more of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def go(self) -> None:
        """End those that are due, and wait for the next one."""
        self._timer = None
        owner = self._owner
        if not self._peer.isTakenDown:
            self._drop()
            return
        while self._left:
            place = self._total - len(self._left) + 1
            rest = self._start + offset(place, self._total, self._longest) - owner.clock.seconds()
            if rest > 0:
                self._timer = owner.clock.callLater(rest, self.go)
                return
            connection = self._left.popleft()
            # It may have ended meanwhile.
            if connection.session.outcome is None:
                owner.dismiss(connection)
        owner.over(self._peer)

    def _drop(self) -> None:
        left = sum(connection.session.outcome is None for connection in self._left)
        if left:
            self._owner.stay(self._group, self._peer, left)
        else:
            self._owner.over(self._peer)
