# -*- test-case-name: mailgate.test.net.test_endpoints -*-
"""
Where backends and authentication services are: addresses, unix sockets, and host names, which are looked up in the
reactor's few threads, and which a slow name server must not take from everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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

__all__ = ["MOST_LOOKUPS", "SharedLookups", "begin", "endpointFor"]

MOST_LOOKUPS = 4
"""Names that are looked up at once: the reactor has ten threads, and hashes of passwords need some."""


@implementer(IHostResolution)
class _Lookup:
    """One lookup that is under way, and all who wait for it. A thread cannot be cancelled, so neither can this."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: list[IResolutionReceiver] = []

    def cancel(self) -> None:
        """The lookup goes on; whoever has cancelled does not listen any more."""


@implementer(IResolutionReceiver)
class _Answer:
    """Gathers the addresses of a lookup, and gives them to everyone who waits for it."""

    def __init__(self, lookups: dict[Any, _Lookup], key: Any) -> None:
        self._lookups = lookups
        self._key = key
        self._addresses: list[IAddress] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Those who wait have been told."""

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
    C{resolver}, asked once for a name however many wait for it, and for no more than L{MOST_LOOKUPS} names at a time:
    beyond that a name has no address, which its login takes for a temporary failure.
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
                # The system has no thread left for it. The next lookup may get one.
                answer.resolutionComplete()
        return lookup


class _NameEndpoint(HostnameEndpoint):
    """
    Where a name leads, be it any of L{isHostName}: the system looks up what Twisted takes for no name, as IDNA 2008 has
    none with an underscore, or with hyphens in third and fourth place.
    """

    @staticmethod
    def _hostAsBytesAndText(host: bytes | str) -> tuple[bool, bytes, str]:
        if isinstance(host, str) and isHostName(host):
            return False, host.encode("ascii"), host
        return HostnameEndpoint._hostAsBytesAndText(host)


def endpointFor(reactor: Any, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
    """
    Where C{host} is: an address without brackets, a name, or C{unix:/path}. C{timeout} is in seconds; L{None} is for
    those who cancel when it takes too long.

    Only a name needs the endpoint that looks names up, tries several addresses, and costs accordingly.
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
    """Gives C{protocol} to one connection."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


def _passHalfCloses(protocol: Any) -> None:
    """
    Twisted's endpoint wrapper declares only the last of the protocol's interfaces; declare IHalfCloseableProtocol again
    (not under TLS, which has no half-closes).
    """
    transport = protocol.transport
    if (
        transport.protocol is not protocol
        and IHalfCloseableProtocol.providedBy(protocol)
        and not ISSLTransport.providedBy(transport)
    ):
        alsoProvides(transport.protocol, IHalfCloseableProtocol)


def begin(endpoint: IStreamClientEndpoint, protocol: Any, failed: Callable[[Failure], object]) -> Any:
    """
    Connect C{protocol} to C{endpoint}. If that succeeds, the protocol's C{makeConnection} is all that is called.

    An endpoint that has such a method itself is connected to by that, without a Deferred and a factory.

    @param failed: called with the failure if no connection comes about.
    @return: what has a method C{cancel}, which gives up; C{failed} is called then, too.
    """
    direct = getattr(endpoint, "begin", None)
    if direct is not None:
        return direct(protocol, failed)
    connecting = endpoint.connect(_Once(protocol))
    connecting.addCallbacks(_passHalfCloses, failed)
    return connecting
