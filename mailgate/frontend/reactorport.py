# -*- test-case-name: mailgate.test.lean.test_portlimit -*-
"""
Adds to Twisted's own ports what the lean reactor's ports have, for C{use = reactor}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Port as TCPPort
from twisted.internet.unix import Port as UNIXPort
from twisted.python.failure import Failure

from mailgate.lean.connectionlimit import Places

__all__ = ["SharedTCPPort", "SharedUNIXPort", "makeBounded"]


class _Adopted:
    """A port on a listening socket that is not its own. It logs neither its start nor its end."""

    factory: Any
    reactor: Any
    connected: int
    _preexistingSocket: Any

    def startListening(self) -> None:
        self.factory.doStart()
        shared = self._preexistingSocket
        self._preexistingSocket = None
        self.socket = shared
        self.fileno = shared.fileno
        self.connected = True
        self.numberAccepts = 100
        # As Twisted does for a TCP socket that it adopts.
        self._shouldShutdown = False
        self.startReading()

    def startReading(self) -> None:
        self.reactor.addReader(self)

    def _logConnectionLostMsg(self) -> None:
        """Say nothing: the gateway logs what it does with its sockets."""


class SharedUNIXPort(_Adopted, UNIXPort):
    """
    Twisted's port on a unix socket that other processes or gateways share. It never unlinks the socket file or changes
    its mode: a reload, an upgrade and systemd hand the socket on.
    """

    def connectionLost(self, reason: Failure) -> None:
        TCPPort.connectionLost(self, reason)


class SharedTCPPort(_Adopted, TCPPort):
    """Twisted's port on a TCP socket that other processes share."""


def makeBounded(port: Any, places: Places) -> None:
    """
    Limit how many clients a port accepts, as L{mailgate.lean.port.LeanPort} does. The port gets C{isPaused}.

    @param port: Twisted's port.
    @param places: counts the client connections of the process.
    """
    accept = port.doRead

    def doRead() -> Any:
        room = places.room(resume)
        port.isPaused = not room
        if not room:
            port.stopReading()
            return None
        port.numberAccepts = min(port.numberAccepts, room)
        return accept()

    def resume() -> None:
        port.isPaused = False
        if port.connected and not port.disconnecting:
            port.startReading()

    port.doRead = doRead
