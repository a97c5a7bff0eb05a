# -*- test-case-name: mailgate.test.integration.test_keeper -*-
"""
The keeper's process, forked by its zygote.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, Logger, globalLogBeginner

from mailgate.backend.health import CHECKER
from mailgate.config import GatewaySettings, parse
from mailgate.directives import ConfigurationError
from mailgate.limits.defence import Defence
from mailgate.limits.interfaces import IDefence
from mailgate.limits.settings import LimitSettings
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import LogSettings
from mailgate.process.keeper.checking import Checking
from mailgate.process.keeper.front import Front
from mailgate.process.keeper.making import keeperFor
from mailgate.process.keeper.orders import RemoteOperator
from mailgate.process.keeper.preserving import Memories, Preserving
from mailgate.process.keeper.sharing import sharingFor
from mailgate.process.keeper.talk import ORPHANED_FOR, Configure, Duty, Event, Instruct, NotStarted, Result, Taken
from mailgate.process.remembering import rememberingFor
from mailgate.process.rights import shedPrivileges
from mailgate.process.workers.channel import ChannelEnd
from mailgate.process.workers.exchange import Exchange
from mailgate.process.workers.messages import Announce, ControlError, Lines, Message, Order, Ready, Tell, encode
from mailgate.process.workers.talk import LONGEST_REPORT
from mailgate.system.exitstatus import CANNOT_SERVE
from mailgate.system.privileges import ProcessSettings
from mailgate.upstream.notices import Notices

__all__ = ["KeeperProcess", "keep"]

_log = Logger("mailgate")


class KeeperProcess(Protocol):
    """
    The keeper's end of its channel to the zygote. It carries out orders, and hands over when the zygote dies, which
    closes the channel: the master starts another keeper then.

    @param front: the keeper with its ports.
    @param checks: the health checks, which run while the keeper serves.
    @param preserving: saves its state until it has handed over.
    @param sockets: the listening sockets, by their names. They are closed when the keeper leaves.
    @param logs: the log files.
    @param end: the keeper's end of the channel.
    @param reactor: the reactor, which is stopped when the keeper has nothing left to do.
    """

    def __init__(
        self,
        front: Front,
        checks: Service,
        preserving: Preserving,
        sockets: Mapping[str, socket.socket],
        logs: ErrorLogs,
        end: ChannelEnd,
        reactor: Any,
    ) -> None:
        self._front = front
        self._checks = checks
        self._preserving = preserving
        self._sockets = sockets
        self._logs = logs
        self._end = end
        self._reactor = reactor
        self._operator = RemoteOperator(end.send, reactor)
        self._lines = Lines(LONGEST_REPORT)
        self._isLeaving = False
        self._exchange: Exchange | None = None
        front.keeper.operator = self._operator

    def run(self, notices: Notices, observer: ILogObserver) -> None:
        """
        Run until the keeper has nothing left to do.

        @param notices: the notices of this process, which it exchanges with the others.
        @param observer: the log of the process.
        """
        self._exchange = Exchange(notices, self._end.send)
        self._end.run(self, observer, lambda: None)

    def connectionMade(self) -> None:
        self._end.send(Ready())

    def dataReceived(self, data: bytes) -> None:
        try:
            for message in self._lines.feed(data):
                self._obey(message)
        except ControlError as error:
            _log.error("the keeper received an invalid message from its zygote: {error}", error=str(error))
            self._leave(self._front.handOver)

    def connectionLost(self, reason: Any = None) -> None:
        # The next keeper needs a new zygote. If the master has died, too, nothing listens, and this ends at once.
        self._leave(partial(self._front.handOver, within=ORPHANED_FOR))

    def _obey(self, message: Message) -> None:
        if isinstance(message, Instruct):
            if message.duty is Duty.HAND_OVER:
                self._leave(self._front.handOver)
            elif self._front.running:
                self._front.keeper.predecessorGone()
            elif not self._isLeaving:
                self._serve(message.duty is Duty.TAKE_OVER)
        elif isinstance(message, Tell):
            self._told(message.order)
        elif isinstance(message, Event):
            self._happened(message)
        elif isinstance(message, Result):
            self._operator.answered(message)
        elif isinstance(message, Announce) and message.topic != CHECKER and self._exchange is not None:
            self._exchange.receive(message)

    def _serve(self, hasPredecessor: bool) -> None:
        # Not earlier: the previous keeper may have written to it until now.
        self._preserving.restore()
        self._front.serve(hasPredecessor, lambda: self._end.send(Taken()))
        self._preserving.startService()
        self._checks.startService()

    def _told(self, order: Order) -> None:
        if order is Order.REOPEN:
            for line in list(self._logs.reopen()):
                _log.error("{line}", line=line)
        elif order in (Order.STOP, Order.DRAIN):
            # Drain: the master has died, so that no keeper follows. The next gateway needs the sockets.
            if self._preserving.running:
                self._preserving.stopService()
            self._leave(self._front.stopService)
        else:
            self._leave(self._front.handOver)

    def _happened(self, event: Event) -> None:
        try:
            labels, reasons = ([str(each) for each in several] for several in (event.labels, event.reasons))
            self._front.keeper.happened(event.name, labels, reasons)
        except (KeyError, ValueError):
            _log.failure("the keeper cannot count {name}", name=event.name)

    def _leave(self, leave: Callable[[], Any]) -> None:
        if self._isLeaving:
            return
        self._isLeaving = True
        if self._checks.running:
            self._checks.stopService()
        left: Deferred[Any] = maybeDeferred(leave)
        # If no other process has them, connections are refused from now on, also that to a successor.
        for each in self._sockets.values():
            each.close()
        left.addErrback(lambda failure: _log.failure("the shutdown of the keeper failed", failure))
        left.addBoth(lambda _: self._reactor.callLater(0, self._reactor.stop))


def keep(
    configuration: Configure,
    logKey: bytes,
    sockets: Mapping[str, socket.socket],
    memories: Memories,
    channel: socket.socket,
    inherited: Notices,
) -> int:
    """
    Run as the keeper. The process has been forked, and has imported no reactor yet.

    @param configuration: the configuration.
    @param logKey: the key of C{log_user = hash}.
    @param sockets: the listening sockets, by their names.
    @param memories: where the state of an earlier keeper is, and where this one saves its own.
    @param channel: the channel to the zygote.
    @param inherited: what the zygote knows of backends.
    @return: the exit status.
    """
    try:
        settings = parse(configuration.text, configuration.file)
        logs = ErrorLogs()
        logs.owner, logs.key = settings[ProcessSettings].owner, logKey
        own = settings[LogSettings]
        observer = logs.observerFor(own.errorLog, settings.file, "mailgate", settings.lines, own.privacy)
        globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
        return _run(settings, logs, observer, sockets, memories, channel, inherited)
    except (ConfigurationError, ValueError, OSError) as error:
        return _refuse(channel, str(error))
    except Exception as error:
        _log.failure("the keeper cannot start")
        return _refuse(channel, f"{type(error).__name__}; the error log has the reason")


def _refuse(channel: socket.socket, reason: str) -> int:
    channel.settimeout(1)
    channel.sendall(encode(NotStarted(reason[:2000])))
    return CANNOT_SERVE


def _run(
    settings: GatewaySettings,
    logs: ErrorLogs,
    observer: ILogObserver,
    sockets: Mapping[str, socket.socket],
    memories: Memories,
    channel: socket.socket,
    inherited: Notices,
) -> int:
    from twisted.internet import reactor

    anyReactor: Any = reactor
    notices = Notices(anyReactor)
    for notice in inherited.held():
        if notice.topic != CHECKER:
            notices.receive(notice.topic, notice.key, notice.body, inherited.age(notice))
    defence = Defence(isFresh=True)
    limits = settings[LimitSettings]
    defence.configure(limits.loginPolicy(), limits.prefixes, limits.memory)
    sharing = sharingFor(settings, reactor, defence)
    judge: IDefence = defence if sharing is None else sharing.defence
    keeper = keeperFor(settings, reactor, judge, sharing)
    keeper.lines = logs.lines
    front = Front(keeper, settings, sockets, reactor, sharing)
    checks = Checking(settings, reactor, logs, notices)
    remembering = rememberingFor(judge, settings, anyReactor, lambda: keeper.knowsMost)
    preserving = Preserving(keeper, judge, memories, remembering, anyReactor)
    for _ in shedPrivileges(settings):
        # A worker has logged the warning.
        continue
    process = KeeperProcess(front, checks, preserving, sockets, logs, ChannelEnd(reactor, channel), reactor)
    process.run(notices, observer)
    return 0
