# -*- test-case-name: mailgate.test.keeper.test_handover -*-
"""
How a keeper leaves its place to a successor, which the master or the zygote has started: it stops accepting, sends all
processes away, and hands over its state on the socket on which the successor accepts from then on.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.listening import Rendezvous
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    LONGEST_HANDOVER,
    LONGEST_ORDER,
    MOST_MEMBERS,
    Conversation,
    Handover,
    Received,
    Refused,
    WireError,
)
from mailgate.log.journal import oneLine

__all__ = ["GIVE_UP_AFTER", "handOver"]

GIVE_UP_AFTER = 5.0
"""Seconds until the successor must have received the state."""

_log = Logger("mailgate")


class _ToSuccessor(Conversation):
    """The predecessor's end of a handover."""

    kinds = FROM_KEEPERS
    MAX_LENGTH = LONGEST_ORDER

    def __init__(self, state: str, members: tuple[str, ...], done: Deferred[bool]) -> None:
        self._state = state
        self._members = members
        self._sent = -1
        self._done: Deferred[bool] | None = done
        self._why = "the successor closed the connection"

    def began(self) -> None:
        self._sent = 0
        self.drained()

    def drained(self) -> None:
        while not self.isFull and self._sent >= 0:
            part = self._state[self._sent : self._sent + LONGEST_HANDOVER]
            self._sent += len(part)
            isLast = self._sent >= len(self._state)
            if isLast:
                self._sent = -1
            self.send(Handover(self._members if isLast else (), part, isLast))

    def received(self, message: Any) -> None:
        if isinstance(message, Received):
            self._end(True)
        elif isinstance(message, Refused):
            self._why = message.reason
        self.close()

    def invalid(self, error: WireError) -> None:
        self._why = str(error)
        self.abort()

    def ended(self) -> None:
        self._end(False)

    def _end(self, isDone: bool) -> None:
        done, self._done = self._done, None
        # It has fired already if the successor took too long.
        if done is not None and not done.called:
            if not isDone:
                _log.error("the new keeper did not receive the state: {reason}", reason=oneLine(self._why))
            done.callback(isDone)


def handOver(
    keeper: Keeper,
    rendezvous: Rendezvous | None,
    endpoint: IStreamClientEndpoint,
    clock: IReactorTime,
    members: tuple[str, ...] = (),
    within: float = GIVE_UP_AFTER,
) -> Deferred[bool]:
    """
    Hand over to a successor. It accepts on the socket as soon as it is ordered to; until then the connections wait.

    The keeper goes on answering what it has been asked already. Nothing is written to the shared memory any more.

    @param keeper: the keeper that leaves.
    @param rendezvous: accepts its processes; L{None} if it has only the process that it runs in.
    @param endpoint: connects to the successor: the path of the socket.
    @param clock: the timers.
    @param members: the names of further processes that go to the successor, such as this one after an upgrade.
    @param within: seconds until the successor must have received the state.
    @return: fires with whether the successor has the state. Without it the successor restores what is in the shared
        memory, and what the processes report.
    """
    done: Deferred[bool] = Deferred()
    deadline: IDelayedCall = clock.callLater(within, lambda: _giveUp(done, within))

    def sent(names: tuple[str, ...]) -> Any:
        keeper.isHandedOver = True
        state = keeper.state().decode("ascii")
        factory = Factory.forProtocol(lambda: _ToSuccessor(state, (*names, *members)[:MOST_MEMBERS], done))
        factory.noisy = False
        return endpoint.connect(factory)

    def failed(failure: Failure) -> None:
        if not done.called:
            reason = "it was stopped" if failure.check(CancelledError) else failure.getErrorMessage()
            _log.error("the new keeper did not receive the state: {reason}", reason=oneLine(reason))
            done.callback(False)

    def finish(isDone: bool) -> bool:
        if deadline.active():
            deadline.cancel()
        return isDone

    keeper.isLeaving = True
    begun: Any = maybeDeferred(lambda: () if rendezvous is None else _sendAway(rendezvous))
    begun.addCallback(sent).addErrback(failed)
    return done.addCallback(finish)


def _sendAway(rendezvous: Rendezvous) -> Deferred[tuple[str, ...]]:
    return rendezvous.stopAccepting().addCallback(lambda _: rendezvous.sendAway())


def _giveUp(done: Deferred[bool], within: float) -> None:
    if not done.called:
        _log.error("the new keeper did not receive the state: {reason}", reason=f"not within {within:g} s")
        done.callback(False)
