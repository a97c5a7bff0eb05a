# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
The logins that were checked and have not ended: those that are asked now, and those that are held back.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile

from mailgate.limits.attempt import Attempt
from mailgate.limits.keys import Place

__all__ = ["LONGEST", "Login", "Undecided"]

LONGEST = 600.0
"""After how many seconds a login that no one ended is forgotten."""

_FIRST = 1 << 39
"""Tickets begin below it. There are never as many that they would not fit into the messages of the keeper."""


class Login:
    """
    One login.

    @ivar attempt: what was checked.
    @ivar place: the keys of its address and network.
    @ivar user: the key of its user.
    @ivar pair: the keys of user and address, combined by exclusive or.
    @ivar isKnown: whether the user has succeeded from this network lately.
    @ivar began: when it was checked first, in seconds.
    @ivar owner: which process has it.
    @ivar due: when C{limit_req login} lets it pass; negative before it was counted for that.
    @ivar isAsked: whether it was let pass, and is undecided.
    @ivar ticket: its ticket; 0 before it has one.
    @ivar counted: the keys under which logins count that pass as this one did; not before it has succeeded.
    """

    __slots__ = (
        *("attempt", "began", "counted", "due", "isAsked", "isKnown"),
        *("owner", "pair", "place", "ticket", "user"),
    )

    counted: tuple[int, int]

    def __init__(
        self, attempt: Attempt, place: Place, user: int, pair: int, isKnown: bool, began: float, owner: object
    ) -> None:
        self.attempt = attempt
        self.place = place
        self.user = user
        self.pair = pair
        self.isKnown = isKnown
        self.began = began
        self.owner = owner
        self.due = -1.0
        self.isAsked = False
        self.ticket = 0


class Undecided:
    """
    Counts undecided logins by pair, by address, and, of those from networks that are unknown to the user, by network
    and by user.

    @param most: how many logins are remembered. If there are more, the oldest go that are held back: they are checked
        again. One that is asked goes only if none is held back, as it makes room for another guess.
    @param first: the number before the first ticket.
    @ivar logins: the logins by ticket, the oldest first.
    @ivar last: the last ticket.
    @ivar counts: how many are asked now, by key; without those that have none.
    """

    def __init__(self, most: int, first: int) -> None:
        self.most = most
        self.logins: dict[int, Login] = {}
        self.counts: dict[int, int] = {}
        self._held: dict[int, None] = {}
        self.last = first % _FIRST
        self._marks: deque[tuple[float, int]] = deque()

    @property
    def held(self) -> int:
        """How many are held back."""
        return len(self._held)

    def add(self, login: Login) -> int:
        """Remember C{login}, which is held back unless it is asked already. The result is its ticket."""
        login.ticket = ticket = self.last = self.last + 1
        logins = self.logins
        if len(logins) >= self.most:
            self.end(next(iter(self._held or logins)))
        logins[ticket] = login
        if not login.isAsked:
            self._held[ticket] = None
        return ticket

    def ask(self, login: Login) -> None:
        """C{login} may pass: it is undecided until L{end}."""
        login.isAsked = True
        if login.ticket:
            del self._held[login.ticket]
        counts, pair, place = self.counts, login.pair, login.place
        address = place.address
        counts[pair] = counts.get(pair, 0) + 1
        counts[address] = counts.get(address, 0) + 1
        if not login.isKnown:
            counts[place.network] = counts.get(place.network, 0) + 1
            counts[login.user] = counts.get(login.user, 0) + 1

    def end(self, ticket: int) -> Login | None:
        """The login with C{ticket} has ended. The result is L{None} if it is not remembered."""
        login = self.logins.pop(ticket, None)
        if login is None:
            return None
        if not login.isAsked:
            del self._held[ticket]
            return login
        place, counts = login.place, self.counts
        counted = (login.pair, place.address)
        for key in counted if login.isKnown else (*counted, place.network, login.user):
            left = counts[key] - 1
            if left:
                counts[key] = left
            else:
                del counts[key]
        return login

    def of(self, key: int) -> int:
        """Return how many are asked now. C{key} is that of a pair, an address, a network or a user."""
        return self.counts.get(key, 0)

    def old(self, now: float) -> list[int]:
        """Return the tickets of logins that are too old. C{now} is the time in seconds."""
        last, marks = 0, self._marks
        while marks and now - marks[0][0] >= LONGEST:
            _, last = marks.popleft()
        return [*takewhile(lambda ticket: ticket <= last, self.logins)]

    def mark(self, moment: float) -> None:
        """Note that all tickets of until now are as old as C{moment}, in seconds, or older."""
        self._marks.append((moment, self.last))

    def ownedBy(self, owner: object) -> list[int]:
        """Return the tickets of a process. C{owner} is as in L{Login}."""
        return [ticket for ticket, login in self.logins.items() if login.owner == owner]
