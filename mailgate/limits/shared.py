# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
The limits of several gateways, which share a store: before a login the store is asked what all of them know. The tables
of this gateway take that over, and then they decide. If the store is late or away, they decide at once, and so they do
about users who have logged in just now (L{mailgate.limits.beside}).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure as Reason

from mailgate.limits.attempt import Action, Attempt, Block, Kind, Result, Verdict
from mailgate.limits.beside import Beside
from mailgate.limits.defence import QUIET, Defence
from mailgate.limits.delegating import Delegating
from mailgate.limits.digests import Digests
from mailgate.limits.leasing import Lease, Leases
from mailgate.limits.merging import Merging
from mailgate.limits.names import Names
from mailgate.limits.operators import rowOf
from mailgate.limits.ordering import Ordering
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes
from mailgate.limits.reports import Reports
from mailgate.limits.rules import isShared
from mailgate.store.interfaces import IStore, Question, Standing, StoreUnavailable
from mailgate.store.keys import StoreKeys
from mailgate.store.seal import Seal

__all__ = ["MOST_WAITING", "SharedDefence"]

MOST_WAITING = 5000
"""Logins that wait for the store at the same time. Further ones are decided without it."""

_LONG = 0.25
"""The part of C{store_timeout} from which a wait for the store counts towards all waits of its login."""

_AGAIN = 1.0
"""Seconds after which a login that is held back asks the store again. Shorter waits are for others here to end."""

_WAIT, _GO = Action.WAIT, Action.GO
_OFF, _EXTERNAL = Mode.OFF, Kind.EXTERNAL
_ACCEPTED = Result.ACCEPTED

_log = Logger("mailgate")


# Not frozen, although nothing changes it: each login makes one.
@define
class _Asked:
    """
    A login about which the store was asked.

    @ivar attempt: the login.
    @ivar ticket: that of its last verdict, or 0.
    @ivar owner: which process has it.
    @ivar user: the digest of its user.
    @ivar began: when it was asked, in seconds.
    @ivar changes: how often the tables had changed then.
    @ivar elsewhere: the sessions of the user at other gateways, and those of them from the address.
    @ivar waited: for how many seconds the login has waited for the store before, at earlier verdicts.
    """

    attempt: Attempt
    ticket: int
    owner: object
    user: bytes
    began: float
    changes: int
    elsewhere: tuple[int, int] = (0, 0)
    waited: float = 0.0


