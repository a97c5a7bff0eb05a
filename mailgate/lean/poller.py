# -*- test-case-name: mailgate.test.lean.test_poller -*-
"""
Readiness of raw descriptors: one C{epoll} of our own, which is a single reader of whatever Twisted reactor runs.

Twisted's reactors spend more on telling a descriptor that it is ready (a logging context, a look at its file number,
two calls) than most of our events cost. Here a descriptor's owner is found in a list, and called.
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
"""An error, a reset for instance, of which owners are told whatever else they ask for."""

MOST_EVENTS = 256
"""Events taken at once. Without a bound the system call allocates room for one event of every connection."""

MOST_ROUNDS = 8
"""
How often the descriptors are asked again before the reactor has its turn. Its own loop costs several times what
C{epoll_wait} does; more rounds gained nothing.
"""


class IOwner(Protocol):
    """Who has a descriptor."""

    def ready(self, fd: int, events: int) -> None:
        """C{fd} can be read or written, or has an error or has been hung up."""

    def failed(self, failure: Failure) -> None:
        """L{ready} has raised C{failure}, which has been logged, or the reactor stops. Give up what it was about."""


@implementer(IReadDescriptor)
class Poller:
    """
    Tells owners that their descriptors are ready, level-triggered. While it watches none it is no reader of C{reactor}.

    A descriptor that is released in the middle of a batch of events is closed after it: until then the system cannot
    give its number to another connection, which would then be told of the events of the old one.
    """

    log: Any = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: Any = None
        self._owners: list[IOwner | None] = []
        self._watched = 0
        self._working = False
        self._ending = False
        self._closing: list[int] = []
        self._soon: list[Callable[[], object]] = []

    def watch(self, fd: int, owner: IOwner, events: int) -> None:
        """Tell C{owner}, from now on, of C{events} of C{fd}, which nobody has owned."""
        if fd >= len(self._owners):
            self._owners.extend([None] * (fd + 256 - len(self._owners)))
        if self._epoll is None:
            # Not sooner: a process that has gone into the background since would share it with its parent.
            self._epoll = select.epoll()
        self._epoll.register(fd, events)
        self._owners[fd] = owner
        self._watched += 1
        if self._watched == 1:
            self._reactor.addReader(self)

    def change(self, fd: int, before: int, after: int) -> None:
        """
        Tell the owner of C{after} instead of C{before}. 0 is for nothing at all: an error or the end of the connection
        is told of otherwise, wanted or not, and again and again.
        """
        if before and after:
            self._epoll.modify(fd, after)
        elif after:
            self._epoll.register(fd, after)
        elif before:
            self._epoll.unregister(fd)

    def transfer(self, fd: int, owner: IOwner) -> None:
        """From now on C{fd} is C{owner}'s, the events being the same."""
        self._owners[fd] = owner

    def release(self, fd: int) -> None:
        """Nobody owns C{fd} any more: close it."""
        self._owners[fd] = None
        if self._working:
            self._closing.append(fd)
        else:
            os.close(fd)
        self._watched -= 1
        if not self._watched:
            self._reactor.removeReader(self)
            if self._ending:
                self.close()

    def close(self) -> None:
        """
        Give up the descriptor of C{epoll} once nothing is watched, and not before. To watch something makes another.
        """
        # In the midst of events there may be more to come: then at their end.
        self._ending = bool(self._watched or self._working)
        if self._epoll is not None and not self._ending:
            self._epoll.close()
            self._epoll = None

    def soon(self, call: Callable[[], object]) -> None:
        """Call C{call}, but not before this event, and those that have come with it, are dealt with."""
        self._soon.append(call)
        if not self._working and len(self._soon) == 1:
            self._reactor.callLater(0, self._finish)

    def doRead(self) -> None:
        """Deal with what has happened."""
        owners = self._owners
        self._working = True
        for _ in range(MOST_ROUNDS):
            events = self._epoll.poll(0, MOST_EVENTS)
            if not events:
                break
            for fd, what in events:
                owner = owners[fd]
                if owner is not None:
                    try:
                        owner.ready(fd, what)
                    except Exception:
                        self._surprised(owner)
            if self._soon or self._closing:
                self._finish()
        self._working = False
        if self._ending:
            self.close()

    def _surprised(self, owner: IOwner) -> None:
        failure = Failure()
        self.log.failure("a connection has failed", failure)
        self._giveUp(owner, failure)

    def _giveUp(self, owner: IOwner, failure: Failure) -> None:
        try:
            owner.failed(failure)
        except Exception:
            # The reactor would drop the poller for it, and all connections with that.
            self.log.failure("a connection has not ended well")

    def _finish(self) -> None:
        """The end of a batch: first what was put off, then the descriptors nobody owns."""
        working, self._working = self._working, True
        while self._soon:
            calls, self._soon = self._soon, []
            for call in calls:
                try:
                    call()
                except Exception:
                    self.log.failure("a connection has not ended well")
        self._working = working
        closing, self._closing = self._closing, []
        for fd in closing:
            os.close(fd)

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        fileno: int = self._epoll.fileno()
        return fileno

    def logPrefix(self) -> str:
        """The name that Twisted's log knows this by."""
        return "mailgate"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor drops its readers when it stops; with the poller goes whatever that watches."""
        for owner in [each for each in self._owners if each is not None]:
            self._giveUp(owner, reason)
