# -*- test-case-name: mailgate.test.net.test_endpoints -*-
"""
Endpoints for backends and authentication services: addresses, unix sockets and host names. Host names are resolved in
the reactor's few threads, and a slow name server must not occupy all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
    ISSLTransport,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailgate.directives import isHostName

__all__ = ["MOST_LOOKUPS", "Begin", "SharedLookups", "beginning", "endpointFor", "makeNoDelay", "settle"]

MOST_LOOKUPS = 4
"""The most names that are resolved at a time. The reactor has ten threads, and password hashes need some of them."""


@implementer(IHostResolution)
class _Lookup:
    """A lookup in progress, and the receivers that wait for it. It cannot be cancelled, as threads cannot."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[IResolutionReceiver] = []

    def cancel(self) -> None:
        """Do nothing. The lookup goes on, and the receiver ignores its result."""


@implementer(IResolutionReceiver)
class _Answer:
    """Collects the addresses of a lookup, and passes them to all receivers that wait for it."""

    def __init__(self, lookups: dict[Any, _Lookup], key: Any) -> None:
        self._lookups = lookups
        self._key = key
        self._addresses: list[IAddress] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Do nothing; the receivers know already."""

    def addressResolved(self, address: IAddress) -> None:
        self._addresses.append(address)

    def resolutionComplete(self) -> None:
        for receiver in self._lookups.pop(self._key).waiting:
            for address in self._addresses:
                receiver.addressResolved(address)
            receiver.resolutionComplete()


@implementer(IHostnameResolver)
class SharedLookups:
    """
    Resolves a name only once at a time, however many logins wait for it, and at most L{MOST_LOOKUPS} names at a time.
    Beyond that it reports that a name has no address, and the login ends with a temporary failure.

    @param resolver: resolves the names.
    """

    def __init__(self, resolver: IHostnameResolver) -> None:
        self._resolver = resolver
        self._lookups: dict[Any, _Lookup] = {}

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        key = (hostName, portNumber, None if addressTypes is None else tuple(addressTypes), transportSemantics)
        lookup = self._lookups.get(key)
        begins = lookup is None
        if lookup is None:
            lookup = _Lookup(hostName)
            if len(self._lookups) >= MOST_LOOKUPS:
                resolutionReceiver.resolutionBegan(lookup)
                resolutionReceiver.resolutionComplete()
                return lookup
            self._lookups[key] = lookup
        lookup.waiting.append(resolutionReceiver)
        resolutionReceiver.resolutionBegan(lookup)
        if begins:
            answer = _Answer(self._lookups, key)
            try:
                self._resolver.resolveHostName(answer, hostName, portNumber, addressTypes, transportSemantics)
            except RuntimeError:
                # The system cannot start another thread. The next lookup may succeed.
                answer.resolutionComplete()
        return lookup


class _NameEndpoint(HostnameEndpoint):
    """
    An endpoint for any name that L{isHostName} accepts. Twisted rejects names that IDNA 2008 does not allow, such as
    those with an underscore, or with hyphens in third and fourth place. The system resolves them.
    """

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        if isinstance(host, str) and isHostName(host):
            return False, host.encode("ascii"), host
        return HostnameEndpoint._hostAsBytesAndText(host)


def endpointFor(reactor: Any, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
    """
    Return the endpoint for a server.

    Only host names get Twisted's endpoint that resolves names and tries several addresses, as it is expensive.

    @param reactor: the reactor. If it has a method C{leanEndpoint}, that makes the endpoints of addresses.
    @param host: an address without brackets, a host name, or C{unix:/path}.
    @param port: the port; ignored for a unix socket.
    @param timeout: seconds until a connection attempt fails; L{None} if the caller cancels it.
    """
    endpoint: IStreamClientEndpoint
    isAddress = host.startswith("unix:") or isIPAddress(host) or isIPv6Address(host)
    if isAddress and hasattr(reactor, "leanEndpoint"):
        endpoint = reactor.leanEndpoint(host, port, timeout)
    elif host.startswith("unix:"):
        endpoint = UNIXClientEndpoint(reactor, host.removeprefix("unix:"), timeout)
    elif isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, timeout)  # type: ignore[arg-type]
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, timeout)
    elif hasattr(reactor, "nameEndpoint"):
        endpoint = reactor.nameEndpoint(host, port, timeout)
    else:
        endpoint = _NameEndpoint(reactor, host, port, timeout)  # type: ignore[arg-type]
    return endpoint


class _Once(Factory):
    """A factory for one connection, with a given protocol."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


def makeNoDelay(transport: Any) -> None:
    """Set TCP_NODELAY on C{transport}, if it is TCP. With Nagle's algorithm a reply waits up to 40 ms for an ACK."""
    try:
        transport.setTcpNoDelay(True)
    except (AttributeError, OSError):
        # A unix socket has no such option, and the connection may be closed already.
        return


def _prepare(protocol: Any) -> None:
    """
    Make the connection of one of Twisted's endpoints like those of the gateway's own. Twisted's wrapper declares only
    the last of the protocol's interfaces; declare IHalfCloseableProtocol again (not under TLS, which has no
    half-closes).
    """
    transport = protocol.transport
    makeNoDelay(transport)
    if (
        transport.protocol is not protocol
        and IHalfCloseableProtocol.providedBy(protocol)
        and not ISSLTransport.providedBy(transport)
    ):
        alsoProvides(transport.protocol, IHalfCloseableProtocol)


def begin(
    endpoint: IStreamClientEndpoint, protocol: Any, failed: Callable[[Failure], object], isGreeted: bool = False
) -> Any:
    """
    Connect a protocol to an endpoint of Twisted, with TCP_NODELAY. On success, only C{makeConnection} of the protocol
    is called.

    @param endpoint: the endpoint.
    @param protocol: the protocol.
    @param failed: called with the failure if the attempt fails or is cancelled.
    @param isGreeted: whether C{makeConnection} may come as late as the peer's first bytes. That costs less where the
        peer speaks first. L{settle} finds out earlier whether there is a connection.
    @return: an object with a method C{cancel}, which gives up the attempt.
    """
    connecting = endpoint.connect(_Once(protocol))
    connecting.addCallbacks(_prepare, failed)
    return connecting


Begin: TypeAlias = Callable[[Any, Callable[[Failure], object], bool], Any]
"""L{begin} without its first argument."""


def beginning(endpoint: IStreamClientEndpoint) -> Begin:
    """
    Return what connects protocols to an endpoint: its own method C{begin}, which needs no Deferred and no factory, if
    it has one, otherwise L{begin}.

    @param endpoint: the endpoint.
    """
    own: Begin | None = getattr(endpoint, "begin", None)
    return partial(begin, endpoint) if own is None else own


def settle(connecting: Any) -> None:
    """
    Call C{makeConnection} now if the connection exists already, and the protocol only waits for the peer's first bytes.

    @param connecting: what L{begin} returned.
    """
    settled = getattr(connecting, "settle", None)
    if settled is not None:
        settled()
