# -*- test-case-name: mailgate.test.process.workers.test_orphan,mailgate.test.integration.test_workers -*-
"""
A worker whose zygote has died. Only the master can still control it.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from mailgate.process.workers.generation import STOPPED_WITHIN

__all__ = ["Orphan"]


@implementer(IReadDescriptor)
class Orphan:
    """
    A worker whose zygote has died. The worker drains without an order. It is killed if that takes too long.

    @param reactor: the reactor.
    @param pid: the worker's pid.
    @param within: seconds until the worker is killed; L{None}: never.
    @ivar pid: as the argument.
    @ivar ended: fires when the worker has exited.
    @raise OSError: the process has exited already, or the system has no pidfd_open(2).
    """

    def __init__(self, reactor: Any, pid: int, within: float | None) -> None:
        self.pid = pid
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        # The pid may belong to another process by the time that it is needed; a pidfd cannot.
        self._fd = os.pidfd_open(pid)
        reactor.addReader(self)
        if within is not None:
            self._killIn(within)

    def stop(self) -> None:
        """Order the worker to end its sessions now, and kill it if it does not exit."""
        self._signal(signal.SIGTERM)
        self._killIn(STOPPED_WITHIN)

    def _killIn(self, seconds: float) -> None:
        killing = self._reactor.callLater(seconds, self._signal, signal.SIGKILL)

        def spare(_: object) -> None:
            if killing.active():
                killing.cancel()

        self.ended.addCallback(spare)

    def _signal(self, number: int) -> None:
        if self._fd >= 0:
            # It may have exited, and the event loop has not reported that yet.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "orphaned worker"

    def doRead(self) -> None:
        """The worker has exited."""
        self.connectionLost()

    def connectionLost(self, reason: Any = None) -> None:
        """
        The worker has exited, or the reactor stops.

        @param reason: unused.
        """
        if self._fd >= 0:
            self._reactor.removeReader(self)
            # The first process of a container becomes the parent of all orphans and must reap them.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
            os.close(self._fd)
            self._fd = -1
            self.ended.callback(None)
