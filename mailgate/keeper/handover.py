# -*- test-case-name: mailgate.test.keeper.test_handover -*-
"""
How a keeper leaves its place to a successor, which the master or the zygote has started: it stops accepting, sends all
processes away, and hands over its state on the socket on which the successor accepts from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.conversation import Conversation
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.listening import Rendezvous
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    LONGEST_HANDOVER,
    LONGEST_ORDER,
    MOST_MEMBERS,
    Handover,
    Received,
    Refused,
    WireError,
)
from mailgate.log.journal import oneLine

__all__ = ["GIVE_UP_AFTER", "handOver"]

GIVE_UP_AFTER = 5.0
"""Seconds until the successor must have received the state."""

_PAUSE = 0.1
"""Seconds until the next attempt. If the successor has died, another one is on its way."""

_log = Logger("mailgate")


class _ToSuccessor(Conversation):
    """The predecessor's end of a handover."""

    kinds = FROM_KEEPERS
    MAX_LENGTH = LONGEST_ORDER

    def __init__(self, state: str, members: tuple[str, ...], ended: Callable[[bool, str], object]) -> None:
        """
        @param state: the state.
        @param members: the names of the processes that go to the successor.
        @param ended: called when the connection is closed, with whether the successor has the state, and with the
            reason for which it never will; C{""} without one.
        """
        self._state = state
        self._members = members
        self._sent = -1
        self._ended = ended
        self._isReceived = False
        self._why = ""

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
            self._isReceived = True
        elif isinstance(message, Refused):
            self._why = message.reason
        self.close()

    def invalid(self, error: WireError) -> None:
        self._why = str(error)
        self.abort()

    def ended(self) -> None:
        self._ended(self._isReceived, self._why)


def handOver(
    keeper: Keeper,
    rendezvous: Rendezvous | None,
    endpoint: IStreamClientEndpoint,
    clock: IReactorTime,
    members: tuple[str, ...] = (),
    within: float = GIVE_UP_AFTER,
) -> Deferred[bool]:
    """
    Hand over to a successor. It accepts on the socket as soon as it is ordered to; until then the connections wait. If
    it dies, the next one gets the state.

    The keeper goes on answering what it has been asked already. When all processes have reported for the last time, it
    saves its state to the shared memory; from then on it writes nothing there.

    @param keeper: the keeper that leaves.
    @param rendezvous: accepts its processes; L{None} if it has only the process that it runs in.
    @param endpoint: connects to the successor: the path of the socket.
    @param clock: the timers.
    @param members: the names of further processes that go to the successor, such as this one after an upgrade.
    @param within: seconds until the successor must have received the state.
    @return: fires with whether the successor has the state. Without it the successor restores what is in the shared
        memory, and what the processes report.
    """
    keeper.isLeaving = True
    handover = _Handover(endpoint, clock, within)
    begun: Any = maybeDeferred(lambda: () if rendezvous is None else _sendAway(rendezvous))
    begun.addCallback(lambda names: _begin(keeper, handover, (*names, *members)[:MOST_MEMBERS]))
    begun.addErrback(handover.failed)
    return handover.done


def _begin(keeper: Keeper, handover: _Handover, members: tuple[str, ...]) -> None:
    keeper.save()
    keeper.isHandedOver = True
    handover.begin(keeper.stateToHandOver().decode("ascii"), members)


class _Handover:
    """
    Sends a state until a successor has received it.

    @param endpoint: connects to the successor.
    @param clock: the timers.
    @param within: seconds until it must have received the state.
    @ivar done: fires with whether it has received it.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, clock: IReactorTime, within: float) -> None:
        self.done: Deferred[bool] = Deferred()
        self._endpoint = endpoint
        self._clock = clock
        self._deadline: IDelayedCall = clock.callLater(within, self._end, f"not within {within:g} s")
        self._retry: IDelayedCall | None = None
        self._factory: Factory | None = None

    def begin(self, state: str, members: tuple[str, ...]) -> None:
        """
        Send a state.

        @param state: the state.
        @param members: the names of the processes that go to the successor.
        """
        self._factory = Factory.forProtocol(lambda: _ToSuccessor(state, members, self._closed))
        self._factory.noisy = False
        self._connect()

    def _connect(self) -> None:
        if self._factory is not None and not self.done.called:
            self._endpoint.connect(self._factory).addErrback(self.failed)

    def _closed(self, isReceived: bool, why: str) -> None:
        if isReceived or why:
            self._end(why)
        elif not self.done.called:
            self._retry = self._clock.callLater(_PAUSE, self._connect)

    def failed(self, failure: Failure) -> None:
        """
        The state cannot be sent.

        @param failure: why.
        """
        self._end("it was stopped" if failure.check(CancelledError) else failure.getErrorMessage())

    def _end(self, why: str) -> None:
        if self.done.called:
            return
        for timer in (self._deadline, self._retry):
            if timer is not None and timer.active():
                timer.cancel()
        if why:
            _log.error("the new keeper did not receive the state: {reason}", reason=oneLine(why))
        self.done.callback(not why)


def _sendAway(rendezvous: Rendezvous) -> Deferred[tuple[str, ...]]:
    return rendezvous.stopAccepting().addCallback(lambda _: rendezvous.sendAway())
