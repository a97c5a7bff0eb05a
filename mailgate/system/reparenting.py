# -*- test-case-name: mailgate.test.system.test_reparenting -*-
"""
Makes the main process a child of systemd. If another process started it, systemd does not notice when it ends; and at a
stop with C{KillMode=mixed}, which first sends the signal to the main process only, it kills all processes at once.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

__all__ = ["Parent"]

_GONE_WITHIN = 5.0
"""The most seconds that L{Parent.leave} waits for the parent to exit."""


class Parent:
    """
    The process that called L{fork}, seen from its child, which does the work. The parent waits for the child, passes on
    SIGTERM, and exits with the status or the signal of the child, so that the process that started it learns the
    result.

    @param pid: the pid of the parent.
    @param channel: a socket to the parent.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid = pid
        self._channel = channel

    @classmethod
    def fork(cls) -> Parent:
        """
        Fork, and return in the child only. The process must have only one thread and no signal handlers yet.

        @raise OSError: the system cannot fork.
        """
        pid = os.getpid()
        ours, theirs = socket.socketpair()
        # A SIGTERM in between is passed on later.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            child = os.fork()
            if child:
                _wait(child, theirs, ours, before)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        ours.close()
        return cls(pid, theirs)

    def leave(self) -> None:
        """Make the parent exit with status 0. Then init, or a subreaper such as systemd, adopts this process."""
        with self._channel, suppress(OSError):
            self._channel.sendall(b"\n")
        end = time.monotonic() + _GONE_WITHIN
        while os.getppid() == self._pid and time.monotonic() < end:
            time.sleep(0.001)


def _wait(child: int, theirs: socket.socket, ours: socket.socket, mask: Iterable[int]) -> NoReturn:
    def handOn(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    # The parent must never return to the callers; only the child goes on there.
    try:
        signal.signal(signal.SIGTERM, handOn)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        if ours.recv(1):
            os._exit(0)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            os._exit(code)
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    finally:
        os._exit(1)
