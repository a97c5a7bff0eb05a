# -*- test-case-name: mailgate.test.config.test_destinations -*-
"""
The backends that a configuration names, and what is wrong with where they are: logins that come back to the gateway,
and passwords that go to another host in the clear. What an authentication service names is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address

from attrs import evolve, frozen

from mailgate.backend.settings import ProxySettings
from mailgate.config.pitfalls import isAlone, isAt, isOwn
from mailgate.directives import GatewaySettings, Problem, SectionSettings, ServerSettings, hostPort
from mailgate.login import Backend, BackendGroup, Method
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS
from mailgate.rules.rules import Rules
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.settings import UpstreamSettings

__all__ = ["NamedBackend", "cleartext", "loops", "namedBackends", "nameless", "withTLS"]


@frozen
class NamedBackend:
    """
    A backend that a server's logins may go to.

    @ivar backend: its address; the port is 0 where SRV records say it.
    @ivar section: the section that names it.
    @ivar option: the option there.
    @ivar value: what of the option's value names it.
    @ivar tls: C{proxy_ssl} and so on, as they hold for it.
    """

    backend: Backend
    section: ServerSettings | SectionSettings
    option: str
    value: str
    tls: BackendTLSSettings


def namedBackends(settings: GatewaySettings, server: ServerSettings) -> Iterator[NamedBackend]:
    """
    Yield the backends that C{proxy_pass} of a server may lead to, as far as that is known before any login.

    @param settings: the whole configuration.
    @param server: the server.
    """
    given, tls = server[ProxySettings].backend, server[BackendTLSSettings]
    if isinstance(given, Backend):
        yield NamedBackend(given, server, "proxy_pass", str(given), tls)
    elif isinstance(given, BackendGroup):
        groups = _groups(settings)
        for text in sorted(Rules(settings).possible(given.text) or ()):
            group = groups.get(text.lower())
            if group is not None:
                yield from _servers(group, group.over(tls))
                continue
            # That there is no such group is reported elsewhere.
            with suppress(ValueError):
                yield NamedBackend(Backend(*hostPort(text)), server, "proxy_pass", given.text, tls)


def _groups(settings: GatewaySettings) -> dict[str, SectionSettings]:
    return {section.name.lower(): section for section in settings.named if UpstreamSettings in section.groups}


def _servers(group: SectionSettings, tls: BackendTLSSettings) -> Iterator[NamedBackend]:
    for line in group[UpstreamSettings].servers:
        yield NamedBackend(Backend(line.host, line.port, name=line.name), group, "server", line.written, tls)


def withTLS(
    settings: GatewaySettings, others: Iterable[SectionSettings], isOwn: bool
) -> tuple[list[ServerSettings], list[SectionSettings]]:
    """
    Return the servers and the other sections with C{proxy_ssl} as their connections use it. A server that does not set
    it may send logins to a group that does. A group that does not set it has that of its servers.

    @param settings: the whole configuration.
    @param others: its sections other than servers.
    @param isOwn: whether C{proxy_ssl_verify} stays as each section has it, and a group that sets it does not count for
        its servers. Otherwise it is on if any of the connections verifies certificates.
    """
    groups = _groups(settings)
    ofServers: list[ServerSettings] = []
    ofGroups: dict[str, list[BackendTLSSettings]] = {name: [] for name in groups}
    for server in settings.servers:
        given, tls = server[ProxySettings].backend, server[BackendTLSSettings]
        texts = Rules(settings).possible(given.text) if isinstance(given, BackendGroup) else frozenset[str]()
        names = groups.keys() if texts is None else groups.keys() & {text.lower() for text in texts}
        found = [tls]
        for name in sorted(names):
            ofGroups[name].append(groups[name].over(tls))
            if not (isOwn and "proxy_ssl_verify" in groups[name].given):
                found += ofGroups[name][-1:]
        ofServers.append(server.having(_used(tls, found, isOwn)))
    ofOthers = []
    for section in others:
        if UpstreamSettings in section.groups:
            own = section[BackendTLSSettings]
            used = _used(own, ofGroups[section.name.lower()] or [own], isOwn)
            section = evolve(section, groups={**section.groups, BackendTLSSettings: used})
        ofOthers.append(section)
    return ofServers, ofOthers


def _used(own: BackendTLSSettings, found: list[BackendTLSSettings], isOwn: bool) -> BackendTLSSettings:
    """C{own}, with the C{proxy_ssl} of those of C{found} that use TLS."""
    tls = [each for each in found if each.mode != "off"]
    if not tls:
        return evolve(own, mode="off")
    return evolve(own, mode=tls[0].mode, verify=own.verify if isOwn else any(each.verify for each in tls))


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
        if known.tls.mode == "off" and not _isHere(known.backend.host)
    }
    yield from map(settings.lines.located, found)


def nameless(settings: GatewaySettings) -> Iterator[Problem]:
    """
    Yield one warning for each backend at a unix socket whose certificate would be verified without a name.

    @param settings: the whole configuration.
    """
    found = {
        known.section.problem(known.option, _NAMELESS, known.value): None
        for server in settings.servers
        for known in namedBackends(settings, server)
        if known.backend.host.startswith("unix:") and known.tls.mode != "off" and known.tls.verify
        if not (known.backend.name or known.tls.name)
    }
    yield from map(settings.lines.located, found)


_NAMELESS = "has no host name to verify its certificate against: set proxy_ssl_name"
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
