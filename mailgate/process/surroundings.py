# -*- test-case-name: mailgate.test.integration.test_upgrade -*-
"""
The process and its surroundings: systemd, the old and the new process of an upgrade, the pid file and the command
socket.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.config import GatewaySettings
from mailgate.config.restart import demoSection
from mailgate.directives import ConfigurationError, Problem
from mailgate.log.settings import LogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.backends import passedOrders, receiveOrders
from mailgate.process.background import Launch
from mailgate.process.commandsocket import CommandSocket
from mailgate.process.keeper.interfaces import IKeeping
from mailgate.process.keeper.orders import carryOut
from mailgate.process.keeper.sockets import RENDEZVOUS, KeeperSockets
from mailgate.process.operation import Operation
from mailgate.process.upgrade import Command, Inheritance, Successor, UpgradeError
from mailgate.system.exitstatus import CANNOT_SERVE
from mailgate.system.pidfile import PIDFile, PIDSettings
from mailgate.system.reparenting import Parent
from mailgate.system.systemd import Notifier, NotifySettings, passedSockets

__all__ = ["Process", "Surroundings"]


@frozen
class Surroundings:
    """
    How the process was started.

    @ivar command: its command line.
    @ivar notify: how to report to systemd.
    @ivar inheritance: what the old process of an upgrade has passed on, if there is one.
    @ivar sockets: the listening sockets that systemd or the old process has bound.
    @ivar parent: the process that waits until this one becomes systemd's main process, in an upgrade under systemd.
    @ivar launch: receives the result of a start in the background.
    """

    command: Command
    notify: NotifySettings
    inheritance: Inheritance | None
    sockets: ListeningSockets
    parent: Parent | None = None
    launch: Launch | None = None

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Surroundings:
        """
        Read, and remove, the variables of systemd and of an upgrade. Must be called before the process goes into the
        background. Forks if an upgrade replaces systemd's main process, and returns in the child.

        @param environ: the environment of this process.
        @raise ConfigurationError: a variable is invalid.
        """
        notify = NotifySettings.of(environ, os.getpid())
        try:
            passed = ListeningSockets.adopted(passedSockets(environ))
            inheritance = Inheritance.of(environ)
        except OSError as error:
            raise ConfigurationError(
                [Problem("systemd", f"passed a descriptor that is not a socket: {error}")]
            ) from None
        except UpgradeError as error:
            raise ConfigurationError([Problem("upgrade", str(error))]) from None
        if inheritance is None:
            return cls(Command.ofThisProcess(environ), notify, None, passed)
        parent = None if notify.place is None else Parent.fork()
        return cls(Command.ofThisProcess(environ), notify, inheritance, inheritance.sockets, parent)

    def fail(self, reason: str, status: int) -> None:
        """
        Report that the gateway cannot start.

        @param reason: why.
        @param status: the exit status.
        """
        if self.inheritance is not None:
            self.inheritance.fail(reason)
        if self.launch is not None:
            self.launch.fail(reason, status)

    def succeed(self) -> None:
        """Report that the gateway serves."""
        if self.launch is not None:
            self.launch.succeed()


class Process:
    """
    The process in which the gateway serves: its pid file, its command socket, and its upgrade.

    @param surroundings: how the process was started.
    @param settings: the configuration at the start.
    @param generations: the L{mailgate.process.interfaces.IGenerations} of the process.
    @param reactor: the reactor.
    @ivar operation: carries out signals and commands.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        surroundings: Surroundings,
        settings: GatewaySettings,
        generations: Any,
        reactor: Any,
    ) -> None:
        self._surroundings = surroundings
        self._settings = settings
        self._generations = generations
        self._reactor = reactor
        self._notifier = Notifier(surroundings.notify, reactor)
        self.operation = Operation(generations, reactor, self._notifier, self._startSuccessor, self._settle)
        self._inheritance = surroundings.inheritance
        if self._inheritance is not None:
            receiveOrders(generations.notices, self._inheritance.orders)
        self._keeping: IKeeping | None = generations.keeping
        if self._keeping is not None:
            self._keeping.obey(partial(carryOut, self.operation))
        self._pidFile: PIDFile | None = None
        self._commands: CommandSocket | None = None
        path = settings[PIDSettings].path
        if path is not None:
            inherited = None if self._inheritance is None else self._inheritance.commands
            self._pidFile = PIDFile(path, settings.file)
            self._commands = CommandSocket(path, settings.file, inherited)
        self._successor: Successor | None = None
        self._serves = False
        self._hasStopped = False

    def binding(self) -> None:
        """
        The listening sockets will be bound: check the pid file, as those of the keeper are beside it.

        @raise ConfigurationError: it cannot be written.
        """
        if self._pidFile is not None:
            self._pidFile.check()

    def bound(self) -> None:
        """
        The listening sockets are bound: write the pid file, and open the command socket.

        @raise ConfigurationError: one of them cannot be created.
        """
        if self._commands is not None and self._pidFile is not None:
            try:
                # This fails if another process has the same pid file.
                self._commands.open()
                self._pidFile.write()
            except ConfigurationError:
                self._closeCommands(self._commands)
                self._pidFile.discard()
                raise

    def failed(self) -> None:
        """The start has failed: remove the files of the keeper's sockets, and an empty pid file."""
        if self._pidFile is not None:
            self._pidFile.discard()
        if self._keeping is not None:
            self._keeping.sockets.leave()

    def running(self) -> None:
        """The reactor runs."""
        if self._hasStopped:
            return
        self._generations.whenReady().addCallbacks(self._ready, self._neverReady)

    def _ready(self, _: object) -> None:
        if self._inheritance is None:
            self._serve()
        else:
            if self._surroundings.parent is not None:
                # Before the report to systemd, which checks only once that its main process is its child.
                self._surroundings.parent.leave()
            self._inheritance.report(self._reactor, self._settled, self._keeping is not None)

    def _neverReady(self, failure: Failure) -> None:
        reason = f"{self._settings.file}: the workers did not start: {failure.value}"
        self._surroundings.fail(reason, CANNOT_SERVE)
        if not any(log.isStandardError for log in self._settings[LogSettings].errorLog):
            # Not sys.stderr, which twistd replaces with its log.
            print(reason, file=sys.__stderr__, flush=True)

    def _settled(self, goOn: bool) -> None:
        """The old process has confirmed or cancelled the upgrade, or has died."""
        assert self._inheritance is not None
        if goOn:
            self._inheritance.take(self._generations.sockets)
            self._serve()
        else:
            self._log.error("the old process cancelled the upgrade")
            if self._surroundings.launch is not None:
                self._surroundings.launch.fail("the old process cancelled the upgrade", CANNOT_SERVE)
            self.operation.stop()

    def _serve(self) -> None:
        self._serves = True
        self.operation.begun()
        if self._commands is not None:
            self._commands.start(self.operation, self._reactor)
        self._generations.serving()
        inherited = {} if self._inheritance is None else self._inheritance.keeper
        if self._keeping is not None:
            self._keeping.sockets.take()
            self._keeping.serve(RENDEZVOUS in inherited)
        else:
            memory = None if self._inheritance is None else self._inheritance.memory
            unused = KeeperSockets(self._settings, inherited, memory)
            unused.take()
            unused.leave()
        self._surroundings.succeed()

    def stopped(self) -> None:
        """The gateway has stopped: remove the pid file and the command socket."""
        self._hasStopped = True
        if self._surroundings.launch is not None:
            # Has no effect after success.
            self._surroundings.launch.fail("the gateway was stopped before it served", CANNOT_SERVE)
        self._notifier.close()
        if self._pidFile is not None:
            self._pidFile.remove()
        if self._commands is not None:
            self._closeCommands(self._commands)
        if self._keeping is not None:
            self._keeping.sockets.leave()

    def _closeCommands(self, commands: CommandSocket) -> None:
        """Close the command socket. Keep its file if it still belongs to the old process of a failed upgrade."""
        if self._serves or self._inheritance is None:
            commands.close()
        else:
            commands.leave()

    # The upgrade.

    def _startSuccessor(self) -> tuple[Successor, Deferred[int]]:
        if not self._serves:
            raise UpgradeError("this process is not serving yet")
        demo = demoSection(self._settings)
        if demo is not None:
            raise UpgradeError(f"a gateway with [{demo}] must be restarted instead")
        try:
            if self._pidFile is not None:
                self._pidFile.stepAside()
        except ConfigurationError as error:
            raise UpgradeError(str(error)) from None
        except OSError as error:
            assert self._pidFile is not None
            raise UpgradeError(f"cannot rename {self._pidFile.path}: {error.strerror}") from None
        commands = None if self._commands is None else self._commands.socket
        successor = self._successor = Successor(
            self._surroundings.command, self._surroundings.notify.environ(), self._reactor
        )
        try:
            orders = passedOrders(self._generations.notices)
            keeper = {} if self._keeping is None else self._keeping.sockets.descriptors()
            return successor, successor.start(self._generations.sockets, commands, orders, keeper)
        except OSError as error:
            self._settle(False)
            raise UpgradeError(f"cannot start the new process: {error.strerror}") from None

    def _settle(self, ready: bool) -> None:
        if ready:
            if self._commands is not None:
                self._commands.leave()
            if self._keeping is not None:
                self._leaveKeeping(self._keeping)
        elif self._pidFile is not None:
            self._pidFile.stepBack()

    def _leaveKeeping(self, keeping: IKeeping) -> None:
        if self._successor is not None and self._successor.hasKeeper:
            keeping.handOver()
            keeping.sockets.handOver()
        else:
            # It has the sockets, too, but nothing accepts there: connections must be refused instead of waiting.
            keeping.stop()
            keeping.sockets.end()
