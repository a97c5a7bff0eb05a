# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
A worker: one of the processes that serve clients, forked by the zygote.
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
"""nginx's. The others are the master's business; a Control-C goes to all processes of a terminal."""


class Worker(Protocol):
    """
    The worker's end of its channel to the zygote: obeys orders, and drains at the end of the channel, which is the end
    of the zygote. C{tell(message)} says something to the zygote at once, C{finish(cut)} is called when there is no
    session left.
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
        """Do as C{order} says; what ends sessions may be followed by what ends them sooner."""
        if order is Order.REOPEN:
            for line in list(self._logs.reopen()):
                _log.error("{line}", line=line)
            return
        drained = drain(self._gateway, order)
        if order is not Order.STOP:
            # Whoever is waiting for that is sure from now on to meet the others alone.
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
    Be a worker until the end, and give the exit status of the process. It is forked already, and has no reactor yet.

    C{channel} leads to the zygote, C{share} is this one's of the clients. One of all workers C{tells} in the log what
    concerns all of them.
    """
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        from twisted.internet import reactor

        # The master has told of them, once for all workers.
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
    # The gateway has its own of them.
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
        # Not by the transport, which would send it some time later. Who is not there any more need not know.
        with suppress(OSError):
            channel.send(encode(message))

    worker = Worker(gateway, logs, tell, finish)

    def begin() -> None:
        tuneCollector()
        for number, order in _SIGNALS.items():
            signal.signal(number, lambda *_, order=order: reactor.callFromThread(worker.obey, order))
        reactor.adoptStreamConnection(channel.fileno(), socket.AF_UNIX, Factory.forProtocol(lambda: worker))

    reactor.callWhenRunning(begin)
    # What Twisted says of the end of its main loop matters in the master alone.
    reactor.addSystemEventTrigger("after", "shutdown", globalLogPublisher.removeObserver, observer)
    # With the signals of the reactor a Control-C, which goes to all processes of a terminal, would be an order.
    reactor.run(installSignalHandlers=False)
    return status
