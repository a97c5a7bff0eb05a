# -*- test-case-name: mailgate.test.test_testing -*-
"""
A client's connection to a gateway, without sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher, formatEvent

from mailgate.directives import ListenAddress
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IAuthenticator, IWatch
from mailgate.log.journal import Journal
from mailgate.login import LoginRequest, Trouble
from mailgate.session import Outcome
from mailgate.testing.fakes import CLIENT, CheckedSession, FakeAuthenticator, FakeConnector, FakeTransport, settingsOf
from mailgate.tls.settings import TLSSettings

__all__ = ["Conversation", "hearEverything"]


class Conversation:
    """
    The connection of a client to a gateway, over a L{FakeTransport}. The clock starts at 1000 seconds, and random
    numbers are always 7.

    @param record: the protocol, such as L{mailgate.protocols.imap4.IMAP4}.
    @param groups: instances of settings classes that differ from the defaults.
    @param authenticator: judges logins; by default a L{FakeAuthenticator}.
    @param connector: connects to backends; by default a L{FakeConnector}.
    @param ssl: whether the client connected to a TLS port. Nothing is encrypted.
    @param peer: the client's address.
    @param level: the lowest level of log events that are kept in C{events}.
    @param reverseDNS: looks up the client's name, as for L{Means}.
    @param proxyProtocol: whether the client must begin with a PROXY header.
    @param means: more arguments for L{Means}.
    @cvar watch: follows the connection, as for L{Means}. A subclass may set it.
    @ivar transport: the client's connection.
    @ivar clock: the clock of the gateway; advance it to let time pass.
    @ivar events: the log events.
    """

    watch: IWatch | None = None

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
        **means: Any,
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
                watch=self.watch,
                isOutside=True,
                **means,
            ),
        )
        self.transport = FakeTransport(peer)
        self.transport.connect(self.factory.buildProtocol(peer))

    @property
    def server(self) -> Any:
        """The protocol that handles the connection at present."""
        return self.transport.protocol

    @property
    def requests(self) -> list[LoginRequest]:
        """The logins that the L{FakeAuthenticator} received."""
        asked: list[LoginRequest] = self.authenticator.requests
        return asked

    @property
    def closed(self) -> bool:
        """Whether the gateway has closed the connection."""
        return bool(self.transport.disconnecting)

    def send(self, data: bytes) -> bytes:
        """
        Send bytes as the client.

        @param data: the bytes.
        @return: the bytes that the gateway sends in return.
        """
        self.hear()
        self.server.dataReceived(data)
        return self.hear()

    def says(self, *lines: bytes) -> bytes:
        """
        Send lines as the client.

        @param lines: the lines, without their ends.
        @return: the bytes that the gateway sends in return.
        """
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def hear(self) -> bytes:
        """Return the bytes that the client received since the last call."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def dismiss(self) -> None:
        """Stop the gateway."""
        self.server.dismiss(Outcome.STOPPED, Trouble.STOPPING)

    def logged(self) -> list[str]:
        """Return the text of each log event."""
        return [formatEvent(event) for event in self.events]


def hearEverything(make: Callable[[], Conversation], *chunks: bytes) -> bytes:
    """
    Play a whole connection.

    @param make: returns a new conversation.
    @param chunks: pieces of bytes that the client sends one after the other.
    @return: all bytes that the client receives, including the greeting.
    """
    conversation = make()
    heard = conversation.hear()
    for chunk in chunks:
        heard += conversation.send(chunk)
    return heard
