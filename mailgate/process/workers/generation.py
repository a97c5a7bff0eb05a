# -*- test-case-name: mailgate.test.process.workers.test_generation -*-
"""
One generation, as the master sees it: a zygote, and the workers that it forks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.python.failure import Failure

from mailgate.process.reloading import GenerationError
from mailgate.process.workers.backoff import BackOff
from mailgate.process.workers.messages import (
    Announce,
    Begin,
    ControlError,
    Ended,
    Failed,
    Fork,
    Kill,
    Loaded,
    Message,
    Order,
    Query,
    Ready,
    Reply,
    Retired,
    Started,
    Tell,
)
from mailgate.process.workers.slot import Slot
from mailgate.process.workers.zygoteprocess import READY_WITHIN, ZygoteProcess
from mailgate.system.exitstatus import howItEnded

__all__ = ["Generation", "Stage"]

RETIRED_WITHIN = 2.0
"""Seconds until workers must have confirmed that they stopped accepting. They need the time of a message."""

STOPPED_WITHIN = 10.0
"""Seconds until workers must have exited after an order to stop. They need three at most."""

DRAINED_WITHIN = 20.0
"""Seconds after worker_shutdown_timeout until draining workers must have exited. They need seven at most."""


class Stage(Enum):
    """The state of a generation."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"
    ENDED = "ended"


