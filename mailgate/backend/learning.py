# -*- test-case-name: mailgate.test.backend.test_learning -*-
"""
Asks backends what they offer before the login. One process of a gateway asks for all (L{Notices.isFirst
<mailgate.upstream.notices.Notices>}), and hands the answers to L{mailgate.backend.offers}.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from attrs import define, frozen
from twisted.application.service import Service
from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailgate.backend.client import ProxyClient
from mailgate.backend.coroutine import Task
from mailgate.backend.errors import BackendError
from mailgate.backend.offers import Announcement, Learnable, Offers, keyOf
from mailgate.backend.places import Place, Places
from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal, printable
from mailgate.login import Destination
from mailgate.net.connectionerrors import inWords
from mailgate.upstream.notices import Notices

__all__ = ["AGAIN", "FAREWELL", "INTERVAL", "LOOK", "RETRY", "TIMEOUT", "Learner", "Learning"]

INTERVAL = 3600.0
"""Seconds after which a backend is asked again, give or take a tenth."""

RETRY = 60.0
"""Seconds after which a backend is asked again that did not answer."""

AGAIN = 5.0
"""Seconds after which a backend is asked again when its standing has changed: it may be another version now."""

LOOK = 10.0
"""Seconds between looks at which backends are to be asked."""

TIMEOUT = 30.0
"""Seconds that a backend may take to answer. Nothing waits for it."""

FAREWELL = 2.0
"""Seconds that a backend may take to close its connection after the goodbye. With TLS a transport waits for that."""

_MOST_AT_ONCE = 4
"""Backends that are asked at the same time."""

_STANDING = ("order", "verdict", "rest")
"""Topics of notices about backends that have gone or come back."""


@frozen(eq=False)
class Learner:
    """
    A server that announces what its backends offer.

    @ivar protocol: the name of its protocol.
    @ivar client: the class of the conversation with a backend.
    @ivar settings: its directives.
    @ivar serverName: the gateway's host name (C{server_name}).
    @ivar places: finds its backends.
    @ivar destinations: where its logins go: backends, and groups without variables.
    """

    protocol: str
    client: type[ProxyClient]
    settings: ServerSettings
    serverName: str
    places: Places
    destinations: Sequence[Destination]

    def found(self) -> list[tuple[str, Place]]:
        """Its backends of now, with their keys, in the order of the configuration."""
        return [(keyOf(self.protocol, place.backend), place) for place in self.places.standing(self.destinations)]

    def keys(self) -> Iterable[str]:
        """The keys of its backends of now."""
        return [key for key, _ in self.found()]


@define(eq=False)
class _Asked:
    """
    When a backend is asked.

    @ivar due: when it is asked next.
    @ivar last: when it was asked last.
    @ivar isFailing: whether it did not answer, which is logged once.
    """

    due: float
    last: float = -RETRY
    isFailing: bool = False


class Learning(Service):
    """
    Asks the backends of all servers that announce what these offer: at the start, when the standing of one changes, and
    every hour. A backend that cannot be asked keeps what is known of it.

    @param offers: what has been learned.
    @param notices: what the processes of the gateway tell each other.
    @param clock: the time in seconds, and timers.
    @param journal: where failures are logged.
    @param chance: returns a random number from 0 to 1.
    """

    def __init__(
        self,
        offers: Offers,
        notices: Notices,
        clock: IReactorTime,
        journal: Journal,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._offers = offers
        self._notices = notices
        self._clock = clock
        self._journal = journal
        self._chance = chance
        self._learners: list[Learner] = []
        self._asked: dict[str, _Asked] = {}
        self._waiting: deque[tuple[str, Learner, Place]] = deque()
        self._tasks: dict[str, Task] = {}
        self._leaving: dict[str, tuple[ProxyClient, Any]] = {}
        """The last conversations that have ended with a goodbye, and the timers of their ends."""
        self._timer: Any = None
        self._proceeding: Any = None

    def add(self, learner: Learner, announcement: Announcement, learnable: Learnable) -> Callable[..., ProxyClient]:
        """
        Learn what the backends of a server offer.

        @param learner: the server.
        @param announcement: what it announces. Its words are those for the time in which nothing is known.
        @param learnable: selects what it may announce.
        @return: what makes the conversations with backends for logins, which take part in learning: as C{client} of
            L{Learner}.
        """
        self._learners.append(learner)
        self._offers.follow(learner.protocol, announcement, learnable, learner.keys)
        return partial(_acquainted, learner, self._offers)

    def startService(self) -> None:
        super().startService()
        # Earlier generations and other processes may have learned it before.
        self._offers.refresh()
        if self._learners:
            for topic in _STANDING:
                self._notices.subscribe(topic, self._stirred)
            self._timer = self._clock.callLater(0, self._look)

    def stopService(self) -> None:
        super().stopService()
        self._notices.unsubscribe(self._stirred)
        for timer in (self._timer, self._proceeding):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._proceeding = None
        self._waiting.clear()
        for key in list(self._leaving):
            self._close(key)
        for task in list(self._tasks.values()):
            task.cancel()

    def _look(self) -> None:
        self._timer = self._clock.callLater(LOOK, self._look)
        # The DNS may have changed the backends of a group.
        self._offers.refresh()
        if not self._notices.isFirst:
            return
        now = self._clock.seconds()
        found = {key: (learner, place) for learner in self._learners for key, place in learner.found()}
        self._asked = {key: asked for key, asked in self._asked.items() if key in found}
        for key, (learner, place) in found.items():
            asked = self._asked.setdefault(key, _Asked(now))
            if _isOut(place):
                self._offers.unanswered(key)
            elif asked.due <= now:
                asked.last, asked.due = now, now + RETRY
                self._waiting.append((key, learner, place))
        self._proceed()

    def _stirred(self, key: str, body: Any, age: float) -> None:
        """The standing of the backend at the address in C{key} has changed."""
        now = self._clock.seconds()
        for name, asked in self._asked.items():
            if name.split(" ")[1] in key:
                asked.due = min(asked.due, max(now + AGAIN, asked.last + RETRY))

    def _proceed(self) -> None:
        self._proceeding = None
        while self._waiting and len(self._tasks) < _MOST_AT_ONCE:
            key, learner, place = self._waiting.popleft()
            if key in self._tasks:
                continue
            task = self._tasks[key] = Task(self._ask(key, learner, place), partial(self._broken, key))
            task.start()

    def _broken(self, key: str, failure: Failure) -> None:
        self._journal.failure("what a backend offers could not be learned", failure)

    async def _ask(self, key: str, learner: Learner, place: Place) -> None:
        client = learner.client(learner.settings, learner.serverName, place.backend, place.endpoint)
        deadline = self._clock.callLater(TIMEOUT, client.expired)
        try:
            await client.open(None, place.contexts)
            items = await client.offered()
            self._leave(key, client)
        except (BackendError, ConnectError, TimeoutError, OSError) as error:
            client.abandon()
            self._offers.unanswered(key)
            self._failed(key, learner, place, error)
        except BaseException:
            client.abandon()
            raise
        else:
            asked = self._asked.get(key)
            if asked is not None:
                asked.isFailing = False
                asked.due = self._clock.seconds() + INTERVAL * (0.9 + 0.2 * self._chance())
            self._offers.learn(key, items)
        finally:
            if deadline.active():
                deadline.cancel()
            self._tasks.pop(key, None)
            if self.running and self._waiting and self._proceeding is None:
                self._proceeding = self._clock.callLater(0, self._proceed)

    def _leave(self, key: str, client: ProxyClient) -> None:
        client.transport.write(client.parting + b"\r\n")
        client.transport.loseConnection()
        self._close(key)
        self._leaving[key] = client, self._clock.callLater(FAREWELL, self._close, key)

    def _close(self, key: str) -> None:
        """Abort the connection to a backend that has not closed it."""
        leaving = self._leaving.pop(key, None)
        if leaving is not None:
            client, timer = leaving
            if timer.active():
                timer.cancel()
            client.abandon()

    def _failed(self, key: str, learner: Learner, place: Place, error: Exception) -> None:
        asked = self._asked.get(key)
        if asked is None or asked.isFailing:
            return
        asked.isFailing = True
        self._journal.info(
            "{protocol} backend {backend} cannot be asked what it offers: it {reason}; what is known of it stays",
            protocol=learner.protocol,
            backend=place.name,
            reason=_reason(error),
        )


def _acquainted(learner: Learner, offers: Offers, *arguments: Any) -> ProxyClient:
    """Make a conversation with a backend that knows what has been learned of it."""
    client = learner.client(*arguments)
    client.known = offers.find(keyOf(learner.protocol, client.backend))
    return client


def _isOut(place: Place) -> bool:
    """Whether nothing is sent to C{place} now, by the configuration, an operator or a health check."""
    peer = place.peer
    return peer is not None and (peer.limits.down or peer.order == "down" or peer.isFailing)


def _reason(error: Exception) -> str:
    if isinstance(error, BackendError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"did not answer within {TIMEOUT:g} s"
    return inWords(error) or f"failed: {printable(str(error).encode())}"
