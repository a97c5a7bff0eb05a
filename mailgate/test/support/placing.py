"""
Places of users that a test decides on.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from mailgate.upstream.placing import Owner

__all__ = ["StandInPlacing"]


class StandInPlacing:
    """
    An L{IPlacing<mailgate.upstream.placing.IPlacing>}.

    @ivar answer: the place of each user; L{None}: that which is proposed.
    @ivar isLate: whether questions wait until the test answers them.
    @ivar asked: who was asked for, and the proposals.
    @ivar waited: for how many seconds their logins had waited before.
    @ivar waiting: the questions that wait.
    @ivar seats: the arguments of C{seated}.
    @ivar gone: those of C{left}.
    """

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.isLate = False
        self.asked: list[tuple[Owner, str]] = []
        self.waited: list[float] = []
        self.waiting: list[Deferred[str]] = []
        self.seats: list[tuple[str, str, bool]] = []
        self.gone: list[Owner] = []

    def ask(self, owner: Owner, proposal: str, waited: float = 0.0) -> Deferred[str]:
        self.asked.append((owner, proposal))
        self.waited.append(waited)
        if self.isLate:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return succeed(proposal if self.answer is None else self.answer)

    def seated(self, owner: Owner, backend: str, instead: str, isNew: bool) -> None:
        self.seats.append((backend, instead, isNew))

    def left(self, owner: Owner) -> None:
        self.gone.append(owner)
