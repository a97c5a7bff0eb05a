# -*- test-case-name: mailgate.test.net.test_reversedns -*-
"""
Looks up the host names of clients, as nginx does: first the name of the address, then the addresses of that name. The
name counts only if the client's address is among them, as the owner of an address can give it any name.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError, succeed
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.python.failure import Failure

from mailgate.log.journal import Journal, printable
from mailgate.net.dns import NameServers, Suits
from mailgate.net.resolver import Resolver

__all__ = ["MOST_LOOKUPS", "MOST_NAMES", "TEMPORARILY_UNAVAILABLE", "UNAVAILABLE", "ReverseDNS"]

UNAVAILABLE = "[UNAVAILABLE]"
"""The client has no host name, or the name does not resolve to its address."""

TEMPORARILY_UNAVAILABLE = "[TEMPUNAVAIL]"
"""The lookup failed for now."""

MOST_LOOKUPS = 100
"""The most clients that are looked up at a time. Each lookup has up to four sockets."""

MOST_NAMES = 10000
"""The most cached results; they take about 4 MB."""

_MOST_ALIASES = 8
"""The most CNAMEs that are followed one after another if the name server does not follow them."""

_TIMED_OUT = 110

_WORDS = {
    dns.EFORMAT: "Format error",
    dns.ESERVER: "Server failure",
    dns.ENAME: "Host not found",
    dns.ENOTIMP: "Unimplemented",
    dns.EREFUSED: "Operation refused",
    _TIMED_OUT: "Operation timed out",
}
"""nginx's texts for response codes of name servers, and for a timeout."""

_NAME = re.compile(rb"[a-z0-9.-]+")

_Address = IPv4Address | IPv6Address


class _Unresolved(Exception):
    """The lookup of C{asked} failed with the response code C{code}."""

    def __init__(self, asked: str, code: int) -> None:
        self.asked = asked
        self.words = f"could not be resolved ({code}: {_WORDS.get(code, 'Unknown error')})"
        super().__init__(f"{asked} {self.words}")
        self.isFinal = code == dns.ENAME


class _Garbled(Exception):
    """The name of an address is not a valid host name."""


@frozen
class _Outcome:
    """The result of a lookup, a host name or L{UNAVAILABLE}, which is valid from C{since} until before C{until}."""

    name: str
    since: float
    until: float


class _Outcomes:
    """A cache of results by address. It drops the least recently used ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Address, _Outcome] = OrderedDict()

    def find(self, address: _Address, now: float) -> str | None:
        """Return the result for C{address} if it is valid at C{now}; otherwise L{None}."""
        kept = self._kept.get(address)
        if kept is None:
            return None
        # Not before C{since}: after the clock was set back, the result would be valid for too long.
        if kept.since <= now < kept.until:
            self._kept.move_to_end(address)
            return kept.name
        del self._kept[address]
        return None

    def keep(self, address: _Address, outcome: _Outcome) -> None:
        """Store C{outcome} for C{address}."""
        self._kept[address] = outcome
        if len(self._kept) > MOST_NAMES:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Drop all results."""
        self._kept.clear()


class _Lookup:
    """A lookup in progress, and the logins that wait for it. It goes on if they are cancelled."""

    under: Deferred[None]

    def __init__(self) -> None:
        self._waiting: list[Deferred[str]] = []

    def join(self) -> Deferred[str]:
        """Return a Deferred that fires with the result."""
        joined: Deferred[str] = Deferred(self._waiting.remove)
        self._waiting.append(joined)
        return joined

    def finished(self, name: str) -> None:
        """Fire the Deferreds."""
        while self._waiting:
            self._waiting.pop(0).callback(name)


