# -*- test-case-name: mailgate.test.auth.test_cache -*-
"""
The stored answers of L{mailgate.auth.cache}: their secrets are encrypted, and their memory is bounded.
"""

from __future__ import annotations

import marshal
from collections import OrderedDict
from collections.abc import Callable, Iterator

from attrs import evolve, field, frozen
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailgate.login import Denial, LoginRequest, Route, RouteOptions

__all__ = ["COST", "COST_OF_OPTIONS", "NONCE", "PIECE", "Answers", "Stored"]

COST = 700
"""
Bytes that an entry takes in addition to its texts, with its table slot and key: measured are 630, and 480 for a
refusal.
"""

COST_OF_OPTIONS = 600
"""Bytes that the options of a route take in addition to their texts."""

PIECE = 500
"""Entries that are looked at in one go. That takes about a millisecond."""

NONCE = 12
"""Bytes of an AES-GCM nonce."""


@frozen
class Stored:
    """
    A stored answer.

    @ivar answer: the answer; a route has no password and no additional fields here.
    @ivar since: the time from which it is fresh, in seconds.
    @ivar until: the time from which it is stale.
    @ivar user: the user name that the client gave.
    @ivar sealed: the route's password, encrypted. L{None} means that the route has no password; empty bytes mean that
        it is the client's own.
    @ivar forward: the route's additional fields for the backend, encrypted; empty for none.
    """

    answer: Route | Denial
    since: float
    until: float
    user: bytes = b""
    sealed: bytes | None = field(default=None, repr=False)
    forward: bytes = field(default=b"", repr=False)

    @property
    def cost(self) -> int:
        """The estimated memory of this entry, in bytes."""
        if isinstance(self.answer, Denial):
            return COST + len(self.user) + len(self.answer.text or b"") + len(self.answer.code or b"")
        hosts = sum(len(str(backend)) for backend in self.answer.backends)
        cost = COST + hosts + len(self.user) + len(self.answer.user) + len(self.sealed or b"")
        return cost if self.answer.options is None else cost + _costOf(self.answer.options) + len(self.forward)

    def isAbout(self, matches: Callable[[bytes], bool]) -> bool:
        """
        Return whether this is about a user of a kind.

        @param matches: returns whether a user name is of this kind.
        """
        answer = self.answer
        return matches(self.user) or (isinstance(answer, Route) and answer.user != self.user and matches(answer.user))

    def reveal(self, request: LoginRequest, key: bytes, now: float) -> Route | Denial:
        """
        Return the answer with its password.

        @param request: an identical login; its password is used if the service sent none.
        @param key: the key that the password was encrypted with.
        @param now: the time in seconds.
        """
        answer = self.answer
        if isinstance(answer, Denial):
            return answer
        if answer.options is not None:
            answer = evolve(answer, options=self._optionsAt(answer.options, key, now - self.since))
        if self.sealed is None:
            return answer
        return answer.withPassword(opened(self.sealed, key) if self.sealed else request.credentials.secret)

    def _optionsAt(self, options: RouteOptions, key: bytes, age: float) -> RouteOptions:
        """Return C{options} for a login that comes C{age} seconds after the answer: their times count from then."""
        return evolve(
            options,
            forward=marshal.loads(opened(self.forward, key)) if self.forward else (),
            hold=max(0.0, options.hold - age),
            lifetime=None if options.lifetime is None else max(0.0, options.lifetime - age),
        )


def opened(sealed: bytes, key: bytes) -> bytes:
    """
    Decrypt what the cache has encrypted.

    @param sealed: the nonce and the ciphertext.
    @param key: the key.
    """
    return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], None)


def _costOf(options: RouteOptions) -> int:
    """The estimated memory of C{options} without additional fields, in bytes."""
    pins = () if options.tls is None else options.tls.pins or ()
    texts = (options.key, options.authid, options.authzid)
    return COST_OF_OPTIONS + sum(len(text or b"") for text in texts) + sum(map(len, pins))


class Answers:
    """
    Stored answers by the MAC of their login. If they take more than C{limit} bytes, those that were used least recently
    are removed.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._cost = 0
        # An OrderedDict finds its first entry fast, also after many deletions at its front; a dict does not.
        self._stored: OrderedDict[bytes, Stored] = OrderedDict()

    def find(self, name: bytes, now: float) -> Stored | None:
        """
        Return the answer for a login if it is fresh.

        @param name: the first half of the login's MAC.
        @param now: the time in seconds.
        """
        stored = self._stored.get(name)
        # If the clock is set back, the answer must not live longer.
        if stored is None or not stored.since <= now < stored.until:
            return None
        self._stored.move_to_end(name)
        return stored

    def discard(self, name: bytes) -> bool:
        """
        Remove the answer for a login, fresh or stale.

        @param name: the first half of the login's MAC.
        @return: whether there was one.
        """
        stored = self._stored.pop(name, None)
        if stored is None:
            return False
        self._cost -= stored.cost
        return True

    def store(self, name: bytes, stored: Stored) -> None:
        """
        Store an answer, unless it alone exceeds the limit.

        @param name: the first half of the login's MAC; nothing is stored for it yet.
        @param stored: the answer.
        """
        if stored.cost > self._limit:
            return
        self._stored[name] = stored
        self._cost += stored.cost
        while self._cost > self._limit:
            _, oldest = self._stored.popitem(last=False)
            self._cost -= oldest.cost

    def forget(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        """
        Remove the answers about users of a kind. Other answers may be found, stored and removed meanwhile.

        @param matches: returns whether a user name is of this kind.
        @return: yields after each L{PIECE} entries, and at the end, how many of them were removed.
        """
        forgotten = 0
        for number, (name, stored) in enumerate(list(self._stored.items()), 1):
            # Another answer may have replaced it since.
            if stored.isAbout(matches) and self._stored.get(name) is stored:
                del self._stored[name]
                self._cost -= stored.cost
                forgotten += 1
            if not number % PIECE:
                yield forgotten
                forgotten = 0
        yield forgotten

    def held(self, matches: Callable[[bytes], bool], now: float) -> Iterator[int]:
        """
        Count the fresh answers about users of a kind. Other answers may be found, stored and removed meanwhile.

        @param matches: returns whether a user name is of this kind.
        @param now: the time in seconds.
        @return: yields after each L{PIECE} entries, and at the end, how many of them they are.
        """
        every = list(self._stored.values())
        for start in range(0, len(every), PIECE):
            piece = every[start : start + PIECE]
            yield sum(stored.since <= now < stored.until and stored.isAbout(matches) for stored in piece)

    def clear(self) -> None:
        """Remove all answers."""
        self._stored.clear()
        self._cost = 0
