# -*- test-case-name: mailgate.test.test_listener -*-
"""
Where clients arrive: the factory of a server's dialogues, and the sockets they come in by.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Set
from itertools import count
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory

from mailgate.client import Connector, ProxySettings
from mailgate.dialogue import DialogueSettings, MailProtocol
from mailgate.directives import (
    ConfigurationError,
    Level,
    ListenAddress,
    ServerSettings,
    directive,
    flag,
    hostPort,
    lines,
    nearest,
    text,
)
from mailgate.interfaces import IAuthenticator
from mailgate.journal import Journal
from mailgate.login import Fact
from mailgate.relay import Relays
from mailgate.session import STORY
from mailgate.tls import ServerTLS, TLSSettings

__all__ = ["ListenError", "ListenSettings", "Listener", "ProxyServerFactory", "sessionNameSource"]


def _listen(value: str, folder: str) -> tuple[ListenAddress, ...]:
    found: list[ListenAddress] = []
    for item in lines(value, folder):
        address, *parameters = item.split()
        for parameter in parameters:
            if parameter != "ssl":
                raise ValueError(f'"{item}": invalid parameter "{parameter}"{nearest(parameter, ["ssl"])}')
        try:
            places = [place for single in _singlePorts(address) for place in _places(single)]
        except ValueError as error:
            raise ValueError(f'"{item}": {error}') from None
        found.extend(ListenAddress(host, port, bool(parameters), address) for host, port in places)
    return tuple(found)


def _singlePorts(address: str) -> Iterator[str]:
    """C{address}, or one for each port of a range such as C{127.0.0.1:1000-1003}."""
    ports = re.fullmatch(r"((?:.*:)?)([0-9]{1,5})-([0-9]{1,5})", address)
    if ports is None or address.startswith("unix:"):
        yield address
        return
    host, first, last = ports[1], int(ports[2]), int(ports[3])
    if not first <= last:
        raise ValueError("the range of ports is empty")
    for port in range(first, last + 1):
        yield f"{host}{port}"


def _places(address: str) -> list[tuple[str, int]]:
    """nginx's address forms as hosts and ports; a host name stands for all its addresses."""
    if address.isdigit():
        address = f"*:{address}"
    if address.startswith("*:"):
        return [("0.0.0.0", hostPort(f"0.0.0.0{address[1:]}")[1])]
    host, port = hostPort(address)
    if host.startswith("unix:") or isIPAddress(host) or isIPv6Address(host):
        return [(host, port)]
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ValueError("host not found") from None
    return list(dict.fromkeys((str(address[0]), port) for *_, address in resolved))


@frozen
class ListenSettings:
    """
    nginx's C{listen} and C{protocol}, and C{ssl}, which nginx had until 1.25: all of a server's addresses speak TLS
    from the first byte.
    """

    addresses: tuple[ListenAddress, ...] = directive("listen", _listen, (), Level.SERVER)
    protocol: str | None = directive("protocol", text, None, Level.SERVER)
    ssl: bool = directive("ssl", flag, False)


def sessionNameSource(randomness: Callable[[int], bytes]) -> Iterator[str]:
    """Names for connections, no two the same: eight random digits, the same for all of them, and a number."""
    start = randomness(4).hex()
    return (f"{start}-{number}" for number in count(1))


BACKLOG = 511
"""nginx's on Linux."""


class ProxyServerFactory(Factory):
    """
    Makes the dialogues of one listening address of one server.

    C{randomness(n)} gives n random bytes, C{relays} is for those who have logged in. C{connections} are those that have
    not ended: dialogues and relays. C{facts} are those that somebody wants to know of each connection, and
    C{sessionNames} the names for L{Fact.SESSION}.
    """

    noisy = False

    def __init__(
        self,
        record: MailProtocol,
        settings: ServerSettings,
        address: ListenAddress,
        authenticator: IAuthenticator,
        connector: Connector,
        clock: Any,
        journal: Journal,
        tls: ServerTLS | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        relays: Relays | None = None,
        facts: Set[Fact] = frozenset(),
        sessionNames: Iterator[str] | None = None,
    ) -> None:
        self.record = record
        self.settings = settings
        self.address = address
        self.name = str(address)
        self.authenticator = authenticator
        self.connector = connector
        self.clock = clock
        self.journal = journal
        self.tls = tls
        self.randomness = randomness
        # Looked up once: a dialogue asks for them again and again.
        self.protocolSettings: Any = settings[record.settings]
        self.dialogue = settings[DialogueSettings]
        self.starttls = settings[TLSSettings].starttls
        self.verifiesClients = settings[TLSSettings].verifiesClients
        self.relayTimeout = settings[ProxySettings].timeout
        self.relays = Relays(clock) if relays is None else relays
        self.tellsLocal = Fact.LOCAL in facts
        self.tellsDetails = Fact.DETAILS in facts
        self.tellsSession = Fact.SESSION in facts
        self.sessionNames = sessionNameSource(randomness) if sessionNames is None else sessionNames
        self.connections: set[Any] = set()
        self.relayEnded: Callable[[Any], None] = self.ended
        """L{ended}, once and for all: each look at a method makes an object, and each relay would keep one."""

    def buildProtocol(self, addr: Any) -> Any:
        return self.record.server(self)

    def ended(self, connection: Any) -> None:
        """Forget C{connection}, and tell its story."""
        self.connections.discard(connection)
        if self.journal.wantsInfo:
            self.journal.info(STORY, **connection.session.story(self.clock.seconds()))


class ListenError(ConfigurationError):
    """An address cannot be listened on: it is taken, not of this host, or needs more rights."""


class Listener(Service):
    """
    One listening socket, bound when the service starts with the right privileges. C{port} is Twisted's, once bound.
    """

    port: IListeningPort | None = None

    def __init__(self, address: ListenAddress, factory: ProxyServerFactory, reactor: Any) -> None:
        self.address = address
        self.factory = factory
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """
        Bind.

        @raise ListenError: the address cannot be bound.
        """
        if self.port is not None:
            return
        try:
            bound = _bind(self.address)
        except OSError as error:
            # Not strerror, which create_server() makes longer by the address.
            reason = f"cannot be bound: {os.strerror(error.errno) if error.errno else error}"
            raise ListenError([self.factory.settings.problem("listen", reason, str(self.address))]) from None
        bound.setblocking(False)
        try:
            self.port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, self.factory)
        finally:
            bound.close()

    def startService(self) -> None:
        # `twist` starts services without ever calling privilegedStartService.
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        port, self.port = self.port, None
        if port is None:
            return maybeDeferred(lambda: None)
        # Twisted removes a unix socket's file, unless somebody else has.
        return maybeDeferred(port.stopListening).addErrback(lambda failure: failure.trap(FileNotFoundError) and None)


def _bind(address: ListenAddress) -> socket.socket:
    if address.host.startswith("unix:"):
        return _bindUNIX(address.host.removeprefix("unix:"))
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # As nginx's ipv6only=on: [::] and 0.0.0.0 can be listened on side by side.
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG, dualstack_ipv6=False)


def _bindUNIX(path: str) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX)
    try:
        try:
            bound.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _isStale(path):
                raise
            os.unlink(path)
            bound.bind(path)
        os.chmod(path, 0o666)
        bound.listen(BACKLOG)
    except BaseException:
        bound.close()
        raise
    return bound


def _isStale(path: str) -> bool:
    """Whether C{path} is a socket that was left behind by a gateway that was killed, and nothing else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == errno.ECONNREFUSED
