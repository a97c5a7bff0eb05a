# -*- test-case-name: mailgate.test.process.workers.test_zygote -*-
"""
C{python -m mailgate.process.workers.zygote}: the process that forks the workers of one generation.

A zygote imports all modules except a reactor, reads the configuration, creates the TLS contexts and opens the log
files. So its workers start in milliseconds and share its memory. They accept each other's TLS session tickets, because
the ticket keys belong to the contexts. They also inherit what the other workers know of backends. The zygote serves no
clients and receives no data from the network, except what workers tell each other of backends.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve

from mailgate.config import parse
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.lean.shares import Shares
from mailgate.limits.sharedtables import SharedTables
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import LogSettings, ServerLogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.workers.forking import FROM_WORKERS, Heirs, System, Zygote
from mailgate.process.workers.messages import (
    Announce,
    Begin,
    Configure,
    ControlError,
    Failed,
    Lines,
    Message,
    Order,
    OtherRelease,
    encode,
    otherRelease,
)
from mailgate.process.workers.tables import TABLES
from mailgate.process.workers.worker import Position, work
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_SERVE
from mailgate.system.privileges import ProcessSettings, limitOpenFiles
from mailgate.system.processors import WorkerSettings
from mailgate.tls.files import TLSError
from mailgate.tls.makeengine import fastEngineWorks
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings, usesTLS
from mailgate.upstream.notices import Notices

__all__ = ["ORDERS", "REPORTS", "STANDARD_ERROR", "Inheritance", "Time", "lead", "main"]

ORDERS, REPORTS, STANDARD_ERROR = 3, 4, 5
"""
Descriptors: messages from the master, messages to the master, and the master's standard error. Until the zygote has
loaded everything, its own standard error leads to the master, which reports the last line if the zygote dies.
"""

_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""Only the master gives orders. A terminal or systemd may send these signals to all processes of a group."""


class Time:
    """The time in a process that must not import a reactor."""

    def seconds(self) -> float:
        """Return the seconds since any moment."""
        return time.monotonic()


class Inheritance:
    """
    What all workers of a generation inherit from the zygote.

    @param begin: the first message of the master.
    @raise ConfigurationError: the configuration cannot be used.
    """

    def __init__(self, begin: Begin) -> None:
        descriptors = dict(begin.sockets)
        tables = descriptors.pop(TABLES, None)
        self._tables = None if tables is None else SharedTables(tables)
        self._columns = dict(enumerate(begin.columns))
        self._sockets = ListeningSockets.adopted(descriptors)
        self._keeper = begin.keeper
        self._logs = ErrorLogs()
        self._settings = settings = parse(begin.text, begin.file)
        self._logs.owner = settings[ProcessSettings].owner
        # All processes of a run show the same user as the same hash (log_user).
        self._logs.key = bytes.fromhex(begin.logKey)
        log = settings[LogSettings]
        self._observer = self._logs.observerFor(log.errorLog, settings.file, "mailgate", settings.lines, log.privacy)
        for server in settings.servers:
            own = server[ServerLogSettings].errorLog
            if own:
                # Open it now: the user of the workers may not be allowed to.
                self._logs.observerFor(own, server.file, server.sectionOf("error_log"), server.lines)
        self._contexts = {server.name: _contextOf(server) for server in settings.servers if usesTLS(server)}
        # A single worker does not share the clients.
        self._shares = Shares(settings[WorkerSettings].count) if settings[WorkerSettings].count > 1 else None
        clock: Any = Time()
        self._notices = Notices(clock)
        limit = settings[ProcessSettings].openFiles
        if limit is not None:
            # The master has logged the refusal.
            with suppress(OSError):
                limitOpenFiles(limit)
        if self._contexts:
            # The result is cached: test it once for all workers.
            fastEngineWorks()

    def serve(self, slot: int, channel: socket.socket) -> int:
        """
        Run as a worker, in the fork.

        @param slot: the worker's number.
        @param channel: the channel to the zygote.
        @return: the exit status.
        """
        # What the zygote has logged is not counted again for each worker.
        self._logs.lines.update(dict.fromkeys(self._logs.lines, 0))
        share = None if self._shares is None else self._shares.of(slot)
        self._notices.isFirst = slot == 0
        position = Position(slot, share, self._keeper)
        if self._tables is not None:
            counts, rates = self._tables.counts(self._columns.get(slot)), self._tables.rates()
            position = evolve(position, counts=counts, rates=rates)
        return work(
            self._settings, self._sockets, self._contexts, self._logs, self._observer, position, channel, self._notices
        )

    def obeyed(self, order: Order) -> None:
        """
        Apply an order to all workers to what later workers inherit.

        @param order: the order.
        """
        if order is not Order.REOPEN:
            # Listening sockets must not stay open in a process that does not accept.
            self._sockets.disown()
            return
        for _ in self._logs.reopen(self._settings[ProcessSettings].owner):
            # Each worker logs errors itself.
            continue

    def announced(self, notice: Announce) -> None:
        """
        Keep a notice, so that later workers inherit it.

        @param notice: the notice.
        """
        self._notices.receive(notice.topic, notice.key, notice.body, notice.age)

    def configured(self, configuration: Configure) -> None:
        """
        A zygote of workers has one configuration for its whole life.

        @param configuration: the configuration.
        @raise ControlError: always.
        """
        raise ControlError("unexpected message for a zygote of workers")

    def lost(self, slot: int) -> None:
        """
        A worker has exited.

        @param slot: its number.
        """
        if self._shares is not None:
            self._shares.clear(slot)
        if self._tables is not None and slot in self._columns:
            self._tables.clear(self._columns[slot])


