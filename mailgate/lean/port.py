# -*- test-case-name: mailgate.test.lean.test_transport_contract mailgate.test.lean.test_port -*-
"""Listening sockets whose connections are L{StreamTransport}s."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.lean.descriptors import addressOf
from mailgate.lean.poller import READABLE, Poller
from mailgate.lean.shares import PAUSE
from mailgate.lean.transport import StreamTransport
from mailgate.log.seldom import Seldom

if TYPE_CHECKING:
    from mailgate.lean.connectionlimit import Places

__all__ = ["LeanPort"]

BATCH = 64
"""The most connections accepted at once. After that, the connections that exist already have their turn."""

BREATH = 1.0
"""The seconds without accepting after the system had no descriptor or memory for a connection."""

_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM}
"""
Errors of one connection: the client has closed it already, or a packet filter rejects it. The next C{accept} may
succeed.
"""


@implementer(IListeningPort)
class LeanPort:
    """
    A listening port.

    @ivar places: the limit on connections; L{None} is for no limit.
    @ivar isLarge: whether this process should leave new connections to other processes for a moment; L{None} if there
        are no others.
    @ivar keepsFile: whether the file of a unix socket stays when this stops listening, because other processes use it.
    """

    _log = Logger()

    def __init__(
        self, poller: Poller, reactor: IReactorTime, fd: int, family: int, factory: Any, batch: int = BATCH
    ) -> None:
        """
        @param poller: watches the socket.
        @param reactor: the clock.
        @param fd: the listening socket. The caller keeps it, and this makes a duplicate.
        @param family: its address family.
        @param factory: makes the protocols. Its C{buildProtocol} gets L{None} for the address of the peer if it has
            C{ignoresPeer}: making an object of Twisted's takes time.
        @param batch: the most connections to accept at once. Where other processes accept from the same socket, 1
            leaves the next connection to the least busy process.
        """
        self._poller = poller
        self._reactor = reactor
        self._family = family
        self._factory = factory
        self._tellsPeer = not getattr(factory, "ignoresPeer", False)
        self._socket = socket.socket(family, socket.SOCK_STREAM, 0, os.dup(fd))
        self._batch = batch
        self._listening = False
        self._resting: Any = None
        self._saysExhausted = Seldom()
        self._full = self._isExhausted = False
        self.places: Places | None = None
        self.isLarge: Callable[[], bool] | None = None
        self._waited = False
        self.keepsFile = False
        # Accepted connections inherit the option, which saves a system call for each.
        self._noDelay = family != socket.AF_UNIX
        if self._noDelay:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def startListening(self) -> None:
        if not self._listening:
            self._listening = True
            self._factory.doStart()
            self._poller.watch(self._socket.fileno(), self, READABLE)

    def ready(self, fd: int, events: int) -> None:
        """
        Accept connections.

        @param fd: the descriptor.
        @param events: what it is ready for.
        """
        room = self._batch
        if self.places is not None:
            room = min(room, self.places.room(self._resume))
            if not room:
                self._full = True
                self._poller.change(self._socket.fileno(), READABLE, 0)
                return
        if self.isLarge is not None and self._isCourteous():
            return
        family, factory, poller, noDelay = self._family, self._factory, self._poller, self._noDelay
        # socket._accept is private, and makes no socket object.
        accept = getattr(self._socket, "_accept", self._accept)
        for _ in range(room):
            try:
                accepted, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _GONE:
                    continue
                self._rest(error)
                return
            os.set_blocking(accepted, False)
            transport = StreamTransport(poller, accepted, family, peer, noDelay)
            transport.accepted = True
            try:
                protocol = factory.buildProtocol(transport.getPeer() if self._tellsPeer else None)
                if protocol is None:
                    os.close(accepted)
                else:
                    transport.open(protocol)
            except Exception:
                self._giveUp(transport)
            if not self._listening:
                return

    @property
    def isPaused(self) -> bool:
        """Whether clients wait: the system has no descriptor for another connection, or the limit is reached."""
        return self._full or self._isExhausted

    def _isCourteous(self) -> bool:
        """Whether to leave new connections to other processes, once. If no other accepts them, this process does."""
        assert self.isLarge is not None
        waited, self._waited = self._waited, False
        if waited or not self.isLarge():
            return False
        self._waited = True
        self._pause(PAUSE)
        return True

    def _accept(self) -> tuple[int, Any]:
        accepted, peer = self._socket.accept()
        return accepted.detach(), peer

    def _giveUp(self, transport: StreamTransport) -> None:
        """An exception is being handled: the factory or the protocol of C{transport} raised it, or the system."""
        failure = Failure()
        # First of all, because the protocol may raise again when it loses its connection.
        self._poller.log.failure("unhandled exception while accepting a connection", failure)
        if transport.protocol is not None:
            transport.failed(failure)
        elif transport.connected:
            # Nothing watches it yet.
            os.close(transport.fd)

    def _rest(self, error: OSError) -> None:
        """Leave new connections in the queue for a moment. Trying again at once would keep the CPU busy."""
        now = self._reactor.seconds()
        if self._saysExhausted.isDue(now):
            self._log.error(
                "cannot accept connections: {reason}; trying again every {seconds:g} s",
                reason=os.strerror(error.errno or 0),
                seconds=BREATH,
            )
        self._saysExhausted.postpone(now)
        self._isExhausted = True
        self._pause(BREATH)

    def _pause(self, seconds: float) -> None:
        self._poller.change(self._socket.fileno(), READABLE, 0)
        self._resting = self._reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._isExhausted = False
        self._poller.change(self._socket.fileno(), 0, READABLE)

    def _resume(self) -> None:
        """There is room for a connection again."""
        self._full = False
        self._poller.change(self._socket.fileno(), 0, READABLE)

    def failed(self, failure: Failure) -> None:
        """Ignore C{failure}: a problem of one connection must not stop the listener."""

    def stopListening(self) -> Deferred[None]:
        """Stop accepting. Existing connections stay open."""
        if self._listening:
            self._listening = False
            if self._resting is not None:
                self._resting.cancel()
                self._resting = None
            elif self._full and self.places is not None:
                self.places.forget(self._resume)
                self._full = False
            else:
                # Other duplicates of the socket may stay open, and the system would go on reporting events.
                self._poller.change(self._socket.fileno(), READABLE, 0)
            path = self._socket.getsockname()
            self._poller.release(self._socket.detach())
            # As Twisted's ports do. An abstract unix socket has bytes for a name, and no file.
            if self._family == socket.AF_UNIX and isinstance(path, str) and not self.keepsFile:
                with suppress(OSError):
                    os.unlink(path)
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        return addressOf(self._family, self._socket.getsockname())
