# -*- test-case-name: mailgate.test.limits.test_failures -*-
"""
Rules R6 and R7: the failed logins of a user from networks where that user has not succeeded before, over all addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, define

from mailgate.limits.policy import LoginPolicy
from mailgate.limits.table import Table
from mailgate.limits.windows import UNIT, Window

__all__ = ["Users"]

_MOST_TAGS = 64
_TAG = 2
_MOST_QUEUES = 10000
_MOST_NETWORKS = 4096
_PICKED = 2.0
"""Seconds for which the turn is kept for the login that was drawn. Its client may have left."""

_SOON = 0.25
"""The shortest wait until the next look, in seconds."""


@define
class _Queue:
    """
    Logins of one user that wait for their turn.

    @ivar due: when the next one may pass.
    @ivar waiting: since when each waits, by ticket.
    @ivar networks: the keys of the networks that have come since the last one passed, and the tickets of their logins.
    @ivar picked: the ticket that was drawn; 0 for none.
    @ivar until: until when it is kept.
    """

    due: float = 0.0
    waiting: dict[int, float] = Factory(dict)
    networks: dict[int, int] = Factory(dict)
    picked: int = 0
    until: float = 0.0


class Users:
    """
    The failures of users. A row has the counts, and behind them the tags that were seen, so that one old password in a
    phone that travels counts once.

    @param memory: bytes for all rows.
    @param policy: the numbers.
    @param choose: draws one of several tickets at random.
    """

    def __init__(self, memory: int, policy: LoginPolicy, choose: Callable[[Sequence[int]], int]) -> None:
        self._latest = 0.0
        self.table = Table(memory, lambda row: self._window.count(row, self._latest))
        self._queues: dict[int, _Queue] = {}
        self._choose = choose
        self.configure(policy)

    def configure(self, policy: LoginPolicy) -> None:
        """The numbers have changed to those of C{policy}."""
        self.policy = policy
        self._window = Window(policy.userWindow)

    def count(self, user: int, now: float) -> int:
        """
        Return how much the failures of a user weigh.

        @param user: the key.
        @param now: the time in seconds.
        """
        row = self.table.rows.get(user)
        return 0 if row is None else self._window.count(row, now)

    def since(self, user: int, now: float) -> int | None:
        """Return since when failures count; L{None} without. C{user} and C{now} as for L{count}."""
        row = self.table.rows.get(user)
        return None if row is None or not self._window.count(row, now) else self._window.since(row, now)

    def add(self, user: int, tag: bytes, weight: int, now: float) -> bool:
        """
        Count a failure.

        @param user: the key.
        @param tag: that of the login; empty: no other failure is the same.
        @param weight: what it weighs.
        @param now: the time in seconds.
        @return: whether it counts: not if it repeats another one.
        """
        self._latest = now
        row = self.table.rows.get(user)
        isOver = row is None or not self._window.count(row, now)
        tags = b"" if row is None or isOver else row[Window.size :]
        first = tag[:_TAG]
        if first and any(tags[at : at + _TAG] == first for at in range(0, len(tags), _TAG)):
            return False
        counts = self._window.add(None if isOver else row, weight, now)
        self.table.put(user, counts + (tags + first)[-_MOST_TAGS * _TAG :])
        return True

    def adopt(self, user: int, row: bytes, now: float) -> None:
        """
        Take over a row of another process, unless more is known here.

        @param user: the key.
        @param row: the row.
        @param now: the time in seconds.
        @raise ValueError: it is no row.
        """
        if len(row) < Window.size or (len(row) - Window.size) % _TAG:
            raise ValueError("a row of a user has a wrong length")
        if self._window.count(row, now) >= self.count(user, now):
            self.table.put(user, row)

    def raiseTo(self, user: int, weight: int, now: float) -> bool:
        """
        Other gateways know of failures.

        @param user: the key.
        @param weight: what all failures of the user weigh.
        @param now: the time in seconds.
        @return: whether fewer were known here.
        """
        row = self.table.rows.get(user)
        isOver = row is None or not self._window.count(row, now)
        counts = self._window.atLeast(None if isOver else row, weight, now)
        if counts is None:
            return False
        self._latest = now
        self.table.put(user, counts if row is None or isOver else counts + row[Window.size :])
        return True

    def postpone(self, user: int, due: float) -> None:
        """
        Another gateway has let a login pass.

        @param user: the key of the user.
        @param due: when the next one may pass.
        """
        queue = self._queues.get(user) or self._begin(user)
        queue.due = max(queue.due, due)

    def forget(self, user: int) -> None:
        """An operator has cleared the user. C{user} is the key."""
        self.table.drop(user)
        self._queues.pop(user, None)

    def isSlow(self, user: int, now: float) -> bool:
        """Return whether R6 acts. C{user} and C{now} as for L{count}."""
        most = self.policy.userSlow
        return bool(most) and self.count(user, now) >= most * UNIT

    def look(self, user: int, now: float) -> float:
        """
        Return in how many seconds a login may pass at best, free of side effects.

        @param user: the key.
        @param now: the time in seconds.
        """
        queue = self._queues.get(user)
        return 0.0 if queue is None else max(0.0, queue.due - now)

    def turn(self, user: int, network: int, ticket: int, now: float) -> float | None:
        """
        Let one login pass, or wait for its turn. Which of those that wait is next is drawn when the turn comes.

        Each network gets one login drawn, and all networks have the same chance to be among those that wait (reservoir
        sampling): a stranger who asks all the time keeps no owner out. Nor does one who leaves a login open: the next
        one passes after C{userInterval}, whether the last one has ended or not.

        @param user: the key of the user.
        @param network: the key of the network.
        @param ticket: the login's.
        @param now: the time in seconds.
        @return: 0 if it passes; after how many seconds to ask again; or L{None} if it cannot wait any longer.
        """
        queue = self._queues.get(user)
        if queue is None:
            queue = self._begin(user)
        self._tidy(queue, now)
        if now >= queue.due and self._isNext(queue, ticket, now):
            queue.waiting.pop(ticket, None)
            queue.networks.clear()
            queue.picked = 0
            queue.due = now + self.policy.userInterval
            return 0.0
        begun = queue.waiting.get(ticket)
        if begun is None:
            if queue.due > now + self.policy.userPatience or not self._enters(queue, network, ticket):
                return None
            begun = queue.waiting[ticket] = now
        left = begun + self.policy.userPatience - now
        if left <= 0 or queue.due > now + left:
            del queue.waiting[ticket]
            return None
        return min(max(queue.due - now, _SOON), left)

    def _enters(self, queue: _Queue, network: int, ticket: int) -> bool:
        """Whether a login gets a place among those that wait. Another one may lose its place to it."""
        if network in queue.networks or len(queue.networks) >= _MOST_NETWORKS:
            return False
        queue.networks[network] = ticket
        most = max(1, self.policy.userWaiting)
        if len(queue.waiting) >= most:
            if self._choose(range(len(queue.networks))) >= most:
                return False
            del queue.waiting[self._choose([*queue.waiting])]
        return True

    def _isNext(self, queue: _Queue, ticket: int, now: float) -> bool:
        if queue.picked and queue.until > now:
            return queue.picked == ticket
        tickets = [*queue.waiting] if ticket in queue.waiting else [*queue.waiting, ticket]
        drawn = tickets[0] if len(tickets) == 1 else self._choose(tickets)
        if drawn == ticket:
            return True
        queue.picked, queue.until = drawn, now + _PICKED
        return False

    def _tidy(self, queue: _Queue, now: float) -> None:
        """Forget those that have not asked again in time."""
        latest = now - self.policy.userPatience - _PICKED
        for ticket in [ticket for ticket, begun in queue.waiting.items() if begun < latest]:
            del queue.waiting[ticket]

    def _begin(self, user: int) -> _Queue:
        if len(self._queues) >= _MOST_QUEUES:
            del self._queues[next(iter(self._queues))]
        queue = self._queues[user] = _Queue()
        return queue

    def leave(self, user: int, ticket: int) -> None:
        """
        A login that may wait has ended.

        @param user: the key of the user.
        @param ticket: the login's.
        """
        queue = self._queues.get(user)
        if queue is not None:
            if queue.waiting.pop(ticket, None) is not None:
                for network in [each for each, other in queue.networks.items() if other == ticket]:
                    del queue.networks[network]
            if queue.picked == ticket:
                queue.picked = 0

    def tidy(self, now: float) -> None:
        """Forget the queues that no one needs. C{now} is the time in seconds."""
        for user in [each for each, queue in self._queues.items() if queue.due < now and not queue.waiting]:
            del self._queues[user]

    def queues(self) -> dict[int, float]:
        """Return when the next login of each user that is slowed down may pass, by the user's key."""
        return {user: queue.due for user, queue in self._queues.items()}

    def resume(self, user: int, due: float) -> None:
        """
        Take over a queue of an earlier process.

        @param user: the key of the user.
        @param due: when the next login may pass.
        """
        self._begin(user).due = due
