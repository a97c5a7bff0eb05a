# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
The unix socket beside the pid file, by which C{mailgate reload}, C{drain}, C{stop} and C{upgrade} ask and are answered:
a JSON line with who we are, a JSON line with a command (L{mailgate.process.commands}), a JSON line with the
L{Answer}.

Its file is for its owner alone. What ends the process keeps the connection until then, so that its end tells of that.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from contextlib import suppress
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailgate._version import __version__
from mailgate.directives import ConfigurationError, Problem
from mailgate.frontend.reactorport import SharedUNIXPort
from mailgate.net.bind import bindPath
from mailgate.process.commands import COMMANDS, CommandError, OperatorCommand, decode
from mailgate.process.operation import Answer, Operation

__all__ = ["CommandConversation", "CommandSocket", "socketPath"]

_PATIENCE = 10.0
"""Seconds that somebody has to say what they want."""

LONGEST = 4096
"""Bytes of a command."""


def socketPath(pidFile: str) -> str:
    """Where the socket of the process is whose pid file is that."""
    return f"{pidFile}.sock"


class CommandConversation(LineOnlyReceiver, TimeoutMixin):
    """One command, and its answer."""

    _log = Logger("mailgate")
    delimiter = b"\n"
    MAX_LENGTH = LONGEST

    def __init__(self, operation: Operation, reactor: Any) -> None:
        self._operation = operation
        self.callLater = reactor.callLater  # type: ignore[method-assign]
        self._asked = False

    def connectionMade(self) -> None:
        self.setTimeout(_PATIENCE)
        # That of the release before does not name its commands, and knows no JSON.
        self._say({"mailgate": __version__, "pid": os.getpid(), "commands": sorted(COMMANDS)})

    def lineReceived(self, line: bytes) -> None:
        if self._asked:
            self._hangUp()
            return
        self._asked = True
        self.setTimeout(None)
        try:
            command, arguments = decode(line)
        except CommandError as error:
            self._answer(Answer(False, (str(error),)))
            return
        self._log.info("received command {name}", name=command.name)
        answered = maybeDeferred(self._obey, command, arguments)
        answered.addCallbacks(self._answer, self._failed, callbackKeywords={"keep": command.endsProcess})

    def _obey(self, command: OperatorCommand, arguments: Any) -> Deferred[Answer]:
        if command.scope == "workers" and not self._operation.servesClients:
            return succeed(Answer(False, (f"{command.name} needs a gateway without workers (worker_processes = 1)",)))
        return command.run(self._operation, arguments).addCallback(lambda answer: command.combine([answer]))

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._asked:
            # What comes without an end would be kept for as long as the command takes.
            self._hangUp()
        else:
            self._asked = True
            self._answer(Answer(False, (f"the command is longer than {LONGEST} bytes",)))

    def _answer(self, answer: Answer, keep: bool = False) -> None:
        self._say(asdict(answer))
        if not keep:
            self._hangUp()

    def _hangUp(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a command failed", failure)
        self._answer(Answer(False, ("the command failed; the error log has the reason",)))

    def _say(self, what: dict[str, Any]) -> None:
        self.sendLine(json.dumps(what).encode("ascii"))

    def connectionLost(self, reason: Any = None) -> None:
        self.setTimeout(None)


class CommandSocket:
    """
    The socket beside the C{pidFile} that the ini C{file} names. C{inherited} is the one of the process before, if it
    had one.
    """

    def __init__(self, pidFile: str, file: str, inherited: socket.socket | None = None) -> None:
        self.path = socketPath(pidFile)
        self.socket: socket.socket | None = None
        self._pidFile = pidFile
        self._file = file
        self._inherited = inherited
        self._port: Any = None

    def open(self) -> None:
        """
        Bind it, if it is not there.

        @raise ConfigurationError: it cannot be bound, or somebody else answers there.
        """
        if self._inherited is not None and self._inherited.getsockname() == self.path:
            self.socket = self._inherited
            return
        bound = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            self._bind(bound)
            bound.listen()
        except OSError as error:
            bound.close()
            reason = f"cannot bind the command socket {self.path}: {error.strerror or error}"
            raise ConfigurationError([Problem(self._file, reason, "mailgate", "pid", self._pidFile)]) from None
        finally:
            os.umask(mask)
        bound.setblocking(False)
        self.socket = bound

    def _bind(self, bound: socket.socket) -> None:
        try:
            bindPath(bound, self.path)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise OSError(errno.EADDRINUSE, "another mailgate with this pid file is running") from None
            raise

    def start(self, operation: Operation, reactor: Any) -> None:
        """Have commands obeyed by C{operation}."""
        assert self.socket is not None
        if self._inherited is not None and self._inherited is not self.socket:
            self._forget(self._inherited)
        # So that it is this process whom the system names to those who connect.
        self.socket.listen()
        factory = Factory.forProtocol(lambda: CommandConversation(operation, reactor))
        factory.noisy = False
        self._port = SharedUNIXPort._fromListeningDescriptor(reactor, self.socket.fileno(), factory)
        self._port.startListening()

    def _forget(self, inherited: socket.socket) -> None:
        path = inherited.getsockname()
        inherited.close()
        with suppress(OSError):
            os.unlink(path)

    def leave(self) -> None:
        """It is another process's: those who come from now on are answered there."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        """Nobody is answered any more."""
        if self.socket is not None:
            self.leave()
            # Its folder may be root's, who we are no longer.
            with suppress(OSError):
                os.unlink(self.path)
