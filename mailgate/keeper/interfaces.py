# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
What the keeper asks, and what it gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred

from mailgate.keeper.filters import Filter

__all__ = ["Collected", "Heard", "IMember", "IOperator", "IOthers"]


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


@frozen
class Heard:
    """
    The answers of the other gateways to a question.

    @ivar answers: the answer of each gateway that has answered, by its name.
    @ivar silent: the gateways that live and have not answered completely in time, and how many seconds ago each of them
        was heard of, by name. Rows that have arrived are not used.
    @ivar reason: why, if it is one reason for all of them; else empty.
    """

    answers: Mapping[str, Collected] = field(factory=dict)
    silent: Mapping[str, float] = field(factory=dict)
    reason: str = ""


class IOthers(Protocol):
    """The other gateways that share a store with this one."""

    def ask(
        self, word: str, arguments: Mapping[str, Any], within: float = 2.0, isKept: bool = False
    ) -> Deferred[Heard]:
        """
        Ask all others. Never fails.

        @param word: a name of L{mailgate.keeper.cluster.answers.ANSWERS}.
        @param arguments: its arguments.
        @param within: seconds until they must have answered.
        @param isKept: whether gateways that do not hear it now carry it out later.
        """

    def records(self, gateway: str, filter: Filter, most: int) -> Deferred[Collected]:
        """
        Return what the store knows of the sessions of a gateway that is silent. Never fails.

        @param gateway: its name.
        @param filter: which sessions.
        @param most: the most records that are looked at.
        """

    def standing(self) -> Mapping[str, Any]:
        """
        Return how the store and the gateways are, as a value of JSON: C{up}, C{since} (RFC 3339), C{reason}, and
        C{gateways}: objects with C{name} and C{age}, in seconds since it was heard of, this one first.
        """
