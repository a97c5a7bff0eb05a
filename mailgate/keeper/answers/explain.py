# -*- test-case-name: mailgate.test.keeper.test_explain -*-
"""
What the next login of a user would do in one process: which services are asked, and which backend is tried first.
Nothing changes: no question is sent, no session counts, and no turn moves on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from mailgate.auth.cache import CachedAuthenticator
from mailgate.auth.firstof import FirstOf
from mailgate.auth.http.authenticator import HTTPAuthenticator
from mailgate.auth.http.settings import HTTPSettings
from mailgate.auth.passthrough import PassThroughAuthenticator
from mailgate.auth.passwdfile.authenticator import FileAuthenticator, FileSettings
from mailgate.backend.settings import ProxySettings
from mailgate.config import authenticatorKind
from mailgate.directives import ServerSettings
from mailgate.frontend.factory import ProxyServerFactory
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.limits.keys import canonical, canonicalHost
from mailgate.login import Backend, BackendGroup, Destination
from mailgate.rules.facts import Facts
from mailgate.rules.settings import variablesIn
from mailgate.service import Gateway
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer
from mailgate.upstream.upstreams import NoSuchGroup, Upstreams

__all__ = ["explain"]

_MOST_TRIED = 8
"""Backends of the order in which a login would try them."""

_OF_THE_USER = frozenset(("user", "domain", "protocol"))
"""Variables that do not depend on the client's address or TLS."""


_Row: TypeAlias = "dict[str, Any] | None"


