# -*- test-case-name: mailgate.test.limits.test_admission -*-
"""
The limits for connections and sessions: C{access}, operators' blocks, C{limit_conn}, C{limit_req} of connections and
handshakes, and the early drop of connections that have not logged in (R8, OpenSSH's C{MaxStartups}).

All of it is on the path of each connection: it never waits. What a connection counts for is in its record, so that it
is counted down exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2s
from random import random
from typing import TypeAlias

from attrs import frozen
from zope.interface import implementer

from mailgate.interfaces import IAdmission
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import ICounts, ILimitStore, IRates
from mailgate.limits.keys import canonical
from mailgate.limits.policy import ConnectionPolicy, Mode
from mailgate.limits.sources import NOWHERE, Source, Sources
from mailgate.limits.telling import DRY_RUN, REFUSED
from mailgate.login import Asked, Denial, Trouble
from mailgate.session import Outcome, Session

__all__ = ["Admission", "Ground"]

_ADDRESS, _NEW, _USER, _USER_ADDRESS, _SERVER = 1, 2, 4, 8, 16
"""The bits of C{Session.counted}. _NEW: it counts among the connections of the server that have not logged in."""

_BEFORE = _ADDRESS | _NEW
_SESSION = _USER | _USER_ADDRESS | _SERVER

_SHIFT = 8
"""
Above these bits is the digest of the user until the relay begins: C{Session.user} may change while the session counts
for that user.
"""

_DIGEST_BYTES = 8

_MOST_USERS = 1024
"""Users whose digests are remembered: some 250 bytes each."""

IDLE_COSTS = 1.0
"""Seconds that a connection without a login costs its address (OpenSSH's C{PerSourcePenalties noauth:1})."""

IDLE_FROM = 15.0
"""From so many seconds on that are outstanding, the address is refused (C{min:15})."""

_IDLE_MOST = 600
"""An address never owes more seconds (C{max:600})."""

_CONN_USER, _CONN_USER_ADDRESS, _CONN_SERVER = Rule.CONN_USER, Rule.CONN_USER_ADDRESS, Rule.CONN_SERVER
"""Looked up once: each look-up at an enumeration runs Python code."""

_OURS = (Outcome.LIMITED, Outcome.STOPPED, Outcome.KICKED, Outcome.INTERNAL)
"""How connections end that the gateway ends. They cost their address nothing."""


@frozen
class Ground:
    """
    What the admissions of a gateway's servers share.

    @ivar counts: counts connections and sessions.
    @ivar rates: counts events in time.
    @ivar store: knows blocks, known addresses and their allowance.
    @ivar monotonic: the time in seconds, the same clock in all workers.
    @ivar chance: returns a random number from 0 to 1.
    """

    counts: ICounts
    rates: IRates
    store: ILimitStore
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random


_Limit: TypeAlias = tuple[int, bytes, int, Rule]
"""A limit on sessions: its bit, the key of its count, the limit, and its rule."""


@implementer(IAdmission)
class Admission:
    """
    The limits of one server. All its listening addresses share it.

    @param server: the name of the server.
    @param policy: its limits.
    @param sources: knows the addresses of its clients.
    @param ground: what it shares with other servers.
    @param acted: called with the record of a connection, the rule, and C{refused} or C{dry_run}, each time a limit acts
        (L{mailgate.limits.telling.Telling.acted}).
    """

    def __init__(
        self,
        server: str,
        policy: ConnectionPolicy,
        sources: Sources,
        ground: Ground,
        acted: Callable[[Session, Rule, str], object],
    ) -> None:
        self._policy = policy
        self._sources = sources
        self._sourceOf, self._known = sources.of, sources.known
        self._counts, self._rates, self._store = ground.counts, ground.rates, ground.store
        self._monotonic, self._chance = ground.monotonic, ground.chance
        self._acted = acted
        self._name = server.encode()
        self._userStart = b"user %b " % self._name
        self._userAddressStart = b"user_address %b " % self._name
        self._sessionsKey = b"sessions %b" % self._name
        self._new = ground.counts.counter(b"new %b" % self._name)
        # What is off is 0 or None here, whatever the reason.
        counts, rates = policy.connMode is not Mode.OFF, policy.reqMode is not Mode.OFF
        self._address = policy.address if counts else 0
        self._user = policy.user if counts else 0
        self._userAddress = policy.userAddress if counts else 0
        self._sessions = policy.server if counts else 0
        self._connection = policy.connection if rates else None
        self._handshake = policy.handshake if rates else None
        self._dropFrom = policy.dropFrom if policy.dropMode is not Mode.OFF else 0

    # At the start of a connection.

    def arrived(self, session: Session) -> Trouble | None:
        # As _at, which takes as long again to be called.
        client = session.client
        source = self._known(client.rpartition(":")[0]) or self._sourceOf(client)
        host = source.host
        if not host:
            return None
        if not source.isAllowed:
            return self._refuse(session, Rule.ACCESS, Trouble.BLOCKED)
        store = self._store
        if store.blockOf(host) is not None:
            return self._refuse(session, Rule.BLOCK, Trouble.BLOCKED)
        if source.isExempt:
            return None
        most = self._address
        if most:
            if self._counts.add(source.address, most) or self._mayAdd(session, source):
                session.counted = _ADDRESS
            else:
                return self._refuse(session, Rule.CONN_ADDRESS)
        rate, dropFrom = self._connection, self._dropFrom
        if rate is None and not dropFrom:
            return None
        now = self._monotonic()
        if rate is not None:
            a = store.allowance(host)
            isInTime = self._rates.take(source.connection, rate.interval / a, rate.burst * a, now)
            if not isInTime and not self._mayBeEarly(session, Rule.REQ_CONNECTION):
                return self._refuse(session, Rule.REQ_CONNECTION)
        if dropFrom:
            new = self._new
            count, isIdle = new.total(now), self._rates.early(source.idle, now) >= IDLE_FROM
            if (isIdle or count >= dropFrom) and self._isDropped(session, source, count, isIdle):
                return self._refuse(session, Rule.EARLY_DROP)
            new.up()
            session.counted |= _NEW
        return None

    def _at(self, session: Session) -> Source:
        """Return from where a client is."""
        client = session.client
        return self._known(client.rpartition(":")[0]) or self._sourceOf(client)

    def shaken(self, session: Session) -> Trouble | None:
        rate = self._handshake
        if rate is None:
            return None
        source = self._at(session)
        if source.isExempt:
            return None
        a = self._store.allowance(source.host)
        isInTime = self._rates.take(source.handshake, rate.interval / a, rate.burst * a, self._monotonic())
        if isInTime or self._mayBeEarly(session, Rule.REQ_HANDSHAKE):
            return None
        return self._refuse(session, Rule.REQ_HANDSHAKE)

    def _refuse(self, session: Session, rule: Rule, trouble: Trouble = Trouble.TOO_MANY) -> Trouble:
        session.conclude(Outcome.LIMITED, rule.value)
        self._acted(session, rule, REFUSED)
        return trouble

    def _mayAdd(self, session: Session, source: Source) -> bool:
        """
        Count a connection of an address that has as many already as one user may have. Return whether it is counted.
        """
        if self._counts.add(source.address, self._address * self._store.allowance(source.host)):
            return True
        if self._policy.connMode is not Mode.DRY_RUN:
            return False
        self._acted(session, Rule.CONN_ADDRESS, DRY_RUN)
        return self._counts.add(source.address)

    def _mayBeEarly(self, session: Session, rule: Rule) -> bool:
        """Return whether an event of an address may happen although there were too many."""
        if self._policy.reqMode is not Mode.DRY_RUN:
            return False
        self._acted(session, rule, DRY_RUN)
        return True

    def _isDropped(self, session: Session, source: Source, count: int, isIdle: bool) -> bool:
        """
        Return whether a connection is dropped because many have not logged in, or because its address had many that
        never did. The probability grows in a line from C{dropShare} at C{dropFrom} to 1 at C{dropAll}. A known address
        is dropped from C{dropAll} on.
        """
        policy = self._policy
        if count < policy.dropAll:
            isUnlucky = isIdle or self._chance() < self._share(count)
            if not isUnlucky or self._store.isKnown(source.host):
                return False
        if policy.dropMode is not Mode.DRY_RUN:
            return True
        self._acted(session, Rule.EARLY_DROP, DRY_RUN)
        return False

    def _share(self, count: int) -> float:
        """Return the probability at so many connections, from C{dropFrom} on and below C{dropAll}."""
        policy = self._policy
        part = (count - policy.dropFrom) / (policy.dropAll - policy.dropFrom)
        return policy.dropShare + (1 - policy.dropShare) * part

    # At the login.

    def accepted(self, session: Session) -> Denial | None:
        if session.counted & _SESSION:
            # It has logged in before, and no backend has taken it.
            self._dropSession(session)
        digest, number = _digestOf(session.user)
        counted, add = 0, self._counts.add
        limits = self._limitsOf(session, digest)
        if session.asked is not None:
            limits = _lessElsewhere(session.user, session.asked, limits)
        for bit, key, most, rule in limits:
            if not add(key, most):
                if self._policy.connMode is not Mode.DRY_RUN:
                    session.counted |= number | counted
                    self._dropSession(session)
                    self._acted(session, rule, REFUSED)
                    return Denial(Trouble.SESSIONS, reason=rule.value)
                self._acted(session, rule, DRY_RUN)
                add(key)
            counted |= bit
        if counted:
            session.counted |= number | counted
        return None

    def _limitsOf(self, session: Session, digest: bytes) -> list[_Limit]:
        """Return the limits on sessions that are on."""
        limits = []
        if digest:
            if self._user:
                limits.append((_USER, self._userStart + digest, self._user, _CONN_USER))
            if self._userAddress:
                source = self._at(session)
                if source.host:
                    key = self._userAddressKey(source, digest)
                    limits.append((_USER_ADDRESS, key, self._userAddress, _CONN_USER_ADDRESS))
        if self._sessions:
            limits.append((_SERVER, self._sessionsKey, self._sessions, _CONN_SERVER))
        return limits

    def _userAddressKey(self, source: Source, digest: bytes) -> bytes:
        # The digest has always the same length.
        return self._userAddressStart + digest + source.key

    # At the end.

    def relaying(self, session: Session) -> None:
        if session.counted & _BEFORE:
            self._dropBefore(session, self._at(session))
        session.asked = None
        # From now on the user stays the same. A small number takes no memory of its own.
        bits = session.counted & _SESSION
        if bits and session.counted - bits == _digestOf(session.user)[1]:
            session.counted = bits

    def left(self, session: Session) -> None:
        counted = session.counted
        if counted & _BEFORE:
            client = session.client
            source = self._known(client.rpartition(":")[0]) or self._sourceOf(client)
            if counted & _NEW and not session.attempts and session.outcome not in _OURS:
                self._rates.take(source.idle, IDLE_COSTS, _IDLE_MOST, self._monotonic())
            self._dropBefore(session, source)
        if counted & _SESSION:
            self._dropSession(session)

    def _dropBefore(self, session: Session, source: Source) -> None:
        counted = session.counted
        session.counted = counted & ~_BEFORE
        if counted & _ADDRESS:
            self._counts.drop(source.address)
        if counted & _NEW:
            self._new.down()

    def _dropSession(self, session: Session) -> None:
        counted, drop = session.counted, self._counts.drop
        session.counted = counted & _BEFORE
        number = counted >> _SHIFT
        digest = number.to_bytes(_DIGEST_BYTES, "big") if number else _digestOf(session.user)[0]
        if counted & _USER:
            drop(self._userStart + digest)
        if counted & _USER_ADDRESS:
            drop(self._userAddressKey(self._at(session), digest))
        if counted & _SERVER:
            drop(self._sessionsKey)

    # For operators.

    def explain(self, user: bytes, host: str) -> Mapping[str, Mapping[str, int]]:
        """
        Return how many connections and sessions there are, and how many there may be, by the words of C{limit_conn}:
        C{count} and C{limit}; 0 is no limit. The limit of an address is that for its users of now.

        @param user: the name, canonical; may be empty.
        @param host: the address, canonical; may be empty.
        """
        policy, of = self._policy, self._counts.of
        isOn = policy.connMode is not Mode.OFF
        source = self._sources.at(host) if host else NOWHERE
        digest, _ = _digestOf(user)
        rows: dict[str, tuple[int, int]] = {"server": (of(self._sessionsKey), policy.server)}
        if source.host:
            most = 0 if source.isExempt else policy.address * self._store.allowance(source.host)
            rows["address"] = of(source.address), most
        if digest:
            rows["user"] = of(self._userStart + digest), policy.user
            if source.host:
                rows["user_address"] = of(self._userAddressKey(source, digest)), policy.userAddress
        return {word: {"count": count, "limit": most if isOn else 0} for word, (count, most) in rows.items()}


def _lessElsewhere(name: bytes, asked: Asked, limits: list[_Limit]) -> list[_Limit]:
    """Return limits without the sessions that the user has at other gateways: so many are left for this one."""
    if not asked.elsewhere or canonical(name) != asked.user:
        # The authenticator may know the user by another name, whose sessions elsewhere are not known.
        return limits
    less = {_USER: asked.elsewhere, _USER_ADDRESS: asked.fromAddress}
    return [(bit, key, most - less.get(bit, 0), rule) for bit, key, most, rule in limits]


@lru_cache(_MOST_USERS)
def _digestOf(user: bytes) -> tuple[bytes, int]:
    """Return what stands for a user in keys, and in records above the bits; empty and 0 without a name."""
    digest = blake2s(canonical(user), digest_size=_DIGEST_BYTES).digest() if user else b""
    return digest, int.from_bytes(digest, "big") << _SHIFT
