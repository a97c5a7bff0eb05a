# -*- test-case-name: mailgate.test.process.workers.test_zygote -*-
"""
The event loop of the zygote: orders from the master, the forks of workers, their messages and their exits.
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, Protocol

from attrs import define, evolve, field, frozen

from mailgate.process.workers.messages import (
    Announce,
    Become,
    Configure,
    ControlError,
    Cut,
    Ended,
    Event,
    Fork,
    Instruct,
    Kill,
    Lines,
    Loaded,
    Message,
    NotStarted,
    Order,
    Query,
    Ready,
    Reply,
    Request,
    Result,
    Retired,
    Started,
    Taken,
    Tell,
    encode,
)
from mailgate.process.workers.outbox import Outbox
from mailgate.process.workers.talk import LONGEST_REPORT
from mailgate.system.privileges import gainNothing

__all__ = ["FROM_KEEPERS", "FROM_WORKERS", "Heirs", "System", "Zygote"]

FROM_WORKERS: tuple[Any, ...] = (Ready, Retired, Announce, Reply)
"""The messages of workers that the master receives."""

FROM_KEEPERS: tuple[Any, ...] = (Ready, NotStarted, Announce, Request, Taken)
"""The messages of keepers that the master receives. Only these may be orders of operators."""


@define
class _Child:
    """A worker or a keeper, as the zygote knows it: its number, its process, and its messages."""

    slot: int
    pid: int
    channel: socket.socket
    outbox: Outbox
    lines: Lines = field(factory=lambda: Lines(LONGEST_REPORT))
    cut: int = 0


class Heirs(Protocol):
    """What a fork does as a worker, and what the zygote does after an order and after the exit of a worker."""

    def serve(self, slot: int, channel: socket.socket) -> int:
        """
        Run as a worker, in the fork.

        @param slot: the worker's number.
        @param channel: the channel to the zygote.
        @return: the exit status.
        """

    def obeyed(self, order: Order) -> None:
        """
        All workers have received an order.

        @param order: the order.
        """

    def announced(self, notice: Announce) -> None:
        """
        The master has passed on a notice, which later workers must have from their start.

        @param notice: the notice.
        """

    def configured(self, configuration: Configure) -> None:
        """
        The master has a new configuration.

        @param configuration: the configuration, for later forks.
        @raise ControlError: this zygote has one configuration for its whole life.
        """

    def lost(self, slot: int) -> None:
        """
        A worker has exited.

        @param slot: its number.
        """


@frozen
class _Events:
    """What to call if a descriptor can be read, and if it takes bytes."""

    read: Callable[[], object]
    flush: Callable[[], object] = lambda: None


@frozen
class System:
    """
    The calls of the system that a zygote makes.

    @ivar fork: C{os.fork}.
    @ivar wait: C{os.waitpid}.
    @ivar kill: C{os.kill}.
    """

    fork: Callable[[], int] = os.fork
    wait: Callable[[int, int], tuple[int, int]] = os.waitpid
    kill: Callable[[int, int], None] = os.kill


class Zygote:
    """
    Forks workers, or keepers, on the orders of the master. Reports when one of them has started, serves, has stopped
    accepting, or has exited.

    @param orders: the descriptor of messages from the master.
    @param reports: the descriptor of messages to the master.
    @param lines: reads C{orders}; it may hold a part of a message.
    @param heirs: what the forks do.
    @param system: forks, waits for and kills processes.
    @param accepted: the kinds of messages of forks that the master receives.
    """

    def __init__(
        self,
        orders: int,
        reports: int,
        lines: Lines,
        heirs: Heirs,
        system: System = System(),
        accepted: tuple[Any, ...] = FROM_WORKERS,
    ) -> None:
        self._accepted = accepted
        self._orders = orders
        self._reports = reports
        self._heirs = heirs
        self._system = system
        self._lines = lines
        self._children: dict[int, _Child] = {}
        self._leaving = False
        self._selector = selectors.DefaultSelector()
        self._wakeup = socket.socketpair()
        for end in self._wakeup:
            end.setblocking(False)
        self._selector.register(orders, selectors.EVENT_READ, _Events(self._hear))
        self._selector.register(self._wakeup[0], selectors.EVENT_READ, _Events(self._reap))

    def run(self, messages: Sequence[Message]) -> int:
        """
        Run until the workers were ordered to end and all have exited.

        @param messages: orders that were received before.
        @return: the exit status.
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        self.report(Loaded())
        self._obeyAll(messages)
        while self._children or not self._leaving:
            self.turn()
        return 0

    def turn(self, timeout: float | None = None) -> None:
        """
        Wait for events once, and handle them.

        @param timeout: seconds to wait at most; L{None}: no limit.
        """
        for key, events in self._selector.select(timeout):
            # An earlier event may have closed this one.
            if key.fd not in self._selector.get_map():
                continue
            if events & selectors.EVENT_WRITE:
                key.data.flush()
            if events & selectors.EVENT_READ:
                key.data.read()

    def report(self, message: Message) -> None:
        """
        Send a message to the master, if it still runs.

        @param message: the message.
        """
        line = encode(message)
        with suppress(BrokenPipeError):
            while line:
                line = line[os.write(self._reports, line) :]

    def _hear(self) -> None:
        data = os.read(self._orders, 65536)
        try:
            if not data:
                raise ControlError("the master exited")
            self._obeyAll(self._lines.feed(data))
        except ControlError:
            # Without a master the workers drain, so that sessions continue.
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
                self._system.kill(child.pid, signal.SIGKILL)
        elif isinstance(message, Become):
            os.setgroups(message.groups)
            os.setgid(message.gid)
            os.setuid(message.uid)
            gainNothing()
        elif isinstance(message, Tell):
            self._tell(message.order)
        elif isinstance(message, Announce):
            self._heirs.announced(message)
            for child in self._children.values():
                # Only the worker that has published it needs the slot.
                child.outbox.send(message if child.slot == message.slot else evolve(message, slot=None))
        elif isinstance(message, Query | Event):
            self._sendAll(message)
        elif isinstance(message, Instruct | Result):
            child = self._children.get(message.slot)
            if child is not None:
                child.outbox.send(message)
        elif isinstance(message, Configure):
            self._heirs.configured(message)
        else:
            raise ControlError("unexpected message for a zygote")

    def _tell(self, order: Order) -> None:
        self._leaving = self._leaving or order is not Order.REOPEN
        self._heirs.obeyed(order)
        self._sendAll(Tell(order))

    def _sendAll(self, message: Message) -> None:
        for child in self._children.values():
            # The worker may have just exited. If it hangs, the master orders to kill it.
            child.outbox.send(message)

    def _make(self, slot: int) -> None:
        if slot in self._children:
            raise ControlError("this worker exists already")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            pid = self._system.fork()
        except OSError as error:
            # Too many processes, or too little memory: the sessions of other workers must continue.
            ours.close()
            theirs.close()
            self.report(Ended(slot, 0, error.errno or errno.EAGAIN, 0))
            return
        if pid == 0:
            self._become(slot, ours, theirs)
        theirs.close()
        child = _Child(slot, pid, ours, Outbox(ours, partial(self._watch, ours)))
        self._children[slot] = child
        self._selector.register(ours, selectors.EVENT_READ, _Events(partial(self._listen, child), child.outbox.flush))
        self.report(Started(slot, pid))

    def _watch(self, channel: socket.socket, waits: bool) -> None:
        """Call a worker's outbox when its channel takes bytes again, or no more."""
        # The channel of a worker that exits is no longer registered.
        with suppress(KeyError):
            data = self._selector.get_key(channel).data
            self._selector.modify(channel, selectors.EVENT_READ | (selectors.EVENT_WRITE if waits else 0), data)

    def _become(self, slot: int, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        """Run as a worker, in the fork. Never returns, because the frames of the zygote must not run here."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # A worker notices the death of the zygote only if no other worker holds its channel open.
            for end in (ours, *self._wakeup, *(child.channel for child in self._children.values())):
                end.close()
            self._selector.close()
            os.close(self._orders)
            os.close(self._reports)
            status = self._heirs.serve(slot, theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(status)

    def _listen(self, child: _Child) -> bool:
        """Read messages of a worker. Return whether there may be more."""
        try:
            data = child.channel.recv(65536)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        try:
            message: Any
            for message in child.lines.feed(data):
                if isinstance(message, self._accepted):
                    self.report(evolve(message, slot=child.slot))
                elif isinstance(message, Cut):
                    child.cut = message.sessions
                else:
                    raise ControlError("unexpected message from a worker")
        except ControlError:
            data = b""
        if not data:
            # The worker exits, or has sent an invalid message.
            self._selector.unregister(child.channel)
        return bool(data)

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            self._wakeup[0].recv(4096)
        for child in list(self._children.values()):
            pid, status = self._system.wait(child.pid, os.WNOHANG)
            if pid:
                self._lose(child, os.waitstatus_to_exitcode(status))

    def _lose(self, child: _Child, status: int) -> None:
        del self._children[child.slot]
        self._heirs.lost(child.slot)
        while child.channel in self._selector.get_map() and self._listen(child):
            # Its last message may not have been read yet.
            continue
        with suppress(KeyError):
            self._selector.unregister(child.channel)
        child.channel.close()
        self.report(Ended(child.slot, child.pid, status, child.cut))