def explain(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[dict[str, Any] | None]:
    """
    Yield what a login would do at each server of the configuration, and L{None} for a pause. A process that accepts no
    clients yields nothing.

    @param view: the process.
    @param arguments: C{user}; C{address} and C{protocol}, which may be null.
    @raise ValueError: an argument is not valid.
    """
    user, address, protocol = (arguments.get(name) for name in ("user", "address", "protocol"))
    if not isinstance(user, str) or not user:
        raise ValueError("user must be a text that is not empty")
    if not isinstance(address, str | None) or not isinstance(protocol, str | None):
        raise ValueError("address and protocol must be texts or null")
    return _servers(view, user, address, protocol)


def _servers(view: ProcessView, user: str, address: str | None, protocol: str | None) -> Iterator[_Row]:
    gateways = view.gateways()
    if not gateways or gateways[0].isDraining:
        return
    # A server may have several addresses, with a factory for each.
    factories = {factory.settings.name: factory for factory in reversed(gateways[0].factories)}
    for server in gateways[0].settings.servers:
        if server.name in factories and protocol in (None, server.protocol):
            yield from _server(gateways[0], factories[server.name], user, address)


def _server(gateway: Gateway, factory: ProxyServerFactory, user: str, address: str | None) -> Iterator[_Row]:
    server = factory.settings
    facts = Facts(address or "", user, server.protocol, "")
    kind = authenticatorKind(server)
    asked: list[dict[str, Any]] = []
    for each in _asked(factory, factory.authenticator, user, address):
        if each is None:
            yield None
        else:
            asked.append(each)
    given = server[ProxySettings].backend
    # The account's own backend goes before that of the server.
    backends = [place for place in (one.pop("backend", None) for one in asked) if place is not None]
    places = backends or ([] if given is None else [given])
    yield {
        "server": server.name,
        "protocol": server.protocol,
        "by": "" if kind is None else kind.directive or kind.name,
        "asks": asked,
        "named": kind is not None and kind.directive == "auth_http",
        "limits": _counts(factory, user, address),
        "goes": [_destination(gateway.upstreams, place, facts, address is not None) for place in places],
    }


def _counts(factory: ProxyServerFactory, user: str, address: str | None) -> Mapping[str, Mapping[str, int]] | None:
    """The connections and sessions that C{limit_conn} of a server counts, with their limits."""
    admission: Any = getattr(factory, "admission", None)
    if admission is None or not hasattr(admission, "explain"):
        return None
    host = "" if address is None or address.startswith("unix:") else canonicalHost(address)
    counts: Mapping[str, Mapping[str, int]] = admission.explain(canonical(_bytes(user)), host)
    return counts


def _asked(factory: ProxyServerFactory, authenticator: Any, user: str, address: str | None) -> Iterator[_Row]:
    """
    Yield what each authenticator would do, and L{None} for a pause. C{backend} is that of the account, a L{Destination}
    or L{None}.
    """
    server, clock = factory.settings, factory.clock
    if isinstance(authenticator, FirstOf):
        for each in authenticator.authenticators:
            yield from _asked(factory, each, user, address)
    elif isinstance(authenticator, CachedAuthenticator):
        held = 0
        for count in authenticator.held(_bytes(user)):
            held += count
            yield None
        cache = {"ttl": server[HTTPSettings].cacheTTL, "held": held}
        for row in _asked(factory, authenticator.inner, user, address):
            yield row and {**row, "cache": cache}
    elif isinstance(authenticator, HTTPAuthenticator):
        services = _services(authenticator, clock.seconds())
        yield {"kind": "auth_http", "services": services, "cache": None}
    elif isinstance(authenticator, FileAuthenticator):
        yield _file(authenticator, server, user, address)
    elif isinstance(authenticator, PassThroughAuthenticator):
        yield {"kind": "proxy_pass"}
    else:
        yield {"kind": "other", "name": type(authenticator).__name__}


def _bytes(user: str) -> bytes:
    return user.encode("utf-8", "surrogateescape")


def _services(authenticator: HTTPAuthenticator, now: float) -> list[dict[str, Any]]:
    services = authenticator.standing
    # A service that is alone is always asked.
    isAlone = len(services) == 1
    return [
        {
            "url": str(service.url),
            "rests": 0.0 if isAlone else round(max(0.0, until - now), 1),
            "failing": service.isFailing,
            "waiting": len(service.queue),
        }
        for service, until in services
    ]


def _file(authenticator: FileAuthenticator, server: ServerSettings, user: str, address: str | None) -> dict[str, Any]:
    found = authenticator.foresee(_bytes(user), server.protocol, address)
    return {
        "kind": "auth_file",
        "file": server[FileSettings].path,
        "objection": found.objection,
        "changed": found.hasChanged,
        "backend": found.backend,
    }


def _destination(upstreams: Upstreams, place: Destination, facts: Facts, hasAddress: bool) -> dict[str, Any]:
    """Where a login would go that C{place} is for."""
    found = upstreams.find(place, facts) if isinstance(place, BackendGroup) else place
    text = str(place) if isinstance(place, BackendGroup) and not place.isName else ""
    isGuessed = not hasAddress and not _OF_THE_USER.issuperset(variablesIn(text))
    if isinstance(found, NoSuchGroup):
        why = f"{place} stands for no group of backends and no address"
        return {"group": None, "method": None, "servers": [], "order": [], "why": why, "guessed": isGuessed}
    if isinstance(found, Backend):
        return {**_lone(upstreams, found), "guessed": isGuessed}
    return {**_group(found, facts, hasAddress), "guessed": isGuessed}


def _lone(upstreams: Upstreams, backend: Backend) -> dict[str, Any]:
    known = (peer for group, peer in upstreams.everyPeer() if not group and peer.backend == backend)
    # One that is not known yet has no sessions and no failures.
    peer = next(known, None) or Peer(backend, (backend.host, backend.port))
    row = _row(peer, upstreams.now, False)
    isUsed = not (peer.order or peer.isFailing)
    return {
        "group": None,
        "method": None,
        "servers": [row],
        "order": [row["address"]] if isUsed else [],
        "why": "the only backend" if isUsed else "the only backend gets no new sessions",
    }


def _group(group: Upstream, facts: Facts, hasAddress: bool) -> dict[str, Any]:
    backups = group.backups
    order, why = _order(group, facts, hasAddress, backups)
    return {
        "group": group.name,
        "method": group.settings.method,
        "servers": [_row(peer, group.now, peer in backups) for peer in group.peers],
        "order": [str(peer.backend) for peer in order],
        "why": why,
    }


def _order(group: Upstream, facts: Facts, hasAddress: bool, backups: Sequence[Peer]) -> tuple[list[Peer], str]:
    """The peers that a login would try, and why the first of them."""
    usable = [peer for peer in group.peers if peer.isEligible(group.now, group.isLone)]
    key = group.settings.hashKey
    if group.settings.random is not None and len(usable) > 1:
        return [], "each login draws a server"
    needsAddress = group.settings.ipHash or (key is not None and not _OF_THE_USER.issuperset(variablesIn(key.key)))
    if needsAddress and not hasAddress and len(usable) > 1:
        return [], "the server depends on the address of the client"
    order = list(islice(group.foreseen(facts), _MOST_TRIED)) if group.settings.random is None else usable
    if not order:
        return [], "no server can be used: all are down, full or rest after failures"
    if order[0] in backups:
        return order, "no other server can be used; it is a backup"
    if order[0] not in usable:
        return order, "all others are down or rest after failures; its rest ends first"
    return order, "no other server can be used" if len(usable) == 1 < len(group.peers) else group.settings.method


def _row(peer: Peer, now: int, isBackup: bool) -> dict[str, Any]:
    return {
        "address": str(peer.backend),
        "state": peer.state(now).value,
        "reason": peer.reason if peer.order or peer.isFailing or peer.fails or peer.failingSince else "",
        "sessions": peer.connections,
        "weight": peer.limits.weight,
        "backup": isBackup,
    }


ANSWERERS["explain"] = explain
