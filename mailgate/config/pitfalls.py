# -*- test-case-name: mailgate.test.config.test_pitfalls -*-
"""
Warnings about settings that are valid but probably not intended: clients cannot use the server, or lose mail or logins.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from functools import partial

from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.backend.probing import UNKNOWN_PROTOCOL, checkedAs, usersOf
from mailgate.backend.settings import ProxySettings
from mailgate.config.serverchecks import authenticatorKind
from mailgate.directives import LEARN, GatewaySettings, ListenAddress, Problem, ServerSettings, deadline, directives
from mailgate.frontend.capabilities import each, leftOut
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Backend
from mailgate.net.bind import checkAddress
from mailgate.registry import PROTOCOLS
from mailgate.rules.rules import Rules
from mailgate.tls.certificatechecks import nameWarnings
from mailgate.tls.settings import TLSSettings, usesTLS
from mailgate.upstream.settings import UpstreamSettings
from mailgate.upstream.upstreams import possibleFor

__all__ = ["isAlone", "isAt", "isOwn", "loops", "pitfalls", "unchecked"]

_SHORTEST = 1.0
"""Seconds. The operator probably meant another unit when a time is shorter."""

_REPLY = re.compile(r"250[ -]|\*$|CAPABILITY$|\+OK$|\.$", re.IGNORECASE)
"""Words before or after capabilities in a server's reply to CAPABILITY, CAPA or EHLO."""

_LOOPBACK = ("127.0.0.1", "::1")
"""The addresses of C{localhost}."""


def pitfalls(server: ServerSettings, upstreams: int = 0) -> Iterator[Problem]:
    """
    Yield a warning for each setting of C{server} that is probably not intended.

    @param server: the server.
    @param upstreams: how many groups of backends the configuration has.
    """
    yield from _ports(server)
    yield from _shortTimes(server)
    yield from _capabilities(server, upstreams)
    if "server_name" in server.given:
        for option, source in server[TLSSettings].shownCertificates() if usesTLS(server) else ():
            yield from nameWarnings(server, option, source, server[DialogueSettings].serverName)
    if "proxy" in server.given and not server[ProxySettings].proxy:
        yield server.problem("proxy", "has no effect; mailgate relays all sessions", "off")


def unchecked(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Yield a warning for each group whose C{health_check} does nothing, or is right for some of its uses only.

    @param settings: the whole configuration.
    """
    rules = Rules(settings)
    ports = {name: protocol.ports for name, protocol in PROTOCOLS.items()}
    for section in settings.named:
        if UpstreamSettings not in section.groups or section[UpstreamSettings].healthCheck is None:
            continue
        group = section[UpstreamSettings]
        mayUse = partial(possibleFor, rules)
        checked = checkedAs(section.name, group, settings.servers, ports, mayUse)
        if checked is None:
            yield section.problem("health_check", UNKNOWN_PROTOCOL)
            continue
        for server in usersOf(section.name, settings.servers, mayUse):
            if server.protocol != checked.protocol:
                yield section.problem(
                    "health_check",
                    f"checks {checked.protocol}, but [server {server.name}] sends {server.protocol} clients there;"
                    " make a group for each protocol",
                )
                break


def isAlone(server: ServerSettings) -> bool:
    """Whether C{server} sends all logins to its C{proxy_pass}, without another authenticator."""
    kind = authenticatorKind(server)
    return kind is None or kind.directive == "proxy_pass"


def _ports(server: ServerSettings) -> Iterator[Problem]:
    """Ports of C{server} on which clients expect another protocol, or TLS."""
    for address in server.listen:
        # Here a load balancer connects, which may map other ports to this one.
        if address.proxyProtocol:
            continue
        own = PROTOCOLS[server.protocol]
        usual = next((known for known in PROTOCOLS.values() if address.port in known.ports), own)
        if usual is not own:
            reason = f"port {address.port} is a well-known port of {usual.name}, but this server speaks {own.name}"
            yield server.problem("listen", reason, str(address))
        elif address.port in own.implicitPorts and not address.ssl:
            reason = f'clients expect TLS from the first byte on port {address.port}; add "ssl" after it'
            yield server.problem("listen", reason, str(address))


def _shortTimes(server: ServerSettings) -> Iterator[Problem]:
    """Times that are too short for any reply."""
    for declared in (known for group in server.groups for known in directives(group)):
        if declared.parse is deadline and declared.name in server.given and declared.group is not None:
            seconds = getattr(server[declared.group], declared.field)
            if seconds < _SHORTEST:
                reason = "is too short for a reply; a number without a unit means seconds"
                yield server.problem(declared.name, reason, f"{seconds * 1000:g}ms")


def _capabilities(server: ServerSettings, upstreams: int) -> Iterator[Problem]:
    """Capabilities that the gateway leaves out, that are malformed, or that are missing."""
    option = f"{server.protocol}_capabilities"
    protocol = PROTOCOLS[server.protocol]
    configured: tuple[str, ...] = getattr(server[protocol.settings], "capabilities", ())
    for capability, reason in leftOut(protocol, configured):
        yield server.problem(option, reason, capability)
    for item in configured[1:] if configured[:1] == (LEARN,) else configured:
        if item.isdigit():
            yield server.problem(option, "is not a capability; put a parameter on the line of its capability", item)
    for item in each(protocol, configured):
        if "," in item:
            yield server.problem(option, "contains a comma; separate capabilities by lines, without commas", item)
        elif _REPLY.match(item):
            yield server.problem(option, "looks like a line of a server's reply; write only the capability", item)
    isKnown = server[ProxySettings].backend is not None or ("auth_http" in server.given and upstreams == 1)
    if configured[:1] == (LEARN,) and not isKnown:
        # There is no backend to learn from.
        configured = configured[1:]
    if lacking := protocol.lacks(configured, protocol.methods(server)):
        yield server.problem(option, lacking)


def loops(server: ServerSettings) -> Iterator[Problem]:
    """Yield a problem if the C{proxy_pass} of C{server} is an address of C{server} itself."""
    backend = server[ProxySettings].backend
    if isinstance(backend, Backend) and any(isAt(backend, address) for address in server.listen):
        reason = "is an address of this server itself, so each login would loop; set it to the backend"
        yield server.problem("proxy_pass", reason, str(backend))


def isAt(backend: Backend, address: ListenAddress) -> bool:
    """Whether a connection to C{backend} arrives at C{address}."""
    if backend.port != address.port:
        return False
    if backend.host == address.host or address.wildcard is None:
        return backend.host == address.host
    if address.isOneAddress:
        return backend.host.lower() == "localhost" and address.host in _LOOPBACK
    if isIPAddress(backend.host) and address.host == "::" and address.socket.ipv6only:
        return False
    return backend.host.lower() in ("localhost", socket.gethostname().lower()) or isOwn(backend.host)


def isOwn(host: str) -> bool:
    """Whether C{host} is an address of this machine. Does not look up names."""
    if not (isIPAddress(host) or isIPv6Address(host)):
        return False
    try:
        checkAddress(host)
    except OSError:
        return False
    return True
