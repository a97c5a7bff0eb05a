# -*- test-case-name: mailgate.test.upstream.test_notices -*-
"""
What the processes of one gateway tell each other about backends: orders of operators, results of health checks, rests
after failures, learned capabilities. Each notice has a topic and a key, and replaces an earlier one of the same key. A
process or a generation that starts later receives all that hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

__all__ = ["Notice", "Notices", "Subscriber"]

_MOST = 8192
"""
Notices of one topic that are kept. Keys may come from an authentication service, which may name any number of backends.
Those do not displace the orders of operators, which have a topic of their own.
"""

_log = Logger("mailgate")

Subscriber: TypeAlias = Callable[[str, Any, float], object]
"""Called with the key, the body and the age in seconds of each notice of a topic."""


@frozen
class Notice:
    """
    One notice.

    @ivar topic: what it is about, such as C{order}.
    @ivar key: the backend that it is about, as the topic names backends.
    @ivar body: a value of JSON; L{None} takes the earlier notice back.
    @ivar since: when it was published, in seconds of the clock of L{Notices}.
    """

    topic: str
    key: str
    body: Any
    since: float


class Notices:
    """
    The notices that hold. With workers each process has its own, and they tell each other.

    @param clock: the time.
    @param isFirst: whether this process does what one process does for all: health checks, learning of capabilities.
    @ivar isFirst: as the argument.
    @ivar tell: called with each L{Notice} that this process publishes, to tell other processes; L{None} if there are
        none.
    """

    def __init__(self, clock: IReactorTime, isFirst: bool = True) -> None:
        self.isFirst = isFirst
        self.tell: Callable[[Notice], object] | None = None
        self._clock = clock
        self._held: dict[str, dict[str, Notice]] = {}
        self._subscribers: list[tuple[str, Subscriber]] = []

    def publish(self, topic: str, key: str, body: Any) -> None:
        """
        Tell all processes of the gateway, this one included.

        @param topic: as of L{Notice}.
        @param key: as of L{Notice}.
        @param body: as of L{Notice}.
        """
        notice = self.receive(topic, key, body)
        if self.tell is not None:
            self.tell(notice)

    def receive(self, topic: str, key: str, body: Any, age: float = 0.0) -> Notice:
        """
        Take a notice that another process has published. Subscribers are called at once.

        @param topic: as of L{Notice}.
        @param key: as of L{Notice}.
        @param body: as of L{Notice}.
        @param age: the seconds since it was published.
        @return: the notice.
        """
        notice = Notice(topic, key, body, self._clock.seconds() - age)
        held = self._held.setdefault(topic, {})
        held.pop(key, None)
        if body is not None:
            if len(held) >= _MOST:
                del held[next(iter(held))]
            held[key] = notice
        for wanted, subscriber in list(self._subscribers):
            if wanted == topic:
                try:
                    subscriber(key, body, age)
                except Exception:
                    # It may be a login that publishes this, and the other subscribers need it as well.
                    _log.failure("what is known of backend {key} could not be applied ({topic})", key=key, topic=topic)
        return notice

    def subscribe(self, topic: str, subscriber: Subscriber) -> None:
        """
        Call a subscriber with each notice of a topic: now with those that hold, later with each new one.

        @param topic: as of L{Notice}.
        @param subscriber: what is called.
        """
        self._subscribers.append((topic, subscriber))
        for notice in self.held(topic):
            subscriber(notice.key, notice.body, self.age(notice))

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """
        Call a subscriber no more.

        @param subscriber: what L{subscribe} was called with.
        """
        self._subscribers = [each for each in self._subscribers if each[1] != subscriber]

    def held(self, topic: str | None = None) -> Iterator[Notice]:
        """
        Yield the notices that hold, those of each topic from the oldest on.

        @param topic: their topic; L{None} for all topics.
        """
        topics = list(self._held) if topic is None else [topic]
        yield from [notice for each in topics for notice in self._held.get(each, {}).values()]

    def find(self, topic: str, key: str) -> Notice | None:
        """
        Return the notice that holds, if there is one.

        @param topic: as of L{Notice}.
        @param key: as of L{Notice}.
        """
        return self._held.get(topic, {}).get(key)

    def age(self, notice: Notice) -> float:
        """
        Return the seconds since a notice was published.

        @param notice: the notice.
        """
        return max(0.0, self._clock.seconds() - notice.since)