class Generation(ZygoteProcess):
    """
    A zygote and its workers.

    @param reactor: the reactor.
    @param begin: the first message to the zygote, without C{sockets}.
    @param sockets: the descriptors of the listening sockets, by address.
    @param count: the number of workers.
    @param environment: the environment of the processes.
    @param patience: C{worker_shutdown_timeout} in seconds; L{None}: no limit.
    @param lost: called with this generation when the zygote has died before its workers.
    @ivar stage: the state.
    @ivar ready: fires when all workers serve; fails with L{GenerationError} if they cannot.
    @ivar heard: called with this generation and each message of a worker about backends, each answer of a worker, and
        each exit of a worker.
    @ivar drainedWithin: seconds until a draining worker must have exited; L{None}: no limit.
    """

    def __init__(
        self,
        reactor: Any,
        begin: Begin,
        sockets: Mapping[str, int],
        count: int,
        environment: Mapping[str, str],
        patience: float | None,
        lost: Callable[[Generation], object],
    ) -> None:
        super().__init__(reactor, "mailgate.process.workers.zygote", sockets, environment)
        self.stage = Stage.STARTING
        self.ready: Deferred[None] = Deferred()
        self._waiting: list[Deferred[int]] = []
        self._letting: set[int] = set()
        self._retired: Deferred[None] | None = None
        self._begin = evolve(begin, sockets=self._places())
        self._slots = [Slot(number, BackOff(reactor)) for number in range(count)]
        self.drainedWithin = None if patience is None else patience + DRAINED_WITHIN
        self._lost = lost
        self.heard: Callable[[Generation, Announce | Reply | Ended], object] = lambda *_: None
        self._loaded = False
        self._mayFork = False
        self._cut = 0
        self._reason = ""

    # Its process.

    def start(self) -> None:
        """
        Start the zygote as the current user of this process.

        @raise GenerationError: the configuration is too long, or the system starts no process.
        """
        try:
            self._spawn(self._begin)
        except (ControlError, OSError) as error:
            for ended in self._end():
                ended.callback(0)
            raise GenerationError(str(error)) from None

    def fork(self) -> None:
        """
        Fork the workers when the zygote is ready. Must be called after this process has changed its user, if it does.
        """
        self._mayFork = True
        self._becomeUser()
        self._forkAll()

    def _forkAll(self) -> None:
        if self._loaded and self._mayFork and self.stage is Stage.STARTING:
            for slot in self._slots:
                self._fork(slot)

    def _hear(self, message: Message) -> None:
        if isinstance(message, Loaded):
            self._loaded = True
            self._clearDeadline()
            self._forkAll()
        elif isinstance(message, Failed):
            self._fail(message.reason)
        elif isinstance(message, Started):
            self._slot(message.slot).pid = message.pid
        elif isinstance(message, Ready) and message.slot is not None:
            self._workerReady(self._slot(message.slot))
        elif isinstance(message, Retired) and message.slot is not None:
            self._workerRetired(message.slot)
        elif isinstance(message, Ended):
            self._workerRetired(message.slot)
            self._workerEnded(self._slot(message.slot), message)
            self.heard(self, message)
        elif isinstance(message, Announce | Reply) and message.slot is not None:
            self._slot(message.slot)
            self.heard(self, message)
        else:
            raise ControlError("unexpected message from a zygote")

    def _slot(self, number: int) -> Slot:
        if number >= len(self._slots):
            raise ControlError("no worker has this number")
        return self._slots[number]

    def passOn(self, message: Announce | Query) -> None:
        """
        Send a message to the zygote, which passes it on to the workers.

        @param message: the message.
        """
        self._send(message)

    def _send(self, message: Message) -> None:
        if self.stage is not Stage.ENDED:
            super()._send(message)

    def _exited(self, how: str) -> None:
        before = self.stage
        waiting = self._end()
        if before is Stage.STARTING:
            self._giveUp(": ".join(filter(None, (f"the zygote {how}", self._words.line))))
        elif self._reason:
            self._giveUp(self._reason)
        if before is Stage.SERVING or self.workers:
            self._log.error("zygote {pid} {how}; its workers are draining", pid=self.pid, how=how)
            self._lost(self)
        for ended in waiting:
            ended.callback(self._cut)

    def _end(self) -> list[Deferred[int]]:
        """The zygote has exited. Return the Deferreds that wait for that."""
        self.stage = Stage.ENDED
        self._letting.clear()
        self._lookRetired()
        self._clearDeadline()
        for slot in self._slots:
            slot.wait(None)
        waiting, self._waiting = self._waiting, []
        return waiting

    # Its workers.

    def _fork(self, slot: Slot) -> None:
        slot.isReady = False
        slot.backOff.begun()
        slot.wait(self._reactor.callLater(READY_WITHIN, self._notReady, slot))
        self._send(Fork(slot.number))

    def _notReady(self, slot: Slot) -> None:
        self._log.error("worker {pid} was not ready within {seconds:g} s", pid=slot.pid, seconds=READY_WITHIN)
        if slot.pid is None:
            # The zygote has not forked it.
            self._killZygote()
        else:
            self._send(Kill(slot.number))
        self._fail("a worker was not ready in time")

    def _workerReady(self, slot: Slot) -> None:
        slot.isReady = True
        slot.wait(None)
        if self.stage is Stage.STARTING and all(slot.isReady for slot in self._slots):
            self.stage = Stage.SERVING
            self.ready.callback(None)

    def _workerEnded(self, slot: Slot, message: Ended) -> None:
        slot.pid = None
        slot.wait(None)
        # A killed worker cannot report its sessions. It had one at least, or it would have exited.
        self._cut += max(message.cut, self.stage is Stage.LEAVING and message.status < 0)
        how = f"worker {message.pid} {howItEnded(message.status)}"
        if not message.pid:
            how = f"cannot fork a worker: {os.strerror(message.status)}"
        if self.stage is Stage.STARTING:
            self._fail(how)
        elif self.stage is Stage.SERVING:
            delay = slot.backOff.delay()
            when = f"in {delay:g} s" if delay else "now"
            self._log.error("{how}; starting another {when}", how=how, when=when)
            slot.wait(self._reactor.callLater(delay, self._fork, slot))
        elif message.status < 0:
            self._log.error("{how} while stopping", how=how)

    # Its end.

    def whenEnded(self) -> Deferred[int]:
        """
        Return a Deferred that fires when all processes have exited, with the number of proxied sessions that were cut.
        """
        if self.stage is Stage.ENDED:
            return succeed(self._cut)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def tell(self, order: Order) -> None:
        """
        Send an order to all workers. After an order that ends them, workers that die are not replaced.

        @param order: the order.
        """
        if self.stage is Stage.ENDED:
            return
        if order is not Order.REOPEN:
            # Before it serves there are no sessions to wait for.
            atOnce = order is Order.STOP or self.stage is Stage.STARTING
            if self.stage is Stage.STARTING:
                self._reason = "the gateway shut down before the workers were ready"
            if self.stage is not Stage.LEAVING:
                self._clearDeadline()
            self.stage = Stage.LEAVING
            for slot in self._slots:
                slot.wait(None)
            self._limit(STOPPED_WITHIN if atOnce else self.drainedWithin)
        self._send(Tell(order))

    def _limit(self, seconds: float | None) -> None:
        """Kill the remaining workers after so many seconds, or at the earlier deadline that is set already."""
        if seconds is None:
            return
        due = self._reactor.seconds() + seconds
        if self._deadline is None or (self._deadline.active() and self._deadline.getTime() > due):
            self._clearDeadline()
            self._deadline = self._reactor.callLater(seconds, self._kill)

    def retire(self) -> Deferred[None]:
        """
        Order all workers to stop accepting, and to exit when their sessions have ended.

        @return: fires when all workers have stopped accepting, or after L{RETIRED_WITHIN}.
        """
        if self.stage is Stage.ENDED:
            # Orphaned workers stop accepting without an order, and cannot confirm it.
            return succeed(None)
        self._letting = {slot.number for slot in self._slots if slot.pid is not None}
        retired: Deferred[None] = Deferred()
        self._retired = retired
        retired.addTimeout(RETIRED_WITHIN, self._reactor).addErrback(self._notRetired)
        self.tell(Order.RETIRE)
        self._lookRetired()
        return retired

    def _workerRetired(self, slot: int) -> None:
        self._letting.discard(slot)
        self._lookRetired()

    def _lookRetired(self) -> None:
        if not self._letting and self._retired is not None:
            retired, self._retired = self._retired, None
            retired.callback(None)

    def _notRetired(self, failure: Failure) -> None:
        failure.trap(TimeoutError)
        self._retired = None
        self._log.error("{count} old workers have not confirmed that they stopped accepting", count=len(self._letting))

    def _fail(self, reason: str) -> None:
        """The start has failed."""
        if self.stage is Stage.STARTING:
            self.tell(Order.STOP)
            self._reason = reason

    def _giveUp(self, reason: str) -> None:
        self.ready.errback(GenerationError(reason))

    def _kill(self) -> None:
        """Kill the remaining workers."""
        self._clearDeadline()
        for slot in self._slots:
            if slot.pid is not None:
                self._log.error("worker {pid} did not stop in time; killing it", pid=slot.pid)
                self._send(Kill(slot.number))
        self._deadline = self._reactor.callLater(STOPPED_WITHIN, self._killZygote)

    @property
    def workers(self) -> list[int]:
        """The pids of the running workers."""
        return list(self.running.values())

    @property
    def running(self) -> dict[int, int]:
        """The pids of the running workers, by their numbers."""
        return {slot.number: slot.pid for slot in self._slots if slot.pid is not None}

    @property
    def serving(self) -> dict[int, int]:
        """The pids of the workers that serve, by their numbers."""
        return {slot.number: slot.pid for slot in self._slots if slot.pid is not None and slot.isReady}
