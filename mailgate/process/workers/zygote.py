# -*- test-case-name: mailgate.test.process.workers.test_zygote -*-
"""
C{python -m mailgate.process.workers.zygote}: the process of which the workers of one generation are forks.

It has imported everything but a reactor, has read the configuration, made the TLS contexts and opened the logs. So a
worker is there in milliseconds, shares its memory, and knows the session tickets of the others, whose keys belong to
the contexts. It serves nobody, and nothing that came from the network reaches it.
"""

from __future__ import annotations

import errno
import gc
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NoReturn

from attrs import define, evolve, field

from mailgate.config import parse
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.lean.shares import Shares
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import LogSettings, ServerLogSettings
from mailgate.net.sockets import ListeningSockets
from mailgate.process.workers.messages import (
    Become,
    Begin,
    ControlError,
    Cut,
    Ended,
    Failed,
    Fork,
    Kill,
    Lines,
    Loaded,
    Message,
    Order,
    OtherRelease,
    Ready,
    Retired,
    Started,
    Tell,
    encode,
    otherRelease,
)
from mailgate.process.workers.worker import work
from mailgate.registry import PROTOCOLS
from mailgate.system.exitstatus import BAD_CONFIGURATION, CANNOT_SERVE
from mailgate.system.privileges import ProcessSettings, gainNothing, limitOpenFiles
from mailgate.system.processors import WorkerSettings
from mailgate.tls.makeengine import fastEngineWorks
from mailgate.tls.settings import ServerTLS, TLSError, TLSSettings, usesTLS

__all__ = ["ORDERS", "REPORTS", "STANDARD_ERROR", "Zygote", "main"]

ORDERS, REPORTS, STANDARD_ERROR = 3, 4, 5
"""
The descriptors by which the master is heard, and told; and its own standard error. Until everything is loaded the
zygote's leads to the master, which gives the last line of it as the reason why there is no zygote.
"""

