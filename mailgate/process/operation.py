# -*- test-case-name: mailgate.test.process.test_operation -*-
"""
Carries out what signals and commands order, answers, and reports the state of the process to systemd.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.process.answer import Answer
from mailgate.process.backends import Backends
from mailgate.process.upgrade import Successor, UpgradeError
from mailgate.system.systemd import Notifier

__all__ = ["Operation"]

SERVING = "serving"


Start: TypeAlias = Callable[[], tuple[Successor, Deferred[int]]]
"""
Starts a successor; raises L{UpgradeError} if that is not possible. The Deferred fires with its pid when it is ready.
"""


class Operation:
    """
    Carries out the orders of operators.

    @param generations: the L{mailgate.process.interfaces.IGenerations} of this process.
    @param reactor: the reactor. It is stopped when all sessions have ended after drain, stop or upgrade.
    @param notifier: reports to systemd.
    @param start: starts a successor for an upgrade.
    @param settle: called with whether the upgrade succeeded, once that is known.
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
        # A successor that starts during a reload would get the sockets of the previous configuration.
        self._lock = DeferredLock()
        self._isUpgrading = False
        self._upgrade: Successor | None = None
        self._successor: Successor | None = None
        self._isEnding = False
        self._backends = Backends(generations)

    def begun(self) -> None:
        """The gateway serves: report that to systemd."""
        if not self._isEnding:
            self._notifier.ready(SERVING)

    def reload(self) -> Deferred[Answer]:
        """Load the configuration, after the reload or upgrade that is in progress."""
        return self._lock.run(self._reload)

    def _reload(self) -> Deferred[Answer]:
        if self._successor is not None:
            # It may have read the configuration before the operator changed it.
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

    def listBackends(self) -> Deferred[Answer]:
        """Return the rows of all backends."""
        return self._backends.list()

    def orderBackend(self, word: str, address: str) -> Deferred[Answer]:
        """
        Carry out an order for a backend, after the reload or upgrade that is in progress.

        @param word: one of L{ORDERS<mailgate.upstream.standing.ORDERS>}.
        @param address: the address of the backend.
        """
        return self._lock.run(self._orderBackend, word, address)

    def _orderBackend(self, word: str, address: str) -> Deferred[Answer]:
        if self._successor is not None:
            # The new process has the orders that this one had when the upgrade began.
            return succeed(self._refuse(f"backend {word} refused: process {self._successor.pid} has taken over"))
        return self._backends.order(word, address)

    def reopen(self) -> None:
        """Open the log files again."""
        self._generations.reopen()

    def drain(self) -> Deferred[Answer]:
        """Refuse new clients, wait until all proxied sessions have ended, and exit."""
        return self._end("draining", self._generations.drain)

    def stop(self) -> Deferred[Answer]:
        """End all sessions, and exit."""
        return self._end("stopping", self._generations.stop)

    def _end(self, status: str, end: Callable[[], Deferred[int]]) -> Deferred[Answer]:
        self._isEnding = True
        if self._successor is None:
            self._notifier.stopping(status)
        self._abandon()
        return end().addCallback(self._ended)

    def _abandon(self) -> None:
        """End the upgrade that is in progress."""
        successor, self._upgrade = self._upgrade, None
        if successor is not None:
            successor.abandon("the gateway is shutting down")

    def _ended(self, cut: int) -> Answer:
        # Not immediately: the reactor writes the answer between two turns.
        self._reactor.callLater(0, self._reactor.callLater, 0, self._stopReactor)
        return Answer(True, cut=cut)

    def _stopReactor(self) -> None:
        # Drain and stop may both wait for this, and other code may have stopped the reactor.
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def upgrade(self) -> Deferred[Answer]:
        """
        Start a process of the installed version, which takes over the listening sockets. This process exits when its
        sessions have ended.
        """
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
        retired.addCallback(self._ended).addErrback(
            lambda failure: self._log.failure("unhandled exception in the shutdown after the upgrade", failure)
        )
        return Answer(True, pid=pid)

    def _notSucceeded(self, failure: Failure) -> Answer:
        failure.trap(UpgradeError)
        self._upgrade = None
        self._settle(False)
        reason = "; ".join(str(failure.value).splitlines())
        return self._refuse(f"upgrade failed, the old process continues: {reason}")
