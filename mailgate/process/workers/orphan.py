# -*- test-case-name: mailgate.test.process.workers.test_orphan,mailgate.test.integration.test_workers -*-
"""
A worker whose zygote has gone, and which nobody but the master knows any more.
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
    The worker C{pid} whose zygote has gone: it drains by itself, and is killed if it is not done C{within} so many
    seconds, unless they are L{None}. C{ended} fires when it has ended.

    @raise OSError: there is no such process any more, or the system knows no pidfd_open(2).
    """

    def __init__(self, reactor: Any, pid: int, within: float | None) -> None:
        self.ended: Deferred[None] = Deferred()
        self._reactor = reactor
        # A pid alone may be another's by the time that it is needed.
        self._fd = os.pidfd_open(pid)
        reactor.addReader(self)
        if within is not None:
            self._killIn(within)

    def stop(self) -> None:
        """Have it end its sessions now, and be killed if it does not."""
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
            # It may have ended, which has not been told yet.
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._fd, number)

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "orphaned worker"

    def doRead(self) -> None:
        """It has ended."""
        self.connectionLost()

    def connectionLost(self, reason: Any = None) -> None:
        """The same, or the reactor stops."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            # The first process of a container is the parent of all orphans, and has to take note of their end.
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, self._fd, os.WEXITED | os.WNOHANG)
            os.close(self._fd)
            self._fd = -1
            self.ended.callback(None)
