# -*- test-case-name: mailgate.test.net.test_names -*-
"""
The addresses of host names, and where services are (SRV): asked of the system or of name servers, kept for as long as
the answer says, and kept longer where there is no newer one (RFC 8767).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, fail, maybeDeferred, succeed
from twisted.internet.error import CannotListenError, DNSLookupError
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.names import dns
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.directives import isHostName
from mailgate.net.dns import NameServers
from mailgate.net.resolver import NameServer, Resolver

__all__ = ["CachedNames", "Found", "Names", "ServerNames", "Service", "SystemNames", "systemServers"]

SYSTEM_TTL = 30.0
"""Seconds for which an answer of the system is used: it does not say."""

LEAST_TTL, MOST_TTL = 1.0, 3600.0
"""Seconds: bounds of what an answer of a name server says."""

RESOLUTION_DELAY = 0.5
"""
Seconds that addresses of one family wait for those of the other. RFC 8305, section 3 has 0.05; but what is found here
is used for all its time to live.
"""

FAILURE_TTL = 5.0
"""Seconds for which a name is not asked for again after a failure (RFC 9520, section 3.2)."""

STALE_FOR = 86400.0
"""Seconds for which addresses are used beyond their time, as no newer answer comes."""

MOST_ADDRESSES = 64
"""Addresses of one name, and SRV records of one service, that are used. An answer by TCP may have thousands."""

MOST_NAMES = 4096
"""Names that are kept: an authentication service may name any number."""


@frozen
class Found:
    """
    The addresses of a name.

    @ivar addresses: without brackets, in the order of the answer; at least one.
    @ivar ttl: seconds for which they may be used.
    """

    addresses: tuple[str, ...]
    ttl: float


@frozen
class Service:
    """
    One SRV record (RFC 2782).

    @ivar priority: lower values are used first.
    @ivar weight: the share among records of the same priority.
    @ivar port: the port of the server.
    @ivar host: the host name of the server, without a dot at the end.
    """

    priority: int
    weight: int
    port: int
    host: str


class Names(Protocol):
    """What finds addresses."""

    def lookup(self, name: str) -> Deferred[Found]:
        """
        The addresses of the host C{name}.

        The Deferred fails with L{DNSLookupError} where there are none, or none can be found.
        """


@implementer(IResolutionReceiver)
class _Receiver:
    """Gathers the addresses of one lookup."""

    def __init__(self) -> None:
        self.done: Deferred[tuple[str, ...]] = Deferred()
        self._hosts: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The addresses follow."""

    def addressResolved(self, address: IAddress) -> None:
        host: str = address.host  # type: ignore[attr-defined]
        if host not in self._hosts:
            self._hosts.append(host)

    def resolutionComplete(self) -> None:
        if not self.done.called:
            self.done.callback(tuple(self._hosts))


class SystemNames:
    """
    Names as the system finds them, its hosts file included, in the reactor's threads.

    @param resolver: the reactor's.
    """

    def __init__(self, resolver: IHostnameResolver) -> None:
        self._resolver = resolver

    def lookup(self, name: str) -> Deferred[Found]:
        receiver = _Receiver()
        self._resolver.resolveHostName(receiver, name)
        return receiver.done.addCallback(_foundBySystem, name)


def _foundBySystem(addresses: tuple[str, ...], name: str) -> Found:
    if not addresses:
        raise DNSLookupError(f"no address of {name} was found")
    return Found(addresses[:MOST_ADDRESSES], SYSTEM_TTL)


class ServerNames:
    """
    Resolves names through name servers.

    @param resolver: the servers, and how long their answers are valid.
    @param timeout: seconds for one lookup.
    @param reactor: the reactor for sockets and timers.
    """

    def __init__(self, resolver: Resolver, timeout: float, reactor: Any) -> None:
        self._resolver = resolver
        self._timeout = timeout
        self._reactor = reactor
        self._servers = NameServers(resolver.servers, reactor)

    def lookup(self, name: str) -> Deferred[Found]:
        types = [dns.A] * self._resolver.ipv4 + [dns.AAAA] * self._resolver.ipv6
        asked = [self._ask(name, kind) for kind in types]
        for each in asked:
            each.addCallback(self._answered, asked)
        return DeferredList(asked, consumeErrors=True).addCallback(self._gathered)

    def services(self, name: str) -> Deferred[tuple[tuple[Service, ...], float]]:
        """
        The SRV records at C{name}, and the seconds for which they may be used.

        The Deferred fails with L{DNSLookupError} where there are none.
        """
        return self._ask(name, dns.SRV).addCallbacks(self._services, _unanswered, (name,))

    def close(self) -> Deferred[Any]:
        """The Deferred fires when the sockets of questions that nobody waits for are closed."""
        return self._servers.close()

    def _ask(self, name: str, kind: int) -> Deferred[dns.Message]:
        return self._servers.ask(dns.Query(name.encode("idna"), kind, dns.IN), lambda message: True, self._timeout)

    def _answered(self, message: dns.Message, asked: list[Deferred[dns.Message]]) -> dns.Message:
        """Some name servers never answer questions of one family: do not wait for that with addresses of the other."""
        if any(record.type in (dns.A, dns.AAAA) for record in message.answers):
            for each in asked:
                each.addTimeout(RESOLUTION_DELAY, self._reactor)
        return message

    def _gathered(self, results: list[tuple[bool, Any]]) -> Found:
        records = [record for ok, message in results if ok for record in message.answers]
        known = [record for record in records if record.type in (dns.A, dns.AAAA)]
        addresses = dict.fromkeys(
            record.payload.dottedQuad() if record.type == dns.A else _sixth(record) for record in known
        )
        if not addresses:
            raise DNSLookupError(_whyNot(results))
        return Found(tuple(addresses)[:MOST_ADDRESSES], self._ttl(records))

    def _services(self, message: dns.Message, name: str) -> tuple[tuple[Service, ...], float]:
        records = [record for record in message.answers if record.type == dns.SRV]
        payloads: list[Any] = [record.payload for record in records]
        found = tuple(
            Service(each.priority, each.weight, each.port, each.target.name.decode("ascii", "replace").rstrip("."))
            for each in payloads
        )
        # The DNS may contain names with any bytes, which the system's resolver cannot look up.
        usable = tuple(service for service in found if service.port and isHostName(service.host))[:MOST_ADDRESSES]
        if not usable:
            raise DNSLookupError(f"{name} has no SRV record")
        return usable, self._ttl(records)

    def _ttl(self, records: list[Any]) -> float:
        if self._resolver.valid:
            return self._resolver.valid
        return max(LEAST_TTL, min(MOST_TTL, *(float(record.ttl) for record in records)))


