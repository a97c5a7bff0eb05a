# -*- test-case-name: mailgate.test.process.test_upgrade -*-
"""
nginx's binary upgrade. A new process of the installed version takes over the listening sockets. When it serves, the old
process stops accepting and exits when its sessions have ended.

The environment variable L{VARIABLE} names the descriptors that are passed on. One of them is a channel. On it the
successor reports that it is ready, or why it cannot start; the old process answers whether the upgrade goes on.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from mailgate.net.sockets import ListeningSockets
from mailgate.process.keeper.sockets import MEMORY
from mailgate.system.exitstatus import howItEnded

__all__ = ["VARIABLE", "Command", "Inheritance", "Successor", "UpgradeError"]

VARIABLE = "MAILGATE_SOCKETS"

VERSION = 1
"""The version of the format of L{VARIABLE}: two versions of mailgate exchange it."""

READY_WITHIN = 120.0
"""Seconds until a successor must be ready. It may have to read large account files."""

_GO, _END = b"go", b"end"
_FIRST = 3
"""The lowest descriptor that is passed on; those below are standard input, output and error."""


class UpgradeError(Exception):
    """The upgrade is not possible; the text says why."""


@frozen
class Command:
    """
    How a process was started.

    @ivar arguments: the program and its arguments.
    @ivar folder: the working directory.
    @ivar environ: the environment.
    """

    arguments: tuple[str, ...]
    folder: str
    environ: Mapping[str, str] = field(repr=False)

    @classmethod
    def ofThisProcess(cls, environ: Mapping[str, str]) -> Command:
        """
        Return how this process was started. Must be called before the process goes into the background, which changes
        its working directory.

        @param environ: its environment.
        """
        try:
            folder = os.getcwd()
        except FileNotFoundError:
            folder = "/"
        # The absolute path: a relative one, or one found in PATH, may lead to another interpreter later.
        return cls((sys.executable, *sys.orig_argv[1:]), folder, dict(environ))


class Successor(ProcessProtocol):
    """
    The new process of an upgrade, as the old process sees it.

    @param command: how the old process was started; the new one is started in the same way.
    @param environ: variables to add to the environment.
    @param reactor: the reactor.
    @ivar pid: the pid of the new process, once it is ready. If it went into the background, this is not the process
        that was started.
    @ivar hasKeeper: whether the new process has said that it has a keeper. One of an earlier release has none.
    """

    def __init__(self, command: Command, environ: Mapping[str, str], reactor: Any) -> None:
        self.pid: int | None = None
        self.hasKeeper = False
        self._command = command
        self._environ = environ
        self._reactor = reactor
        self._ready: Deferred[int] = Deferred()
        self._channel: _SuccessorChannel | None = None
        self._deadline: IDelayedCall | None = None
        self._reason = ""
        self._how = ""

    def start(
        self,
        sockets: ListeningSockets,
        commands: socket.socket | None,
        orders: Sequence[Any] = (),
        keeper: Mapping[str, int] = {},
    ) -> Deferred[int]:
        """
        Start the new process.

        @param sockets: the listening sockets.
        @param commands: the command socket, if there is one.
        @param orders: the operators' orders that the new process continues with, values of JSON.
        @param keeper: the descriptors of the keeper's sockets, by name.
        @return: fires with the pid of the new process when it is ready; fails with L{UpgradeError} if it does not
            start.
        @raise OSError: the system starts no process.
        """
        ours, theirs = socket.socketpair()
        handed = {"channel": theirs.fileno(), **{f"={name}": fd for name, fd in sockets.descriptors().items()}}
        if commands is not None:
            handed["commands"] = commands.fileno()
        handed |= {f"keeper {name}": descriptor for name, descriptor in keeper.items()}
        places = {name: _FIRST + number for number, name in enumerate(handed)}
        descriptors = {0: 0, 1: 1, 2: 2, **{places[name]: fd for name, fd in handed.items()}}
        passed = {
            "version": VERSION,
            "channel": places["channel"],
            "commands": places.get("commands"),
            "sockets": {name[1:]: place for name, place in places.items() if name.startswith("=")},
            # Older releases ignore them.
            "orders": list(orders),
            "keeper": {name: places[f"keeper {name}"] for name in keeper},
        }
        environ = {**self._command.environ, **self._environ, VARIABLE: json.dumps(passed)}
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
        self._deadline = self._reactor.callLater(
            READY_WITHIN, self._fail, f"the new process was not ready within {READY_WITHIN:g} s"
        )
        return self._ready

    def goOn(self) -> None:
        """Confirm the upgrade. The old process stops accepting."""
        self._answer(_GO)

    def abandon(self, reason: str) -> None:
        """
        End the new process, whether it is ready or not.

        @param reason: why, for the L{UpgradeError} of L{start}.
        """
        self._fail(reason)

    def _answer(self, word: bytes) -> None:
        if self._channel is not None and self._channel.transport is not None:
            self._channel.sendLine(word)
            self._channel.transport.loseConnection()

    def _fail(self, reason: str) -> None:
        self._answer(_END)
        if self.transport is not None and self.transport.pid is not None:
            # It may not listen to the channel yet.
            with suppress(Exception):
                self.transport.signalProcess("TERM")
        self._end(UpgradeError(reason))

    def _end(self, result: int | UpgradeError) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if not self._ready.called:
            self._ready.callback(result) if isinstance(result, int) else self._ready.errback(result)

    # What the new process reports, and how it exits.

    def hear(self, said: Mapping[str, Any]) -> None:
        """
        Handle a message of the new process.

        @param said: C{ready} with its pid, and C{keeper}; or C{failed} with a reason.
        """
        pid, reason = said.get("ready"), said.get("failed")
        if isinstance(pid, int):
            self.pid, self.hasKeeper = pid, said.get("keeper") is True
            self._end(pid)
        elif isinstance(reason, str):
            self._reason = reason

    def channelLost(self) -> None:
        """The new process has closed the channel."""
        self._channel = None
        if self._reason or self._how:
            self._end(UpgradeError(self._reason or self._how))

    def processExited(self, reason: Failure) -> None:
        status: Any = reason.value
        self._how = f"the new process {howItEnded(-status.signal if status.signal else status.exitCode)}"
        # A process that goes into the background leaves the channel to its child.
        if self._channel is None:
            self._end(UpgradeError(self._reason or self._how))


class _SuccessorChannel(LineOnlyReceiver):
    """The old process's end of the channel."""

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
    """
    What the old process of an upgrade has passed on to this one.

    @param channel: the channel to the old process.
    @param sockets: the listening sockets.
    @param commands: the command socket, if there is one.
    @param orders: the operators' orders as L{Successor.start} has received them. A process of another release may have
        passed on anything.
    @param keeper: the sockets of the keeper, by name.
    @param memory: the descriptor of the memory of the keeper; L{None} if the old process has none.
    """

    def __init__(
        self,
        channel: socket.socket,
        sockets: ListeningSockets,
        commands: socket.socket | None,
        orders: object = (),
        keeper: Mapping[str, socket.socket] = {},
        memory: int | None = None,
    ) -> None:
        self.sockets = sockets
        self.keeper = keeper
        self.memory = memory
        self.orders = orders
        self.commands = commands
        self._channel = channel

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Inheritance | None:
        """
        Read and remove L{VARIABLE}.

        @param environ: the environment of this process.
        @return: what was passed on; L{None} in a process that was not started by an upgrade.
        @raise UpgradeError: the variable is invalid.
        """
        text = environ.pop(VARIABLE, None)
        if text is None:
            return None
        try:
            passed = json.loads(text)
            if passed["version"] != VERSION:
                raise UpgradeError(f"{VARIABLE} comes from an incompatible version of mailgate: restart the gateway")
            commands = None if passed["commands"] is None else _adopt(passed["commands"])
            sockets = ListeningSockets.adopted(dict(passed["sockets"]), keepsFiles=True)
            descriptors = dict(passed.get("keeper", {}))
            memory = descriptors.pop(MEMORY, None)
            if memory is not None:
                os.set_inheritable(memory, False)
            keeper = {name: _adopt(descriptor) for name, descriptor in descriptors.items()}
            for each in keeper.values():
                each.setblocking(False)
            return cls(_adopt(passed["channel"]), sockets, commands, passed.get("orders"), keeper, memory)
        except (ValueError, TypeError, KeyError, OSError, OverflowError, RecursionError) as error:
            raise UpgradeError(
                f"{VARIABLE} is invalid ({type(error).__name__}): start the gateway without this variable"
            ) from None

    def fail(self, reason: str) -> None:
        """
        Report to the old process that this one cannot start.

        @param reason: why.
        """
        with suppress(OSError):
            self._channel.sendall(json.dumps({"failed": reason[:30000]}).encode("ascii") + b"\n")

    def report(self, reactor: Any, settled: Callable[[bool], object], hasKeeper: bool = False) -> None:
        """
        Report to the old process that this one is ready.

        @param reactor: the reactor.
        @param hasKeeper: whether this process has a keeper, which continues with the state of the old one's.
        @param settled: called with whether the upgrade goes on. It also goes on if the old process has died.
        """
        channel = self._channel
        reactor.adoptStreamConnection(
            channel.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: _InheritanceChannel(settled, hasKeeper))
        )
        channel.close()

    def take(self, sockets: ListeningSockets) -> None:
        """
        This process owns the sockets now: close those that it does not use, and remove the files of closed unix
        sockets.

        @param sockets: the sockets that the process uses.
        """
        sockets.keepsFiles = self.sockets.keepsFiles = False
        self.sockets.close(but=sockets)


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


class _InheritanceChannel(Protocol):
    """The new process's end of the channel."""

    def __init__(self, settled: Callable[[bool], object], hasKeeper: bool) -> None:
        self._settled = settled
        self._hasKeeper = hasKeeper
        self._heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(json.dumps({"ready": os.getpid(), "keeper": self._hasKeeper}).encode("ascii") + b"\n")

    def dataReceived(self, data: bytes) -> None:
        self._heard = (self._heard + data)[:16]

    def connectionLost(self, reason: Any = None) -> None:
        self._settled(self._heard.strip() != _END)