def _contextOf(server: ServerSettings) -> ServerTLS:
    try:
        return ServerTLS(server[TLSSettings], PROTOCOLS[server.protocol].alpn)
    except TLSError as error:
        # The master has just read the same files; they have changed since.
        raise ConfigurationError([server.problem(error.option, str(error), error.value)]) from None


def _first(lines: Lines) -> tuple[Begin, Sequence[Message]]:
    """
    Return the master's first message, and the messages that came with it.

    @param lines: reads the messages.
    @raise ControlError: the master has exited.
    @raise OtherRelease: the master is of another release, or its first message is not valid in this one.
    """
    messages: list[Message] = []
    while not messages:
        data = os.read(ORDERS, 65536)
        if not data:
            raise ControlError("the master exited")
        try:
            messages = lines.feed(data)
        except OtherRelease:
            raise
        except ControlError:
            raise OtherRelease(otherRelease()) from None
    begin, *others = messages
    if not isinstance(begin, Begin):
        raise OtherRelease(otherRelease())
    return begin, others


def _fail(reason: str, status: int) -> int:
    """
    Report to the master that this zygote cannot be used; return C{status}.

    @param reason: why.
    @param status: the exit status.
    """
    with suppress(BrokenPipeError):
        os.write(REPORTS, encode(Failed(reason)))
    return status


def lead(heirsOf: Callable[[Begin], Heirs], hasReactor: str, accepted: tuple[Any, ...] = FROM_WORKERS) -> int:
    """
    Run as a zygote; return the exit status.

    @param heirsOf: returns what the forks do, from the first message of the master. It may raise
        L{ConfigurationError}.
    @param hasReactor: the reason to give if a module has imported the reactor.
    @param accepted: the kinds of messages that forks may send.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    lines = Lines()
    try:
        begin, others = _first(lines)
    except OtherRelease as error:
        return _fail(str(error), CANNOT_SERVE)
    except ControlError:
        # The master has exited and has logged the reason.
        return 1
    try:
        heirs = heirsOf(begin)
    except ConfigurationError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    if "twisted.internet.reactor" in sys.modules:
        # All forks would share its epoll(7) descriptor.
        return _fail(hasReactor, CANNOT_SERVE)
    # The forks must be able to write after the master has exited.
    os.dup2(STANDARD_ERROR, 2)
    os.close(STANDARD_ERROR)
    del begin
    gc.collect()
    gc.freeze()
    return Zygote(ORDERS, REPORTS, lines, heirs, System(), accepted).run(others)


def main() -> int:
    """Run as the zygote of workers; return the exit status."""
    return lead(Inheritance, "a module imported twisted.internet.reactor before the workers were forked")


if __name__ == "__main__":
    sys.exit(main())
