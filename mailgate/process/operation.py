# -*- test-case-name: mailgate.test.process.test_operation -*-
"""
What is asked of the process, by signals and by commands, and how it is answered; systemd is told meanwhile.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.process.upgrade import Successor, UpgradeError
from mailgate.system.systemd import Notifier

__all__ = ["Answer", "Operation"]

SERVING = "serving"


@frozen
class Answer:
    """
    What has become of it: whether it is C{done}, if not the C{reasons}, how many sessions were C{cut} for it, and the
    process C{pid} that has taken over.
    """

    done: bool
    reasons: tuple[str, ...] = ()
    cut: int = 0
    pid: int | None = None


Start: TypeAlias = Callable[[], tuple[Successor, Deferred[int]]]
"""Starts a successor. L{UpgradeError} where that cannot be."""


class Operation:
    """
    Obeys, with C{generations}, and answers. C{notifier} tells systemd; C{reactor} is stopped when all have left.

    A successor is begun by C{start()}, and C{settle(ready)} is called when it is ready, or is not going to be.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        generations: Any,
        reactor: Any,
        notifier: Notifier,
        start: Start,
        settle: Callable[[bool], object],
    ) -> None:
        self._generations = generations
        self._reactor = reactor
        self._notifier = notifier
        self._start = start
        self._settle = settle
        # Between the reading of a configuration and its being in force nobody is to start with sockets of before.
        self._lock = DeferredLock()
        self._isUpgrading = False
        self._upgrade: Successor | None = None
        self._successor: Successor | None = None
        self._isEnding = False

    @property
    def servesClients(self) -> bool:
        """Whether this process serves clients itself, in the place of workers."""
        return bool(self._generations.servesClients)

    def begun(self) -> None:
        """The gateway serves."""
        if not self._isEnding:
            self._notifier.ready(SERVING)

    def reload(self) -> Deferred[Answer]:
        """Put the configuration into force, once what is under way is done."""
        return self._lock.run(self._reload)

    def _reload(self) -> Deferred[Answer]:
        if self._successor is not None:
            # It may have read the configuration too early.
            self._log.info("passing the reload on to process {pid}, which has taken over", pid=self._successor.pid)
            with suppress(ProcessLookupError):
                os.kill(self._successor.pid or os.getpid(), signal.SIGHUP)
            return succeed(Answer(True, pid=self._successor.pid))
        if self._isEnding:
            return succeed(self._refuse("reload refused: the gateway is shutting down"))
        self._notifier.reloading()
        reloaded: Deferred[Sequence[str]] = maybeDeferred(self._generations.reload)
        reloaded.addBoth(self._reloaded)
        return reloaded.addCallback(lambda reasons: Answer(not reasons, tuple(reasons)))

    def _reloaded(self, result: Any) -> Any:
        if not self._isEnding:
            isGood = not isinstance(result, Failure) and not result
            self._notifier.ready(SERVING if isGood else "serving; the last reload was refused, see the log")
        return result

    def _refuse(self, reason: str) -> Answer:
        self._log.error("{reason}", reason=reason)
        return Answer(False, (reason,))

    def reopen(self) -> None:
        """Open the log files again."""
        self._generations.reopen()

    def drain(self) -> Deferred[Answer]:
        """Let nobody in any more, and end when all have left."""
        return self._end("draining", self._generations.drain)

    def stop(self) -> Deferred[Answer]:
        """End all, and then the process."""
        return self._end("stopping", self._generations.stop)

    def _end(self, status: str, end: Callable[[], Deferred[int]]) -> Deferred[Answer]:
        self._isEnding = True
        if self._successor is None:
            self._notifier.stopping(status)
        self._abandon()
        return end().addCallback(self._ended)

    def _abandon(self) -> None:
        """Who was to take over is not to any more."""
        successor, self._upgrade = self._upgrade, None
        if successor is not None:
            successor.abandon("the gateway is shutting down")

    def _ended(self, cut: int) -> Answer:
        # Not at once: the answer has to leave, and between two turns the reactor writes.
        self._reactor.callLater(0, self._reactor.callLater, 0, self._stopReactor)
        return Answer(True, cut=cut)

    def _stopReactor(self) -> None:
        # Two may have been waiting for the same end, and somebody else may have stopped it.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def upgrade(self) -> Deferred[Answer]:
        """Have a process of the version that is installed take over, and end when those who are connected have left."""
        if self._isUpgrading:
            return succeed(self._refuse("upgrade refused: another upgrade is in progress"))
        self._isUpgrading = True
        return self._lock.run(self._beginUpgrade).addBoth(self._upgradeOver)

    def _upgradeOver(self, result: Any) -> Any:
        self._isUpgrading = False
        return result

    def _beginUpgrade(self) -> Deferred[Answer]:
        if self._isEnding:
            return succeed(self._refuse("upgrade refused: the gateway is shutting down"))
        try:
            self._upgrade, ready = self._start()
        except UpgradeError as error:
            return succeed(self._refuse(f"upgrade refused: {error}"))
        return ready.addCallbacks(self._succeeded, self._notSucceeded)

    def _succeeded(self, pid: int) -> Answer:
        successor, self._upgrade = self._upgrade, None
        assert successor is not None
        self._successor = successor
        self._isEnding = True
        self._log.info("process {pid} has taken over; this process exits when its sessions have ended", pid=pid)
        self._notifier.handOver(pid)
        self._settle(True)
        retired: Deferred[int] = self._generations.retire()
        successor.goOn()
        retired.addCallback(self._ended).addErrback(lambda failure: self._log.failure("shutdown after the upgrade failed", failure))
        return Answer(True, pid=pid)

    def _notSucceeded(self, failure: Failure) -> Answer:
        failure.trap(UpgradeError)
        self._upgrade = None
        self._settle(False)
        reason = "; ".join(str(failure.value).splitlines())
        return self._refuse(f"upgrade failed, this process keeps serving: {reason}")
