# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
A worker: a process that serves clients, forked by the zygote.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import ILogObserver, Logger, globalLogBeginner

from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError
from mailgate.keeper.limits import KeeperStore
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.questions import deadlineFor
from mailgate.lean.shares import Share
from mailgate.limits.counts import Counts
from mailgate.limits.interfaces import IRates
from mailgate.limits.limits import Limits
from mailgate.limits.settings import LimitSettings
from mailgate.limits.statefile import begin, placeOf
from mailgate.log.errorlog import ErrorLogs
from mailgate.net.sockets import ListeningSockets
from mailgate.process.keeper.linking import linkTo, viewOf
from mailgate.process.queries import QUERIES
from mailgate.process.queries import ask as answerOf
from mailgate.process.reloading import drain
from mailgate.process.rights import shedPrivileges
from mailgate.process.workers.channel import ChannelEnd
from mailgate.process.workers.exchange import Exchange
from mailgate.process.workers.messages import (
    Announce,
    ControlError,
    Cut,
    Lines,
    Message,
    Order,
    Query,
    Ready,
    Reply,
    Retired,
    Tell,
)
from mailgate.process.workers.talk import LONGEST_ORDER
from mailgate.service import Gateway, ProcessState
from mailgate.store.settings import StoreSettings
from mailgate.system.exitstatus import CANNOT_SERVE, CUT
from mailgate.tls.server import ServerTLS
from mailgate.upstream.notices import Notices

__all__ = ["ROWS_A_TURN", "Position", "Worker", "work"]

ROWS_A_TURN = 200
"""Rows of an answer that are sent before the worker serves clients again."""

_log = Logger("mailgate")

_SIGNALS = {signal.SIGTERM: Order.STOP, signal.SIGQUIT: Order.DRAIN}
"""As in nginx. The master handles the other signals; a Control-C goes to all processes of a terminal."""


class Worker(Protocol):
    """
    The worker's end of its channel to the zygote. It carries out orders, and drains when the zygote dies, which closes
    the channel.

    @param gateway: the gateway that serves the clients of this worker.
    @param logs: the log files.
    @param tell: sends a message to the zygote without waiting; returns whether the zygote will receive it.
    @param finish: called with the number of cut proxied sessions when all sessions have ended.
    @param clock: the clock that paces long answers.
    @param link: the link to the keeper; L{None} without a keeper.
    """

    def __init__(
        self,
        gateway: Gateway,
        logs: ErrorLogs,
        tell: Callable[[Message], bool],
        finish: Callable[[int], object],
        clock: IReactorTime,
        link: KeeperLink | None = None,
    ) -> None:
        self._link = link
        self._gateway = gateway
        self._logs = logs
        self._tell = tell
        self._finish = finish
        self._clock = clock
        self._lines = Lines(LONGEST_ORDER)
        self._exchange = Exchange(gateway.notices, tell)

    def connectionMade(self) -> None:
        self._tell(Ready())

    def dataReceived(self, data: bytes) -> None:
        try:
            for message in self._lines.feed(data):
                if isinstance(message, Tell):
                    self.obey(message.order)
                elif isinstance(message, Announce):
                    self._exchange.receive(message)
                elif isinstance(message, Query):
                    self._answer(message)
        except ControlError as error:
            _log.error("a worker received an invalid message from its zygote: {error}", error=str(error))
            self.obey(Order.DRAIN)

    # Questions.

    def _answer(self, query: Query) -> None:
        rows: Sequence[Any] = ()
        failure = ""
        if query.word not in QUERIES:
            failure = "unknown question"
        else:
            try:
                rows = answerOf(self._gateway, query.word, query.arguments)
            except Exception:
                _log.failure("a worker cannot answer {word}", word=query.word)
                failure = "it failed; its log has the reason"
        self._reply(query.id, rows, failure)

    def _reply(self, number: int, rows: Sequence[Any], failure: str = "") -> None:
        """Send an answer in parts, so that clients need not wait for all of it."""
        part, rest = list(rows[:ROWS_A_TURN]), rows[ROWS_A_TURN:]
        try:
            reply = Reply(number, part, not rest, failure)
        except (ValueError, TypeError):
            reply, rest = Reply(number, [], True, "its answer is too long"), ()
        if self._tell(reply) and rest:
            self._clock.callLater(0, self._reply, number, rest)

    # Orders.

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
        # Another generation does now what one worker does for all.
        self._gateway.notices.isFirst = False
        if self._link is not None:
            self._link.retire()
        drained = drain(self._gateway, order)
        if order is not Order.STOP:
            # The listeners are closed: new clients reach other processes from now on.
            self._tell(Retired())
        drained.addCallback(self._leave, order).addErrback(self._failed)

    def _leave(self, cut: int, order: Order) -> None:
        if cut and order is Order.RETIRE:
            _log.warn("worker_shutdown_timeout expired: {cut} proxied sessions were cut", cut=cut)
        self._tell(Cut(cut))
        self._exit(cut)

    def _failed(self, failure: Any) -> None:
        _log.failure("the shutdown of a worker failed", failure)
        self._exit(1)

    def _exit(self, cut: int) -> None:
        """Exit when the keeper has the last report, or does not take it."""
        link, self._link = self._link, None
        reported = succeed(None) if link is None or not link.running else link.stopService()
        reported.addBoth(lambda _: self._finish(cut))


