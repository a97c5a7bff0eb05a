# -*- test-case-name: mailgate.test.config.test_destinations -*-
"""
The backends that a configuration names, and what is wrong with where they are: logins that come back to the gateway,
and passwords that go to another host in the clear. What an authentication service names is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

from attrs import frozen

from mailgate.backend.settings import ProxySettings
from mailgate.config.pitfalls import isAlone, isAt, isOwn
from mailgate.directives import GatewaySettings, Problem, SectionSettings, ServerSettings, hostPort
from mailgate.login import Backend, BackendGroup, Method
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS
from mailgate.rules.rules import Rules
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.settings import UpstreamSettings

__all__ = ["NamedBackend", "cleartext", "loops", "namedBackends"]


@frozen
class NamedBackend:
    """
    A backend that a server's logins may go to.

    @ivar backend: its address; the port is 0 where SRV records say it.
    @ivar section: the section that names it.
    @ivar option: the option there.
    @ivar value: what of the option's value names it.
    @ivar mode: C{proxy_ssl}, as it holds for it.
    """

    backend: Backend
    section: ServerSettings | SectionSettings
    option: str
    value: str
    mode: str


def namedBackends(settings: GatewaySettings, server: ServerSettings) -> Iterator[NamedBackend]:
    """
    Yield the backends that C{proxy_pass} of a server may lead to, as far as that is known before any login.

    @param settings: the whole configuration.
    @param server: the server.
    """
    given, mode = server[ProxySettings].backend, server[BackendTLSSettings].mode
    if isinstance(given, Backend):
        yield NamedBackend(given, server, "proxy_pass", str(given), mode)
    elif isinstance(given, BackendGroup):
        groups = {section.name.lower(): section for section in settings.named if UpstreamSettings in section.groups}
        for text in sorted(Rules(settings).possible(given.text) or ()):
            group = groups.get(text.lower())
            if group is not None:
                yield from _servers(group, mode)
                continue
            # That there is no such group is reported elsewhere.
            with suppress(ValueError):
                yield NamedBackend(Backend(*hostPort(text)), server, "proxy_pass", given.text, mode)


def _servers(group: SectionSettings, mode: str) -> Iterator[NamedBackend]:
    if "proxy_ssl" in group.given:
        mode = group[BackendTLSSettings].mode
    for line in group[UpstreamSettings].servers:
        yield NamedBackend(Backend(line.host, line.port), group, "server", line.written, mode)


def loops(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Backends by which a server is its own, directly by a server of a group, or by way of other servers of the gateway.
    (L{mailgate.config.pitfalls.loops} has a C{proxy_pass} that is the server's own address.)

    @param settings: the whole configuration.
    """
    servers = settings.servers
    steps = {server.name: list(_steps(settings, server)) for server in servers}
    for server in servers:
        for known, target in steps[server.name]:
            if target is server and known.backend == server[ProxySettings].backend:
                continue
            if target is server:
                reason = f"is an address of server {server.name}, which uses it: a login there comes back without end"
            elif server.name in _reachable(target.name, steps):
                reason = f"is an address of server {target.name}, whose logins come back to server {server.name}"
            else:
                continue
            yield known.section.problem(known.option, reason, known.value)


def _steps(settings: GatewaySettings, server: ServerSettings) -> Iterator[tuple[NamedBackend, ServerSettings]]:
    """The backends of C{server} that are servers of the gateway."""
    for known in namedBackends(settings, server):
        for target in settings.servers:
            if any(isAt(known.backend, address) for address in target.listen):
                yield known, target


def _reachable(start: str, steps: dict[str, list[tuple[NamedBackend, ServerSettings]]]) -> set[str]:
    """The names of the servers to which logins at the server C{start} may go, by way of others too."""
    found: set[str] = set()
    left = [start]
    while left:
        for _, target in steps[left.pop()]:
            if target.name not in found:
                found.add(target.name)
                left.append(target.name)
    return found


def cleartext(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Yield a warning for each backend on another host that passwords are sent to without TLS.

    @param settings: the whole configuration.
    """
    found = {
        known.section.problem(known.option, _READABLE, known.value): None
        for server in settings.servers
        if _sendsPasswords(server)
        for known in namedBackends(settings, server)
        if known.mode == "off" and not _isHere(known.backend.host)
    }
    yield from map(settings.lines.located, found)


_READABLE = "is sent passwords in the clear over the network: set proxy_ssl = on or starttls"


def _sendsPasswords(server: ServerSettings) -> bool:
    """Whether the gateway sends passwords, or tokens, to the backends of C{server}."""
    if server[ProxySettings].method in ("external", "none"):
        return False
    if server.protocol != "smtp":
        return True
    if PROTOCOLS["smtp"].methods(server) <= {Method.NONE}:
        return False
    return isAlone(server) or server[SMTPSettings].proxyAuth


def _isHere(host: str) -> bool:
    """Whether a connection to C{host} stays on this host. Names are not looked up for this."""
    if host.startswith("unix:") or host.lower().rstrip(".") in ("localhost", "ip6-localhost"):
        return True
    try:
        return ip_address(host).is_loopback or isOwn(host)
    except ValueError:
        return False
