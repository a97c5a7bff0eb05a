# -*- test-case-name: mailgate.test.upstream.test_group mailgate.test.rules.test_rules -*-
"""
All groups of a configuration, and the rules that choose among them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import DeferredSemaphore

from mailgate.directives import GatewaySettings, Problem, SectionSettings, ServerSettings, hostPort
from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendGroup, Destination
from mailgate.net.names import CachedNames, ServerNames, systemServers
from mailgate.net.naming import NamingReactor
from mailgate.net.resolver import Resolver
from mailgate.rules.facts import VARIABLES, Facts
from mailgate.rules.rules import Rules
from mailgate.rules.settings import unknownVariable, variablesIn
from mailgate.upstream.following import Following
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.placing import IPlacing
from mailgate.upstream.settings import UpstreamSettings
from mailgate.upstream.sticky import poolsOf

__all__ = ["NoSuchGroup", "Upstreams", "groupProblems", "possibleFor"]


T = TypeVar("T")

_TURNS = 2
"""
How many servers of groups are looked up at a time. The system looks up few names at a time (L{MOST_LOOKUPS
<mailgate.net.endpoints.MOST_LOOKUPS>}), and logins need some of them.
"""

_MOST_LONE = 1024
"""Servers outside of groups that are remembered."""


def _ignored(group: str, peer: Peer) -> None:
    """Does nothing."""


_PLAIN = re.compile(r"(?:(?!\.\.)[^:/\0])*")
"""Matches what clients may say without a closer look: nothing in it ends a host, or a folder in a path."""


@frozen
class NoSuchGroup:
    """
    The rules lead to no group and to no address.

    @ivar name: what they lead to; it may be a client's own text.
    """

    name: str


class Upstreams:
    """
    The groups of C{settings}. All servers of a process share them.

    @param reactor: what connections are made by.
    @ivar placing: knows the places of users in sticky groups; L{None} if nothing does: then the order decides that is
        the same at all gateways.
    """

    def __init__(self, settings: GatewaySettings, reactor: NamingReactor) -> None:
        self.placing: IPlacing | None = None
        self._rules = Rules(settings)
        self._reactor = reactor
        self._servers: dict[str, ServerNames] = {}
        self._names: dict[str, CachedNames] = {}
        self._groups: dict[str, Upstream] = {}
        self._sections: dict[str, SectionSettings] = {}
        self._lone: dict[Backend, Peer] = {}
        self.whenRecovered: Callable[[str, Peer], object] = _ignored
        """Called with the group's name, or an empty text, and each peer whose failures a login has made forgotten."""
        self.whenMet: Callable[[str, Peer], object] = _ignored
        """Called with the group's name and each peer that is added after the start."""
        self.whenRested: Callable[[str, Peer], object] = _ignored
        """
        Called with the group's name, or an empty text, and each peer that begins to rest, or rests on after a failed
        attempt. L{Peer.reason} has the cause.
        """
        self.whenForgotten: list[Callable[[], object]] = []
        """Called when servers outside of groups are forgotten: L{lone} returns other objects for them from then on."""
        for section in settings.named:
            if UpstreamSettings in section.groups:
                name = section.name.lower()
                group = self._groups[name] = Upstream(section.name, section[UpstreamSettings], self._rules, reactor)
                group.whenRecovered = partial(self._recovered, section.name)
                group.whenMet = partial(self._met, section.name)
                group.whenRested = partial(self._rested, section.name)
                self._findNames(name, group)
                self._sections[name] = section
        pools = poolsOf(self.groups)
        for name, pool in pools.items():
            self._groups[name].pool = pool

    def lone(self, backend: Backend) -> Peer:
        """
        What is known of C{backend}, which no group has. At most L{_MOST_LONE} are remembered: an authentication service
        may name any number.

        @param backend: its address, and its TLS.
        """
        peer = self._lone.get(backend)
        if peer is None:
            if len(self._lone) >= _MOST_LONE:
                now = int(self._reactor.seconds())
                self._lone = {key: each for key, each in self._lone.items() if each.isOfInterest(now)}
                if len(self._lone) >= _MOST_LONE:
                    self._lone.clear()
                for react in self.whenForgotten:
                    react()
            peer = self._lone[backend] = Peer(backend, (backend.host, backend.port))
            self.whenMet("", peer)
        return peer

    def everyPeer(self) -> Iterator[tuple[str, Peer]]:
        """The name of the group and each peer in it; then, with an empty name, those outside of groups."""
        for group in self._groups.values():
            yield from ((group.name, peer) for peer in group.peers)
        yield from (("", peer) for peer in self._lone.values())

    def _recovered(self, group: str, peer: Peer) -> None:
        self.whenRecovered(group, peer)

    @property
    def groups(self) -> list[Upstream]:
        """All of them, in the order of the configuration."""
        return list(self._groups.values())

    def named(self, name: str) -> Upstream | None:
        """
        Return the group with a name.

        @param name: the name, in any case.
        """
        return self._groups.get(name.lower())

    def possible(self, destination: Destination) -> list[Destination]:
        """
        Return all backends and groups without variables that a C{proxy_pass} may stand for; nothing if that depends on
        what clients send.

        @param destination: the value of the directive.
        """
        if isinstance(destination, Backend):
            return [destination]
        found: list[Destination] = []
        for text in sorted(self._rules.possible(destination.text) or ()):
            backend = None if self.named(text) else _backend(text)
            found.append(backend or BackendGroup(text))
        return found

    def _met(self, group: str, peer: Peer) -> None:
        self.whenMet(group, peer)

    def _rested(self, group: str, peer: Peer) -> None:
        self.whenRested(group, peer)

    def succeeded(self, peer: Peer) -> None:
        """C{peer}, which is outside of groups, could be used."""
        peer.succeeded(self.now)

    @property
    def now(self) -> int:
        """The time in whole seconds, as peers count it."""
        return int(self._reactor.seconds())

    def failed(self, peer: Peer, reason: str) -> bool:
        """
        C{peer}, which is outside of groups, could not be used.

        @param reason: why, as for L{Peer.explain}.
        @return: whether it rests because of that, and the log is to say so. Other servers of a login are tried before
            it.
        """
        wasResting, now = peer.hasFailed, self.now
        rests = peer.failed(now, reason)
        if rests:
            self.whenRested("", peer)
        return rests and peer.announces(now, wasResting)

    def find(self, group: BackendGroup, facts: Facts) -> Upstream | Backend | NoSuchGroup:
        """The group, or the one backend, that C{group} stands for in the login with C{facts}."""
        if group.isName:
            return self._groups.get(group.text.lower()) or NoSuchGroup(group.text)
        text = self._rules.expand(group.text, facts)
        return self._groups.get(text.lower()) or self._address(group, text, facts) or NoSuchGroup(text)

    def _address(self, group: BackendGroup, text: str, facts: Facts) -> Backend | None:
        """
        Return the backend at the address C{text}, if it is an address. A client that could choose the port, or the path
        of a unix socket, by its user name could have the gateway connect to any service. So a port or a folder from a
        client does not count.
        """
        if not _PLAIN.fullmatch(facts.user + facts.serverName):
            text = self._rules.withoutPorts(group.text, facts)
            if ".." in text.split("/"):
                return None
        return _backend(text)

    def _findNames(self, name: str, group: Upstream) -> None:
        """Choose what finds the names of C{group}."""
        resolver, timeout = group.settings.resolver, group.settings.resolverTimeout
        self._servers[name] = ServerNames(resolver or Resolver(systemServers()), timeout, self._reactor)
        if resolver is not None:
            self._names[name] = CachedNames(self._servers[name], self._reactor)

    def namesOf(self, group: Upstream) -> CachedNames | None:
        """What finds the names of C{group}, if it has a C{resolver} of its own."""
        return self._names.get(group.name.lower())

    def followers(self, journal: Journal) -> Iterator[Following]:
        """
        What keeps the addresses of servers up to date, while it runs.

        @param journal: where changes and failures are logged.
        """
        turns = DeferredSemaphore(_TURNS)
        for name, group in self._groups.items():
            for line in group.settings.servers:
                if line.resolve or line.service:
                    names = self.namesOf(group) or self._reactor.names
                    # A group with a resolver of its own does not use those of the system.
                    its = None if name in self._names else turns
                    yield Following(group, line, names, self._servers[name], self._reactor, journal, its)

    def directivesOf(self, group: Upstream, inherited: T) -> T:
        """
        Return what a group's section says of a class of directives, and of a server's where it says nothing.

        @param group: the group.
        @param inherited: the directives of the server, an instance of a settings class that C{[upstream NAME]} has.
        """
        return self._sections[group.name.lower()].over(inherited)

    def mayUse(self, text: BackendGroup, protocol: str) -> frozenset[str] | None:
        """
        Return the names of groups, in lower case, and the addresses that C{text} may stand for in logins of a protocol;
        L{None} where that depends on what clients send.

        @param text: the value of C{proxy_pass}.
        @param protocol: the name of the protocol, such as C{imap}.
        """
        return possibleFor(self._rules, text, protocol)

    def goOnFrom(self, before: Upstreams) -> None:
        """Take over what is known of the servers of C{before}, an earlier one, whose lines are unchanged."""
        self._lone = dict(before._lone)
        for name, group in self._groups.items():
            if name not in before._groups:
                continue
            earlier = before._groups[name]
            group.goOnFrom(earlier)
            names, known = self.namesOf(group), before.namesOf(earlier)
            if names is not None and known is not None and group.settings.resolver == earlier.settings.resolver:
                names.goOnFrom(known)