_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""The master alone gives orders: a terminal, or systemd, may send these to all processes of a group."""

Serve = Callable[[int, socket.socket], int]
"""What the worker of a number does with its channel to the zygote, and the exit status that comes of it."""


@define
class _Child:
    """A worker as the zygote knows it: the number the master has given it, and what it has said."""

    slot: int
    pid: int
    channel: socket.socket
    lines: Lines = field(factory=lambda: Lines(1024))
    cut: int = 0


class Zygote:
    """
    Forks workers, each of which does C{serve}, as the master orders by the descriptor C{orders} and in C{lines}, and
    tells by C{reports} what becomes of them. C{obeyed(order)} is called with each order to all workers,
    C{lost(slot)} when one has ended. C{fork}, C{wait} and C{kill} are the system's.
    """

    def __init__(
        self,
        orders: int,
        reports: int,
        lines: Lines,
        serve: Serve,
        obeyed: Callable[[Order], object],
        lost: Callable[[int], object],
        fork: Callable[[], int] = os.fork,
        wait: Callable[[int, int], tuple[int, int]] = os.waitpid,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._orders = orders
        self._reports = reports
        self._serve = serve
        self._obeyed = obeyed
        self._lost = lost
        self._fork = fork
        self._wait = wait
        self._kill = kill
        self._lines = lines
        self._children: dict[int, _Child] = {}
        self._leaving = False
        self._selector = selectors.DefaultSelector()
        self._wakeup = socket.socketpair()
        for end in self._wakeup:
            end.setblocking(False)
        self._selector.register(orders, selectors.EVENT_READ, self._hear)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, self._reap)

    def run(self, messages: Sequence[Message]) -> int:
        """Do so until there are no workers left, and none are wanted, beginning with C{messages}."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        self.report(Loaded())
        self._obeyAll(messages)
        while self._children or not self._leaving:
            self.turn()
        return 0

    def turn(self, timeout: float | None = None) -> None:
        """Wait for what happens next, at most C{timeout} seconds, and deal with it."""
        for key, _ in self._selector.select(timeout):
            # What came before may have closed this one.
            if key.fd in self._selector.get_map():
                key.data()

    def report(self, message: Message) -> None:
        """Tell the master, if it is there."""
        line = encode(message)
        with suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._reports, line) :]

    def _hear(self) -> None:
        data = os.read(self._orders, 65536)
        try:
            if not data:
                raise ControlError("the master has gone")
            self._obeyAll(self._lines.feed(data))
        except ControlError:
            # Nobody can give orders any more. Those who are connected are not to suffer.
            self._selector.unregister(self._orders)
            self._tell(Order.DRAIN)

    def _obeyAll(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._obey(message)

    def _obey(self, message: Message) -> None:
        if isinstance(message, Fork):
            if not self._leaving:
                self._make(message.slot)
        elif isinstance(message, Kill):
            child = self._children.get(message.slot)
            if child is not None:
                self._kill(child.pid, signal.SIGKILL)
        elif isinstance(message, Become):
            os.setgroups(message.groups)
            os.setgid(message.gid)
            os.setuid(message.uid)
            gainNothing()
        elif isinstance(message, Tell):
            self._tell(message.order)
        else:
            raise ControlError("this is no order")

    def _tell(self, order: Order) -> None:
        self._leaving = self._leaving or order is not Order.REOPEN
        self._obeyed(order)
        for child in self._children.values():
            # A worker that has just ended hears nothing, and one that hangs is the master's to have killed.
            with suppress(OSError):
                child.channel.send(encode(Tell(order)))

    def _make(self, slot: int) -> None:
        if slot in self._children:
            raise ControlError("there is such a worker already")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            pid = self._fork()
        except OSError as error:
            # Too many processes, or too little memory: the others' sessions are not to suffer for it.
            ours.close()
            theirs.close()
            self.report(Ended(slot, 0, error.errno or errno.EAGAIN, 0))
            return
        if pid == 0:
            self._become(slot, ours, theirs)
        theirs.close()
        child = _Child(slot, pid, ours)
        self._children[slot] = child
        self._selector.register(ours, selectors.EVENT_READ, partial(self._listen, child))
        self.report(Started(slot, pid))

    def _become(self, slot: int, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        """Be a worker, in the fork. The zygote's frames, which are below this one, must never run here."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A worker that kept another's channel open would keep it from noticing the zygote's end.
            for end in (ours, *self._wakeup, *(child.channel for child in self._children.values())):
                end.close()
            self._selector.close()
            os.close(self._orders)
            os.close(self._reports)
            status = self._serve(slot, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def _listen(self, child: _Child) -> None:
        try:
            data = child.channel.recv(4096)
        except OSError:
            data = b""
        try:
            for message in child.lines.feed(data):
                if isinstance(message, Ready | Retired):
                    self.report(evolve(message, slot=child.slot))
                elif isinstance(message, Cut):
                    child.cut = message.sessions
                else:
                    raise ControlError("this is not for a worker to say")
        except ControlError:
            data = b""
        if not data:
            # It ends, or has said what no worker says: there is nothing more to listen to.
            self._selector.unregister(child.channel)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup[0].recv(4096)
        for child in list(self._children.values()):
            pid, status = self._wait(child.pid, os.WNOHANG)
            if pid:
                self._lose(child, os.waitstatus_to_exitcode(status))

    def _lose(self, child: _Child, status: int) -> None:
        del self._children[child.slot]
        self._lost(child.slot)
        if child.channel in self._selector.get_map():
            # What it said last may still be there.
            self._listen(child)
        with suppress(KeyError):
            self._selector.unregister(child.channel)
        child.channel.close()
        self.report(Ended(child.slot, child.pid, status, child.cut))


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
            raise ControlError("the master has gone")
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
        return _fail("a module has imported the reactor before the workers were forked", CANNOT_SERVE)
    # Workers must be able to write when there is no master any more.
    os.dup2(STANDARD_ERROR, 2)
    os.close(STANDARD_ERROR)
    del begin
    gc.collect()
    gc.freeze()
    zygote = Zygote(ORDERS, REPORTS, lines, inheritance.serve, inheritance.obeyed, inheritance.lost)
    return zygote.run(others)


if __name__ == "__main__":
    sys.exit(main())
