"""
Processes with sessions, and what asks them in the place of the keeper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater

from mailgate.frontend.kicking import Kicks
from mailgate.keeper.answers import kick, sessions, sticky
from mailgate.keeper.keeper import Collected
from mailgate.keeper.view import ProcessView
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase, Session
from mailgate.testing.fakes import makeSession

assert kick and sessions and sticky, "they register what they answer"

__all__ = ["START", "Connection", "Factory", "Gateway", "Processes"]

START = 1_800_000_000.0


class Connection:
    """A connection that ends when it is dismissed, unless its peer is C{isSlow}."""

    def __init__(self, factory: Factory, session: Session, isSlow: bool = False) -> None:
        self.factory = factory
        self.session = session
        self.isSlow = isSlow
        self.calls: list[Any] = []
        self.loginBegan = session.started
        factory.connections.add(self)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self.calls.append((outcome, trouble))
        self.session.conclude(outcome)
        if not self.isSlow:
            self.end()

    def stop(self) -> None:
        self.calls.append("stop")
        self.session.conclude(Outcome.STOPPED)
        self.end()

    def limit(self, moment: float | None) -> None:
        raise NotImplementedError

    def end(self, outcome: Outcome = Outcome.QUIT) -> None:
        """It has closed."""
        self.session.conclude(outcome)
        if self.session.phase is not Phase.RELAY:
            self.session.end()
        self.factory.connections.discard(self)

    def becomes(self, phase: Phase = Phase.RELAY) -> Connection:
        """Another object takes the connection over."""
        self.session.enter(phase)
        self.factory.connections.discard(self)
        return Connection(self.factory, self.session)


class Factory:
    """The factory of one server."""

    def __init__(self, clock: Clock, name: str = "imaps") -> None:
        self.settings = SimpleNamespace(name=name)
        self.clock = clock
        self.connections: set[Any] = set()
        self.failures: list[str] = []
        self.journal = SimpleNamespace(failure=self.failures.append)


class Gateway:
    """A gateway with one server, whose authenticators have stored answers about C{stored}."""

    def __init__(self, clock: Clock, kicks: Kicks) -> None:
        self.factories = (Factory(clock),)
        self.state = SimpleNamespace(kicks=kicks)
        self.upstreams = SimpleNamespace(groups=[])
        self.isDraining = False
        self.stored: list[bytes] = []

    def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        for user in list(self.stored):
            if matches(user):
                self.stored.remove(user)
                yield 1
        yield 0


class Processes:
    """
    Processes, which are asked as the keeper asks them. The sessions of each begin a second apart.

    @ivar views: one for each process.
    @ivar asked: the questions.
    @ivar between: called between two rows of an answer.
    @ivar late: names of processes that do not answer.
    @ivar lies: what a process that is taken over adds to each answer.
    """

    name = "g1"
    limits: Any = None
    others: Any = None
    registry: Any = None
    placing: Any = None

    def __init__(self, *members: str) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.kicks = Kicks(self.clock, lambda targets: targets.reverse())
        self.gateways = {member: [Gateway(self.clock, self.kicks)] for member in members}
        self.views = [self._view(member) for member in members]
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.between: Callable[[], object] = lambda: None
        self.late: set[str] = set()
        self.lies: list[Any] = []
        self.stories: list[Mapping[str, Any]] = []
        self._number = 0

    def _view(self, member: str) -> ProcessView:
        watcher: Any = None
        gateways: Any = self.gateways[member]
        return ProcessView(member, watcher, lambda: gateways)

    def drains(self, member: str) -> None:
        """A reload: the present gateway of a process drains."""
        self.gateways[member].insert(0, Gateway(self.clock, self.kicks))

    def factory(self, member: str, generation: int = 0) -> Factory:
        """The factory of a process; C{generation} counts from the latest."""
        return self.gateways[member][generation].factories[0]

    def session(
        self,
        member: str = "aaaaa",
        user: bytes = b"joe",
        isSlow: bool = False,
        generation: int = 0,
        **values: Any,
    ) -> Connection:
        """Another session."""
        self._number += 1
        given = {
            "started": START - 1000 + self._number,
            "client": "192.0.2.7:40123",
            "phase": Phase.RELAY,
            "backend": "10.0.0.1:143",
            "id": f"{member}.{self._number:04d}",
            **values,
        }
        session = makeSession("imap", "0.0.0.0:993", user=user, **given)
        return Connection(self.factory(member, generation), session, isSlow)

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = 2.0) -> Deferred[Collected]:
        """See L{mailgate.keeper.keeper.Keeper.ask}."""
        self.asked.append((word, arguments))
        rows, missing = list(self.lies), []
        for view in self.views:
            if view.member in self.late:
                missing.append(f"{view.member} has not answered")
                continue
            for row in view.answer(word, arguments):
                rows.append(row)
                self.between()
        return succeed(Collected(rows, missing))

    def now(self) -> float:
        """See L{mailgate.keeper.keeper.Keeper.now}."""
        return self.clock.seconds()

    def turn(self) -> Deferred[None]:
        """See L{mailgate.keeper.keeper.Keeper.turn}."""
        return deferLater(self.clock, 0)

    def recent(self, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        """See L{mailgate.keeper.keeper.Keeper.recent}."""
        return [story for story in self.stories if user in (None, story["user"])]
