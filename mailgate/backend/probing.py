# -*- test-case-name: mailgate.test.backend.test_probing -*-
"""
One health check of a server: as which protocol and with which directives it is done, and what it finds.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve, field, frozen
from twisted.internet.error import ConnectError

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.errors import BackendError, reasonOf
from mailgate.backend.place import Place
from mailgate.backend.places import Places
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings
from mailgate.log.journal import printable
from mailgate.login import BackendGroup
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.group import Upstream
from mailgate.upstream.healthcheck import HealthCheck
from mailgate.upstream.peer import Peer
from mailgate.upstream.settings import UpstreamSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["UNKNOWN_PROTOCOL", "Finding", "Use", "checkedAs", "findingOf", "useOf", "usersOf"]

UNKNOWN_PROTOCOL = "does nothing: it is not known which protocol the servers speak; add protocol=NAME"

_OUR_OWN = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL))
"""Errors of a connect that the gateway's own system causes."""


@frozen(eq=False)
class Use:
    """
    How the sessions of one C{[server]} speak to backends. A check does the same.

    @ivar server: its directives.
    @ivar client: the class of conversations with backends.
    @ivar places: finds out how to connect.
    @ivar serverName: the gateway's host name (C{server_name}).
    @ivar ports: the well-known ports of the protocol.
    """

    server: ServerSettings
    client: type[ProxyClient]
    places: Places
    serverName: str
    ports: tuple[int, ...] = ()

    def placeOf(self, peer: Peer, group: Upstream, check: HealthCheck) -> Place:
        """
        Where a check connects to.

        @param peer: the server.
        @param group: its group.
        @param check: how it is checked.
        """
        if check.port:
            peer = Peer(evolve(peer.backend, port=check.port), peer.server, peer.limits)
        return self.places.at(peer, group)

    def clientFor(self, place: Place) -> ProxyClient:
        """
        Return a new conversation.

        @param place: where to.
        """
        client = self.client(Caller(self.server, self.serverName), place)
        client.logsIn = self.server[ProxySettings].method != "none"
        return client

    def fingerprint(self, upstreams: Upstreams, group: Upstream, peer: Peer) -> str:
        """
        Identify how a server is checked. What an earlier configuration has found in another way does not count.

        @param upstreams: the groups.
        @param group: the group of the server.
        @param peer: the server.
        """
        tls = upstreams.directivesOf(group, self.server[BackendTLSSettings])
        settings = group.settings
        parts = (
            settings.healthCheck,
            settings.healthCheckTimeout,
            self.server.protocol,
            self.server[ProxySettings].proxyProtocol,
            peer.backend,
            tls,
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def useOf(group: Upstream, uses: Sequence[Use], upstreams: Upstreams) -> Use | None:
    """
    Return as which server the servers of C{group} are checked, as L{checkedAs} decides.

    @param group: the group.
    @param uses: all servers, in the order of the configuration.
    @param upstreams: the groups.
    @return: L{None} if the protocol is not known.
    """
    ports = {use.server.protocol: use.ports for use in uses}
    server = checkedAs(group.name, group.settings, [use.server for use in uses], ports, upstreams.mayUse)
    return next((use for use in uses if use.server is server), None)


def checkedAs(
    name: str,
    settings: UpstreamSettings,
    servers: Sequence[ServerSettings],
    ports: Mapping[str, Sequence[int]],
    mayUse: Callable[[BackendGroup, str], frozenset[str] | None],
) -> ServerSettings | None:
    """
    Return as which server the servers of a group are checked: the first one in the configuration whose C{proxy_pass}
    may lead there. If there is none, as the authentication service or the rules choose the group, the first one whose
    protocol has the port of the group's servers; or any one, if all have the same protocol.

    @param name: the name of the group.
    @param settings: its directives.
    @param servers: all servers, in the order of the configuration.
    @param ports: the well-known ports of each protocol.
    @param mayUse: returns the groups and addresses that a C{proxy_pass} may stand for in logins of a protocol
        (L{Upstreams.mayUse<mailgate.upstream.upstreams.Upstreams.mayUse>}).
    @return: L{None} if the protocol is not known.
    """
    check = settings.healthCheck or HealthCheck()
    servers = [server for server in servers if check.protocol in ("", server.protocol)]
    for server in usersOf(name, servers, mayUse):
        return server
    used = {check.port or line.port for line in settings.servers}
    for server in servers:
        if not used.isdisjoint(ports[server.protocol]):
            return server
    return servers[0] if len({server.protocol for server in servers}) == 1 else None


def usersOf(
    name: str,
    servers: Sequence[ServerSettings],
    mayUse: Callable[[BackendGroup, str], frozenset[str] | None],
) -> Iterator[ServerSettings]:
    """
    Yield the servers whose C{proxy_pass} may lead to a group, in their order.

    @param name: the name of the group.
    @param servers: all servers, in the order of the configuration.
    @param mayUse: as for L{checkedAs}.
    """
    for server in servers:
        text = server[ProxySettings].backend
        possible = mayUse(text, server.protocol) if isinstance(text, BackendGroup) else None
        if possible is not None and name.lower() in possible:
            yield server


@frozen
class Finding:
    """
    What one check has found.

    @ivar passed: whether the server works; L{None} if the check does not show that.
    @ivar reason: if it does not, why: a phrase for the log that begins with a verb, with the server as its subject.
    @ivar reply: what the server said; empty if that is not the reason.
    """

    passed: bool | None
    reason: str = ""
    reply: bytes = field(default=b"", repr=False)

    @property
    def text(self) -> str:
        """The server's words for the log, behind the reason."""
        return f', text "{printable(self.reply.strip())}"' if self.reply else ""


def findingOf(error: Exception, timeout: float) -> Finding:
    """
    Judge a check that has failed.

    A server that is full says so in its greeting. It works for the sessions that it has, so this neither counts as a
    failure nor as a success. Neither does an error that the gateway's own system causes.

    @param error: a L{BackendError}, or an error of the connection.
    @param timeout: C{health_check_timeout} in seconds.
    """
    if isinstance(error, BackendError):
        isFull = not error.counts and str(error).startswith("greets ")
        return Finding(None if isFull else False, str(error), error.reply if error.isQuoted else b"")
    number: Any = error.osError if isinstance(error, ConnectError) else getattr(error, "errno", None)
    if number in _OUR_OWN:
        return Finding(None)
    return Finding(False, reasonOf(error, f"did not answer within {timeout:g} s"))
