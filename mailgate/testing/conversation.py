# -*- test-case-name: mailgate.test.test_testing -*-
"""
A client's conversation with a gateway, by bytes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher, formatEvent

from mailgate.directives import ListenAddress
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import LoginRequest, Trouble
from mailgate.session import Outcome
from mailgate.testing.fakes import CLIENT, CheckedSession, FakeAuthenticator, FakeConnector, FakeTransport, settingsOf
from mailgate.tls.settings import TLSSettings

__all__ = ["Conversation", "hearEverything"]


class Conversation:
    """
    A dialogue over a L{FakeTransport}, whose clock stands at 1000 seconds and whose random number is 7.

    @param record: what is spoken, such as L{mailgate.protocols.imap4.IMAP4}.
    @param groups: instances of settings classes that are not as by default.
    @param authenticator: what judges logins; a L{FakeAuthenticator} where there is none.
    @param connector: what connects to backends; a L{FakeConnector} where there is none.
    @param ssl: whether the client has come to a port of TLS. No byte is encrypted.
    @param peer: the client's address.
    @param level: what is logged, to C{events}.
    @param proxyProtocol: whether the client has to begin with a PROXY header.
    @ivar transport: the client's connection.
    @ivar clock: the dialogue's clock, to be advanced.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        authenticator: IAuthenticator | None = None,
        connector: FakeConnector | None = None,
        ssl: bool = False,
        peer: Any = CLIENT,
        level: LogLevel = LogLevel.info,
        reverseDNS: Any = None,
        proxyProtocol: bool = False,
    ) -> None:
        self.settings = settingsOf(record.name, *groups)
        self.authenticator: Any = authenticator or FakeAuthenticator()
        self.connector = connector or FakeConnector()
        self.clock = Clock()
        self.clock.advance(1000)
        self.events: list[dict[str, Any]] = []
        usesTLS = ssl or self.settings[TLSSettings].starttls != "off"
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.factory = ProxyServerFactory(
            record,
            self.settings,
            ListenAddress("127.0.0.1", 143, ssl, proxyProtocol=proxyProtocol),
            Means(
                self.authenticator,
                self.connector,
                self.clock,
                Journal(level, publisher),
                "the TLS context" if usesTLS else None,  # type: ignore[arg-type]
                randomness=lambda n: (7).to_bytes(n, "big"),
                reverseDNS=reverseDNS,
                makeSession=CheckedSession,
            ),
        )
        self.transport = FakeTransport(peer)
        self.transport.connect(self.factory.buildProtocol(peer))

    @property
    def server(self) -> Any:
        """Who has the connection."""
        return self.transport.protocol

    @property
    def requests(self) -> list[LoginRequest]:
        """What the L{FakeAuthenticator} was asked."""
        asked: list[LoginRequest] = self.authenticator.requests
        return asked

    @property
    def closed(self) -> bool:
        """Whether the gateway has ended the connection."""
        return bool(self.transport.disconnecting)

    def send(self, data: bytes) -> bytes:
        """The client sends C{data}; gives what it hears then."""
        self.hear()
        self.server.dataReceived(data)
        return self.hear()

    def says(self, *lines: bytes) -> bytes:
        """The client sends C{lines}; gives what it hears then."""
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def hear(self) -> bytes:
        """What the client has heard since it last asked."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def dismiss(self) -> None:
        """The gateway goes down."""
        self.server.dismiss(Outcome.STOPPED, Trouble.STOPPING)

    def logged(self) -> list[str]:
        """The log, a text for each event."""
        return [formatEvent(event) for event in self.events]


def hearEverything(make: Callable[[], Conversation], *chunks: bytes) -> bytes:
    """All that a client of the conversation that C{make} begins hears, if it sends C{chunks}."""
    conversation = make()
    heard = conversation.hear()
    for chunk in chunks:
        heard += conversation.send(chunk)
    return heard
