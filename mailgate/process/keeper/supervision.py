# -*- test-case-name: mailgate.test.process.keeper.test_supervision -*-
"""
The keeper and its zygote, as the master sees them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from mailgate.keeper.incidents import shortened
from mailgate.process.keeper.orders import Orders
from mailgate.process.keeper.sockets import KeeperSockets
from mailgate.process.keeper.talk import ORPHANED_FOR, Configure, Duty, Event, Instruct, NotStarted, Request, Taken
from mailgate.process.keeper.zygoteprocess import KeeperFork, KeeperZygote
from mailgate.process.workers.backoff import BackOff
from mailgate.process.workers.generation import STOPPED_WITHIN
from mailgate.process.workers.messages import (
    Announce,
    ControlError,
    Ended,
    Failed,
    Fork,
    Kill,
    Loaded,
    Message,
    Order,
    Ready,
    Started,
    Tell,
)
from mailgate.process.workers.orphan import Orphan
from mailgate.process.workers.zygoteprocess import READY_WITHIN
from mailgate.system.exitstatus import howItEnded

__all__ = ["HANDED_OVER_WITHIN", "Supervision"]


HANDED_OVER_WITHIN = 5.0
"""Seconds for which a new keeper waits until the one before has received the state that it is to hand over."""


class Supervision:
    """
    Starts the keeper and its zygote, and starts them again when they die. The gateway serves without them.

    @param reactor: the reactor.
    @param file: the path of the configuration.
    @param text: the text of the configuration.
    @param sockets: the keeper's sockets.
    @param environment: the environment of the processes.
    @param logKey: the key of C{log_user = hash}.
    @ivar whenWorking: called with whether the keeper works, each time that this changes.
    @ivar heard: called with each notice of the keeper about backends.
    @ivar notices: returns the notices that a new zygote must have.
    @ivar sockets: as the argument.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        reactor: Any,
        file: str,
        text: str,
        sockets: KeeperSockets,
        environment: Mapping[str, str],
        logKey: bytes,
    ) -> None:
        self.whenWorking: Callable[[bool], object] = lambda _: None
        self.heard: Callable[[Announce], object] = lambda _: None
        self.notices: Callable[[], Sequence[Announce]] = lambda: ()
        self.sockets = sockets
        self._orders = Orders(self._send)
        self._reactor = reactor
        self._file = file
        self._text = text
        self._environment = environment
        self._logKey = logKey
        self._zygote: KeeperZygote | None = None
        self._isLoaded = False
        self._mayFork = False
        self._mayServe = False
        self._isHandoverDue = False
        self._isEnding = False
        self._slots = 0
        self._forks: dict[int, KeeperFork] = {}
        self._serving: KeeperFork | None = None
        self._coming: KeeperFork | None = None
        self._backOff = BackOff(reactor)
        self._zygoteBackOff = BackOff(reactor)
        self._orphans: set[Orphan] = set()
        self._retry: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    # The start.

    def start(self) -> None:
        """Start the zygote, which reads keys as the current user of this process."""
        self._zygoteBackOff.begun()
        zygote = KeeperZygote(
            self._reactor, self.sockets.descriptors(), self._environment, self._hear, self._fail, self._zygoteExited
        )
        try:
            zygote.start(self._file, self._text, self._logKey)
        except (ControlError, OSError) as error:
            self._lost(str(error))
            return
        self._zygote = zygote
        for notice in self.notices():
            zygote.send(notice)
        if self._mayFork:
            zygote.becomeUser()

    def fork(self) -> None:
        """Fork the keeper when the zygote is ready. Must be called after this process has changed its user."""
        self._mayFork = True
        if self._zygote is not None:
            self._zygote.becomeUser()
        self._forkNext()

    def obey(self, order: Callable[[str, Any], Deferred[Any]]) -> None:
        """
        See L{IKeeping.obey<mailgate.process.keeper.interfaces.IKeeping.obey>}.

        @param order: carries out the orders of operators.
        """
        self._orders.order = order

    def serve(self, hasPredecessor: bool) -> None:
        """
        The gateway serves: the keeper may accept.

        @param hasPredecessor: whether a keeper of the old process of an upgrade hands over its state.
        """
        self._mayServe = True
        self._isHandoverDue = hasPredecessor
        if self._coming is not None and self._coming.isReady:
            self._ready(self._coming)

    def _forkNext(self) -> None:
        if not (self._isLoaded and self._mayFork) or self._isEnding or self._coming is not None:
            return
        self._backOff.begun()
        fork = self._coming = self._forks[self._slots] = KeeperFork(self._slots)
        self._slots += 1
        fork.wait(self._reactor.callLater(READY_WITHIN, self._notReady, fork))
        self._send(Fork(fork.slot))

    def _notReady(self, fork: KeeperFork) -> None:
        fork.reason = f"it was not ready within {READY_WITHIN:g} s"
        self._kill(fork)

    def _kill(self, fork: KeeperFork) -> None:
        fork.isKilled = True
        if fork.pid is None and self._zygote is not None:
            # The zygote has not forked it.
            self._zygote.kill()
        else:
            self._send(Kill(fork.slot))

    def _send(self, message: Message) -> None:
        if self._zygote is not None:
            self._zygote.send(message)

    # Messages.

    def _hear(self, message: Message) -> None:
        if isinstance(message, Loaded):
            self._isLoaded = True
            self._forkNext()
        elif isinstance(message, Failed):
            # It exits.
            return
        elif isinstance(message, Started | Ready | NotStarted | Taken | Ended | Announce | Request):
            fork = None if message.slot is None else self._forks.get(message.slot)
            if fork is None:
                raise ControlError("no keeper has this number")
            self._hearOf(fork, message)
        else:
            raise ControlError("unexpected message from the keeper's zygote")

    def _hearOf(self, fork: KeeperFork, message: Message) -> None:
        if isinstance(message, Started):
            fork.pid = message.pid
        elif isinstance(message, Ready):
            fork.isReady = True
            fork.wait(None)
            if self._mayServe:
                self._ready(fork)
        elif isinstance(message, NotStarted):
            fork.reason = message.reason
        elif isinstance(message, Taken):
            if fork is self._serving:
                self._settled()
        elif isinstance(message, Ended):
            self._ended(fork, message)
        elif isinstance(message, Request):
            self._orders.requested(message, fork.slot)
        elif isinstance(message, Announce) and fork is self._serving:
            self.heard(message)

    def _ready(self, fork: KeeperFork) -> None:
        """A keeper is ready and may serve: it replaces the one that serves."""
        if fork is self._coming and self._serving is not None and self._isHandoverDue:
            # The one that serves cannot hand over what it has not received.
            fork.wait(self._reactor.callLater(HANDED_OVER_WITHIN, self._switch, fork))
        else:
            self._switch(fork)

    def _switch(self, fork: KeeperFork) -> None:
        if fork is not self._coming or self._isEnding:
            return
        fork.wait(None)
        before, self._serving, self._coming = self._serving, fork, None
        self._isHandoverDue = self._isHandoverDue or before is not None
        if before is not None:
            before.isLeaving = True
            self._send(Instruct(Duty.HAND_OVER, before.slot))
            before.wait(self._reactor.callLater(STOPPED_WITHIN, self._notLeft, before))
        self._send(Instruct(Duty.TAKE_OVER if self._isHandoverDue else Duty.SERVE, fork.slot))
        self._log.info("keeper {pid} serves, forked by zygote {zygote}", pid=fork.pid, zygote=self._pid)
        self.whenWorking(True)

    def _settled(self) -> None:
        """No keeper hands over any more."""
        self._isHandoverDue = False
        if self._coming is not None and self._coming.isReady and self._mayServe:
            self._switch(self._coming)

    def _predecessorGone(self) -> None:
        """A keeper has exited that may not have handed over."""
        if self._isHandoverDue and not self._orphans and not any(each.isLeaving for each in self._forks.values()):
            if self._serving is not None:
                self._send(Instruct(Duty.SERVE, self._serving.slot))
            self._settled()

    @property
    def _pid(self) -> int | None:
        return None if self._zygote is None else self._zygote.pid

    def _notLeft(self, fork: KeeperFork) -> None:
        self._log.error("keeper {pid} did not stop in time; killing it", pid=fork.pid)
        self._kill(fork)

    def _ended(self, fork: KeeperFork, message: Ended) -> None:
        del self._forks[fork.slot]
        fork.wait(None)
        how = fork.reason or f"keeper {message.pid} {howItEnded(message.status)}"
        if not message.pid:
            how = f"cannot fork: {os.strerror(message.status)}"
        if fork is self._coming:
            self._coming = None
            self._notStarted(how)
        elif fork is self._serving:
            self._serving = None
            self._died(how)
        elif message.status < 0 and not fork.isKilled:
            self._log.error("{how} while stopping", how=how)
        if fork.isLeaving:
            self._predecessorGone()

    def _notStarted(self, how: str) -> None:
        if self._isEnding:
            return
        if self._serving is not None:
            text = "the new keeper did not start: {reason}; the previous one continues with its configuration"
            self._log.error(text, reason=_oneLine(how))
            return
        self._log.error("the keeper did not start: {reason}; the gateway serves without it", reason=_oneLine(how))
        self.whenWorking(False)
        # The reason may pass, such as too little memory.
        self._later(max(1.0, self._backOff.delay()), self._forkNext)

    def _died(self, how: str) -> None:
        if self._isEnding:
            return
        coming = self._coming
        delay = self._backOff.delay() if coming is None else 0
        when = f"in {delay:g} s" if delay else "now"
        self._log.error("{how}; starting another {when}", how=how, when=when)
        if coming is None:
            self._later(delay, self._forkNext)
        elif coming.isReady:
            self._switch(coming)

    def _later(self, delay: float, act: Callable[[], object]) -> None:
        if self._retry is not None and self._retry.active():
            self._retry.cancel()
        self._retry = self._reactor.callLater(delay, act)

    # The zygote.

    def _fail(self, reason: str) -> None:
        if self._zygote is not None:
            self._zygote.kill()

    def _zygoteExited(self, how: str) -> None:
        pid, self._zygote = self._pid, None
        isLoaded, self._isLoaded = self._isLoaded, False
        forks, self._forks = self._forks, {}
        self._serving = self._coming = None
        for fork in forks.values():
            fork.wait(None)
            self._orphaned(fork)
        if self._isEnding:
            self._end()
        else:
            # Its keeper hands over to the next one.
            self._isHandoverDue = self._isHandoverDue or bool(self._orphans)
            self._lost(f"zygote {pid} of the keeper {how}" if isLoaded else how, isLoaded)

    def _orphaned(self, fork: KeeperFork) -> None:
        if fork.pid is None:
            return
        try:
            orphan = Orphan(self._reactor, fork.pid, ORPHANED_FOR + STOPPED_WITHIN)
        except ProcessLookupError:
            return
        except (OSError, AttributeError):
            # Not every system has pidfd_open(2).
            self._isHandoverDue = True
            return
        self._orphans.add(orphan)
        orphan.ended.addCallback(lambda _: self._orphanGone(orphan))

    def _orphanGone(self, orphan: Orphan) -> None:
        self._orphans.discard(orphan)
        self._predecessorGone()

    def _lost(self, how: str, hasServed: bool = False) -> None:
        delay = self._zygoteBackOff.delay()
        if hasServed:
            when = f"in {delay:g} s" if delay else "now"
            self._log.error("{how}; starting another {when}", how=how, when=when)
        else:
            self._log.error("the keeper did not start: {reason}; the gateway serves without it", reason=_oneLine(how))
            self.whenWorking(False)
            delay = max(1.0, delay)
        self._later(delay, self._restart)

    def _restart(self) -> None:
        if not self._isEnding:
            self.start()

    # What the gateway does.

    def reload(self, text: str) -> None:
        """
        The gateway has a new configuration: a new keeper takes over.

        @param text: the text of the configuration.
        """
        self._text = text
        self._send(Configure(self._file, text))
        if self._coming is not None:
            # It has the previous configuration.
            coming, self._coming = self._coming, None
            coming.wait(None)
            self._kill(coming)
        self._forkNext()

    def happened(self, name: str, *labels: str, reasons: Sequence[str] = ()) -> None:
        """
        Something has happened that metrics count.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param reasons: why it has happened.
        """
        self._send(Event(name, list(labels), list(shortened(reasons))))

    def passOn(self, notice: Announce) -> None:
        """
        Tell the keeper what a process has found out about a backend.

        @param notice: the notice.
        """
        serving = self._serving
        # Only the keeper that has published it needs the slot.
        self._send(notice if serving is not None and notice.slot == serving.slot else evolve(notice, slot=None))

    def reopen(self) -> None:
        """Open the log files again."""
        self._send(Tell(Order.REOPEN))

    # The end.

    def handOver(self) -> Deferred[None]:
        """The successor of an upgrade has taken over: the keeper hands over to its keeper, and exits."""
        return self._stop(Order.RETIRE)

    def stop(self) -> Deferred[None]:
        """
        Stop the keeper.

        @return: fires when it and its zygote have exited.
        """
        return self._stop(Order.STOP)

    def _stop(self, order: Order) -> Deferred[None]:
        if not self._isEnding:
            self._isEnding = True
            if self._retry is not None and self._retry.active():
                self._retry.cancel()
            for fork in self._forks.values():
                fork.wait(None)
            self._send(Tell(order))
            self._deadline = self._reactor.callLater(STOPPED_WITHIN, self._notStopped)
        if self._zygote is None:
            self._end()
            return succeed(None)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def _notStopped(self) -> None:
        for fork in self._forks.values():
            if fork.pid is not None:
                self._notLeft(fork)
        self._deadline = self._reactor.callLater(STOPPED_WITHIN, self._fail, "")

    def _end(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        waiting, self._waiting = self._waiting, []
        for ended in waiting:
            ended.callback(None)


def _oneLine(reason: str) -> str:
    return "; ".join(reason.splitlines())
