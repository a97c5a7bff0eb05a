# -*- test-case-name: mailgate.test.process.workers.test_generation -*-
"""
A zygote, as the master sees it: its process, its messages, and its last words.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import mailgate
from mailgate.process.workers.messages import Become, Begin, ControlError, Lines, Message, encode
from mailgate.system.exitstatus import howItEnded
from mailgate.system.lastwords import STANDARD_ERROR, LastWords

__all__ = ["FIRST_SOCKET", "READY_WITHIN", "ZygoteProcess"]

READY_WITHIN = 30.0
"""Seconds until a zygote, or a process that it forks, must be ready. It is killed otherwise."""

FIRST_SOCKET = 6
"""The lowest descriptor of a socket in the zygote."""

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
"""The folder in which Python finds this mailgate, installed or not."""


class ZygoteProcess(ProcessProtocol):
    """
    A process that forks others. Subclasses know which, and what its messages mean.

    @param reactor: the reactor.
    @param module: the module that the zygote runs.
    @param sockets: the descriptors of the sockets that it inherits, by name.
    @param environment: the environment of the processes.
    @ivar pid: the pid of the zygote.
    """

    _log = Logger("mailgate")

    def __init__(self, reactor: Any, module: str, sockets: Mapping[str, int], environment: Mapping[str, str]) -> None:
        self.pid: int | None = None
        self._reactor = reactor
        self._module = module
        self._sockets = dict(sockets)
        self._environment = dict(environment)
        self._lines = Lines()
        self._words = LastWords()
        self._isRoot = False
        self._deadline: IDelayedCall | None = None

    # For subclasses.

    def _hear(self, message: Message) -> None:
        """
        Handle a message of the zygote.

        @raise ControlError: a zygote never sends such a message.
        """
        raise NotImplementedError

    def _fail(self, reason: str) -> None:
        """The zygote cannot be used: C{reason} says why."""
        raise NotImplementedError

    def _exited(self, how: str) -> None:
        """The zygote has exited."""
        raise NotImplementedError

    # Its process.

    def _places(self) -> dict[str, int]:
        """The descriptors of the sockets in the zygote, by name."""
        return {name: FIRST_SOCKET + number for number, name in enumerate(self._sockets)}

    def _spawn(self, begin: Begin) -> None:
        """
        Start the zygote as the current user of this process.

        @raise ControlError: the configuration is too long.
        @raise OSError: the system starts no process.
        """
        line = encode(begin)
        # The zygote's standard error leads here until it has loaded; then it uses 5, the master's own.
        descriptors: dict[int, Any] = {0: 0, 1: 1, 2: "r", 3: "w", 4: "r", 5: STANDARD_ERROR}
        descriptors |= {place: self._sockets[name] for name, place in begin.sockets.items()}
        self._isRoot = os.geteuid() == 0
        self._deadline = self._reactor.callLater(READY_WITHIN, self._fail, "the zygote was not ready in time")
        self._reactor.spawnProcess(
            self,
            sys.executable,
            [sys.executable, "-m", self._module],
            env=self._environment,
            path=_ROOT,
            childFDs=descriptors,
        )
        assert self.transport is not None
        # The transport forgets the pid when the process exits.
        self.pid = self.transport.pid
        self.transport.writeToChild(3, line)

    def _becomeUser(self) -> None:
        """Let the zygote change its user, if this process has changed its own since it started the zygote."""
        if self._isRoot and os.geteuid() != 0:
            self._send(Become(os.geteuid(), os.getegid(), tuple(os.getgroups())))

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == STANDARD_ERROR:
            self._words.heard(data)
            return
        try:
            for message in self._lines.feed(data):
                self._hear(message)
        except ControlError as error:
            self._log.error("the master received an invalid message from a zygote: {error}", error=str(error))
            self._fail("the zygote sent an invalid message; if another mailgate is installed now, run mailgate upgrade")
            self._killZygote()

    def _send(self, message: Message) -> None:
        if self.transport is None:
            return
        # The zygote may have closed the pipe; the report of its exit follows.
        with suppress(KeyError):
            self.transport.writeToChild(3, encode(message))

    def processEnded(self, reason: Failure) -> None:
        # Not processExited, which may be called before the last message is read.
        status: Any = reason.value
        self._exited(howItEnded(-status.signal if status.signal else status.exitCode))

    def _killZygote(self) -> None:
        assert self.transport is not None
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _clearDeadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
