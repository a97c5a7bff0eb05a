# -*- test-case-name: mailgate.test.frontend.test_realip -*-
"""
Serves clients behind a load balancer: reads the PROXY header before a dialogue and checks that its sender may send one
(nginx's mail realip module).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import field, frozen
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.directives import Problem, ServerSettings, directive, isHostName, lines
from mailgate.directives.needs import Need
from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.findings import peerOf
from mailgate.interfaces import IConnection
from mailgate.lean.transport import StreamTransport
from mailgate.limits.settings import LimitSettings
from mailgate.log.connection import BAD_HEADER, HEADER_READ, UNTOLD_HEADER, about, peerName
from mailgate.log.journal import printable
from mailgate.login import Trouble
from mailgate.net.networks import Network, isWithin, parseNetwork
from mailgate.net.proxyprotocol import Header, HeaderError, HeaderParser
from mailgate.session import Outcome, Phase, Session

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["HeaderReader", "RealIPSettings", "Senders", "sendersOf"]


@frozen
class Senders:
    """
    The clients that may send PROXY headers, or others that a directive lists.

    @ivar networks: their networks.
    @ivar unix: whether clients of a unix socket are among them.
    @ivar careless: networks with host bits set, such as C{10.0.0.1/8}, as they were written.
    """

    networks: tuple[Network, ...] = ()
    unix: bool = False
    careless: tuple[str, ...] = field(default=(), eq=False)

    def __contains__(self, host: str) -> bool:
        """Return whether C{host}, in the form of L{mailgate.login.Client}, is one of them."""
        return self.unix if host == "unix:" else isWithin(host, self.networks)


def _networks(item: str) -> tuple[Network, ...]:
    """Return the networks for C{item}: one network, or all addresses of a host name."""
    try:
        return (parseNetwork(item),)
    except ValueError:
        if not isHostName(item):
            raise ValueError(
                f'"{item}" is not an address, a network such as 10.0.0.0/8, a host name or unix:'
            ) from None
    try:
        resolved = socket.getaddrinfo(item, None, type=socket.SOCK_STREAM)
    except OSError:
        raise ValueError(f'host not found in "{item}"') from None
    # A link-local address has its interface behind "%".
    addresses = dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in resolved)
    return tuple(map(ip_network, addresses))


def _senders(value: str, folder: str) -> Senders:
    return sendersOf(lines(value, folder))


def sendersOf(items: Sequence[str]) -> Senders:
    """
    Parse a list of clients.

    @param items: each C{ADDRESS}, C{ADDRESS/BITS}, a host name, which is looked up now, or C{unix:}.
    @raise ValueError: an item is malformed, or its name is not found.
    """
    networks: list[Network] = []
    careless = []
    for item in items:
        if item != "unix:":
            networks.extend(_networks(item))
            if "/" in item and int(ip_address(item.partition("/")[0])) & int(ip_network(item, False).hostmask):
                careless.append(item)
    return Senders(tuple(networks), "unix:" in items, tuple(careless))


_HEADERS = Need('"proxy_protocol" in listen', lambda server: any(at.proxyProtocol for at in server.listen))


@frozen
class RealIPSettings:
    """nginx's C{set_real_ip_from}: one C{ADDRESS}, C{ADDRESS/BITS}, host name or C{unix:} a line."""

    needs: ClassVar[tuple[Need, ...]] = (_HEADERS,)

    senders: Senders | None = directive("set_real_ip_from", _senders, None)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """
        Yield the warnings about C{server}: host bits in a network, or clients that share the load balancer's address.
        """
        if self.senders is None:
            yield from self._indistinct(server)
            return
        for item in self.senders.careless:
            yield server.problem("set_real_ip_from", f"low address bits of {item} are meaningless")

    def _indistinct(self, server: ServerSettings) -> Iterator[Problem]:
        limits = server[LimitSettings]
        isCounted = limits.isAnyOn or not _QUEUED.isdisjoint(server.given)
        if isCounted and not limits.exempt.isGiven and any(address.proxyProtocol for address in server.listen):
            message = (
                "is missing: limits and queues take all clients behind the load balancer for one client; list its"
                " address here or in limit_exempt"
            )
            yield server.problem("set_real_ip_from", message)


_QUEUED = frozenset(("auth_http", "auth_file"))
"""The directives under which logins queue by client address."""


