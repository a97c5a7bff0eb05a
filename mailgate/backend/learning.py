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
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.coroutine import Task
from mailgate.backend.errors import FAILURES, reasonOf
from mailgate.backend.offers import Announcement, Learnable, Offers, addressOf, keyOf
from mailgate.backend.place import Place
from mailgate.backend.places import Places
from mailgate.backend.settings import ProxySettings
from mailgate.backend.visiting import sayGoodbye, within
from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.login import Destination
from mailgate.upstream.notices import Notices

__all__ = ["AGAIN", "INTERVAL", "LOOK", "RETRY", "TIMEOUT", "Learner", "Learning"]

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
class _Schedule:
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
        self._backends: dict[str, _Schedule] = {}
        self._waiting: deque[tuple[str, Learner, Place]] = deque()
        self._tasks: dict[str, Task] = {}
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
        self._backends = {key: backend for key, backend in self._backends.items() if key in found}
        for key, (learner, place) in found.items():
            backend = self._backends.setdefault(key, _Schedule(now))
            if _isOut(place):
                self._offers.unanswered(key)
            elif backend.due <= now:
                backend.last, backend.due = now, now + RETRY
                self._waiting.append((key, learner, place))
        self._proceed()

    def _stirred(self, key: str, body: Any, age: float) -> None:
        """The standing of a backend has changed. C{key} is its address, behind its group and C{/} if it has one."""
        now = self._clock.seconds()
        for name, backend in self._backends.items():
            address = addressOf(name)
            if key == address or key.endswith(f"/{address}"):
                backend.due = min(backend.due, max(now + AGAIN, backend.last + RETRY))

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
        client = learner.client(Caller(learner.settings, learner.serverName), place)
        client.logsIn = learner.settings[ProxySettings].method != "none"
        isOver = False
        try:
            try:
                items = await within(self._clock, TIMEOUT, client, _offersOf(client, place))
            except FAILURES as error:
                self._offers.unanswered(key)
                self._failed(key, learner, place, error)
            else:
                self._answered(key, items)
                await sayGoodbye(self._clock, client)
                isOver = True
        finally:
            if not isOver:
                client.abandon()
            self._tasks.pop(key, None)
            if self.running and self._waiting and self._proceeding is None:
                self._proceeding = self._clock.callLater(0, self._proceed)

    def _answered(self, key: str, items: tuple[bytes, ...]) -> None:
        backend = self._backends.get(key)
        if backend is not None:
            backend.isFailing = False
            backend.due = self._clock.seconds() + INTERVAL * (0.9 + 0.2 * self._chance())
        self._offers.learn(key, items)

    def _failed(self, key: str, learner: Learner, place: Place, error: Exception) -> None:
        backend = self._backends.get(key)
        if backend is None or backend.isFailing:
            return
        backend.isFailing = True
        self._journal.info(
            "{protocol} backend {backend} cannot be asked what it offers: it {reason}; what is known of it stays",
            protocol=learner.protocol,
            backend=place.name,
            reason=reasonOf(error, f"did not answer within {TIMEOUT:g} s"),
        )


async def _offersOf(client: ProxyClient, place: Place) -> tuple[bytes, ...]:
    await client.open(None, place.contexts)
    return await client.offered()


def _acquainted(learner: Learner, offers: Offers, *arguments: Any) -> ProxyClient:
    """Make a conversation with a backend that knows what has been learned of it."""
    client = learner.client(*arguments)
    client.known = offers.find(keyOf(learner.protocol, client.backend))
    return client


def _isOut(place: Place) -> bool:
    """Whether nothing is sent to C{place} now, by the configuration, an operator or a health check."""
    peer = place.peer
    return peer is not None and (peer.limits.down or peer.order == "down" or peer.isFailing)
