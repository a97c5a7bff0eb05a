"""
Logins under limits: a store that answers as the test says, and conversations whose server has a guard with this store.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import LogLevel
from zope.interface import implementer

from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IAdmission, IWatch
from mailgate.limits.attempt import Action, Attempt, Result, Rule, Verdict
from mailgate.limits.loginguard import REFUSED_AFTER, LoginGuard
from mailgate.limits.operators import Operators
from mailgate.limits.policy import ConnectionPolicy, Mode, Prefixes
from mailgate.limits.sources import Sources
from mailgate.limits.telling import Telling
from mailgate.log.journal import Journal
from mailgate.login import Denial, Trouble
from mailgate.session import Session
from mailgate.testing import Conversation

__all__ = ["KEY", "FakeAdmission", "ScriptedStore", "afterwards", "guardOf", "guarded", "refused", "sourcesOf", "waits"]

KEY = b"k" * 32


def waits(seconds: float, ticket: int = 1, rule: Rule = Rule.PAIR_DELAY) -> Verdict:
    """A verdict that holds a login back."""
    return Verdict(Action.WAIT, ticket, seconds, rule)


def refused(rule: Rule) -> Verdict:
    """A verdict that refuses a login."""
    return Verdict(Action.REFUSE, rule=rule)


class ScriptedStore:
    """
    The part of a L{mailgate.limits.interfaces.ILimitStore} that logins need. When no verdict is left, it lets logins
    pass, with the tickets 101, 102 and so on.

    @param verdicts: the answers to the checks, in order.
    @ivar checks: the logins that were checked, and their tickets.
    @ivar records: the logins that have ended, with ticket and result.
    """

    def __init__(self, *verdicts: Verdict | Deferred[Verdict]) -> None:
        self.verdicts = list(verdicts)
        self.checks: list[tuple[Attempt, int]] = []
        self.records: list[tuple[Attempt, int, Result]] = []
        self._last = 100
        self.operators = Operators()

    def passes(self, attempt: Attempt) -> None:
        return None

    def check(self, attempt: Attempt, ticket: int = 0) -> Verdict | Deferred[Verdict]:
        self.checks.append((attempt, ticket))
        if self.verdicts:
            return self.verdicts.pop(0)
        self._last += 1
        return Verdict(Action.GO, self._last)

    def record(self, attempt: Attempt, ticket: int, result: Result) -> None:
        self.records.append((attempt, ticket, result))

    @property
    def results(self) -> list[tuple[int, Result]]:
        """The tickets and the results of the logins that have ended."""
        return [(ticket, result) for _, ticket, result in self.records]


@implementer(IAdmission)
class FakeAdmission:
    """
    Admits every connection, and as many sessions as the test says.

    @param most: how many.
    @ivar users: the users of the sessions that have asked.
    @ivar store: gets the results of logins that have a pass.
    """

    store: Any = None

    def __init__(self, most: int = 0) -> None:
        self._most = most
        self.users: list[bytes] = []

    def arrived(self, session: Session, host: str) -> Trouble | None:
        return None

    def shaken(self, session: Session) -> Trouble | None:
        return None

    def accepted(self, session: Session, passed: Any = None) -> Denial | None:
        if passed is not None:
            attempt, ticket, _ = passed
            self.store.record(attempt, ticket, Result.ACCEPTED)
        self.users.append(session.user)
        if len(self.users) > self._most:
            return Denial(Trouble.SESSIONS, reason=Rule.CONN_USER.value)
        return None

    def relaying(self, session: Session) -> None:
        pass

    def left(self, session: Session) -> None:
        pass


def sourcesOf(server: str, policy: ConnectionPolicy) -> Sources:
    """Return what knows the addresses of the clients of C{server}."""
    return Sources(server, Prefixes(), policy.exempt, policy.access)


def guardOf(
    store: Any,
    clock: IReactorTime,
    journal: Journal | None = None,
    policy: ConnectionPolicy = ConnectionPolicy(),  # noqa: B008
    watch: IWatch | None = None,
) -> LoginGuard:
    """Make the guard of a server."""
    telling = Telling(journal or Journal(), LogLevel.info, watch)
    return LoginGuard(store, policy, sourcesOf("imap", policy), Mode.ON, clock, KEY, telling)


def afterwards(conversation: Conversation, *lines: bytes) -> bytes:
    """Send lines, and return the refusal of a limit, which comes later. Nothing may come before."""
    heard = conversation.says(*lines)
    assert not heard.removeprefix(b"+OK\r\n"), heard
    conversation.clock.advance(REFUSED_AFTER)
    return heard + conversation.hear()


def guarded(record: MailProtocol, *groups: Any, store: Any, **more: Any) -> Conversation:
    """Begin a conversation with a server whose logins are limited by C{store}, and hear the greeting."""
    conversation = Conversation(record, *groups, **more)
    factory = conversation.factory
    if isinstance(factory.admission, FakeAdmission):
        factory.admission.store = store
    factory.guard = guardOf(store, conversation.clock, factory.journal, watch=factory.watch)
    conversation.hear()
    return conversation
