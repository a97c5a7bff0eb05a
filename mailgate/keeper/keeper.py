# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
The keeper itself, the same object in a process of its own and in a gateway without workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from mailgate.watch.tally import Totals

__all__ = ["Collected", "IMember", "IOperator", "Keeper"]


@frozen
class Collected:
    """
    The answers of all processes to a question.

    @ivar rows: the rows, each a value of JSON.
    @ivar missing: why the answer is incomplete: a sentence for each process that has not answered completely.
    """

    rows: Sequence[Any] = ()
    missing: Sequence[str] = ()


class IMember(Protocol):
    """
    A process that serves clients, as the keeper knows it: over a unix socket, or this process itself.

    @ivar name: its name, unique among all that have ever been members: the beginning of its session ids.
    @ivar pid: its process id.
    @ivar isRetiring: whether it accepts no new clients.
    """

    name: str
    pid: int
    isRetiring: bool

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question.

        @param word: a name of L{mailgate.keeper.view.ANSWERERS}.
        @param arguments: its arguments.
        @param within: seconds until it must have answered. What has arrived then is the answer.
        """


class IOperator(Protocol):
    """Carries out orders about the whole gateway: the process itself, or the master over the zygote."""

    def order(self, command: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """
        Carry out a command of L{mailgate.process.commands}: C{reload}, C{backend list}, C{backend drain}, ….

        @param command: its name.
        @param arguments: its arguments.
        @return: fires with its L{mailgate.process.answer.Answer}.
        """


class Keeper:
    """
    Adds up, asks, remembers.

    @param clock: the time and timers.
    @param name: the name of the gateway (C{gateway_name}).
    @ivar operator: carries out orders; L{None} if this gateway takes none, as in an application.
    """

    def __init__(self, clock: IReactorTime, name: str) -> None:
        self.name = name
        self.operator: IOperator | None = None
        self._clock = clock

    def join(self, member: IMember) -> None:
        """Add a process. A member of the same name is the same process, and replaces the earlier object."""
        raise NotImplementedError

    def left(self, member: IMember) -> None:
        """A process has ended or lost its link. What it has counted stays in the sums."""
        raise NotImplementedError

    def reported(self, member: IMember, totals: Totals, stories: Sequence[Mapping[str, Any]]) -> None:
        """A process has reported: C{totals} from its start on, and the stories since its last report."""
        raise NotImplementedError

    def happened(self, name: str, labels: Sequence[str]) -> None:
        """Count an event of the gateway, such as a reload: C{name} is a counter of L{mailgate.watch.metrics}."""
        raise NotImplementedError

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = 2.0) -> Deferred[Collected]:
        """Ask all processes. See L{IMember.ask}."""
        raise NotImplementedError

    def scrape(self, within: float = 0.2) -> Deferred[Totals]:
        """
        Return all metrics of the gateway: it asks each process, and uses the last report of each that is late.
        """
        raise NotImplementedError

    def recent(self, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Return the stories that are kept, the latest first: all, or those of one user."""
        raise NotImplementedError

    def state(self) -> bytes:
        """Return what a successor continues with: sums and stories."""
        raise NotImplementedError

    def restore(self, state: bytes) -> None:
        """Continue with the C{state} of a predecessor. What is not valid is ignored."""
        raise NotImplementedError
