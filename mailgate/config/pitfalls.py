# -*- test-case-name: mailgate.test.config.test_pitfalls -*-
"""
What can be started, and is hardly meant: a server that clients cannot use, or that does to mail what nobody expects.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.backend.settings import ProxySettings
from mailgate.config.serverchecks import authenticatorKind
from mailgate.directives import ListenAddress, Problem, ServerSettings, deadline, directives
from mailgate.frontend.capabilities import each, leftOut
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Backend
from mailgate.net.bind import checkAddress
from mailgate.registry import PROTOCOLS
from mailgate.tls.certificatechecks import nameWarnings
from mailgate.tls.settings import TLSSettings, usesTLS

__all__ = ["isAlone", "isAt", "isOwn", "loops", "pitfalls"]

_SHORTEST = 1.0
"""Seconds; what is shorter was meant in another unit."""

_REPLY = re.compile(r"250[ -]|\*$|CAPABILITY$|\+OK$|\.$", re.IGNORECASE)
"""What stands before capabilities, or behind them, in a server's answer to CAPABILITY, CAPA or EHLO."""

_LOOPBACK = ("127.0.0.1", "::1")
"""What C{localhost} is."""


def pitfalls(server: ServerSettings) -> Iterator[Problem]:
    """What is hardly meant by C{server}."""
    yield from _ports(server)
    yield from _shortTimes(server)
    yield from _capabilities(server)
    if "server_name" in server.given:
        for option, source in server[TLSSettings].shownCertificates() if usesTLS(server) else ():
            yield from nameWarnings(server, option, source, server[DialogueSettings].serverName)
    if "proxy" in server.given and not server[ProxySettings].proxy:
        yield server.problem("proxy", "has no effect: all sessions are relayed", "off")


def isAlone(server: ServerSettings) -> bool:
    """Whether C{proxy_pass} is where all of C{server}'s logins go."""
    kind = authenticatorKind(server)
    return kind is None or kind.directive == "proxy_pass"


def _ports(server: ServerSettings) -> Iterator[Problem]:
    """The well-known ports of C{server} on which clients expect something else; a load balancer may know better."""
    for address in server.listen:
        if address.proxyProtocol:
            continue
        own = PROTOCOLS[server.protocol]
        usual = next((known for known in PROTOCOLS.values() if address.port in known.ports), own)
        if usual is not own:
            reason = f"port {address.port} is one of {usual.name}, and clients find {own.name} there"
            yield server.problem("listen", reason, str(address))
        elif address.port in own.implicitPorts and not address.ssl:
            reason = f'clients speak TLS from the first byte on port {address.port}, which takes "ssl" behind it'
            yield server.problem("listen", reason, str(address))


def _shortTimes(server: ServerSettings) -> Iterator[Problem]:
    """Times within which nothing can be done."""
    for declared in (known for group in server.groups for known in directives(group)):
        if declared.parse is deadline and declared.name in server.given and declared.group is not None:
            seconds = getattr(server[declared.group], declared.field)
            if seconds < _SHORTEST:
                reason = "is too short for anybody to answer in; a number without a unit is seconds"
                yield server.problem(declared.name, reason, f"{seconds * 1000:g}ms")


def _capabilities(server: ServerSettings) -> Iterator[Problem]:
    """Capabilities that clients do not hear, or miss."""
    option = f"{server.protocol}_capabilities"
    protocol = PROTOCOLS[server.protocol]
    configured: tuple[str, ...] = getattr(server[protocol.settings], "capabilities", ())
    for capability, reason in leftOut(protocol, configured):
        yield server.problem(option, reason, capability)
    for item in configured:
        if item.isdigit():
            yield server.problem(option, "is no capability: a parameter stands on the line of its capability", item)
    for item in each(protocol, configured):
        if "," in item:
            yield server.problem(option, "has a comma, which clients hear: commas part no capabilities", item)
        elif _REPLY.match(item):
            yield server.problem(option, "begins as a server's reply does: of that the capability alone is meant", item)
    if lacking := protocol.lacks(configured, protocol.methods(server)):
        yield server.problem(option, lacking)


def loops(server: ServerSettings) -> Iterator[Problem]:
    """A C{proxy_pass} by which the C{server} would be its own backend."""
    backend = server[ProxySettings].backend
    if isinstance(backend, Backend) and any(isAt(backend, address) for address in server.listen):
        reason = "is this server's own address, and a login there comes back to it without end"
        yield server.problem("proxy_pass", reason, str(backend))


def isAt(backend: Backend, address: ListenAddress) -> bool:
    """Whether who connects to C{backend} arrives at C{address}."""
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
    """Whether C{host} is an address of this machine. Names are not looked up for this."""
    if not (isIPAddress(host) or isIPv6Address(host)):
        return False
    try:
        checkAddress(host)
    except OSError:
        return False
    return True
