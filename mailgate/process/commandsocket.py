# -*- test-case-name: mailgate.test.integration.test_commands -*-
"""
The command socket: the unix socket beside the pid file, on which C{mailgate reload}, C{drain} and the other commands
reach the gateway. The gateway sends a JSON line as a greeting, the client a JSON line with a command
(L{mailgate.process.commands}), and the gateway a JSON line with the L{Answer}.

Only the owner may connect. After a command that ends the process, the connection stays open until the process exits.
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
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

from mailgate._version import __version__
from mailgate.directives import ConfigurationError, Problem
from mailgate.frontend.reactorport import SharedUNIXPort
from mailgate.net.bind import bindPath
from mailgate.process.answer import Answer
from mailgate.process.commands import COMMANDS, CommandError, decode
from mailgate.process.operation import Operation

__all__ = ["CommandConversation", "CommandSocket", "socketPath"]

_PATIENCE = 10.0
"""Seconds until a client must have sent its command."""

LONGEST = 4096
"""Bytes of a command."""


def socketPath(pidFile: str) -> str:
    """
    Return the path of the command socket.

    @param pidFile: the path of the pid file.
    """
    return f"{pidFile}.sock"


class CommandConversation(LineOnlyReceiver, TimeoutMixin):
    """
    One connection to the command socket: a command and its answer.

    @param operation: carries out the command.
    @param reactor: the reactor.
    """

    _log = Logger("mailgate")
    delimiter = b"\n"
    MAX_LENGTH = LONGEST

    def __init__(self, operation: Operation, reactor: Any) -> None:
        self._operation = operation
        self.callLater = reactor.callLater  # type: ignore[method-assign]
        self._asked = False

    def connectionMade(self) -> None:
        self.setTimeout(_PATIENCE)
        # Clients look for "commands": gateways of the previous release lack it and read bare words, not JSON.
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
        if command.isLogged:
            self._log.info("received command {name}", name=command.name)
        answered = maybeDeferred(command.run, self._operation, arguments)
        answered.addCallbacks(self._answer, self._failed, callbackKeywords={"keep": command.endsProcess})

    def lineLengthExceeded(self, line: bytes) -> None:
        if self._asked:
            # The receiver would keep an endless line in memory while the command runs.
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
    The listening command socket.

    @param pidFile: the path of the pid file.
    @param file: the path of the configuration.
    @param inherited: the command socket of the old process of an upgrade, if it had one.
    @ivar path: the path of the socket.
    @ivar socket: the socket, while it is open.
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
        Bind the socket, unless the old process has passed on the one with this path.

        @raise ConfigurationError: the socket cannot be bound, or another process accepts connections on it.
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
        """
        Accept commands.

        @param operation: carries them out.
        @param reactor: the reactor.
        """
        assert self.socket is not None
        if self._inherited is not None and self._inherited is not self.socket:
            self._forget(self._inherited)
        # From listen(2) on, the system reports this process as the peer (SO_PEERCRED), not the old one.
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
        """Stop accepting commands, and keep the file of the socket: another process has taken the socket over."""
        port, self._port = self._port, None
        if port is not None:
            port.stopListening()
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def close(self) -> None:
        """Close the socket and remove its file."""
        if self.socket is not None:
            self.leave()
            # This fails in a folder of root's once this process runs as another user.
            with suppress(OSError):
                os.unlink(self.path)