@frozen
class Position:
    """
    What a worker has for itself.

    @ivar slot: its number, from 0.
    @ivar share: its share of the clients; L{None} for a single worker.
    @ivar keeper: the path of the keeper's socket; empty without a keeper.
    @ivar counts: counts connections for limits, with the other workers; L{None}: it counts for itself.
    @ivar rates: counts events in time, likewise.
    """

    slot: int
    share: Share | None = None
    keeper: str = ""
    counts: Counts | None = None
    rates: IRates | None = None


def work(
    settings: GatewaySettings,
    sockets: ListeningSockets,
    contexts: Mapping[str, ServerTLS],
    logs: ErrorLogs,
    observer: ILogObserver,
    position: Position,
    channel: socket.socket,
    inherited: Notices,
) -> int:
    """
    Run as a worker. The process has been forked, and has imported no reactor yet.

    @param settings: the configuration.
    @param sockets: the listening sockets.
    @param contexts: TLS contexts, by the names of their servers.
    @param logs: the log files.
    @param observer: the log of the process.
    @param position: what this worker has for itself.
    @param channel: the channel to the zygote.
    @param inherited: what the zygote knows of backends, and whether this is the first worker, which logs what concerns
        all workers.
    @return: the exit status.
    """
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    try:
        from twisted.internet import reactor

        anyReactor: Any = reactor
        # The master has logged the warnings.
        notices = Notices(reactor, inherited.isFirst)
        for notice in inherited.held():
            notices.receive(notice.topic, notice.key, notice.body, inherited.age(notice))
        hasKeeper = position.keeper != ""
        limits = Limits(position.counts, position.rates, isSteered=hasKeeper)
        store = settings[StoreSettings]
        limits.tagKey = store.tagKey()
        asking = KeeperStore(limits.defence, anyReactor, deadline=deadlineFor(store)) if hasKeeper else None
        limits.store = limits.defence if asking is None else asking
        places = ProcessPlaces.of(store, anyReactor) if hasKeeper else None
        state = ProcessState.of(reactor, notices, hasKeeper, position.share, limits, places)
        gateway = Gateway(evolve(settings, warnings=()), reactor, logs, sockets, contexts, state)
        link = linkTo(position.keeper, viewOf(state, lambda: [gateway]), reactor, position.slot, asking, places)
        gateway.privilegedStartService()
        for warning in shedPrivileges(settings):
            if inherited.isFirst:
                _log.warn("{reason}", reason=str(warning))
        if asking is not None:
            # Not earlier: it belongs to the user of the workers.
            begin(limits.defence, placeOf(settings[LimitSettings].stateFile, os.environ))
        gateway.startService()
    except ConfigurationError as error:
        _log.error("a worker cannot start: {reason}", reason=str(error))
        return CANNOT_SERVE
    except Exception:
        _log.failure("a worker cannot start")
        return CANNOT_SERVE
    # The gateway has duplicates of the descriptors.
    sockets.disown()
    return _run(gateway, logs, observer, reactor, channel, link)


def _run(
    gateway: Gateway,
    logs: ErrorLogs,
    observer: ILogObserver,
    reactor: Any,
    channel: socket.socket,
    link: KeeperLink | None,
) -> int:
    status = 0
    ending: list[Any] = []

    def finish(cut: int) -> None:
        nonlocal status
        status = CUT if cut else status
        if not ending:
            ending.append(reactor.callLater(0, reactor.stop))

    end = ChannelEnd(reactor, channel)
    worker = Worker(gateway, logs, end.send, finish, reactor, link)

    def begin() -> None:
        if link is not None:
            link.startService()
        for number, order in _SIGNALS.items():
            signal.signal(number, lambda *_, order=order: reactor.callFromThread(worker.obey, order))

    end.run(worker, observer, begin)
    return status
