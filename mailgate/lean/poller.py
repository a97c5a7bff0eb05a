# -*- test-case-name: mailgate.test.lean.test_poller -*-
"""
Watches raw descriptors with one C{epoll} of its own, which is a single reader of any Twisted reactor.

Twisted's reactors spend more on dispatching an event (a logging context, a check of the file number, two calls) than
most of our events cost. Here, a list maps a descriptor to its owner, which is called.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["BROKEN", "READABLE", "WRITABLE", "IOwner", "Poller"]

READABLE: int = getattr(select, "EPOLLIN", 1)
WRITABLE: int = getattr(select, "EPOLLOUT", 4)
BROKEN: int = getattr(select, "EPOLLERR", 8)
"""An error such as a reset. Owners receive it whatever else they wait for."""

MOST_EVENTS = 256
"""The most events of one C{epoll_wait}. Without a limit, the call allocates room for one event of every connection."""

MOST_ROUNDS = 8
"""
How often C{epoll_wait} is called before the reactor continues. The reactor's own loop costs several times as much. More
rounds gained nothing.
"""


class IOwner(Protocol):
    """The owner of a descriptor."""

    def ready(self, fd: int, events: int) -> None:
        """
        The descriptor is ready.

        @param fd: the descriptor.
        @param events: what it is ready for: L{READABLE}, L{WRITABLE}, L{BROKEN} or C{EPOLLHUP}.
        """

    def failed(self, failure: Failure) -> None:
        """
        L{ready} has raised, or the reactor stops: close the connection. If the owner has passed on the descriptor, the
        new one is called.

        @param failure: the exception, which has been logged, or the reason of the reactor.
        """


class _Nobody:
    """The owner of a descriptor that is not watched, or was released during a batch with an event for it."""

    def ready(self, fd: int, events: int) -> None:
        """See L{IOwner}."""

    def failed(self, failure: Failure) -> None:
        """See L{IOwner}."""


_NOBODY = _Nobody()


@implementer(IReadDescriptor)
class Poller:
    """
    Calls owners when their descriptors are ready, level-triggered. While it watches no descriptor, it is no reader of
    the reactor.

    A descriptor that is released during a batch of events is closed after the batch. Otherwise the system could reuse
    its number for another connection, which would then receive events of the old one.

    @ivar log: logs exceptions of owners.
    @ivar owners: the owner of each descriptor, by its number. Who passes on a watched descriptor replaces its owner.
    """

    log: Any = Logger()

    def __init__(self, reactor: Any) -> None:
        """@param reactor: any of Twisted's reactors that can watch descriptors."""
        self._reactor = reactor
        self._epoll: Any = None
        self.owners: list[IOwner] = []
        self._watched = 0
        self._working = False
        self._ending = False
        self._closing: list[int] = []
        self._soon: list[Callable[[], object]] = []

    def watch(self, fd: int, owner: IOwner, events: int) -> None:
        """
        Start to watch a descriptor.

        @param fd: the descriptor, which has no owner yet.
        @param owner: called when it is ready.
        @param events: what to wait for.
        """
        if self._epoll is None:
            # Made on first use: a process that goes into the background would share it with its parent.
            self._epoll = select.epoll()
        self._epoll.register(fd, events)
        try:
            self.owners[fd] = owner
        except IndexError:
            self.owners.extend([_NOBODY] * (fd + 256 - len(self.owners)))
            self.owners[fd] = owner
        if not self._watched:
            self._reactor.addReader(self)
        self._watched += 1

    def change(self, fd: int, before: int, after: int) -> None:
        """
        Wait for other events.

        @param fd: the descriptor.
        @param before: the events that it waits for now.
        @param after: the new events. 0 stops watching: errors and the end of the connection are reported for any other
            value, again and again.
        """
        if before and after:
            self._epoll.modify(fd, after)
        elif after:
            self._epoll.register(fd, after)
        elif before:
            self._epoll.unregister(fd)

    def release(self, fd: int) -> None:
        """Close C{fd}, which has no owner any more."""
        self.owners[fd] = _NOBODY
        self._closing.append(fd)
        if not self._working:
            self._closeReleased()

    def close(self) -> None:
        """Close C{epoll}, once no descriptor is watched. Watching one later makes another."""
        # During a batch there may be more events: close at its end.
        self._ending = bool(self._watched or self._working)
        if self._epoll is not None and not self._ending:
            self._epoll.close()
            self._epoll = None

    def soon(self, call: Callable[[], object]) -> None:
        """Call C{call} after the current event and the rest of its batch."""
        self._soon.append(call)
        if not self._working and len(self._soon) == 1:
            self._reactor.callLater(0, self._finish)

    def doRead(self) -> None:
        """Handle what is ready."""
        owners = self.owners
        self._working = True
        for _ in range(MOST_ROUNDS):
            events = self._epoll.poll(0, MOST_EVENTS)
            if not events:
                break
            for fd, what in events:
                try:
                    owners[fd].ready(fd, what)
                except Exception:
                    self._raised(owners[fd])
            if self._soon or self._closing:
                self._finish()
        self._working = False
        if self._ending:
            self.close()

    def _raised(self, owner: IOwner) -> None:
        failure = Failure()
        self.log.failure("unhandled exception in a connection", failure)
        self._giveUp(owner, failure)

    def _giveUp(self, owner: IOwner, failure: Failure) -> None:
        try:
            owner.failed(failure)
        except Exception:
            # Otherwise the reactor would drop the poller, and with it all connections.
            self.log.failure("unhandled exception while closing a connection")

    def _finish(self) -> None:
        """End a batch: make the postponed calls, then close the released descriptors."""
        working, self._working = self._working, True
        while self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                try:
                    call()
                except Exception:
                    self.log.failure("unhandled exception while closing a connection")
        self._working = working
        if self._closing:
            self._closeReleased()

    def _closeReleased(self) -> None:
        closing, self._closing = self._closing, []
        for fd in closing:
            os.close(fd)
        self._watched -= len(closing)
        if not self._watched:
            self._reactor.removeReader(self)
            if self._ending:
                self.close()

    def fileno(self) -> int:
        """The descriptor of C{epoll}, which the reactor watches."""
        fileno: int = self._epoll.fileno()
        return fileno

    def logPrefix(self) -> str:
        """The name in Twisted's log."""
        return "mailgate"

    def connectionLost(self, reason: Failure) -> None:
        """
        The reactor drops its readers when it stops: fail all connections.

        @param reason: passed to their owners.
        """
        for owner in list(self.owners):
            self._giveUp(owner, reason)
