# -*- test-case-name: mailgate.test.process.test_upgrade -*-
"""
nginx's binary upgrade: a process of the version that is installed by now takes over the listening sockets, and when it
serves the one before lets its sessions come to their ends.

The environment variable L{VARIABLE} names what is handed over. One of the descriptors is a channel, on which the
successor says that it is ready, or why it is not going to be, and hears whether it is wanted still.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailgate.net.sockets import ListeningSockets
from mailgate.system.exitstatus import howItEnded

__all__ = ["VARIABLE", "Command", "Inheritance", "Successor", "UpgradeError"]

VARIABLE = "MAILGATE_SOCKETS"

VERSION = 1
"""Of what stands in it: one version of mailgate talks to another."""

READY_WITHIN = 120.0
"""Seconds that a successor has to be ready: it may have many users to read."""

_GO, _END = b"go", b"end"
_FIRST = 3
"""The lowest descriptor that is handed over: those below are standard input, output and error."""


class UpgradeError(Exception):
    """There is nobody to take over; the text says why."""


@frozen
class Command:
    """How a process was started: C{arguments}, the program first, in C{folder}, with C{environ}."""

    arguments: tuple[str, ...]
    folder: str
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def ofThisProcess(cls, environ: Mapping[str, str]) -> Command:
        """How this one was. To be asked before it goes into the background, and into another folder."""
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = "/"
        # The interpreter by its path: a relative one, or one that was looked up, may be another by then.
        return cls((sys.executable, *sys.orig_argv[1:]), folder, dict(environ))


class Successor(ProcessProtocol):
    """
    The process that is to take over: C{command}, started anew. C{environ} is what its environment has besides.

    @ivar pid: its process, once it is ready; when it went into the background not the one that was started.
    """

    def __init__(self, command: Command, environ: Mapping[str, str], reactor: Any) -> None:
        self.pid: int | None = None
        self._command = command
        self._environ = environ
        self._reactor = reactor
        self._ready: Deferred[int] = Deferred()
        self._channel: _SuccessorChannel | None = None
        self._deadline: IDelayedCall | None = None
        self._reason = ""
        self._how = ""

    def start(self, sockets: ListeningSockets, commands: socket.socket | None) -> Deferred[int]:
        """
        Start it with C{sockets}, and with the socket for C{commands}. The Deferred fires with its number when it
        serves, and fails with L{UpgradeError} if it does not come to that.
        """
        ours, theirs = socket.socketpair()
        handed = {"channel": theirs.fileno(), **{f"={name}": fd for name, fd in sockets.descriptors().items()}}
        if commands is not None:
            handed["commands"] = commands.fileno()
        places = {name: _FIRST + number for number, name in enumerate(handed)}
        descriptors = {0: 0, 1: 1, 2: 2, **{places[name]: fd for name, fd in handed.items()}}
        told = {
            "version": VERSION,
            "channel": places["channel"],
            "commands": places.get("commands"),
            "sockets": {name[1:]: place for name, place in places.items() if name.startswith("=")},
        }
        environ = {**self._command.environ, **self._environ, VARIABLE: json.dumps(told)}
        program, *_ = self._command.arguments
        try:
            self._reactor.spawnProcess(
                self, program, self._command.arguments, environ, self._command.folder, childFDs=descriptors
            )
            self._channel = channel = _SuccessorChannel(self)
            self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: channel))
        finally:
            ours.close()
            theirs.close()
        self._deadline = self._reactor.callLater(READY_WITHIN, self._fail, f"the new process was not ready within {READY_WITHIN:g} s")
        return self._ready

    def goOn(self) -> None:
        """It is wanted: this process accepts nobody any more."""
        self._answer(_GO)

    def abandon(self, reason: str) -> None:
        """It is not wanted any more, ready or not."""
        self._fail(reason)

    def _answer(self, word: bytes) -> None:
        if self._channel is not None and self._channel.transport is not None:
            self._channel.sendLine(word)
            self._channel.transport.loseConnection()

    def _fail(self, reason: str) -> None:
        self._answer(_END)
        if self.transport is not None and self.transport.pid is not None:
            # One that is not so far as to listen to the channel yet.
            with suppress(Exception):
                self.transport.signalProcess("TERM")
        self._end(UpgradeError(reason))

    def _end(self, result: int | UpgradeError) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if not self._ready.called:
            self._ready.callback(result) if isinstance(result, int) else self._ready.errback(result)

    # What it says, and how it ends.

    def hear(self, said: Mapping[str, Any]) -> None:
        """It has said that."""
        pid, reason = said.get("ready"), said.get("failed")
        if isinstance(pid, int):
            self.pid = pid
            self._end(pid)
        elif isinstance(reason, str):
            self._reason = reason

    def channelLost(self) -> None:
        """It says nothing more."""
        self._channel = None
        if self._reason or self._how:
            self._end(UpgradeError(self._reason or self._how))

    def processExited(self, reason: Failure) -> None:
        status: Any = reason.value
        self._how = f"the new process {howItEnded(-status.signal if status.signal else status.exitCode)}"
        # One that goes into the background leaves the channel to its child.
        if self._channel is None:
            self._end(UpgradeError(self._reason or self._how))


class _SuccessorChannel(LineOnlyReceiver):
    """The channel, as the process before has it."""

    delimiter = b"\n"
    MAX_LENGTH = 65536

    def __init__(self, successor: Successor) -> None:
        self._successor = successor

    def lineReceived(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        self._successor.hear(said if isinstance(said, dict) else {})

    def connectionLost(self, reason: Any = None) -> None:
        self._successor.channelLost()


class Inheritance:
    """What the process before has handed over: listening C{sockets}, and one for C{commands}."""

    def __init__(self, channel: socket.socket, sockets: ListeningSockets, commands: socket.socket | None) -> None:
        self.sockets = sockets
        self.commands = commands
        self._channel = channel

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """
        That of which C{environ} tells, and no longer does then; L{None} for a process that nobody came before.

        @raise UpgradeError: it makes no sense.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            told = json.loads(text)
            if told["version"] != VERSION:
                raise UpgradeError(f"{VARIABLE} comes from an incompatible version of mailgate: restart the gateway")
            commands = None if told["commands"] is None else _adopt(told["commands"])
            sockets = ListeningSockets.adopted(dict(told["sockets"]), keepsFiles=True)
            return cls(_adopt(told["channel"]), sockets, commands)
        except (ValueError, TypeError, KeyError, OSError, OverflowError, RecursionError) as error:
            raise UpgradeError(f"{VARIABLE} is invalid: {type(error).__name__}") from None

    def fail(self, reason: str) -> None:
        """Tell the process before that this one does not come up."""
        with suppress(OSError):
            self._channel.sendall(json.dumps({"failed": reason[:30000]}).encode("ascii") + b"\n")

    def report(self, reactor: Any, settled: Callable[[bool], object]) -> None:
        """
        Tell the process before that this one serves. C{settled} is called with whether it is to go on with it, as it
        also is where the one before is suddenly no more.
        """
        channel = self._channel
        reactor.adoptStreamConnection(
            channel.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: _InheritanceChannel(settled))
        )
        channel.close()

    def take(self, sockets: ListeningSockets) -> None:
        """They are this process's alone: close all but C{sockets}, and remove the files of those that are closed."""
        sockets.keepsFiles = self.sockets.keepsFiles = False
        self.sockets.close(but=sockets)


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


class _InheritanceChannel(Protocol):
    """The channel, as the successor has it."""

    def __init__(self, settled: Callable[[bool], object]) -> None:
        self._settled = settled
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps({"ready": os.getpid()}).encode("ascii") + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self._heard = (self._heard + data)[:16]

    def connectionLost(self, reason: Any = None) -> None:
        self._settled(self._heard.strip() != _END)
