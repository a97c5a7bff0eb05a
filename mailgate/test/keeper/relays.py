"""
Processes whose relays begin and end as a test wants, and what they tell a keeper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mailgate.keeper.feed import Feed
from mailgate.keeper.interfaces import Collected
from mailgate.keeper.messages import FROM_OTHERS, REGISTRY, REGISTRY_VERSION, Sessions, decode, encode
from mailgate.session import Phase, Session
from mailgate.test.keeper.processes import Survey
from mailgate.testing.fakes import makeSession
from mailgate.watch.watcher import Watcher

__all__ = ["Factory", "Process", "Relays"]


class Connection:
    """A connection of a client."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Factory:
    """The connections of one server."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()


class _Watcher(Watcher):
    """A real watcher, whose survey finds nothing."""

    def survey(self, gateways: Any) -> Any:
        return Survey({})


class Relays:
    """Stands in for L{mailgate.keeper.view.ProcessView}: a process with a real watcher, and relays without peers."""

    def __init__(self, clock: Clock, member: str) -> None:
        self.member = member
        self.watcher = _Watcher(clock)
        self.factories = [Factory(), Factory()]
        self._clock = clock
        self._number = 0
        self.live: dict[str, Connection] = {}

    def gateways(self) -> list[Any]:
        return [self]

    def answer(self, word: str, arguments: Any) -> Any:
        raise KeyError(word)

    def connect(self, phase: Phase = Phase.AUTH, protocol: str = "imap") -> Connection:
        """A client that is not logged in."""
        self._number += 1
        id = f"g1.{self.member}.{self._number}"
        session = makeSession(protocol, "0.0.0.0:143", "192.0.2.7:1", self._clock.seconds(), phase=phase, id=id)
        connection = Connection(session)
        self.factories[self._number % 2].connections.add(connection)
        return connection

    def begin(self, user: str, client: str = "192.0.2.7:40123", protocol: str = "imap") -> str:
        """A relay begins. Return its id."""
        connection = self.connect(protocol=protocol)
        session = connection.session
        session.user, session.client, session.backend = user.encode(), client, "10.0.0.1:143"
        session.enter(Phase.RELAY)
        self.watcher.relaying(session, 0.1)
        self.live[session.id] = connection
        return session.id

    def end(self, id: str) -> None:
        """A relay ends."""
        connection = self.live.pop(id)
        for factory in self.factories:
            factory.connections.discard(connection)
        self.watcher.ended(connection.session)


class Process:
    """
    A process with a link to a registry. Messages are written and read, and arrive at once.

    @ivar isFull: whether the link takes no more.
    @ivar told: the messages that were sent.
    """

    isRetiring = False

    def __init__(self, clock: Clock, name: str, pid: int = 4711) -> None:
        self.relays = Relays(clock, name)
        self.name = name
        self.pid = pid
        view: Any = self.relays
        self.feed = Feed(view, clock)
        self.isFull = False
        self.told: list[Sessions] = []
        self.receive: Callable[[Any, Sessions], object] = lambda process, message: None

    def ask(self, word: str, arguments: Any, within: float) -> Deferred[Collected]:
        if word != REGISTRY:
            return succeed(Collected((), ("it does not know the question",)))
        self.feed.attached(self)
        return succeed(Collected([REGISTRY_VERSION]))

    def send(self, message: Sessions) -> None:
        read: Any = decode(encode(message), FROM_OTHERS)
        self.told.append(read)
        self.receive(self, read)

    @property
    def ids(self) -> set[str]:
        """What a keeper knows that has got all messages since the last beginning."""
        known: set[str] = set()
        for message in self.told:
            if message.isFirst:
                known = set()
            known.update(row[0] for row in message.began)
            known.difference_update(message.ended)
        return known