class ReverseDNS:
    """
    Looks up the host names of clients. It caches results, and looks up an address only once at a time.

    @param resolver: the name servers, and how to use them.
    @param timeout: seconds that each of the two lookups may take.
    @param reactor: the reactor.
    @param journal: the log.
    """

    def __init__(self, resolver: Resolver, timeout: float, reactor: Any, journal: Journal) -> None:
        self._resolver = resolver
        self._timeout = timeout
        self._clock = reactor
        self._journal = journal
        self._servers = NameServers(resolver.servers, reactor)
        self._lookups: dict[_Address, _Lookup] = {}
        self._outcomes = _Outcomes()
        self._types = [dns.A] * resolver.ipv4 + [dns.AAAA] * resolver.ipv6
        self._answered = reactor.seconds()
        self._isMissed = False

    @property
    def longest(self) -> float:
        """The most seconds that L{nameOf} takes."""
        return 2 * self._timeout

    def nameOf(self, host: str) -> Deferred[str]:
        """
        Look up the host name of a client.

        @param host: its address, in the form of L{mailgate.login.Client}.
        @return: a Deferred that fires with the name, L{UNAVAILABLE} or L{TEMPORARILY_UNAVAILABLE}. It fails only if it
            is cancelled.
        """
        try:
            address = _plainAddress(host)
        except ValueError:
            # unix:
            return succeed(TEMPORARILY_UNAVAILABLE)
        known = self._outcomes.find(address, self._clock.seconds())
        if known is not None:
            return succeed(known)
        lookup = self._lookups.get(address)
        if lookup is not None:
            return lookup.join()
        if len(self._lookups) >= MOST_LOOKUPS:
            self._journal.warn("{client} was not resolved: too many lookups are in progress", client=str(address))
            return succeed(TEMPORARILY_UNAVAILABLE)
        lookup = self._lookups[address] = _Lookup()
        joined = lookup.join()
        lookup.under = Deferred.fromCoroutine(self._find(address, lookup))
        return joined

    def close(self) -> Deferred[Any]:
        """Cancel all lookups and drop the cache. The Deferred fires when all sockets are closed."""
        for lookup in list(self._lookups.values()):
            lookup.under.cancel()
        self._outcomes.clear()
        return self._servers.close()

    async def _find(self, address: _Address, lookup: _Lookup) -> None:
        name = TEMPORARILY_UNAVAILABLE
        try:
            name = await self._confirmed(address)
        except _Unresolved as unresolved:
            name = self._without(unresolved)
        except _Garbled as garbled:
            self._journal.info("{client} resolved to {text}", client=str(address), text=str(garbled))
        except CannotListenError as error:
            self._journal.error(
                "cannot open a socket to resolve {client}: {error}", client=str(address), error=str(error)
            )
        except CancelledError:
            # The gateway shuts down.
            pass
        except Exception:
            self._journal.failure(
                "internal error: the lookup of the name of {client} failed", Failure(), client=str(address)
            )
        del self._lookups[address]
        lookup.finished(name)

    def _without(self, unresolved: _Unresolved) -> str:
        # nginx logs an error. Usually the client's name servers are the cause, so any client could fill the log.
        self._journal.info("{client} {error}", client=unresolved.asked, error=unresolved.words)
        if unresolved.isFinal:
            return UNAVAILABLE
        self._miss(unresolved)
        return TEMPORARILY_UNAVAILABLE

    def _miss(self, unresolved: _Unresolved) -> None:
        """Log an error if the gateway's own name servers seem to be the cause, once until they answer again."""
        silence = self._clock.seconds() - self._answered
        if silence >= self._timeout and not self._isMissed:
            self._isMissed = True
            self._journal.error(
                "resolver {servers}: all lookups failed for {seconds:.0f} s; last error: {client} {error}",
                servers=self._shown,
                seconds=silence,
                client=unresolved.asked,
                error=unresolved.words,
            )

    def _hear(self) -> None:
        """Remember that a name server of C{resolver} has answered, and log the first answer after an outage."""
        self._answered = self._clock.seconds()
        if self._isMissed:
            self._isMissed = False
            self._journal.info("resolver {servers} answers again", servers=self._shown)

    @property
    def _shown(self) -> str:
        return " ".join(host for host, _ in self._resolver.servers)

    async def _confirmed(self, address: _Address) -> str:
        name, ttl = await self._pointer(address)
        addresses, forwardTTL = await self._addresses(name)
        outcome = name.decode("ascii") if address in addresses else UNAVAILABLE
        lifetime = self._resolver.valid or min(ttl, forwardTTL)
        if lifetime:
            now = self._clock.seconds()
            self._outcomes.keep(address, _Outcome(outcome, now, now + lifetime))
        return outcome

    async def _pointer(self, address: _Address) -> tuple[bytes, int]:
        """Return the name of C{address} and its TTL in seconds."""
        reverse = address.reverse_pointer.encode("ascii")
        question = dns.Query(reverse, dns.PTR)
        answer = await self._ask(str(address), question, self._timeout, _pointsOrNot)
        if not answer.answers:
            raise _Unresolved(str(address), dns.ENAME)
        record = next(record for record in answer.answers if record.type == dns.PTR and record.cls == dns.IN)
        # Lower-case, as in nginx, so that it can be compared.
        name = _target(record).removesuffix(b".").lower()
        if len(name) > 255 or not _NAME.fullmatch(name):
            raise _Garbled(f'invalid host name "{printable(name[:255])}"')
        return name, _ttl(record)

    async def _addresses(self, name: bytes) -> tuple[set[_Address], int]:
        """Return the addresses of C{name} and their TTL in seconds."""
        deadline = self._clock.seconds() + self._timeout
        alias: bytes | None = name
        ttl = _LONGEST_TTL
        for _ in range(_MOST_ALIASES):
            if alias is None or not _isAskable(alias):
                break
            found: set[_Address] = set()
            following = None
            # Not negative, as a timer may be late.
            remaining = max(0.0, deadline - self._clock.seconds())
            for record in await self._forward(name, alias, remaining):
                ttl = min(ttl, _ttl(record))
                if record.type == dns.CNAME:
                    following = _target(record)
                else:
                    found.add(ip_address(record.payload.address))  # type: ignore[union-attr]
            if found:
                return found, ttl
            alias = following
        raise _Unresolved(f'"{name.decode("ascii")}"', dns.ENAME)

    async def _forward(self, name: bytes, alias: bytes, timeout: float) -> Iterator[dns.RRHeader]:
        """Return the address and CNAME records of C{alias}. Messages name C{name}, whose alias it is."""
        quoted = f'"{name.decode("ascii")}"'
        asked = [
            Deferred.fromCoroutine(self._ask(quoted, dns.Query(alias, type), timeout, _any)) for type in self._types
        ]
        results: list[tuple[bool, Any]] = await DeferredList(asked, consumeErrors=True)
        failures = [result for succeeded, result in results if not succeeded]
        for failure in failures:
            # "Host not found" for one type counts even if the query for the other type failed otherwise.
            if failure is failures[-1] or (failure.check(_Unresolved) and failure.value.isFinal):
                failure.raiseException()
        records = (record for _, message in results for record in message.answers)
        return (record for record in records if record.type in (dns.CNAME, *self._types) and record.cls == dns.IN)

    async def _ask(self, name: str, question: dns.Query, timeout: float, suits: Suits) -> dns.Message:
        try:
            answer = await self._servers.ask(question, suits, timeout)
        except TimeoutError:
            raise _Unresolved(name, _TIMED_OUT) from None
        if answer.rCode in (dns.OK, dns.ENAME):
            self._hear()
        if answer.rCode != dns.OK:
            raise _Unresolved(name, answer.rCode)
        return answer


