# -*- test-case-name: mailgate.test.backend.test_uses -*-
"""
How the servers of a configuration speak to backends. Gateways use it for logins, and the process that does the health
checks uses it for these.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from mailgate.backend.client import ProxyClient
from mailgate.backend.places import Places
from mailgate.backend.probing import Use
from mailgate.backend.retry import RetrySettings
from mailgate.directives import ServerSettings
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["Uses"]


class Uses:
    """
    The L{Use}s of one configuration. Servers and groups with the same directives share their TLS contexts.

    @param upstreams: the groups of backends.
    @param reactor: what connections are made by.
    @ivar all: the uses, in the order in which they were added.
    """

    def __init__(self, upstreams: Upstreams, reactor: Any) -> None:
        self.all: list[Use] = []
        self._upstreams = upstreams
        self._reactor = reactor
        self._contexts: dict[tuple[str, BackendTLSSettings], BackendContexts] = {}

    def add(
        self,
        server: ServerSettings,
        client: type[ProxyClient],
        alpn: str,
        ports: tuple[int, ...],
        serverName: str,
        timeout: float | None,
    ) -> Use:
        """
        Add a server. This reads the keys and certificates that connections to its backends need.

        @param server: its directives.
        @param client: the class of conversations with backends.
        @param alpn: what its protocol is called in ALPN.
        @param ports: the well-known ports of its protocol.
        @param serverName: the gateway's host name (C{server_name}).
        @param timeout: C{timeout} of the server in seconds, if it is in the configuration; L{None} otherwise.
        @return: how it speaks to backends.
        """
        places = Places(
            server[BackendTLSSettings],
            self._upstreams,
            partial(self._contextsOf, alpn),
            self._reactor,
            server[RetrySettings].within(timeout),
        )
        use = Use(server, client, places, serverName, ports)
        self.all.append(use)
        return use

    def _contextsOf(self, alpn: str, settings: BackendTLSSettings) -> BackendContexts:
        made = self._contexts.get((alpn, settings))
        if made is None:
            made = self._contexts[alpn, settings] = BackendContexts(settings, alpn)
        return made
