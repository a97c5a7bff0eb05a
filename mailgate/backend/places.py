# -*- test-case-name: mailgate.test.backend.test_places -*-
"""
Where a login may go: one L{Place} after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve

from mailgate.backend.place import NoBackend, Place, Staying
from mailgate.backend.retry import RetrySettings
from mailgate.log.journal import printable
from mailgate.login import Backend, BackendGroup, BackendTLS, Destination, LoginRequest, Route, TLSOptions
from mailgate.net.endpoints import beginning, endpointFor
from mailgate.rules.facts import Facts, factsOf
from mailgate.tls.backendcontexts import BackendContexts, DecidedContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.placing import Owner
from mailgate.upstream.sticky import mailboxOf
from mailgate.upstream.upstreams import NoSuchGroup, Upstreams

__all__ = ["Places"]

_MOST = 1024
"""Backends whose places are kept: an authentication service may name any number."""

_MOST_NAMED = 3
"""Servers of a group whose state the log has in one line."""

_NO_SERVER = "has no server: its names were not found"
_NOT_USABLE = "has no usable server: all rest after failures, are full, or are down"

_MAY_NOT_DISABLE = (
    "is not used: the authenticator wants no TLS, and proxy_ssl demands TLS; auth_http_may = ssl_off allows that"
)

_MODES = {"off": BackendTLS.OFF, "on": BackendTLS.IMPLICIT, "starttls": BackendTLS.STARTTLS}


class Places:
    """
    The places for the logins of one server.

    @param settings: the server's TLS towards backends.
    @param upstreams: the groups of backends.
    @param contextsFor: makes contexts by settings, or returns those that have been made by the same. What these need is
        read at once.
    @param reactor: what connections are made by.
    @param retry: the server's deadlines and further tries; L{None} for the defaults.
    """

    def __init__(
        self,
        settings: BackendTLSSettings,
        upstreams: Upstreams | None,
        contextsFor: Callable[[BackendTLSSettings], BackendContexts],
        reactor: Any,
        retry: RetrySettings | None = None,
    ) -> None:
        self._settings = settings
        self._retry = retry or RetrySettings()
        self._upstreams = upstreams
        self._contextsFor = contextsFor
        self._reactor = reactor
        self._places: dict[Backend | Peer, Place] = {}
        self._alone: dict[tuple[Destination, ...], Place] = {}
        """The places of routes that name one server and nothing else, as most do."""
        self._contexts: dict[Upstream | None, BackendContexts] = {}
        if upstreams is not None:
            upstreams.whenForgotten.append(self._forget)
        # Read the files now: after the process has dropped its privileges it may not be able to read a key.
        for each in (
            settings,
            *(() if upstreams is None else (upstreams.directivesOf(g, settings) for g in upstreams.groups)),
        ):
            if each.mode != "off" or each.hasFiles:
                contextsFor(each)

    def of(self, route: Route, request: LoginRequest) -> Iterable[Place | NoBackend]:
        """
        The places that C{route} names for the login of C{request}, in the order in which they are to be tried. Outside
        of groups, servers that rest come last, and those that an operator or a health check takes out are passed over.
        """
        backends, options = route.backends, route.options
        place = self._alone.get(backends) or self._onlyOf(backends)
        places: Iterable[Place | NoBackend]
        if place is None:
            places = self._inTurn(route, request)
        else:
            # A generator would cost more than what it yields. A backend that is alone never rests.
            places = (place,)
            peer = place.peer
            if peer is not None:
                if peer.order or peer.isFailing:
                    places = (NoBackend(place.name, _whyOut(peer)),)
                else:
                    peer.connections += 1
        return places if options is None or options.tls is None else self._allDecided(places, options.tls)

    def _onlyOf(self, backends: tuple[Destination, ...]) -> Place | None:
        """The place of the server that C{backends} consist of; L{None} if they are several, or a group."""
        if len(backends) != 1 or not isinstance(backend := backends[0], Backend):
            return None
        place = self._places.get(backend) or self._make(backend, backend, self._settings)
        self._alone[backends] = place
        return place

    def _forget(self) -> None:
        self._places.clear()
        self._alone.clear()

    def _allDecided(self, places: Iterable[Place | NoBackend], tls: TLSOptions) -> Iterator[Place | NoBackend]:
        for place in places:
            decided = place if isinstance(place, NoBackend) else self._decided(place, tls)
            if isinstance(place, Place) and isinstance(decided, NoBackend):
                place.undecided()
                place.ended()
            yield decided

    def _inTurn(self, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        """Yield the places of several backends."""
        later: list[Place] = []
        hasTried = False
        for backend in route.backends:
            if not isinstance(backend, Backend):
                hasTried = True
                yield from self._chosen(backend, route, request)
                continue
            place = self._places.get(backend) or self._make(backend, backend, self._settings)
            peer = place.peer
            if (peer is not None and peer.fails and self._isResting(peer)) or not place.again():
                later.append(place)
                continue
            hasTried = True
            yield place
        for place in later:
            if place.again():
                hasTried = True
                yield place
        if not hasTried:
            yield from (NoBackend(place.name, _whyOut(place.peer)) for place in later)

    def _isResting(self, peer: Peer) -> bool:
        """Whether C{peer}, outside of groups, rests. Where its rest is over this login is the only one to try it."""
        assert self._upstreams is not None, "there are no peers otherwise"
        now = self._upstreams.now
        if peer.isResting(now):
            return True
        peer.checked = now
        return False

    def _chosen(self, text: BackendGroup, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        facts = factsOf(request, route.user)
        found = self._find(text, facts)
        if not isinstance(found, Upstream):
            if isinstance(found, Place) and not found.again():
                found = NoBackend(found.name, _whyOut(found.peer))
            yield found
            return
        if found.pool is None:
            attempts = found.attempts(facts, None if route.options is None else route.options.key)
        else:
            user = mailboxOf(facts.user.encode("utf-8", "surrogateescape"))
            staying = self._staying(found, user, facts)
            if staying is not None:
                yield NoBackend(f"upstream {found.name}", "", staying=staying)
            attempts = found.attemptsOf(user, "" if staying is None else staying.place)
        peer = attempts.next()
        if peer is None:
            yield NoBackend(f"upstream {found.name}", _whyNone(found), isKnown=_isKnown(found))
        while peer is not None:
            yield self._placeOf(peer, found)
            peer = attempts.next()

    def _staying(self, group: Upstream, user: bytes, facts: Facts) -> Staying | None:
        """What asks for the place of a user; L{None} if nothing knows it, or no server can be used."""
        assert self._upstreams is not None and group.pool is not None, "groups belong to them"
        placing, sticky = self._upstreams.placing, group.settings.sticky
        if placing is None or sticky is None or not user:
            return None
        proposal = group.proposal(user, facts)
        return Staying(group, Owner(group.pool, user, sticky), proposal, placing) if proposal else None

    def _find(self, text: BackendGroup, facts: Facts) -> Upstream | Place | NoBackend:
        """The group, or the one place, that C{text} stands for in the login with C{facts}."""
        if self._upstreams is None:
            return NoBackend(str(text), "is not configured")
        found = self._upstreams.find(text, facts)
        if isinstance(found, NoSuchGroup):
            if text.isName:
                name = printable(found.name.encode("utf-8", "surrogateescape"))
                return NoBackend(f"upstream {name}", "does not exist, although the authenticator named it")
            return NoBackend(str(text), "stands for no group of backends and no address", found.name)
        if isinstance(found, Backend):
            return self._places.get(found) or self._make(found, found, self._settings)
        return found

    def _placeOf(self, peer: Peer, group: Upstream) -> Place:
        assert self._upstreams is not None, "the configuration has been checked"
        place = self._places.get(peer)
        if place is None:
            retry = self._upstreams.directivesOf(group, self._retry)
            place = self._make(peer, peer.backend, self._settingsOf(group), group, retry)
        return place

    def at(self, peer: Peer, group: Upstream) -> Place:
        """
        The place of one server. It counts no session.

        @param peer: the server.
        @param group: the group whose directives hold for it.
        """
        return self._placeOf(peer, group)

    def _decided(self, place: Place, options: TLSOptions) -> Place | NoBackend:
        """
        Return C{place} with the TLS of one login. It is not kept: a service may decide otherwise for each login, and
        makes no context by that.
        """
        backend = place.backend
        mode = backend.tls if options.mode is None else options.mode
        if mode is BackendTLS.OFF and backend.tls not in (None, BackendTLS.OFF) and not options.mayDisable:
            # The password would be sent in the clear against the operator's directive.
            return NoBackend(place.name, _MAY_NOT_DISABLE)
        if mode in (None, BackendTLS.OFF):
            if options.name or options.pins or options.verify:
                # Without TLS the password would reach a server whose certificate was to be checked.
                return NoBackend(
                    place.name, "is not used: its certificate must be checked, and the connection would not use TLS"
                )
            return evolve(place, backend=evolve(backend, tls=mode), contexts=None)
        contexts = DecidedContexts(self._contextsOf(place.group), options)
        return evolve(place, backend=evolve(backend, tls=mode), contexts=contexts)

    def _contextsOf(self, group: Upstream | None) -> BackendContexts:
        """The contexts by the directives of C{group}, or outside of groups by those of the server."""
        contexts = self._contexts.get(group)
        if contexts is None:
            contexts = self._contexts[group] = self._contextsFor(self._settingsOf(group))
        return contexts

    def _settingsOf(self, group: Upstream | None) -> BackendTLSSettings:
        if group is None or self._upstreams is None:
            return self._settings
        return self._upstreams.directivesOf(group, self._settings)

    def every(self, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
        """
        All places that C{route} names for the login of C{request}: each server of a group, whether or not it may be
        chosen now. None of them counts a session.
        """
        tls = None if route.options is None else route.options.tls
        for place in self._every(route, request):
            yield place if tls is None or isinstance(place, NoBackend) else self._decided(place, tls)

    def _every(self, route: Route, request: LoginRequest) -> Iterator[Place | NoBackend]:
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

    def standing(self, destinations: Sequence[Destination]) -> Iterator[Place]:
        """
        All places that C{destinations} stand for, which depend on no login. None of them counts a session.

        @param destinations: backends, and groups whose texts have no variables.
        """
        for destination in destinations:
            if isinstance(destination, Backend):
                yield self._places.get(destination) or self._make(destination, destination, self._settings)
                continue
            assert self._upstreams is not None, "the configuration has been checked"
            group = self._upstreams.named(destination.text)
            if group is not None:
                yield from (self._placeOf(peer, group) for peer in group.peers)

    def _make(
        self,
        key: Backend | Peer,
        backend: Backend,
        settings: BackendTLSSettings,
        group: Upstream | None = None,
        retry: RetrySettings | None = None,
    ) -> Place:
        if len(self._places) >= _MOST:
            self._forget()
        if backend.tls is None and settings.mode != "off":
            backend = evolve(backend, tls=_MODES[settings.mode])
        if isinstance(key, Peer) and not backend.name and backend.host != key.server[0]:
            # The certificate is the configured host's: what the DNS names without DNSSEC proves nothing.
            backend = evolve(backend, name=settings.name or key.server[0])
        contexts = None if backend.tls in (None, BackendTLS.OFF) else self._contextsFor(settings)
        names = None if group is None or self._upstreams is None else self._upstreams.namesOf(group)
        reactor = self._reactor if names is None else self._reactor.findingBy(names)
        begin = beginning(endpointFor(reactor, backend.host, backend.port, None))
        peer = None
        if isinstance(key, Peer):
            peer = key
        elif self._upstreams is not None:
            peer = self._upstreams.lone(key)
        place = self._places[key] = Place(
            str(backend), backend, begin, contexts, group, peer, retry or self._retry, self._upstreams
        )
        return place


def _whyOut(peer: Peer | None) -> str:
    """Why C{peer} gets no new sessions: a phrase for the log with the server as its subject."""
    assert peer is not None, "others are always used"
    if peer.order == "drain":
        return f"gets no new sessions: an operator drained it; mailgate backend resume {peer.backend} ends that"
    if peer.order:
        return f"gets no new sessions: an operator took it down; mailgate backend resume {peer.backend} ends that"
    if peer.isFailing:
        return f"gets no new sessions: its health check fails{f' ({peer.reason})' if peer.reason else ''}"
    return "gets no new sessions: it is full or down"


def _isKnown(group: Upstream) -> bool:
    """Whether the log has said of each server of C{group} that it fails."""
    now = group.now
    return bool(group.peers) and all(
        not peer.order and (peer.isFailing or peer.isResting(now) or peer.outage.isOn) for peer in group.peers
    )


def _whyNone(group: Upstream) -> str:
    """Why no server of C{group} can be chosen: a phrase for the log with the group as its subject."""
    peers = group.peers
    if not peers:
        return _NO_SERVER
    out = [peer for peer in peers if peer.order or peer.isFailing]
    if len(out) < len(peers):
        return _NOT_USABLE
    return f"has no usable server: {', '.join(f'{peer.backend} {_whyOut(peer)}' for peer in out[:_MOST_NAMED])}"
