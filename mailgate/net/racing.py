# -*- test-case-name: mailgate.test.net.test_racing -*-
"""
Connections to a host name: its addresses are tried one after another, IPv6 and IPv4 by turns, each a quarter of a
second after the one before, and the first that connects is used (Happy Eyeballs, RFC 8305).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.directives import isHostName
from mailgate.net.names import CachedNames, Found

__all__ = ["ATTEMPT_DELAY", "RacingEndpoint", "inTurns"]

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried while the one before has not answered (RFC 8305, section 8)."""

FAMILY_FOR = 600.0
"""Seconds for which the family of the address that connected is tried first."""


def inTurns(addresses: Sequence[str], first: bool | None = None) -> list[str]:
    """
    C{addresses}, those of the two families by turns, in their order otherwise.

    @param first: whether IPv6 comes first; L{None} leaves that to the order of C{addresses}.
    """
    families = ([each for each in addresses if ":" in each], [each for each in addresses if ":" not in each])
    sixFirst = ":" in addresses[0] if first is None else first
    ahead, behind = families if sixFirst else families[::-1]
    return [each for each in chain.from_iterable(zip_longest(ahead, behind)) if each is not None]


def _timedOut(result: Any, timeout: float) -> Failure:
    return Failure(ConnectTimeout())


@implementer(IStreamClientEndpoint)
class RacingEndpoint:
    """
    A host name and a port.

    @param names: what finds the addresses.
    @param endpointFor: makes the endpoint of one address.
    @param clock: an C{IReactorTime}.
    @param host: the name.
    @param timeout: seconds for all of it, or L{None} for those who cancel when it takes too long.
    """

    def __init__(
        self,
        names: CachedNames,
        endpointFor: Callable[[str], IStreamClientEndpoint],
        clock: Any,
        host: str,
        timeout: float | None = None,
    ) -> None:
        self._names = names
        self._endpointFor = endpointFor
        self._clock = clock
        self._host = host
        self._timeout = timeout
        self._wasSix: bool | None = None
        self._until = 0.0

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        """
        Connect C{protocolFactory}.

        The Deferred fails with L{ValueError} if the host is not a valid name, like that of C{HostnameEndpoint}.
        """
        race = _Race(self, protocolFactory)
        try:
            name = self._host if isHostName(self._host) else self._host.encode("idna").decode("ascii")
        except UnicodeError:
            return fail(ValueError(f"{self._host!r} is no host name"))
        if not isHostName(name):
            return fail(ValueError(f"{self._host!r} is no host name"))
        race.begin(self._names.lookup(name))
        if self._timeout is not None:
            race.result.addTimeout(self._timeout, self._clock, _timedOut)
        return race.result

    def order(self, found: Found) -> list[str]:
        """The addresses that were C{found}, in the order in which they are to be tried."""
        isFresh = self._clock.seconds() < self._until
        return inTurns(found.addresses, self._wasSix if isFresh else None)

    def won(self, address: str) -> None:
        """The C{address} has connected: its family goes first for some time."""
        self._wasSix, self._until = ":" in address, self._clock.seconds() + FAMILY_FOR

    def attempt(self, address: str, protocolFactory: Any) -> Deferred[Any]:
        """Connect C{protocolFactory} to one C{address}."""
        return self._endpointFor(address).connect(protocolFactory)

    def later(self, call: Callable[[], None]) -> Any:
        """Have C{call} called when the next address is due."""
        return self._clock.callLater(ATTEMPT_DELAY, call)


class _Race:
    """One connection of an C{endpoint}, C{result} in the end."""

    def __init__(self, endpoint: RacingEndpoint, protocolFactory: Any) -> None:
        self.result: Deferred[Any] = Deferred(self._cancelled)
        self._endpoint = endpoint
        self._factory = protocolFactory
        self._lookup: Deferred[Any] | None = None
        self._left: list[str] = []
        self._running: list[Deferred[Any]] = []
        self._timer: Any = None
        self._failure: Failure | None = None
        self._isOver = False

    def begin(self, lookup: Deferred[Found]) -> None:
        """Start, with what C{lookup} finds."""
        self._lookup = lookup
        lookup.addCallbacks(self._found, self._lost)

    def _found(self, found: Found) -> None:
        self._lookup = None
        if not self._isOver:
            self._left = self._endpoint.order(found)
            self._next()

    def _next(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self._isOver:
            return
        if not self._left:
            if not self._running:
                assert self._failure is not None, "something was tried"
                self._end(lambda: self.result.errback(self._failure))
            return
        address = self._left.pop(0)
        attempt = self._endpoint.attempt(address, self._factory)
        self._running.append(attempt)
        if self._left:
            self._timer = self._endpoint.later(self._next)
        attempt.addCallbacks(self._won, self._failed, (attempt, address), errbackArgs=(attempt,))

    def _won(self, protocol: Any, attempt: Deferred[Any], address: str) -> None:
        self._running.remove(attempt)
        self._endpoint.won(address)
        self._end(lambda: self.result.callback(protocol))

    def _failed(self, failure: Failure, attempt: Deferred[Any]) -> None:
        self._running.remove(attempt)
        if self._isOver:
            return
        # That of the address that was tried first says most.
        self._failure = self._failure or failure
        self._next()

    def _lost(self, failure: Failure) -> None:
        self._lookup = None
        if not self._isOver:
            self._end(lambda: self.result.errback(failure))

    def _end(self, tell: Callable[[], None]) -> None:
        self._isOver = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for attempt in list(self._running):
            attempt.cancel()
        tell()

    def _cancelled(self, result: Deferred[Any]) -> None:
        self._end(lambda: result.errback(Failure(CancelledError())))
