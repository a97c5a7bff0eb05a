# -*- test-case-name: mailgate.test.backend.test_places -*-
"""
Where a login may go: one backend after another, each with what it takes to connect there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import define, evolve
from twisted.internet.interfaces import IStreamClientEndpoint

from mailgate.login import Backend, BackendGroup, BackendTLS, LoginRequest, Route
from mailgate.net.endpoints import endpointFor
from mailgate.rules.facts import Facts, factsOf
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.upstreams import NoSuchGroup, Upstreams

__all__ = ["NoBackend", "Place", "Places"]

_MOST = 1024
"""Backends whose places are kept: an authentication service may name any number."""

_NO_SERVER = "has no server: its names were not found"
_NOT_USABLE = "has no usable server: all rest after failures, are full, or are down"

_MODES = {"off": BackendTLS.OFF, "on": BackendTLS.IMPLICIT, "starttls": BackendTLS.STARTTLS}


@define(eq=False)
class Place:
    """
    A backend, and how to connect to it.

    @ivar name: how the log names it.
    @ivar backend: with all that directives say of it.
    @ivar endpoint: its address.
    @ivar contexts: of its TLS.
    @ivar group: the group that it was chosen from, if it was.
    @ivar peer: what is known of it: by the group, or outside of groups.
    """

    name: str
    backend: Backend
    endpoint: IStreamClientEndpoint
    contexts: BackendContexts | None
    group: Upstream | None = None
    peer: Peer | None = None

    def succeeded(self) -> None:
        """A login got an answer there."""
        if self.peer is not None and self.group is not None:
            self.group.succeeded(self.peer)

    def failed(self) -> bool:
        """A login could not use it; returns whether it rests because of that."""
        return self.peer is not None and self.group is not None and self.group.failed(self.peer)

    def undecided(self) -> None:
        """A login ended there, and showed neither that the backend works nor that it fails."""
        if self.peer is not None and self.group is not None:
            self.group.undecided(self.peer)

    def ended(self) -> None:
        """A session that went there is over."""
        if self.peer is not None:
            self.peer.ended()


@define
class NoBackend:
    """
    A group has no backend for a login.

    @ivar group: its text in the configuration.
    @ivar reason: why, for a log, with the group as its subject.
    @ivar text: a client's own text that says more, or empty.
    """

    group: str
    reason: str
    text: str = ""


class Places:
    """
    The places for the logins of one server.

    @param settings: the server's TLS towards backends.
    @param upstreams: the groups of backends.
    @param contextsFor: makes contexts by settings, or returns those that have been made by the same. What these need is
        read at once.
    @param reactor: what connections are made by.
    """

    def __init__(
        self,
        settings: BackendTLSSettings,
        upstreams: Upstreams | None,
        contextsFor: Callable[[BackendTLSSettings], BackendContexts],
        reactor: Any,
    ) -> None:
        self._settings = settings
        self._upstreams = upstreams
        self._contextsFor = contextsFor
        self._reactor = reactor
        self._places: dict[Backend | Peer, Place] = {}
        # Read the files now: after the process has dropped its privileges it may not be able to read a key.
        for each in (
            settings,
            *(() if upstreams is None else (upstreams.directivesOf(g, settings) for g in upstreams.groups)),
        ):
            if each.mode != "off" or each.hasFiles:
                contextsFor(each)

    def of(self, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        """The places that C{route} names for the login of C{request}, in the order in which they are to be tried."""
        for backend in route.backends:
            if isinstance(backend, Backend):
                place = self._places.get(backend) or self._make(backend, backend, self._settings)
                if place.peer is not None:
                    place.peer.connections += 1
                yield place
            else:
                yield from self._chosen(backend, route, request)

    def _chosen(self, text: BackendGroup, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        facts = factsOf(request, route.user)
        found = self._find(text, facts)
        if not isinstance(found, Upstream):
            if isinstance(found, Place) and found.peer is not None:
                found.peer.connections += 1
            yield found
            return
        attempts = found.attempts(facts)
        peer = attempts.next()
        if peer is None:
            yield NoBackend(f"upstream {found.name}", _NOT_USABLE if found.peers else _NO_SERVER)
        while peer is not None:
            yield self._placeOf(peer, found)
            peer = attempts.next()

    def _find(self, text: BackendGroup, facts: Facts) -> Upstream | Place | NoBackend:
        """The group, or the one place, that C{text} stands for in the login with C{facts}."""
        assert self._upstreams is not None, "the configuration has been checked"
        found = self._upstreams.find(text, facts)
        if isinstance(found, NoSuchGroup):
            return NoBackend(str(text), "stands for no group of backends and no address", found.name)
        if isinstance(found, Backend):
            return self._places.get(found) or self._make(found, found, self._settings)
        return found

    def _placeOf(self, peer: Peer, group: Upstream) -> Place:
        assert self._upstreams is not None, "the configuration has been checked"
        place = self._places.get(peer)
        if place is None:
            place = self._make(peer, peer.backend, self._upstreams.directivesOf(group, self._settings), group)
        return place

    def at(self, peer: Peer, group: Upstream) -> Place:
        """
        The place of one server. It counts no session.

        @param peer: the server.
        @param group: the group whose directives hold for it.
        """
        return self._placeOf(peer, group)

    def every(self, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        """
        All places that C{route} names for the login of C{request}: each server of a group, whether or not it may be
        chosen now. None of them counts a session.
        """
        for backend in route.backends:
            if isinstance(backend, Backend):
                yield self._places.get(backend) or self._make(backend, backend, self._settings)
                continue
            found = self._find(backend, factsOf(request, route.user))
            if not isinstance(found, Upstream):
                yield found
            elif not found.peers:
                yield NoBackend(f"upstream {found.name}", _NO_SERVER)
            else:
                yield from (self._placeOf(peer, found) for peer in found.peers)

    def _make(
        self, key: Backend | Peer, backend: Backend, settings: BackendTLSSettings, group: Upstream | None = None
    ) -> Place:
        if len(self._places) >= _MOST:
            self._places.clear()
        if backend.tls is None and settings.mode != "off":
            backend = evolve(backend, tls=_MODES[settings.mode])
        if isinstance(key, Peer) and not backend.name and backend.host != key.server[0]:
            # The certificate is the configured host's: what the DNS names without DNSSEC proves nothing.
            backend = evolve(backend, name=settings.name or key.server[0])
        contexts = None if backend.tls in (None, BackendTLS.OFF) else self._contextsFor(settings)
        names = None if group is None or self._upstreams is None else self._upstreams.namesOf(group)
        reactor = self._reactor if names is None else self._reactor.findingBy(names)
        endpoint = endpointFor(reactor, backend.host, backend.port, None)
        peer = None
        if isinstance(key, Peer):
            peer = key
        elif self._upstreams is not None:
            peer = self._upstreams.lone(key)
        place = self._places[key] = Place(str(backend), backend, endpoint, contexts, group, peer)
        return place