def _backend(text: str) -> Backend | None:
    try:
        return Backend(*hostPort(text))
    except ValueError:
        return None


def possibleFor(rules: Rules, text: BackendGroup, protocol: str) -> frozenset[str] | None:
    """
    Return what L{Upstreams.mayUse} does.

    @param rules: the rules of the configuration.
    @param text: the value of C{proxy_pass}.
    @param protocol: the name of the protocol.
    """
    known = re.sub(r"\$(?:\{protocol\}|protocol\b)", protocol, text.text)
    possible = rules.possible(known)
    return None if possible is None else frozenset(value.lower() for value in possible)


def groupProblems(
    settings: GatewaySettings, server: ServerSettings, option: str, group: BackendGroup
) -> Iterator[Problem]:
    """
    Yield what is wrong with C{group}, the value of C{option} of C{server}, as far as it is known before a login.

    @param settings: the whole configuration.
    """
    rules = Rules(settings)
    tables = rules.names()
    for variable in variablesIn(group.text):
        if variable not in VARIABLES and variable not in tables:
            yield server.problem(option, unknownVariable(variable, sorted(tables)), group.text)
            return
    names = {name.lower() for name in settings.sections(UpstreamSettings)}
    for text in sorted(rules.possible(group.text) or ()):
        if text.lower() in names or _backend(text) is not None:
            continue
        if text == group.text:
            message = f"there is no [upstream {text}]; an address needs a port, such as {text}:143"
        elif text:
            message = f'may be "{text}", and there is no [upstream {text}]'
        else:
            message = "may be empty: give each [geo] and [map] that it uses a default"
        yield server.problem(option, message, group.text)
