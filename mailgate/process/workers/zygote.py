# -*- test-case-name: mailgate.test.process.workers.test_zygote -*-
"""
C{python -m mailgate.process.workers.zygote}: the process of which the workers of one generation are forks.

It has imported everything but a reactor, has read the configuration, made the TLS contexts and opened the logs. So a
worker is there in milliseconds, shares its memory, and knows the session tickets of the others, whose keys belong to
the contexts. It serves nobody, and nothing that came from the network reaches it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

from mailgate.config import parse
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.lean.shares import Shares
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import LogSettings, ServerLogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.workers.forking import Zygote
from mailgate.process.workers.messages import (
    Begin,
    ControlError,
    Failed,
    Lines,
    Message,
    Order,
    OtherRelease,
    encode,
    otherRelease,
)
from mailgate.process.workers.worker import work
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_SERVE
from mailgate.system.privileges import ProcessSettings, limitOpenFiles
from mailgate.system.processors import WorkerSettings
from mailgate.tls.files import TLSError
from mailgate.tls.makeengine import fastEngineWorks
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["ORDERS", "REPORTS", "STANDARD_ERROR", "Inheritance", "main"]

ORDERS, REPORTS, STANDARD_ERROR = 3, 4, 5
"""
The descriptors by which the master is heard, and told; and its own standard error. Until everything is loaded the
zygote's leads to the master, which gives the last line of it as the reason why there is no zygote.
"""

_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The master alone gives orders: a terminal, or systemd, may send these to all processes of a group."""


class Inheritance:
    """
    What all workers of a generation are born with, as C{begin} has it.

    @raise ConfigurationError: the configuration cannot be used.
    """

    def __init__(self, begin: Begin) -> None:
        self._sockets = ListeningSockets.adopted(begin.sockets)
        self._logs = ErrorLogs()
        self._settings = settings = parse(begin.text, begin.file)
        self._logs.owner = settings[ProcessSettings].owner
        self._observer = self._logs.observerFor(
            settings[LogSettings].errorLog, settings.file, "mailgate", settings.lines
        )
        for server in settings.servers:
            own = server[ServerLogSettings].errorLog
            if own:
                # By a worker's user it perhaps could not be opened.
                self._logs.observerFor(own, server.file, server.sectionOf("error_log"), server.lines)
        self._contexts = {server.name: _contextOf(server) for server in settings.servers if usesTLS(server)}
        # With one worker there is nobody to leave anything to.
        self._shares = Shares(settings[WorkerSettings].count) if settings[WorkerSettings].count > 1 else None
        limit = settings[ProcessSettings].openFiles
        if limit is not None:
            # The master has told of it.
            with suppress(OSError):
                limitOpenFiles(limit)
        if self._contexts:
            # Found out once, for all workers.
            fastEngineWorks()

    def serve(self, slot: int, channel: socket.socket) -> int:
        """Be the worker C{slot}, and give the exit status."""
        share = None if self._shares is None else self._shares.of(slot)
        tells = slot == 0
        return work(self._settings, self._sockets, self._contexts, self._logs, self._observer, share, channel, tells)

    def obeyed(self, order: Order) -> None:
        """All workers are told C{order}: do what it means for those that are yet to be born."""
        if order is not Order.REOPEN:
            # Those that nobody wants any more are not to be kept open by a process that accepts nobody.
            self._sockets.disown()
            return
        for _ in self._logs.reopen(self._settings[ProcessSettings].owner):
            # What cannot be opened each worker tells of by itself.
            continue

    def lost(self, slot: int) -> None:
        """The worker C{slot} is no more."""
        if self._shares is not None:
            self._shares.clear(slot)


def _contextOf(server: ServerSettings) -> ServerTLS:
    try:
        return ServerTLS(server[TLSSettings], PROTOCOLS[server.protocol].alpn)
    except TLSError as error:
        # The master has just used the same files: they have changed since.
        raise ConfigurationError([server.problem(error.option, str(error), error.value)]) from None


def _first(lines: Lines) -> tuple[Begin, Sequence[Message]]:
    """
    The master's first message, and those that came along with it.

    @raise ControlError: the master has gone.
    @raise OtherRelease: it is of another release, or speaks as if it were.
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
    with suppress(BrokenPipeError):
        os.write(REPORTS, encode(Failed(reason)))
    return status


def main() -> int:
    """Be a zygote; gives the exit status."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    lines = Lines()
    try:
        begin, others = _first(lines)
    except OtherRelease as error:
        return _fail(str(error), CANNOT_SERVE)
    except ControlError:
        # It has told why, if there is anything to tell.
        return 1
    try:
        inheritance = Inheritance(begin)
    except ConfigurationError as error:
        return _fail(str(error), BAD_CONFIGURATION)
    if "twisted.internet.reactor" in sys.modules:
        # All workers would share one epoll(7).
        return _fail("a module imported twisted.internet.reactor before the workers were forked", CANNOT_SERVE)
    # Workers must be able to write when there is no master any more.
    os.dup2(STANDARD_ERROR, 2)
    os.close(STANDARD_ERROR)
    del begin
    gc.collect()
    gc.freeze()
    return Zygote(ORDERS, REPORTS, lines, inheritance).run(others)


if __name__ == "__main__":
    sys.exit(main())