class SharedDefence(Delegating):
    """
    An L{IDefence<mailgate.limits.interfaces.IDefence>} whose tables are a shadow of a store.

    @param defence: the tables here. Their keys become those of the store.
    @param store: the store.
    @param keys: makes digests.
    @param seal: seals what is in words.
    @param gateway: the name of this gateway.
    @param clock: the timers.
    @param timeout: C{store_timeout} in seconds: for how long a login waits for the store in all.
    """

    def __init__(
        self,
        defence: Defence,
        store: IStore,
        keys: StoreKeys,
        seal: Seal,
        gateway: str,
        clock: IReactorTime,
        timeout: float = 0.05,
    ) -> None:
        super().__init__(defence)
        self._store = store
        self._keys = keys
        self._clock = clock
        self._timeout = timeout
        self._isActive = True
        self._waiting = 0
        self._held: dict[int, _Asked] = {}
        self._leases = Leases(defence)
        names = Names(seal)
        self._merging = Merging(defence.ledger, defence.rules, defence.learning, names)
        self._rekey()
        self._remember()
        self._beside = Beside(defence, self._merging, store, clock, self._question)
        self._ordering = Ordering(defence, self._merging, store, seal, gateway, clock, lambda: self._digests)
        self._reports = Reports(defence, self._merging, self._ordering, store, names, lambda: self._digests)

    def _rekey(self) -> None:
        """Use the key of the store. What stands under another one is forgotten, except for blocks of operators."""
        ledger = self._local.ledger
        if ledger.keys.secret == self._keys.secret:
            return
        blocks = [*ledger.operators]
        isLoss = any(len(table) for _, table in ledger.tables())
        ledger.rekey(self._keys.secret)
        for block in blocks:
            ledger.operators.adopt(rowOf(block))
        if isLoss:
            self._local.rules.quietUntil = max(self._local.rules.quietUntil, self._local.now + QUIET)
            _log.info("the limits begin anew: their tables had another key than the store")

    def _remember(self) -> None:
        ledger = self._local.ledger
        self._digests = Digests(self._keys, ledger.keys.prefixes)
        self._policy = ledger.policy

    # Life.

    def start(self) -> None:
        """Read blocks of operators from time to time. The caller starts the store."""
        self._ordering.start()

    def stop(self) -> None:
        """Ask the store no more."""
        self._isActive = self._reports.isActive = False
        self._beside.forget()
        self._ordering.stop()

    def heard(self, message: bytes) -> None:
        """
        Another gateway has told something about blocks.

        @param message: what came by the channel C{events}.
        """
        if self._isActive:
            self._ordering.heard(message)

    def resumed(self) -> None:
        """Messages are heard from now on. Some may have been missed, and the store may be another one."""
        if self._isActive:
            if self._local.ledger.pairs.table.rows:
                self._merging.distrust(self._local.now)
            self._beside.forget()
            self._ordering.read()

    # Logins.

    def check(self, attempt: Attempt, ticket: int = 0, owner: object = "") -> Verdict | Deferred[Verdict]:
        """
        Say what a login must do. See L{mailgate.limits.interfaces.ILimitStore.check}.

        @param attempt: the login.
        @param ticket: that of its last verdict.
        @param owner: which process has the login, for L{forget}.
        """
        local = self._local
        now = local.now
        if (
            not self._store.isUp
            or not self._isActive
            or self._waiting >= MOST_WAITING
            or (ticket and not self._isDue(ticket, now))
        ):
            return self._told(local.check(attempt, ticket, owner), self._held.get(ticket))
        if not ticket and self._beside.passes(attempt, now):
            return local.check(attempt, 0, owner)
        question = self._question(attempt, not ticket)
        asked = _Asked(attempt, ticket, owner, question.user, now, self._merging.changes)
        held = self._held.get(ticket) if ticket else None
        if held is not None:
            asked.elsewhere, asked.waited = held.elsewhere, held.waited
        self._waiting += 1
        answer = self._store.check(question)
        if asked.waited > 0:
            answer.addTimeout(self._left(asked), self._clock, _late)
        verdict: Deferred[Verdict] = answer.addCallbacks(
            self._answered, self._unanswered, (asked,), errbackArgs=(asked,)
        )
        return verdict

    def _isDue(self, ticket: int, now: float) -> bool:
        held = self._held.get(ticket)
        if held is None:
            return True
        if held.waited >= self._timeout:
            return False
        if now - held.began >= _AGAIN:
            return True
        # One that would pass now, and only with a lease, must not pass without.
        login = self._local.ledger.undecided.logins.get(ticket)
        return login is not None and self._leases.needed(login, now) is not None

    def _left(self, asked: _Asked) -> float:
        """Return for how many seconds a login may still wait: all its questions have C{store_timeout} together."""
        return max(0.001, self._timeout - asked.waited - (self._local.now - asked.began))

    def _question(self, attempt: Attempt, isCounted: bool = False) -> Question:
        rate, policy, digests = attempt.rate, self._policy, self._digests
        user, spot = digests.user(attempt.user), digests.spot(attempt.host)
        interval, burst, address = 0.0, 0, b""
        if not isShared(attempt, spot.hasAddress):
            address = spot.address
            if isCounted and rate is not None and attempt.rateMode is not _OFF and attempt.kind is not _EXTERNAL:
                interval, burst = rate.interval, rate.burst
        return Question(
            user,
            address,
            spot.network,
            digests.pair(user, spot),
            digests.protocol(attempt.protocol),
            interval,
            burst,
            policy.mostAllowance,
            policy.pairWindow,
            policy.userWindow,
            policy.goodFor,
        )

    def _answered(self, standing: Standing, asked: _Asked) -> Verdict | Deferred[Verdict]:
        self._waiting -= 1
        local, attempt = self._local, asked.attempt
        now, ledger = local.now, local.ledger
        try:
            user, place = self._beside.take(attempt, standing, asked.changes, now)
            if standing.turn > 0 and not self._leases.has(user, now):
                # A stranger may have written it: no turn takes longer.
                ledger.users.postpone(user, now + min(standing.turn, self._policy.userInterval))
            if standing.sessions:
                asked.elsewhere = standing.elsewhere
            if (
                user in ledger.users.table.rows
                or user ^ place.address in ledger.pairs.table.rows
                or ledger.undecided.counts.get(user, 0) >= self._policy.userSlow
            ):
                login = ledger.undecided.logins.get(asked.ticket) or local.loginOf(attempt, now, asked.owner)
                lease = self._leases.needed(login, now)
                if lease is not None:
                    return self._lease(asked, lease)
        except Exception:
            _log.failure("cannot use what the store knows about a login")
        return self._decided(asked)

    def _decided(self, asked: _Asked) -> Verdict:
        took = self._local.now - asked.began
        if took >= self._timeout * _LONG:
            # Otherwise a login that looks again each second, as under R6, would sooner or later pass without a lease.
            asked.waited += took
        return self._told(self._local.check(asked.attempt, asked.ticket, asked.owner), asked)

    def _unanswered(self, reason: Reason, asked: _Asked) -> Verdict | Reason:
        self._waiting -= 1
        if reason.check(CancelledError) is not None:
            # No ticket was made for it yet; that of an earlier verdict is still the caller's.
            return reason
        if reason.check(StoreUnavailable) is None:
            _log.failure("the store cannot be asked about a login", reason)
        return self._decided(asked)

    def _told(self, verdict: Verdict, asked: _Asked | None) -> Verdict:
        """Return a verdict with what the store has said of sessions."""
        if verdict.action is _WAIT:
            if asked is not None:
                self._hold(verdict.ticket, asked)
            return verdict
        if asked is None:
            return verdict
        if asked.ticket:
            self._held.pop(asked.ticket, None)
        if verdict.action is not _GO or not asked.elsewhere[0]:
            return verdict
        return Verdict(_GO, verdict.ticket, verdict.seconds, verdict.rule, verdict.would, *asked.elsewhere)

    def _hold(self, ticket: int, asked: _Asked) -> None:
        held = self._held
        logins = self._local.ledger.undecided.logins
        if len(held) > len(logins):
            self._held = held = {each: asked for each, asked in held.items() if each in logins}
        asked.ticket = ticket
        held[ticket] = asked

    def _lease(self, asked: _Asked, lease: Lease) -> Deferred[Verdict]:
        """Decide about a login as soon as it is known which gateway may let it pass."""
        local = self._local

        def leased(isFree: bool) -> Verdict:
            if isFree:
                self._leases.taken(lease, local.now)
            else:
                self._leases.missed(lease, local.now)
            return self._decided(asked)

        self._waiting += 1
        name = asked.user if lease.isOfUser else self._digests.pair(asked.user, self._digests.spot(asked.attempt.host))
        taken = self._store.lease(name, lease.seconds).addTimeout(self._left(asked), self._clock, _late)
        return taken.addCallback(self._again).addCallbacks(leased, self._unanswered, errbackArgs=(asked,))

    def _again(self, isFree: bool) -> bool:
        self._waiting -= 1
        return isFree

    # How logins end.

    def record(self, attempt: Attempt, ticket: int, result: Result, owner: object = "") -> None:
        """
        Say how a login ended. The store hears of failures, and of successes that are news.

        @param attempt: the login.
        @param ticket: that of its last verdict.
        @param result: how it ended.
        @param owner: which process has the login.
        """
        if ticket in self._held:
            del self._held[ticket]
        if result is _ACCEPTED:
            self._beside.accepted(ticket)
        self._local.record(attempt, ticket, result, owner)

    def forget(self, owner: object) -> None:
        """A process has gone: its logins are decided. C{owner} is that of L{check}."""
        for ticket in [ticket for ticket, asked in self._held.items() if asked.owner == owner]:
            del self._held[ticket]
        self._local.forget(owner)

    # Operators.

    def block(self, thing: str, seconds: float, reason: str, isHold: bool = False) -> Block:
        """
        Block at all gateways. See L{mailgate.limits.interfaces.ILimitStore.block}.

        @param thing: what to block.
        @param seconds: for how long.
        @param reason: why.
        @param isHold: whether logins are held.
        """
        operators = self._local.ledger.operators
        replaced = operators.like(thing)
        shown = self._local.block(thing, seconds, reason, isHold)
        block = operators.like(thing)
        if self._isActive and block is not None:
            self._ordering.block(block, replaced)
        return shown

    def unblock(self, thing: str) -> Sequence[Block]:
        """
        End blocks at all gateways. See L{mailgate.limits.interfaces.ILimitStore.unblock}.

        @param thing: what is blocked, or the id of a block.
        """
        ids = {block.id for block in self._local.blocks()}
        ended = self._local.unblock(thing)
        self._merging.cleared()
        if self._isActive:
            offset = self._local.offset
            blocks = [evolve(block, until=block.until - offset) for block in ended]
            self._ordering.end(blocks, "" if thing in ids else thing)
        return ended

    def look(self, user: bytes, host: str) -> Deferred[None]:
        """
        Take over what all gateways know about a login, so that L{explain} shows it. Nothing is counted.

        @param user: the name, canonical.
        @param host: the address, canonical; may be empty.
        """
        if not self._isActive or not self._store.isUp:
            return succeed(None)
        attempt, changes = Attempt(host, user), self._merging.changes
        looking = self._store.check(self._question(attempt))
        looked = looking.addCallback(lambda standing: self._looked(attempt, standing, changes))
        return looked.addErrback(self._notLooked)

    def _looked(self, attempt: Attempt, standing: Standing, changes: int) -> None:
        self._beside.take(attempt, standing, changes, self._local.now)

    def _notLooked(self, reason: Reason) -> None:
        if reason.check(StoreUnavailable) is None:
            _log.failure("the store cannot be asked about a login", reason)

    def configure(self, policy: LoginPolicy, prefixes: Prefixes, memory: int) -> None:
        """
        See L{mailgate.limits.interfaces.IDefence.configure}.

        @param policy: the rules.
        @param prefixes: what an address and a network are.
        @param memory: bytes that all tables together may take.
        """
        self._local.configure(policy, prefixes, memory)
        self._remember()

    def restore(self, content: bytes) -> None:
        """
        Replace all tables. See L{mailgate.limits.interfaces.IDefence.restore}.

        @param content: what L{state} has returned.
        """
        self._local.restore(content)
        self._rekey()
        self._beside.forget()
        self._merging.distrust(self._local.now)


def _late(_: object, timeout: float) -> bool:
    raise StoreUnavailable("it did not answer in time")