def _sixth(record: Any) -> str:
    return str(ip_address(record.payload.address))


def _unanswered(failure: Failure) -> Failure:
    return Failure(DNSLookupError(_whyNot([(False, failure)])))


def _whyNot(results: list[tuple[bool, Any]]) -> str:
    for ok, result in results:
        if not ok and isinstance(result, Failure):
            return "no answer in time" if result.check(TimeoutError) else result.getErrorMessage()
    codes = {result.rCode for _, result in results}
    return (
        "the name does not exist"
        if dns.ENAME in codes
        else f"the name server answers with code {max(codes)}"
        if codes != {0}
        else "it has no address"
    )


@define
class _Entry:
    """What is known of a name. @ivar found: L{None} where nothing has been found yet."""

    found: Found | None = None
    until: float = 0.0
    stale: float = 0.0
    failure: Failure | None = None
    waiting: list[Deferred[Found]] | None = None


class CachedNames:
    """
    A cache for the results of C{names}. Concurrent lookups of one name share one query.

    When an answer expires, callers get the old addresses at once while a new query runs. If that fails, the old
    addresses stay valid for L{STALE_FOR}.

    @param clock: an C{IReactorTime}.
    """

    def __init__(self, names: Names, clock: Any) -> None:
        self.names = names
        self._clock = clock
        self._entries: dict[str, _Entry] = {}

    def lookup(self, name: str) -> Deferred[Found]:
        """Look C{name} up, as L{Names.lookup} does."""
        now = self._clock.seconds()
        entry = self._entries.get(name)
        if entry is None:
            self._makeRoom(now)
            entry = self._entries[name] = _Entry()
        if entry.until <= now and entry.waiting is None:
            self._refresh(name, entry)
        if entry.found is not None and now < entry.stale:
            return succeed(entry.found)
        if entry.waiting is not None:
            waiting: Deferred[Found] = Deferred()
            entry.waiting.append(waiting)
            return waiting
        if entry.found is not None and now < entry.until:
            return succeed(entry.found)
        assert entry.failure is not None, "there has been an answer"
        return fail(entry.failure)

    def goOnFrom(self, before: CachedNames) -> None:
        """
        Take over the addresses that another cache has found.

        @param before: the cache of an earlier configuration.
        """
        found = {name: entry for name, entry in before._entries.items() if entry.found is not None}
        self._entries.update(found)

    def _refresh(self, name: str, entry: _Entry) -> None:
        entry.waiting = []
        # A lookup that raises must not leave the entry waiting without end.
        looked = maybeDeferred(self.names.lookup, name)
        looked.addCallbacks(self._found, self._failed, callbackArgs=(entry,), errbackArgs=(entry,))

    def _found(self, found: Found, entry: _Entry) -> None:
        now = self._clock.seconds()
        entry.found, entry.failure = found, None
        entry.until, entry.stale = now + found.ttl, now + found.ttl + STALE_FOR
        self._answer(entry, lambda waiting: waiting.callback(found))

    def _failed(self, failure: Failure, entry: _Entry) -> None:
        now = self._clock.seconds()
        entry.until = now + FAILURE_TTL
        found = entry.found
        if found is not None and now < entry.stale:
            self._answer(entry, lambda waiting: waiting.callback(found))
            return
        entry.found = None
        entry.failure = (
            failure if failure.check(DNSLookupError, CannotListenError) else Failure(DNSLookupError(str(failure.value)))
        )
        kept = entry.failure
        self._answer(entry, lambda waiting: waiting.errback(kept))

    def _answer(self, entry: _Entry, answer: Callable[[Deferred[Found]], None]) -> None:
        waiting, entry.waiting = entry.waiting or [], None
        for each in waiting:
            if not each.called:
                answer(each)

    def _makeRoom(self, now: float) -> None:
        if len(self._entries) >= MOST_NAMES:
            self._entries = {
                name: entry for name, entry in self._entries.items() if entry.until > now or entry.waiting is not None
            }
        if len(self._entries) >= MOST_NAMES:
            self._entries = {name: entry for name, entry in self._entries.items() if entry.waiting is not None}


def systemServers(path: str = "/etc/resolv.conf") -> tuple[NameServer, ...]:
    """The name servers of the system, from the file C{path}; the one of this host where none are named."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            found = re.findall(r"^\s*nameserver\s+(\S+)", file.read(), re.MULTILINE)
    except OSError:
        found = []
    servers = []
    for each in found:
        try:
            servers.append((str(ip_address(each.partition("%")[0])), 53))
        except ValueError:
            continue
    return tuple(servers) or (("127.0.0.1", 53),)