_LONGEST_TTL = 2**31 - 1


def _target(record: dns.RRHeader) -> bytes:
    """Return the name in a PTR or CNAME record."""
    target: bytes = record.payload.name.name  # type: ignore[union-attr]
    return target


def _ttl(record: dns.RRHeader) -> int:
    """Return the TTL in seconds. A value with the highest bit set counts as 0 (RFC 2181, section 8)."""
    return record.ttl if record.ttl <= _LONGEST_TTL else 0


def _plainAddress(host: str) -> _Address:
    """
    Parse C{host}. An IPv4-mapped IPv6 address becomes an IPv4 address (RFC 4291, section 2.5.5.2).

    @raise ValueError: it is not an address.
    """
    # Without the scope, which name servers do not know.
    address = ip_address(ip_address(host).packed)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _isAskable(name: bytes) -> bool:
    """Return whether C{name} fits into a query. nginx reports other names as not found."""
    return len(name) <= 253 and all(0 < len(label) < 64 for label in name.split(b"."))


def _pointsOrNot(message: dns.Message) -> bool:
    """Return whether C{message} has a PTR record, or says that there is none. A CNAME alone does not count."""
    isRefusal = message.rCode != dns.OK or not message.answers
    return isRefusal or any(record.type == dns.PTR and record.cls == dns.IN for record in message.answers)


def _any(message: dns.Message) -> bool:
    """Accept any answer: without address records, the name has no address."""
    return True
