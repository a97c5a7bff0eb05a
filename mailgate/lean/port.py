# -*- test-case-name: mailgate.test.lean.test_transport_contract mailgate.test.lean.test_port -*-
"""
Listening sockets, whose connections are L{StreamTransport}s.
"""

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
"""Connections accepted at once: those who are connected already have their turn after as many newcomers."""

BREATH = 1.0
"""Seconds without a new connection after the system had none to give, for want of a descriptor, or of memory."""

_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM}
"""Who wanted in has left again, or a packet filter has something against him; the next may have come for all that."""


@implementer(IListeningPort)
class LeanPort:
    """
    The listening socket C{fd}, of address C{family}, which stays the caller's: this keeps a duplicate.

    C{batch} newcomers are let in at once. Where other processes accept from the same socket, one at a time leaves the
    next to whoever has the least to do.
    """

    _log = Logger()

    def __init__(
        self, poller: Poller, reactor: IReactorTime, fd: int, family: int, factory: Any, batch: int = BATCH
    ) -> None:
        self._poller = poller
        self._reactor = reactor
        self._family = family
        self._factory = factory
        self._socket = socket.socket(family, socket.SOCK_STREAM, 0, os.dup(fd))
        self._batch = batch
        self._listening = False
        self._resting: Any = None
        self._saysExhausted = Seldom()
        self._full = False
        self.places: Places | None = None
        """Those that newcomers may take; L{None} is for no limit."""
        self.isLarge: Callable[[], bool] | None = None
        """Whether newcomers should be left to other processes for a moment, where there are others."""
        self._waited = False
        self.keepsFile = False
        """Whether the file of a unix socket stays when this stops listening: others have the same socket."""
        # Accepted connections inherit it: one system call less for each.
        self._noDelay = family != socket.AF_UNIX
        if self._noDelay:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def startListening(self) -> None:
        if not self._listening:
            self._listening = True
            self._factory.doStart()
            self._poller.watch(self._socket.fileno(), self, READABLE)

    def ready(self, fd: int, events: int) -> None:
        """Somebody wants in."""
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
        # Private, and without a socket object for each.
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
            address = addressOf(family, peer)
            transport = StreamTransport(poller, accepted, family, address, noDelay)
            transport.accepted = True
            try:
                self._begin(factory, transport, address)
            except Exception:
                poller.log.failure("a connection could not be begun", Failure())
            if not self._listening:
                return

    def _isCourteous(self) -> bool:
        """Whether newcomers are left to others: once, and if nobody wants them they are ours."""
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

    def _begin(self, factory: Any, transport: StreamTransport, address: IAddress) -> None:
        protocol = None
        try:
            protocol = factory.buildProtocol(address)
        finally:
            if protocol is None:
                os.close(transport.fd)
        if protocol is not None:
            try:
                transport.open(protocol)
            except Exception:
                transport.failed(Failure())
                raise

    def _rest(self, error: OSError) -> None:
        """Leave newcomers in the queue for a moment: to ask again at once would keep the processor busy."""
        now = self._reactor.seconds()
        if self._saysExhausted.isDue(now):
            self._log.error(
                "no connection can be accepted: {reason}; trying again every {seconds:g} s",
                reason=os.strerror(error.errno or 0),
                seconds=BREATH,
            )
        self._saysExhausted.postpone(now)
        self._pause(BREATH)

    def _pause(self, seconds: float) -> None:
        self._poller.change(self._socket.fileno(), READABLE, 0)
        self._resting = self._reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        self._resting = None
        self._poller.change(self._socket.fileno(), 0, READABLE)

    def _resume(self) -> None:
        """There is a place for a newcomer again."""
        self._full = False
        self._poller.change(self._socket.fileno(), 0, READABLE)

    def failed(self, failure: Failure) -> None:
        """What went wrong with one connection is not the others' business."""

    def stopListening(self) -> Deferred[None]:
        """Accept no more. The connections that there are go on."""
        if self._listening:
            self._listening = False
            if self._resting is not None:
                self._resting.cancel()
                self._resting = None
            elif self._full and self.places is not None:
                self.places.forget(self._resume)
                self._full = False
            else:
                # The descriptor of which this one is a duplicate may stay open, and the system would go on to tell.
                self._poller.change(self._socket.fileno(), READABLE, 0)
            path = self._socket.getsockname()
            self._poller.release(self._socket.detach())
            # As Twisted's; an abstract one, which has bytes for a name, has no file.
            if self._family == socket.AF_UNIX and isinstance(path, str) and not self.keepsFile:
                with suppress(OSError):
                    os.unlink(path)
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        return addressOf(self._family, self._socket.getsockname())
