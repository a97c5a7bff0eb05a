# -*- test-case-name: mailgate.test.process.workers.test_inquiries -*-
"""
The master's questions to all workers of all generations, and the collection of their answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.process.queries import Found
from mailgate.process.workers.generation import Generation
from mailgate.process.workers.messages import Query, Reply

__all__ = ["MOST_INQUIRIES", "MOST_ROWS", "Inquiries"]

MOST_INQUIRIES = 64
"""Questions that wait for answers at the same time."""

MOST_ROWS = 200_000
"""Rows of one worker's answer."""


@define
class _Part:
    """The answer of one worker, as far as it has arrived."""

    pid: int
    isCurrent: bool
    rows: list[Any] = field(factory=list)
    failure: str = ""


@define
class _Inquiry:
    """A question, and the workers that have not answered."""

    answered: Deferred[list[Found]]
    deadline: IDelayedCall
    waiting: dict[tuple[Generation, int], _Part]
    parts: list[_Part]


class Inquiries:
    """
    Asks workers.

    @param clock: the clock of the deadlines.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._numbers = count(1)
        self._inquiries: dict[int, _Inquiry] = {}

    def ask(
        self,
        generations: Iterable[Generation],
        current: Generation | None,
        word: str,
        arguments: Mapping[str, Any],
        within: float,
    ) -> Deferred[list[Found]]:
        """
        Ask all workers that serve.

        @param generations: the generations of the workers.
        @param current: the one that accepts new clients.
        @param word: a name of L{QUERIES<mailgate.process.queries.QUERIES>}.
        @param arguments: its arguments, values of JSON by name.
        @param within: seconds until a worker must have answered.
        @return: fires with the answer of each worker, those of the current generation first.
        """
        if len(self._inquiries) >= MOST_INQUIRIES:
            return succeed([Found(True, failure="too many questions wait for answers of the workers")])
        generations = sorted(generations, key=lambda each: each is not current)
        waiting = {
            (each, slot): _Part(pid, each is current) for each in generations for slot, pid in each.serving.items()
        }
        number = next(self._numbers)
        inquiry = self._inquiries[number] = _Inquiry(
            Deferred(), self._clock.callLater(within, self._expire, number, within), waiting, list(waiting.values())
        )
        for each in generations:
            each.passOn(Query(number, word, dict(arguments)))
        self._look(number)
        return inquiry.answered

    def heard(self, generation: Generation, reply: Reply) -> None:
        """
        A worker has answered.

        @param generation: its generation.
        @param reply: its answer, or a part of it.
        """
        inquiry = self._inquiries.get(reply.id)
        part = None if inquiry is None else inquiry.waiting.get((generation, reply.slot or 0))
        if inquiry is None or part is None:
            # It came too late, or the worker was not asked, as it did not serve yet.
            return
        part.rows += reply.rows
        isTooLong = len(part.rows) > MOST_ROWS
        if reply.failure or isTooLong:
            why = "its answer is too long" if isTooLong else reply.failure
            part.failure = f"worker {part.pid} has not answered: {why}"
        if reply.isLast or isTooLong:
            del inquiry.waiting[generation, reply.slot or 0]
            self._look(reply.id)

    def ended(self, generation: Generation, slot: int | None = None) -> None:
        """
        A worker has exited.

        @param generation: its generation.
        @param slot: its number; L{None}: the zygote has exited, and its workers can no longer answer.
        """
        for number, inquiry in list(self._inquiries.items()):
            for whose in [key for key in inquiry.waiting if key[0] is generation and slot in (None, key[1])]:
                part = inquiry.waiting.pop(whose)
                if slot is None:
                    part.failure = f"worker {part.pid} lost its zygote before it answered"
                else:
                    # Its sessions have ended with it, so nothing is missing.
                    inquiry.parts = [each for each in inquiry.parts if each is not part]
            self._look(number)

    def _expire(self, number: int, within: float) -> None:
        inquiry = self._inquiries[number]
        for part in inquiry.waiting.values():
            part.failure = f"worker {part.pid} has not answered within {within:g} s"
        inquiry.waiting.clear()
        self._look(number)

    def _look(self, number: int) -> None:
        """Fire the Deferred if all answers are there."""
        if self._inquiries[number].waiting:
            return
        inquiry = self._inquiries.pop(number)
        if inquiry.deadline.active():
            inquiry.deadline.cancel()
        found = [Found(part.isCurrent, part.rows, part.failure) for part in inquiry.parts]
        if not any(part.isCurrent for part in inquiry.parts):
            found.append(Found(True, failure="no worker accepts clients now"))
        inquiry.answered.callback(found)
