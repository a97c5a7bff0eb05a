"""
Tests of the backend's side over real sockets.
"""

from __future__ import annotations

import os
import select
import socket
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    SSL4ServerEndpoint,
    TCP4ServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.connector import Connector
from mailgate.backend.places import Places
from mailgate.backend.retry import RetrySettings
from mailgate.lean.reactor import LeanReactor
from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendTLS
from mailgate.protocols.pop3 import POP3
from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.terms import Terms
from mailgate.session import Phase, Session
from mailgate.test.backend.test_client import GREETING, OK
from mailgate.test.support.places import placesFor
from mailgate.test.support.tlspair import makePair
from mailgate.testing import FakeTransport, requestFor, resultOf, routeTo, settingsOf
from mailgate.testing.fakes import makeSession
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings


class EndingBackend(Protocol):
    """A POP3 backend that accepts any login and closes its side with the reply."""

    def connectionMade(self) -> None:
        self.heard: list[bytes] = []
        self.lost: Deferred[list[bytes]] = Deferred()
        self.transport.write(GREETING)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        if data.startswith((b"USER", b"PASS")):
            self.transport.write(OK)  # type: ignore[union-attr]
        if data.startswith(b"PASS"):
            self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.heard)


class BreakingBackend(EndingBackend):
    """A backend with TLS that ends its side on request, without a goodbye."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(OK)  # type: ignore[union-attr]

    def breakOff(self) -> None:
        """End this side of the connection under TLS."""
        self.transport.transport.loseWriteConnection()  # type: ignore[union-attr]


class LeftTransport(FakeTransport):
    """The client's transport. C{ended} fires when the backend's end of input is passed on to it."""

    def __init__(self) -> None:
        super().__init__()
        self._lenient = True
        self.ended: Deferred[None] = Deferred()

    def loseWriteConnection(self) -> None:
        self.ended.callback(None)

    def stopProducing(self) -> None:
        # As in Twisted's connections.
        self.loseConnection()


class SocketTests(TestCase):
    """A L{Connector} with a backend on a loopback socket."""

    timeout = 30

    async def relayed(self, backend: EndingBackend, contexts: Any = None) -> LeftTransport:
        """The client's side of a relay to C{backend}, with TLS by C{contexts} if given."""
        from twisted.internet import reactor

        factory = Factory.forProtocol(lambda: backend)
        factory.noisy = False
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        tls = BackendTLS.OFF
        if contexts is not None:
            endpoint = SSL4ServerEndpoint(reactor, 0, contexts, interface="127.0.0.1")
            tls = BackendTLS.IMPLICIT
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        session = makeSession("pop3", "", "", 0.0)
        connector = Connector(POP3.client, settingsOf("pop3"), "mx.test", reactor, Journal(), placesFor(reactor))
        route = routeTo(Backend("127.0.0.1", port.getHost().port, tls, False))
        client = await resultOf(connector.connect(route, requestFor("pop3"), session))
        assert isinstance(client, ProxyClient)
        client.detach()
        left = LeftTransport()
        left.connect(RelayedProtocol())
        left.registerProducer(left.protocol, True)
        relays = Relays(Clock())
        relay = relays.between(left.protocol, client, session, Terms(relays, 50.0, 50.0, lambda relay: None))
        relay.start(client.reply, b"")
        return left

    async def test_halfClose(self) -> None:
        """A backend that has closed its side still gets the client's bytes."""
        backend = EndingBackend()
        left = await self.relayed(backend)
        await left.ended
        self.assertEqual(left.value(), OK)
        left.protocol.dataReceived(b"QUIT\r\n")
        left.lose()
        self.assertEqual(await backend.lost, [b"USER joe\r\n", b"PASS sesame\r\n", b"QUIT\r\n"])

    async def test_brokenOffTLS(self) -> None:
        """A backend that ends TLS without a goodbye is lost, and that is no error of ours: TLS has no half-close."""
        folder = self.mktemp()
        os.mkdir(folder)
        pair = makePair(folder, "backend")
        backend = BreakingBackend()
        await self.relayed(backend, DefaultOpenSSLContextFactory(pair.key, pair.certificate))
        backend.breakOff()
        await backend.lost
        self.assertEqual(self.flushLoggedErrors(), [])


class SilentTests(TestCase):
    """The phase of a login at a backend that does not greet, when its deadline has passed."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"
    timeout = 30

    async def phases(self, backlog: int, isTimed: bool = False) -> list[Phase]:
        """
        The phases of the login.

        @param backlog: how many connections the backend's system accepts for it.
        @param isTimed: whether the session measures the times of its phases.
        """
        from twisted.internet import reactor

        bound = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.addCleanup(bound.close)
        address = bound.getsockname()
        if not backlog:
            self.addCleanup(socket.create_connection(address).close)
        entered: list[Phase] = []

        class Noted(Session):
            def enter(self, phase: Phase) -> None:
                entered.append(phase)
                super().enter(phase)

        readings = [time.monotonic, Phase.ACCEPT, 0.0] if isTimed else None
        session = makeSession("pop3", "", "", 0.0, kind=Noted, readings=readings)
        lean = LeanReactor(reactor)
        retry = RetrySettings(connectTimeout=0.3, causes=())
        places = Places(BackendTLSSettings(), None, BackendContexts, lean, retry)
        connector = Connector(POP3.client, settingsOf("pop3"), "mx.test", lean, Journal(), places)
        connecting = resultOf(connector.connect(routeTo(Backend(*address)), requestFor("pop3"), session))
        await deferLater(reactor, 0.1)
        self.waiting = list(entered)
        await connecting
        return entered

    async def test_accepted(self) -> None:
        """A backend that is connected and does not greet has reached the login."""
        self.assertEqual(await self.phases(1), [Phase.CONNECT, Phase.BACKEND_LOGIN])
        self.assertEqual(self.waiting, [Phase.CONNECT])

    async def test_full(self) -> None:
        """A backend whose system accepts no more connections has not."""
        self.assertEqual(await self.phases(0), [Phase.CONNECT])

    async def test_timed(self) -> None:
        """Where the phases are timed, the connect ends when it is done."""
        self.assertEqual(await self.phases(1, isTimed=True), [Phase.CONNECT, Phase.BACKEND_LOGIN])
        self.assertEqual(self.waiting, [Phase.CONNECT, Phase.BACKEND_LOGIN])
