# -*- test-case-name: mailgate.test.limits.test_passes mailgate.test.limits.test_defence -*-
"""
The defence against guessed passwords: the rules R1 to R7 of docs/limits.rst, C{limit_req login}, and the blocks of
operators. One process counts for all: the keeper, or the only process. Nothing here waits, and nothing does I/O.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, succeed

from mailgate.limits import clearing, explain, news
from mailgate.limits.attempt import GO, Action, Attempt, Block, Kind, Result, Rule, Verdict
from mailgate.limits.keys import KEY_BYTES
from mailgate.limits.lasting import Lasting
from mailgate.limits.learning import Happened, Learning
from mailgate.limits.ledger import Ledger
from mailgate.limits.loginrate import REFUSED
from mailgate.limits.operators import rowOf
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes
from mailgate.limits.rules import isDryRun, isShared
from mailgate.limits.undecided import Login
from mailgate.limits.windows import UNIT

__all__ = ["QUIET", "Defence"]

QUIET = 3600.0
"""For how many seconds R6 and R7 only say what they would do if no network is known to any user yet."""

_TIDY = 5.0
_POLL = 1.0
"""After how many seconds a login that an operator holds looks again."""

_GO, _WAIT, _REFUSE = Action.GO, Action.WAIT, Action.REFUSE
_ON, _OFF, _EXTERNAL = Mode.ON, Mode.OFF, Kind.EXTERNAL
_ALIKE = Attempt("", b"")
_ACCEPTED, _FAILED, _FAILED_UNKNOWN = Result.ACCEPTED, Result.FAILED, Result.FAILED_UNKNOWN


class Defence(Lasting):
    """
    Decides about logins. It implements L{mailgate.limits.interfaces.ILimitStore}, at once.

    @param policy: the numbers.
    @param prefixes: C{limit_prefix}.
    @param memory: C{limit_memory} in bytes.
    @param monotonic: returns seconds that never go back.
    @param wall: returns the Unix time in seconds.
    @param chance: returns a random number from 0 to 1, without 1.
    @param key: the secret of the hashes; L{None} for a new one.
    @param isFresh: whether earlier successes are lost: R6 and R7 only say what they would do for L{QUIET} seconds.
    @ivar learning: what is learnt from how logins end.
    """

    def __init__(
        self,
        policy: LoginPolicy = LoginPolicy(),  # noqa: B008
        prefixes: Prefixes = Prefixes(),  # noqa: B008
        memory: int = 16 << 20,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
        key: bytes | None = None,
        isFresh: bool = False,
    ) -> None:
        secret = os.urandom(KEY_BYTES) if key is None else key
        super().__init__(Ledger(secret, policy, prefixes, memory, chance), monotonic, wall)
        self.learning = Learning(self.ledger, self.rules)
        self.learning.whenGood = self._goodChanged
        self.learning.whenSlow = self._slowChanged
        if isFresh:
            self.rules.quietUntil = self.now + QUIET
        self._remember()

    def _remember(self) -> None:
        """Keep at hand what the path of each login needs. All that is named here stays, or this is called again."""
        ledger, policy = self.ledger, self.ledger.policy
        self._pairRows = ledger.pairs.table.rows
        self._addressRows = ledger.sources.addresses.rows
        self._networkRows = ledger.sources.networks.rows
        self._userRows = ledger.users.table.rows
        self._blockRows = ledger.blocks.table.rows
        self._knownAllowance = ledger.goods.knownAllowance
        self._settled = ledger.settled
        self.operators = ledger.operators
        self._undecided = ledger.undecided
        self._counts = ledger.undecided.counts
        # As many may be undecided where nothing has failed.
        self._roomOfPair = max(1, min(policy.undecidedPair, policy.pairBlock or policy.undecidedPair))
        bounds = (policy.undecidedAddress, policy.addressBlock, policy.addressUsers)
        self._roomOfAddress = max(1, min([each for each in bounds if each] or [policy.undecidedAddress]))
        self._roomOfKnown = max(1, policy.undecidedAddress)
        self._roomOfUser: float = policy.userSlow or inf

    def configure(self, policy: LoginPolicy, prefixes: Prefixes, memory: int) -> None:
        """
        Take over the numbers of a new configuration. What was counted stays.

        @param policy: the numbers.
        @param prefixes: C{limit_prefix}.
        @param memory: C{limit_memory} in bytes.
        """
        self.ledger.configure(policy, prefixes, memory)
        self._remember()

    @property
    def happened(self) -> Happened:
        """Called with the rule, what it acts on, and words, when a rule blocks or begins to slow a user down."""
        return self.learning.happened

    @happened.setter
    def happened(self, react: Happened) -> None:
        self.learning.happened = react

    # Logins.

    def passes(self, attempt: Attempt) -> Login | int | None:
        """
        Let a login pass whose pair has succeeded a moment ago: a known pair without failures; or one that only
        operators' blocks could concern, if there are none. See L{mailgate.limits.interfaces.ILimitStore.passes}.

        @param attempt: the login.
        """
        login: Login | None = attempt.login
        if login is None or login.pair not in self._settled or not self.operators.isEmpty:
            return 0 if self._isFree(attempt) else None
        # The time is not asked for: what is over has gone when its client has connected (L{allowance}).
        pair, address = login.counted
        counts = self._counts
        ofPair = counts.get(pair, 0)
        ofAddress = counts.get(address, 0)
        if ofPair >= self._roomOfPair or ofAddress >= self._roomOfKnown:
            return None
        counts[pair] = ofPair + 1
        counts[address] = ofAddress + 1
        return login

    def check(self, attempt: Attempt, ticket: int = 0, owner: object = "") -> Verdict:
        """
        Say what a login must do. See L{mailgate.limits.interfaces.ILimitStore.check}.

        @param attempt: the login.
        @param ticket: that of its last verdict.
        @param owner: which process has the login, for L{forget}.
        """
        now = self._offset + self._monotonic()
        if now >= self._tidyAt:
            self._tidy(now)
        undecided = self._undecided
        if ticket:
            login = undecided.logins.get(ticket)
            if login is not None and not login.isAsked and login.owner == owner:
                return self._judge(login, ticket, now)
        if (attempt.kind is _EXTERNAL or attempt.mode is _OFF) and self._isFree(attempt):
            return GO
        login = self.loginOf(attempt, now, owner)
        if self._isClean(login, now):
            undecided.ask(login)
            return Verdict(_GO, undecided.add(login))
        if login.due < 0:
            self._take(login, now)
        return self._judge(login, undecided.add(login), now)

    def _isFree(self, attempt: Attempt) -> bool:
        """Whether only operators' blocks could concern a login, and there are none."""
        isFree = attempt.kind is _EXTERNAL or (attempt.mode is _OFF and attempt.rate is None)
        return isFree and self.operators.isEmpty

    def loginOf(self, attempt: Attempt, now: float, owner: object) -> Login:
        """
        Return a login that has no ticket yet.

        @param attempt: the login.
        @param now: the time in seconds.
        @param owner: which process has it.
        """
        user, place = self.ledger.keys.of(attempt.user, attempt.host)
        pair = user ^ place.address
        isKnown = self._settled.get(pair, 0.0) > now or self.ledger.known.has(user ^ place.network, now)
        return Login(attempt, place, user, pair, isKnown, now, owner)

    def _isClean(self, login: Login, now: float) -> bool:
        """Whether nothing is counted that could concern a login. This is what nearly all logins take."""
        attempt, pair, place, counts = login.attempt, login.pair, login.place, self._counts
        if (
            attempt.mode is not _ON
            or attempt.kind is _EXTERNAL
            or pair in self._pairRows
            or counts.get(pair, 0) >= self._roomOfPair
            or not self.operators.isEmpty
        ):
            return False
        undecided = counts.get(place.address, 0)
        if login.isKnown:
            return undecided < self._roomOfKnown
        if (
            undecided >= self._roomOfAddress
            or place.address in self._addressRows
            or place.network in self._networkRows
            or login.user in self._userRows
            or (self._blockRows and any(key in self._blockRows for key in (pair, place.address, login.user)))
            or counts.get(login.user, 0) >= self._roomOfUser
        ):
            return False
        self._take(login, now)
        return login.due <= now

    def _take(self, login: Login, now: float) -> None:
        """Count a login for C{limit_req login}, once."""
        attempt, rate, address = login.attempt, login.attempt.rate, login.place.address
        login.due = 0.0
        if (
            rate is None
            or login.isKnown
            or attempt.rateMode is _OFF
            or attempt.kind is _EXTERNAL
            or isShared(attempt, login.place.hasAddress)
        ):
            return
        seconds = self.ledger.rates.take(address, rate, self.ledger.goods.allowance(address, now), now)
        login.due = inf if seconds == REFUSED else now + seconds if seconds else 0.0

    def _judge(self, login: Login, ticket: int, now: float) -> Verdict:
        attempt, ledger = login.attempt, self.ledger
        if not self.operators.isEmpty:
            verdict = self._ordered(login, ticket, now)
            if verdict is not None:
                return verdict
        if attempt.kind is _EXTERNAL:
            self._undecided.end(ticket)
            return GO
        would, wait = "", None
        for finding in self.rules.findings(login, now):
            if finding.isDry:
                would = f"{would}; {finding.words}" if would else finding.words
            elif finding.action is _REFUSE:
                return self._refuse(login, ticket, finding.rule, would)
            elif wait is None or finding.seconds > wait.seconds:
                wait = finding
        slow = self.rules.userFinding(login, now)
        if slow is not None and slow.isDry:
            would = f"{would}; {slow.words}" if would else slow.words
        elif slow is not None and wait is None:
            seconds = ledger.users.turn(login.user, login.place.network, ticket, now)
            if seconds is None:
                return self._refuse(login, ticket, Rule.USER_SLOW, would)
            wait = slow._replace(seconds=seconds) if seconds else None
        if wait is not None:
            return self._hold(login, ticket, wait.rule, wait.seconds, would)
        isStuck = self.rules.isStuck(login, now)
        self._undecided.ask(login)
        isSlow = login.isKnown and 0 < ledger.policy.pairBlock * UNIT <= ledger.pairs.count(login.pair, now)
        # One that a dry run lets pass too early would not have passed.
        if isStuck or (isSlow and ledger.slowed.get(login.pair, 0.0) <= now):
            ledger.slow(login.pair, now + ledger.policy.knownSlow)
        return Verdict(_GO, ticket, would=would)

    def _ordered(self, login: Login, ticket: int, now: float) -> Verdict | None:
        """What an operator has ordered."""
        block = self.ledger.operators.find(login.attempt.user, login.attempt.host, now)
        if block is None:
            return None
        left = login.began + self.ledger.policy.userPatience - now
        if block.rule is Rule.HOLD and left > 0:
            return self._hold(login, ticket, block.rule, min(_POLL, left), "")
        return self._refuse(login, ticket, block.rule, "")

    def _hold(self, login: Login, ticket: int, rule: Rule, seconds: float, would: str) -> Verdict:
        if self._undecided.held > self.ledger.policy.held:
            return self._refuse(login, ticket, Rule.HELD, would)
        return Verdict(_WAIT, ticket, seconds, rule, would)

    def _refuse(self, login: Login, ticket: int, rule: Rule, would: str) -> Verdict:
        self._undecided.end(ticket)
        self.ledger.users.leave(login.user, ticket)
        return Verdict(_REFUSE, rule=rule, would=would)

    def record(self, attempt: Attempt, ticket: int | Login, result: Result, owner: object = "") -> None:
        """
        Say how a login ended. A ticket that is unknown, such as that of another process, frees nothing; the result
        counts. See L{mailgate.limits.interfaces.ILimitStore.record}.

        @param attempt: the login.
        @param ticket: that of its last verdict.
        @param result: how it ended.
        @param owner: which process has the login.
        """
        login: Login | None
        if isinstance(ticket, Login):
            pair, address = ticket.counted
            counts = self._counts
            ofPair = counts[pair] - 1
            ofAddress = counts[address] - 1
            if ofPair:
                counts[pair] = ofPair
            else:
                del counts[pair]
            if ofAddress:
                counts[address] = ofAddress
            else:
                del counts[address]
            if result is _ACCEPTED and pair in self._settled:
                return
            login = ticket
        else:
            login = self._ended(ticket, owner) if ticket else None
        if attempt.kind is _EXTERNAL:
            return
        if result is _ACCEPTED:
            if login is None:
                if attempt.pair in self._settled and attempt.pair not in self._pairRows:
                    return
                login = self.loginOf(attempt, self.now, owner)
                attempt.pair = login.pair
            if login.pair in self._pairRows or login.pair not in self._settled:
                self.learning.succeeded(login, self.now)
                self._stand(login, attempt)
        elif (result is _FAILED or result is _FAILED_UNKNOWN) and attempt.mode is not _OFF:
            now = self.now
            login = login or self.loginOf(attempt, now, owner)
            # With the tag, which it had not when it was checked.
            login.attempt = attempt
            self.learning.failed(login, result is _FAILED_UNKNOWN, now)

    def _ended(self, ticket: int, owner: object) -> Login | None:
        """Free a ticket. The result is its login; L{None} if there is none of this owner."""
        login = self._undecided.logins.get(ticket)
        if login is None or login.owner != owner:
            return None
        self._undecided.end(ticket)
        if not login.isAsked:
            self.ledger.users.leave(login.user, ticket)
        return login

    def _stand(self, login: Login, attempt: Attempt) -> None:
        """Let a login that has succeeded stand for further ones of the same kind (L{passes})."""
        if attempt.mode is _ON:
            login.isKnown = login.isAsked = True
            login.counted = login.pair, login.place.address
            # Neither holds the other: they would not be freed at once.
            login.attempt = _ALIKE
            attempt.login = login

    def forget(self, owner: object) -> None:
        """
        A process has gone: its logins are decided.

        @param owner: that of L{check}.
        """
        self._end(self._undecided.ownedBy(owner))

    def _end(self, tickets: Iterable[int]) -> None:
        for ticket in tickets:
            login = self._undecided.end(ticket)
            if login is not None and not login.isAsked:
                self.ledger.users.leave(login.user, ticket)

    def _tidy(self, now: float) -> None:
        # Tickets since the last time are from the seconds after it: later ones would have come here.
        self._undecided.mark(self._tidyAt - _TIDY if self._tidyAt > -inf else now)
        self._tidyAt = now + _TIDY
        self._end(self._undecided.old(now))
        self.ledger.tidy(now)

    # What connections need.

    def allowance(self, host: str) -> int:
        """Return C{a} of an address. C{host} is the address."""
        place = self.ledger.keys.place(host)
        now = self._offset + self._monotonic()
        if now >= self._tidyAt:
            self._tidy(now)
        return self._knownAllowance(place.address) or self.ledger.goods.allowance(place.address, now)

    def isKnown(self, host: str) -> bool:
        """Return whether any user has succeeded at an address lately. C{host} is the address."""
        return self.allowance(host) > 1

    def blockOf(self, host: str) -> Block | None:
        """Return an operator's block of an address. Holds and blocks of rules do not count. C{host} is the address."""
        operators = self.ledger.operators
        if operators.isEmpty:
            return None
        block = operators.find(b"", host, self.now)
        return None if block is None or block.rule is Rule.HOLD else self._dated(block)

    # Operators.

    def _dated(self, block: Block) -> Block:
        """A block with its times in those of the wall clock. The reason says whether it only would hold."""
        offset = self.offset
        reason = "dry run: " + block.reason if isDryRun(block.rule, self.ledger.policy) else block.reason
        return evolve(block, since=block.since + offset, until=block.until + offset, reason=reason)

    def block(self, thing: str, seconds: float, reason: str, isHold: bool = False) -> Block:
        rule = Rule.HOLD if isHold else Rule.BLOCK
        block = self.ledger.operators.add(thing, rule, self.now, seconds, reason)
        self.changed(["block", news.blockRow(block)])
        return self._dated(block)

    def unblock(self, thing: str) -> Sequence[Block]:
        ended = clearing.clear(self.ledger, thing, self.now)
        for block in ended:
            if block.rule in (Rule.BLOCK, Rule.HOLD):
                self.changed(["unblock", block.id])
        self.changed(["clear", thing])
        return [self._dated(block) for block in ended]

    def blocks(self) -> Sequence[Block]:
        """Return the blocks that hold, the latest first."""
        now = self.now
        found = [block for block in self.ledger.operators if block.until > now]
        found += [block for _, block in self.ledger.blocks.items(now)]
        return [self._dated(block) for block in sorted(found, key=lambda block: block.since, reverse=True)]

    def numbers(self) -> Mapping[str, Any]:
        return self.ledger.numbers()

    def explain(self, user: bytes, host: str, protocol: str) -> Mapping[str, Any]:
        now = self.now
        login = self.loginOf(Attempt(host, user, protocol=protocol), now, "")
        blocks = [self._dated(block) for block in explain.blocksOf(self.ledger, login, now)]
        return explain.explained(self.ledger, self.rules, login, now, self.offset, [*map(rowOf, blocks)])

    def look(self, user: bytes, host: str) -> Deferred[None]:
        """
        Nobody else knows more. See L{mailgate.limits.interfaces.ILimitStore.look}.

        @param user: the name.
        @param host: the address.
        """
        return succeed(None)
