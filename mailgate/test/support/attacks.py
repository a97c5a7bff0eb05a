"""
Logins in simulated time, against a L{Defence}.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from hashlib import blake2s
from heapq import heappop, heappush
from typing import Any

from attrs import Factory, define

from mailgate.limits.attempt import Action, Attempt, Kind, Result, Rule, Verdict
from mailgate.limits.defence import Defence
from mailgate.limits.keys import canonical

__all__ = ["KEY", "START", "Login", "Scene", "flood", "login"]

START = 1_800_000_000.0
"""The Unix time at which scenes begin."""

KEY = bytes(range(32))


def login(host: str, user: str, password: str = "", **more: Any) -> Attempt:
    """
    Return a login with a password. A digest method has no tag.

    @param more: further attributes of the L{Attempt}.
    """
    name = canonical(user.encode())
    kind = more.get("kind", Kind.PASSWORD)
    tag = b"" if kind in (Kind.DIGEST, Kind.EXTERNAL) else blake2s(name + b"\0" + password.encode()).digest()[:16]
    return Attempt(host, name, tag=tag, **more)


@define
class Login:
    """
    A login of a scene.

    @ivar attempt: what is checked.
    @ivar isRight: whether its password is right.
    @ivar seconds: for how long the service thinks.
    @ivar began: when it began.
    @ivar asked: when the service was asked; L{None} if it was not.
    @ivar ended: when it ended; L{None} before.
    @ivar result: what the client was told: C{ACCEPTED}, C{FAILED}, or the rule that has refused it.
    @ivar whenEnded: called with this login.
    """

    attempt: Attempt
    isRight: bool = False
    seconds: float = 0.01
    began: float = 0.0
    asked: float | None = None
    ended: float | None = None
    result: Result | Rule | None = None
    ticket: int = 0
    would: list[str] = Factory(list)
    whenEnded: Callable[[Any], object] = lambda ended: None


class Scene:
    """
    A L{Defence}, clients, and a service that judges, in simulated time.

    @ivar now: seconds since the beginning.
    @ivar wallShift: by how much the wall clock is wrong.
    @ivar happened: what the defence has told.
    """

    def __init__(self, **more: Any) -> None:
        self.now = 0.0
        self.wallShift = 0.0
        self.random = random.Random(20)
        self.questions: list[Login] = []
        self.happened: list[tuple[Rule, str, str]] = []
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = 0
        self._more = more
        self.defence = self.make()

    def make(self, **more: Any) -> Defence:
        """A new defence in this scene."""
        made = Defence(
            monotonic=lambda: self.now + 1000,
            wall=lambda: START + self.now + self.wallShift,
            chance=self.random.random,
            **{"key": KEY, **self._more, **more},
        )
        made.happened = lambda *event: self.happened.append(event)
        return made

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something after some seconds."""
        self._number += 1
        heappush(self._due, (self.now + seconds, self._number, action))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, action = heappop(self._due)
            action()
        self.now = end

    def begin(self, attempt: Attempt, isRight: bool = False, after: float = 0.0, **more: Any) -> Login:
        """Begin a login, now or after some seconds."""
        begun = Login(attempt, isRight, began=self.now + after, **more)
        if after:
            self.later(after, lambda: self._check(begun))
        else:
            self._check(begun)
        return begun

    def _check(self, begun: Login) -> None:
        verdict = self.defence.check(begun.attempt, begun.ticket)
        begun.ticket = verdict.ticket
        if verdict.would:
            begun.would.append(verdict.would)
        if verdict.action is Action.GO:
            begun.asked = self.now
            self.questions.append(begun)
            self.later(begun.seconds, lambda: self._judged(begun))
        elif verdict.action is Action.WAIT:
            assert verdict.seconds > 0, verdict
            self.later(verdict.seconds, lambda: self._check(begun))
        else:
            self._end(begun, verdict.rule)

    def _judged(self, begun: Login) -> None:
        result = Result.ACCEPTED if begun.isRight else Result.FAILED
        self.defence.record(begun.attempt, begun.ticket, result)
        self._end(begun, result)

    def _end(self, begun: Login, result: Result | Rule | None) -> None:
        begun.ended, begun.result = self.now, result
        begun.whenEnded(begun)

    def once(self, attempt: Attempt, isRight: bool = False, patience: float = 120.0) -> Login:
        """Log in, and let time pass until it has ended."""
        begun = self.begin(attempt, isRight)
        end = self.now + patience
        while begun.ended is None and self._due and self._due[0][0] <= end:
            self.run(self._due[0][0] - self.now)
        assert begun.ended is not None, begun
        return begun

    def fail(self, host: str, user: str, times: int, **more: Any) -> list[Login]:
        """Fail with several passwords, one after the other."""
        self._number += 1
        first = self._number
        return [self.once(login(host, user, f"guess {first} {number}", **more)) for number in range(times)]

    def succeed(self, host: str, user: str, **more: Any) -> Login:
        """Log in with the right password."""
        ended = self.once(login(host, user, "right", **more), isRight=True)
        assert ended.result is Result.ACCEPTED, ended
        return ended

    def attack(self, hosts: Iterable[str], user: Callable[[], str], pause: float = 0.1, lines: int = 1) -> None:
        """
        Let each host guess all the time, over some connections: one guess after the other on each.

        @param user: returns the name of the next user.
        @param pause: seconds before the next login after one that was refused.
        """

        def guess(host: str) -> None:
            self._number += 1
            attempt = login(host, user(), f"guess {self._number}")

            def again(ended: Login) -> None:
                self.later(0.1 if ended.result is Result.FAILED else pause, lambda: guess(host))

            self.begin(attempt, whenEnded=again)

        for host in hosts:
            for _ in range(lines):
                guess(host)

    def verdict(self, host: str, user: str, password: str = "x", **more: Any) -> Verdict:
        """Check a login, and leave it undecided."""
        return self.defence.check(login(host, user, password, **more))

    def asked(self, user: str, since: float = 0.0) -> int:
        """How many questions there were about a user."""
        return sum(
            each.attempt.user == canonical(user.encode()) and (each.asked or 0) >= since for each in self.questions
        )


def flood(defence: Defence, logins: int, chance: random.Random, share: float = 0.5) -> None:
    """
    Let logins end of users and addresses that were never there before.

    @param logins: how many.
    @param chance: chooses them.
    @param share: which part of them succeeds.
    """
    for _ in range(logins):
        host = f"{chance.randrange(1, 224)}.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(256)}"
        user = b"user%x@example.org" % chance.getrandbits(60)
        attempt = Attempt(host, user, tag=chance.randbytes(16))
        verdict = defence.check(attempt)
        if verdict.action is Action.GO:
            isRight = chance.random() < share
            defence.record(attempt, verdict.ticket, Result.ACCEPTED if isRight else Result.FAILED)