def _deliver(transport: Any, data: bytes) -> None:
    """Pass on C{data} that was read behind the PROXY header: to TLS if it has begun, otherwise to the dialogue."""
    if isinstance(transport, StreamTransport) and transport.tls is not None:
        transport.tls.received(data)
    elif transport.protocol is not None:
        # Twisted's transports put TLS in the place of the protocol.
        transport.protocol.dataReceived(data)


@implementer(IConnection)
class HeaderReader(Protocol):
    """
    Reads the PROXY header of a connection and then hands the connection over to a dialogue, which starts only then.

    With C{senders}, headers of other clients are refused, and the header names the client. Without, the peer stays the
    client, and the header's addresses are only recorded (C{proxied} of L{mailgate.login.Client}).
    """

    transport: Any

    def __init__(self, server: ProxyServer, senders: Senders | None) -> None:
        """
        @param server: the dialogue.
        @param senders: the clients that may send a header (C{set_real_ip_from}), or L{None}.
        """
        self._server = server
        self._senders = senders
        self._parser = HeaderParser()
        self._factory: ProxyServerFactory = server.factory
        self._deadline: Any = None
        self._due = 0.0

    @property
    def session(self) -> Session:
        """The session, which is the session of the dialogue that follows."""
        return self._server.session

    def connectionMade(self) -> None:
        factory = self._factory
        host, port = peerOf(self.transport)
        self._server.arrive(host, port, factory.clock.seconds())
        factory.began(self)
        self.session.enter(Phase.PROXY_HEADER)
        if self._senders is not None and host not in self._senders:
            self._refuse(UNTOLD_HEADER)
            return
        self._due = self.session.started + factory.dialogue.timeout
        self._deadline = factory.clock.callLater(factory.dialogue.timeout, self._expired)

    def dataReceived(self, data: bytes) -> None:
        if self.session.outcome is not None:
            return
        try:
            header = self._parser.feed(data)
        except HeaderError as error:
            self._refuse(BAD_HEADER, reason=str(error), header=printable(self._parser.shown))
            return
        if header is not None:
            self._handOver(header)

    def _handOver(self, header: Header) -> None:
        """Start the dialogue."""
        self._stopWaiting()
        server, transport, addresses = self._server, self.transport, header.addresses
        if addresses is not None:
            host, port = peerOf(transport)
            if self._senders is not None:
                host, port = addresses.source, addresses.sourcePort
            server.arriveBehind(addresses, host, port)
        if self.session.debugging is not None:
            self._logHeader(header)
        self._factory.handedOver(self)
        transport.protocol = server
        server.makeConnection(transport)
        if header.rest and transport.connected:
            _deliver(transport, header.rest)

    def _logHeader(self, header: Header) -> None:
        addresses, source, destination = header.addresses, "-", "-"
        if addresses is not None:
            source = peerName(addresses.source, addresses.sourcePort)
            destination = peerName(addresses.destination, addresses.destinationPort)
        sender = peerName(*peerOf(self.transport))
        self.session.step(HEADER_READ, sender=sender, source=source, destination=destination)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopWaiting()
        self.session.conclude(Outcome.CLIENT_LEFT if self._parser.shown else Outcome.SILENT)
        self.session.end()
        self._factory.ended(self)

    def _expired(self) -> None:
        isOver = self.session.hasExpired(self._factory.clock.seconds())
        self._end(Outcome.EXPIRED if isOver else Outcome.TIMEOUT)

    def _refuse(self, format: str, **fields: str) -> None:
        # A warning, although any client can cause it: it shows the operator which sender set_real_ip_from lacks.
        journal = self.session.debugging or self._factory.journal
        journal.warn(format, **about(self.session), **fields)
        self._end(Outcome.BAD_HEADER)

    def _end(self, outcome: Outcome) -> None:
        """Close without a goodbye: the client is not known yet."""
        self._stopWaiting()
        self.session.conclude(outcome)
        self.transport.loseConnection()

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self._end(outcome)

    def limit(self, moment: float | None) -> None:
        self.session.expires = moment
        if self._deadline is not None and self._deadline.active():
            due = self._due if moment is None else min(self._due, moment)
            self._deadline.reset(max(0.0, due - self._factory.clock.seconds()))

    def stop(self) -> None:
        self._end(Outcome.STOPPED)
        self.transport.abortConnection()

    def _stopWaiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
