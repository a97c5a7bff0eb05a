# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
A worker: a process that serves clients, forked by the zygote.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import evolve
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import ILogObserver, Logger, globalLogBeginner, globalLogPublisher

from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError
from mailgate.lean.shares import Share
from mailgate.log.errorlog import ErrorLogs
from mailgate.net.sockets import ListeningSockets
from mailgate.process.reloading import drain
from mailgate.process.rights import shedPrivileges, tuneCollector
from mailgate.process.workers.messages import ControlError, Cut, Lines, Message, Order, Ready, Retired, Tell, encode
from mailgate.service import Gateway
from mailgate.system.exitstatus import CANNOT_SERVE, CUT
from mailgate.tls.server import ServerTLS

__all__ = ["Worker", "work"]

_log = Logger("mailgate")

_SIGNALS = {signal.SIGTERM: Order.STOP, signal.SIGQUIT: Order.DRAIN}
"""As in nginx. The master handles the other signals; a Control-C goes to all processes of a terminal."""


class Worker(Protocol):
    """
    The worker's end of its channel to the zygote. It carries out orders, and drains when the zygote dies, which closes
    the channel.

    @param gateway: the gateway that serves the clients of this worker.
    @param logs: the log files.
    @param tell: sends a message to the zygote immediately.
    @param finish: called with the number of cut proxied sessions when all sessions have ended.
    """

    def __init__(
        self,
        gateway: Gateway,
        logs: ErrorLogs,
        tell: Callable[[Message], object],
        finish: Callable[[int], object],
    ) -> None:
        self._gateway = gateway
        self._logs = logs
        self._tell = tell
        self._finish = finish
        self._lines = Lines(1024)

    def connectionMade(self) -> None:
        self._tell(Ready())

    def dataReceived(self, data: bytes) -> None:
        try:
            for message in self._lines.feed(data):
                if isinstance(message, Tell):
                    self.obey(message.order)
        except ControlError as error:
            _log.error("a worker received an invalid message from its zygote: {error}", error=str(error))
            self.obey(Order.DRAIN)

    def connectionLost(self, reason: Any = None) -> None:
        self.obey(Order.DRAIN)

    def obey(self, order: Order) -> None:
        """
        Carry out an order. C{STOP} may follow an order that drains.

        @param order: the order.
        """
        if order is Order.REOPEN:
            for line in list(self._logs.reopen()):
                _log.error("{line}", line=line)
            return
        drained = drain(self._gateway, order)
        if order is not Order.STOP:
            # The listeners are closed: new clients reach other processes from now on.
            self._tell(Retired())
        drained.addCallback(self._leave, order).addErrback(self._failed)

    def _leave(self, cut: int, order: Order) -> None:
        if cut and order is Order.RETIRE:
            _log.warn("worker_shutdown_timeout expired: {cut} proxied sessions were cut", cut=cut)
        self._tell(Cut(cut))
        self._finish(cut)

    def _failed(self, failure: Any) -> None:
        _log.failure("the shutdown of a worker failed", failure)
        self._finish(1)


def work(
    settings: GatewaySettings,
    sockets: ListeningSockets,
    contexts: Mapping[str, ServerTLS],
    logs: ErrorLogs,
    observer: ILogObserver,
    share: Share | None,
    channel: socket.socket,
    tells: bool,
) -> int:
    """
    Run as a worker. The process has been forked, and has imported no reactor yet.

    @param settings: the configuration.
    @param sockets: the listening sockets.
    @param contexts: TLS contexts, by the names of their servers.
    @param logs: the log files.
    @param observer: the log of the process.
    @param share: this worker's share of the clients; L{None} for a single worker.
    @param channel: the channel to the zygote.
    @param tells: whether this worker logs what concerns all workers; exactly one does.
    @return: the exit status.
    """
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        from twisted.internet import reactor

        # The master has logged the warnings.
        gateway = Gateway(evolve(settings, warnings=()), reactor, logs, sockets, contexts, share)
        gateway.privilegedStartService()
        for warning in shedPrivileges(settings):
            if tells:
                _log.warn("{reason}", reason=str(warning))
        gateway.startService()
    except ConfigurationError as error:
        _log.error("a worker cannot start: {reason}", reason=str(error))
        return CANNOT_SERVE
    except Exception:
        _log.failure("a worker cannot start")
        return CANNOT_SERVE
    # The gateway has duplicates of the descriptors.
    sockets.disown()
    return _run(gateway, logs, observer, reactor, channel)


def _run(gateway: Gateway, logs: ErrorLogs, observer: ILogObserver, reactor: Any, channel: socket.socket) -> int:
    status = 0
    ending: list[Any] = []

    def finish(cut: int) -> None:
        nonlocal status
        status = CUT if cut else status
        if not ending:
            ending.append(reactor.callLater(0, reactor.stop))

    def tell(message: Message) -> None:
        # Not through the transport, which sends later. The zygote may have died.
        with suppress(OSError):
            channel.send(encode(message))

    worker = Worker(gateway, logs, tell, finish)

    def begin() -> None:
        tuneCollector()
        for number, order in _SIGNALS.items():
            signal.signal(number, lambda *_, order=order: reactor.callFromThread(worker.obey, order))
        reactor.adoptStreamConnection(channel.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: worker))

    reactor.callWhenRunning(begin)
    # Twisted logs the end of its main loop; only the master's is of interest.
    reactor.addSystemEventTrigger("after", "shutdown", globalLogPublisher.removeObserver, observer)
    # The reactor's own handlers would stop the worker at a Control-C, which goes to all processes of a terminal.
    reactor.run(installSignalHandlers=False)
    return status
