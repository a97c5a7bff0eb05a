# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
What the keeper asks, and what it gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

__all__ = ["Collected", "IMember", "IOperator"]


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
