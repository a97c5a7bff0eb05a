# -*- test-case-name: mailgate.test.process.keeper -*-
"""
The keeper, as the process that twistd runs controls it: beside workers, or in the same process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailgate.process.keeper.sockets import KeeperSockets

__all__ = ["IKeeping"]


class IKeeping(Protocol):
    """
    The keeper of a gateway.

    @ivar sockets: its sockets.
    """

    sockets: KeeperSockets

    def obey(self, order: Callable[[str, Any], Deferred[Any]]) -> None:
        """
        Set what carries out the orders of operators.

        @param order: called with the name of a command and its arguments, fires with the
            L{Answer<mailgate.process.answer.Answer>}.
        """

    def serve(self, hasPredecessor: bool) -> None:
        """
        The gateway serves: the keeper may accept.

        @param hasPredecessor: whether the keeper of the old process of an upgrade hands over its state.
        """

    def happened(self, name: str, *labels: str, reasons: Sequence[str] = ()) -> None:
        """
        Something has happened that metrics count.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param reasons: why it has happened.
        """

    def handOver(self) -> Deferred[None]:
        """The successor of an upgrade has taken over: the keeper hands over to its keeper."""

    def stop(self) -> Deferred[Any]:
        """The keeper stops, and no other one follows. The Deferred fires when it has stopped."""
