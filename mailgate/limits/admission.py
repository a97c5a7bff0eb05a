# -*- test-case-name: mailgate.test.limits.test_admission -*-
"""
The limits for connections and sessions: C{access}, operators' blocks, C{limit_conn}, C{limit_req} of connections and
handshakes, and the early drop of connections that have not logged in (R8, OpenSSH's C{MaxStartups}).

All of it is on the path of each connection: it never waits. What a connection counts for is in its record, so that it
is counted down exactly once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2s
from math import inf
from random import random

from attrs import frozen
from zope.interface import implementer

from mailgate.interfaces import IAdmission
from mailgate.limits.attempt import Pass, Result, Rule
from mailgate.limits.counts import Counts
from mailgate.limits.interfaces import IBucket, ILimitStore, IRates
from mailgate.limits.keys import UNIX, canonical
from mailgate.limits.policy import ConnectionPolicy, Mode
from mailgate.limits.rates import Bucket, earliness, take
from mailgate.limits.sources import Source, Sources
from mailgate.limits.telling import DRY_RUN, REFUSED
from mailgate.login import Denial, Trouble
from mailgate.session import Outcome, Session

__all__ = ["Admission", "Ground"]

_CONN_USER, _CONN_USER_ADDRESS, _CONN_SERVER = Rule.CONN_USER, Rule.CONN_USER_ADDRESS, Rule.CONN_SERVER
"""Looked up once: each look-up at an enumeration runs Python code."""

_ACCEPTED = Result.ACCEPTED

_FRESH = 1.0
"""For how many seconds the allowance of an address is used again. Before a refusal it is asked for anew."""

IDLE_COSTS = 1.0
"""Seconds that a connection without a login costs its address (OpenSSH's C{PerSourcePenalties noauth:1})."""

IDLE_FROM = 15.0
"""From so many seconds on that are outstanding, the address is refused (C{min:15})."""

_IDLE_MOST = earliness(IDLE_COSTS, 600)
"""An address never owes more seconds (C{max:600})."""

_DIGEST_BYTES = 8

_MOST_USERS = 1024
"""Users at addresses whose keys are remembered: some 350 bytes each."""

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

    counts: Counts
    rates: IRates
    store: ILimitStore
    monotonic: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random


@implementer(IAdmission)
class Admission:
    """
    The limits of one server. All its listening addresses share it.

    C{Session.counted} is a tuple of the canonical name of the user and the L{Source}. Before the login the name is
    L{None}. During the relay there is the name alone.

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
        self._sourceAt, self._sourceOf, self._known = sources.at, sources.of, sources.known
        self._counts, self._rates, self._store = ground.counts, ground.rates, ground.store
        self._operators, self._record = ground.store.operators, ground.store.record
        self._monotonic, self._chance = ground.monotonic, ground.chance
        self._acted = acted
        self._name = name = server.encode()
        self._newKey, self._sessionsKey = b"new %b" % name, b"sessions %b" % name
        counts = ground.counts
        self._column, self._numbers = counts.column, counts.numbers
        self._new, self._sessions = counts.counter(self._newKey), counts.counter(self._sessionsKey)
        self._clientsOf = counts.sessionsOf(server)
        # What is off is infinite or None here, whatever the reason.
        isCounted, isRated = policy.connMode is not Mode.OFF, policy.reqMode is not Mode.OFF
        self._address, self._user, self._userAddress, self._mostSessions = (
            most if most and isCounted else inf
            for most in (policy.address, policy.user, policy.userAddress, policy.server)
        )
        # With other workers a look at their counts is needed.
        self._mostOfUser = min(self._user, self._userAddress) if self._column is None else 0
        self._connection = policy.connection if isRated else None
        self._handshake = policy.handshake if isRated else None
        self._dropFrom = policy.dropFrom if policy.dropFrom and policy.dropMode is not Mode.OFF else inf

    # At the start of a connection.

    def arrived(self, session: Session, host: str) -> Trouble | None:
        source = self._known(host) or self._sourceAt(host)
        now = self._monotonic()
        if now >= source.until or not self._operators.isEmpty:
            trouble = self._lookAt(session, source, now)
            if trouble is not None or source.isExempt:
                return trouble
        address = source.address
        numbers = self._numbers
        column = self._column
        count = total = numbers.get(address, 0)
        new = crowd = self._new.count
        if column is not None:
            total += column.others(address)
            crowd += column.others(self._newKey)
        if total >= source.room and self._isFull(session, source, total, now):
            return self._refuse(session, Rule.CONN_ADDRESS)
        if not take(source.pace, source.interval, source.early, now) and self._isTooFast(session, source, now):
            return self._refuse(session, Rule.REQ_CONNECTION)
        if crowd >= source.crowd and self._isDropped(session, source, crowd, now):
            return self._refuse(session, Rule.EARLY_DROP)
        numbers[address] = count + 1
        self._new.count = new + 1
        if column is not None:
            column.show(address, 1)
            column.show(self._newKey, 1)
        session.counted = None, source
        return None

    def _lookAt(self, session: Session, source: Source, now: float) -> Trouble | None:
        """Refuse a client that C{access} denies or an operator has blocked. For others, find out what holds now."""
        if not source.isAllowed:
            return self._refuse(session, Rule.ACCESS, Trouble.BLOCKED)
        if not self._operators.isEmpty and source.host and self._store.blockOf(source.host) is not None:
            return self._refuse(session, Rule.BLOCK, Trouble.BLOCKED)
        if source.isExempt:
            session.counted = None, source
            if now >= source.asked + _FRESH:
                source.asked = now
                # The store also forgets then what is over.
                self._store.allowance(source.host or UNIX)
        elif now >= source.until:
            self._measure(source, now)
        return None

    def _measure(self, source: Source, now: float) -> None:
        """Find out what holds for an address now."""
        source.until = now + _FRESH
        rate, a = self._connection, self._store.allowance(source.host)
        source.room = self._address * a
        if rate is None:
            source.pace, source.interval, source.early = Bucket(), 0.0, inf
        else:
            source.pace = self._rates.at(b"connection %b" % source.address)
            source.interval = rate.interval / a
            source.early = earliness(source.interval, rate.burst * a)
        source.isIdle = self._dropFrom < inf and self._idle(source).due - now >= IDLE_FROM
        source.crowd = 0 if source.isIdle else self._dropFrom

    def _idle(self, source: Source) -> IBucket:
        """Return the bucket of connections that have ended without a login."""
        return self._rates.at(b"idle %b" % source.address)

    def shaken(self, session: Session) -> Trouble | None:
        rate = self._handshake
        if rate is None:
            return None
        source = self._sourceOf(session.client)
        if source.isExempt:
            return None
        a = self._store.allowance(source.host)
        interval = rate.interval / a
        bucket = self._rates.at(b"handshake %b" % source.address)
        if take(bucket, interval, earliness(interval, rate.burst * a), self._monotonic()):
            return None
        if self._isReqDry(session, Rule.REQ_HANDSHAKE):
            return None
        return self._refuse(session, Rule.REQ_HANDSHAKE)

    def _refuse(self, session: Session, rule: Rule, trouble: Trouble = Trouble.TOO_MANY) -> Trouble:
        session.conclude(Outcome.LIMITED, rule.value)
        self._acted(session, rule, REFUSED)
        return trouble

    def _isFull(self, session: Session, source: Source, total: int, now: float) -> bool:
        """Return whether an address that has reached its limit may have no further connection."""
        self._measure(source, now)
        if total < source.room:
            return False
        if self._policy.connMode is not Mode.DRY_RUN:
            return True
        self._acted(session, Rule.CONN_ADDRESS, DRY_RUN)
        return False

    def _isTooFast(self, session: Session, source: Source, now: float) -> bool:
        """Return whether an address may not connect that has connected too fast."""
        self._measure(source, now)
        return not take(source.pace, source.interval, source.early, now) and not self._isReqDry(
            session, Rule.REQ_CONNECTION
        )

    def _isReqDry(self, session: Session, rule: Rule) -> bool:
        """Return whether C{limit_req} only says what it would do, which is told then."""
        if self._policy.reqMode is not Mode.DRY_RUN:
            return False
        self._acted(session, rule, DRY_RUN)
        return True

    def _isDropped(self, session: Session, source: Source, crowd: int, now: float) -> bool:
        """
        Return whether a connection is dropped because many have not logged in, or because its address had many that
        never did. The probability grows in a line from C{dropShare} at C{dropFrom} to 1 at C{dropAll}. A known address
        is dropped from C{dropAll} on.
        """
        policy = self._policy
        if crowd < policy.dropAll:
            self._measure(source, now)
            isUnlucky = source.isIdle or (crowd >= policy.dropFrom and self._chance() < self._share(crowd))
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

    def accepted(self, session: Session, passed: Pass | None = None) -> Denial | None:
        before, source = session.counted
        if before is not None:
            # It has logged in before, and no backend has taken it.
            session.counted = before
            self.left(session)
            session.counted = None, source
        user = session.user
        if passed is None:
            user = canonical(user)
        else:
            attempt, ticket, _ = passed
            self._record(attempt, ticket, _ACCEPTED)
            # Nearly always the client has written its name in this form.
            if user != attempt.user:
                user = canonical(user)
        clients = self._clientsOf.setdefault(user, [])
        sessions = self._sessions
        if len(clients) >= self._mostOfUser or sessions.count >= self._mostSessions or session.asked is not None:
            denial = self._tooMany(session, user, source, clients)
            if denial is not None:
                if not clients:
                    del self._clientsOf[user]
                return denial
        clients.append(session.client)
        sessions.count += 1
        if self._column is not None:
            self._show(user, source, 1)
        session.counted = user, source
        return None

    def _tooMany(self, session: Session, user: bytes, source: Source, clients: Sequence[str]) -> Denial | None:
        """Return the refusal of a session that a limit does not let be."""
        asked = session.asked
        elsewhere, fromAddress = 0, 0
        if asked is not None and asked.user == user:
            # The authenticator may know the user by another name, whose sessions elsewhere are not known.
            elsewhere, fromAddress = asked.elsewhere, asked.fromAddress
        reached = []
        if user:
            count = elsewhere + self._ofUser(user, source, clients)
            if count >= self._user:
                reached.append(_CONN_USER)
            # There are no more of a pair than of its user.
            if count >= self._userAddress <= fromAddress + self._ofPair(user, source, clients) and source.host:
                reached.append(_CONN_USER_ADDRESS)
        if self._ofServer() >= self._mostSessions:
            reached.append(_CONN_SERVER)
        for rule in reached:
            if self._policy.connMode is not Mode.DRY_RUN:
                self._acted(session, rule, REFUSED)
                return Denial(Trouble.SESSIONS, reason=rule.value)
            self._acted(session, rule, DRY_RUN)
        return None

    def _ofUser(self, user: bytes, source: Source, clients: Sequence[str]) -> int:
        """Return how many sessions a user has. C{clients} are those of this process."""
        return self._counts.total(_keysOf(self._name, user, source.key)[0], len(clients))

    def _ofPair(self, user: bytes, source: Source, clients: Sequence[str]) -> int:
        """Return how many of them are from an address."""
        own = sum(self._sourceOf(client).key == source.key for client in clients)
        return self._counts.total(_keysOf(self._name, user, source.key)[1], own)

    def _ofServer(self) -> int:
        return self._counts.total(self._sessionsKey, self._sessions.count)

    # At the end.

    def relaying(self, session: Session) -> None:
        session.counted, source = session.counted
        session.asked = None
        if source.isExempt:
            return
        address = source.address
        numbers = self._numbers
        count = numbers[address] - 1
        if count:
            numbers[address] = count
        else:
            del numbers[address]
        self._new.count -= 1
        if self._column is not None:
            self._column.show(address, -1)
            self._column.show(self._newKey, -1)

    def left(self, session: Session) -> None:
        user = session.counted
        if user is None:
            return
        if type(user) is not bytes:
            self._leftBefore(session)
            return
        session.counted = None
        clients = self._clientsOf[user]
        clients.remove(session.client)
        if not clients:
            del self._clientsOf[user]
        self._sessions.count -= 1
        if self._column is not None:
            self._show(user, self._sourceOf(session.client), -1)

    def _leftBefore(self, session: Session) -> None:
        """A connection has ended before a relay."""
        _, source = session.counted
        isSilent = not session.attempts and session.outcome not in _OURS
        if isSilent and self._dropFrom < inf and not source.isExempt:
            take(self._idle(source), IDLE_COSTS, _IDLE_MOST, self._monotonic())
            source.until = -inf
        self.relaying(session)
        self.left(session)

    # Other workers.

    def _show(self, user: bytes, source: Source, change: int) -> None:
        """Show other workers that a user has one session more or less."""
        column = self._column
        assert column is not None
        ofUser, ofPair = _keysOf(self._name, user, source.key)
        column.show(ofUser, change)
        column.show(ofPair, change)
        column.show(self._sessionsKey, change)

    # For operators.

    def explain(self, user: bytes, host: str) -> Mapping[str, Mapping[str, int]]:
        """
        Return how many connections and sessions there are, and how many there may be, by the words of C{limit_conn}:
        C{count} and C{limit}; both are 0 without a limit. The limit of an address is that for its users of now.

        @param user: the name, canonical; may be empty.
        @param host: the address, canonical; may be empty.
        """
        source = self._sources.at(host) if host else self._sources.nowhere
        clients = self._clientsOf.get(user, [])
        most = inf if source.isExempt else self._address * self._store.allowance(source.host)
        total = self._counts.total
        rows: dict[str, tuple[int, float]] = {"server": (self._ofServer(), self._mostSessions)}
        if source.host:
            rows["address"] = total(source.address, self._numbers.get(source.address, 0)), most
        if user:
            rows["user"] = self._ofUser(user, source, clients), self._user
            if source.host:
                rows["user_address"] = self._ofPair(user, source, clients), self._userAddress
        return {
            word: {"count": count, "limit": int(most)} if most < inf else {"count": 0, "limit": 0}
            for word, (count, most) in rows.items()
        }


@lru_cache(_MOST_USERS)
def _keysOf(server: bytes, user: bytes, address: bytes) -> tuple[bytes, bytes]:
    """Return under which keys workers show each other the sessions of a user, and of the user at an address."""
    digest = blake2s(user, digest_size=_DIGEST_BYTES).digest()
    return b"user %b %b" % (server, digest), b"user_address %b %b%b" % (server, digest, address)
