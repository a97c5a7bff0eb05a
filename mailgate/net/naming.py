# -*- test-case-name: mailgate.test.net.test_endpoints -*-
"""
The reactor of a gateway's connections to backends and services: it finds host names by L{CachedNames}.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver, IStreamClientEndpoint
from zope.interface import implementer

from mailgate.net.endpoints import SharedLookups, endpointFor
from mailgate.net.names import CachedNames, SystemNames
from mailgate.net.racing import RacingEndpoint

__all__ = ["NamingReactor"]


@implementer(IReactorPluggableNameResolver)
class NamingReactor:
    """
    A reactor that caches host names.

    @param reactor: the reactor. All its other attributes are passed through.
    @param names: resolves names; L{None} for the system's resolver.
    @ivar names: resolves names.
    """

    def __init__(self, reactor: Any, names: CachedNames | None = None) -> None:
        self._reactor = reactor
        # Those that a login needs, without a detour.
        self.seconds = reactor.seconds
        self.callLater = reactor.callLater
        self.nameResolver = SharedLookups(reactor.nameResolver)
        self.names = CachedNames(SystemNames(self.nameResolver), reactor) if names is None else names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def nameEndpoint(self, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
        """
        Return the endpoint of C{port} at the host name C{host}.

        @param timeout: seconds for a connection, or L{None} if the caller cancels it.
        """
        address = partial(endpointFor, self._reactor, port=port, timeout=timeout)
        return RacingEndpoint(self.names, address, self._reactor, host, timeout)

    def findingBy(self, names: CachedNames) -> NamingReactor:
        """The same, with C{names} to find names."""
        return NamingReactor(self._reactor, names)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Install C{resolver} in the wrapped reactor. This object keeps its own names."""
        installed: IHostnameResolver = self._reactor.installNameResolver(resolver)
        return installed
