# -*- test-case-name: mailgate.test.system.test_reparenting -*-
"""
A main process that systemd itself waits for. It takes one that another process has started for a stranger: of that one
it does not notice the end, and at a stop, of which C{KillMode=mixed} first tells the main process alone, it kills
everything at once.
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
"""Seconds that it may take until a parent that has been left is gone."""


class Parent:
    """
    What remains of the process that called L{fork}: it waits for the one that goes on, and ends as that one does, so
    that whoever started it hears of it; a SIGTERM is handed on.
    """

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self._pid = pid
        self._channel = channel

    @classmethod
    def fork(cls) -> Parent:
        """
        Go on in a child. For a process that has but one thread, and no signal handlers yet.

        @raise OSError: the system does not fork.
        """
        pid = os.getpid()
        ours, theirs = socket.socketpair()
        # One that comes in between is handed on as well.
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
        """Have it end, with success, and become the child of whoever adopts orphans."""
        with self._channel, suppress(OSError):
            self._channel.sendall(b"\n")
        end = time.monotonic() + _GONE_WITHIN
        while os.getppid() == self._pid and time.monotonic() < end:
            time.sleep(0.001)


def _wait(child: int, theirs: socket.socket, ours: socket.socket, mask: Iterable[int]) -> NoReturn:
    def handOn(number: int, frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    # Whatever happens, the frames below this one are the child's alone.
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
