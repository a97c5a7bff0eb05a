# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
Asks the other gateways over the messages of the store, and passes their questions on to what answers here.

A message may get lost, and a gateway may be cut off from the store. The store says which gateways live; those of them
that do not answer in time are named in the answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailgate.keeper.cluster.answering import Answering, Answers
from mailgate.keeper.cluster.kept import KeptOrders
from mailgate.keeper.cluster.neighbours import Neighbours
from mailgate.keeper.cluster.records import ReadRecord, recorded
from mailgate.keeper.cluster.wire import ASK, SKEW, BadMessage, Part, Question, answerChannel, readPart, readQuestion
from mailgate.keeper.filters import Filter
from mailgate.keeper.interfaces import Collected, Heard
from mailgate.log.journal import oneLine
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.seal import Seal, SealBroken

__all__ = ["LEFT", "MOST_PARTS", "MOST_QUESTIONS", "MOST_ROWS", "SKEW", "Others"]

MOST_QUESTIONS = 64
"""Questions that wait for answers of other gateways at the same time."""

MOST_ROWS = 200_000
"""Rows of the answer of a gateway."""

MOST_PARTS = 512
"""Parts of the answer of a gateway: 32 MiB."""

LEFT = "left"
"""The word of a gateway that stops. Nobody answers."""

_MOST_SEEN = 65_536


_log = Logger("mailgate")


@define(eq=False)
class _Asked:
    """
    A question that waits for answers.

    @ivar answered: fires with the answers.
    @ivar awaited: the gateways that have not answered yet; L{None} until they are known.
    @ivar answers: the answers that are complete.
    @ivar rows: what has arrived from each of the others.
    @ivar numbers: the number of the next part of each.
    @ivar deadline: ends it.
    """

    answered: Deferred[Heard]
    awaited: set[str] | None = None
    answers: dict[str, Collected] = field(factory=dict)
    rows: dict[str, list[Any]] = field(factory=dict)
    numbers: dict[str, int] = field(factory=dict)
    deadline: IDelayedCall | None = None


class Others:
    """
    The other gateways. It implements L{mailgate.keeper.interfaces.IOthers}.

    @param gateway: the name of this gateway.
    @param store: the store.
    @param seal: seals and opens messages.
    @param answers: what this gateway answers and carries out, by its word.
    @param clock: the time and timers. Its seconds are those since 1970.
    @param readRecord: reads a record of a session of the registry.
    @param randomness: called with a number, returns that many random bytes.
    @param mark: that of L{mailgate.store.keys.StoreKeys}, with which runs begin; empty: it is not compared.
    @ivar neighbours: which gateways there are.
    """

    def __init__(
        self,
        gateway: str,
        store: IStore,
        seal: Seal,
        answers: Answers,
        clock: IReactorTime,
        readRecord: ReadRecord,
        randomness: Callable[[int], bytes] = os.urandom,
        mark: str = "",
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._seal = seal
        self._clock = clock
        self._readRecord = readRecord
        self._randomness = randomness
        self.neighbours = Neighbours(gateway, store, clock, mark)
        self._answering = Answering(gateway, store, seal, answers)
        self._kept = KeptOrders(store, seal, self._answering.carryOut, clock)
        self._asked: dict[str, _Asked] = {}
        self._seen: dict[str, float] = {}
        self._warned: set[str] = set()
        self._isRunning = False

    # Life.

    def start(self) -> None:
        """Ask and answer from now on."""
        self._isRunning = True
        self.neighbours.start()

    def leave(self) -> None:
        """Say goodbye, and stop."""
        if self._isRunning:
            question = self._question(LEFT, {})
            self._store.publish(ASK, self._seal.close(question.write(), ASK.encode("ascii"))).addErrback(_trap)
        self.stop()

    def stop(self) -> None:
        """Answer no more, and end what is asked."""
        self._isRunning = False
        self.neighbours.stop()
        self._answering.stop()
        for id in list(self._asked):
            self._end(id, "the keeper stops")

    def resumed(self) -> None:
        """Messages may have been missed: carry out the orders among them that are kept."""
        if self._isRunning:
            self.neighbours.look()
            self._kept.resumed()

    def standing(self) -> Mapping[str, Any]:
        """See L{mailgate.keeper.interfaces.IOthers.standing}."""
        return self.neighbours.standing()

    # Asking.

    def ask(
        self, word: str, arguments: Mapping[str, Any], within: float = 2.0, isKept: bool = False
    ) -> Deferred[Heard]:
        """
        Ask all others. See L{mailgate.keeper.interfaces.IOthers.ask}.

        @param word: the word of the question.
        @param arguments: its arguments.
        @param within: seconds until they must have answered.
        @param isKept: whether gateways that do not hear it now carry it out later.
        """
        if len(self._asked) >= MOST_QUESTIONS or not self._isRunning:
            reason = "too many questions wait for answers of other gateways" if self._isRunning else "the keeper stops"
            return succeed(Heard({}, self.neighbours.living(), reason))
        question = self._question(word, arguments)
        sealed = self._seal.close(question.write(), ASK.encode("ascii"))
        asked = _Asked(Deferred(lambda _: self._forget(question.id)))
        self._asked[question.id] = asked
        asked.deadline = self._clock.callLater(within, self._end, question.id)
        if isKept:
            self._kept.keep(question)
        self._store.publish(ASK, sealed).addErrback(self._lost, question.id)
        # Those are awaited that the store knows to live; while it is down, those that it knew.
        self.neighbours.look().addCallback(lambda _: self._await(question.id))
        return asked.answered

    def _question(self, word: str, arguments: Mapping[str, Any]) -> Question:
        return Question(self._randomness(8).hex(), self._gateway, self._clock.seconds(), word, arguments)

    def _lost(self, failure: Any, id: str) -> None:
        failure.trap(StoreUnavailable)
        self._end(id, f"the store cannot be used: {failure.value}")

    def _await(self, id: str) -> None:
        asked = self._asked.get(id)
        if asked is not None:
            asked.awaited = set(self.neighbours.living())
            self._maybeEnd(id, asked)

    def _maybeEnd(self, id: str, asked: _Asked) -> None:
        if asked.awaited is not None and not asked.awaited - asked.answers.keys():
            self._end(id)

    def _forget(self, id: str) -> None:
        self._drop(id)

    def _drop(self, id: str) -> _Asked | None:
        asked = self._asked.pop(id, None)
        if asked is not None and asked.deadline is not None and asked.deadline.active():
            asked.deadline.cancel()
        return asked

    def _end(self, id: str, reason: str = "") -> None:
        asked = self._drop(id)
        if asked is not None:
            living = self.neighbours.living()
            silent = {name: age for name, age in living.items() if name not in asked.answers}
            asked.answered.callback(Heard(asked.answers, silent, reason))

    def records(self, gateway: str, filter: Filter, most: int) -> Deferred[Collected]:
        """
        Return the sessions of a silent gateway. See L{mailgate.keeper.interfaces.IOthers.records}.

        @param gateway: its name.
        @param filter: which sessions.
        @param most: the most records that are looked at.
        """
        steps = recorded(self._store, gateway, self._readRecord, filter, most, lambda: deferLater(self._clock, 0))
        return Deferred.fromCoroutine(steps).addErrback(self._noRecords)

    def _noRecords(self, failure: Any) -> Collected:
        failure.trap(StoreUnavailable)
        return Collected((), (f"the store cannot be used: {failure.value}",))

    # Hearing.

    def heard(self, channel: str, sealed: bytes) -> None:
        """
        A message has arrived.

        @param channel: its channel: L{ASK}, or that of the answers to this gateway.
        @param sealed: the message.
        """
        if not self._isRunning:
            return
        try:
            message = self._seal.open(sealed, channel.encode("ascii", "replace"))
            if channel == ASK:
                self._asks(readQuestion(message))
            elif channel == answerChannel(self._gateway):
                self._part(readPart(message))
        except (SealBroken, BadMessage) as error:
            self._warnOnce(f"a message of another gateway was ignored: {error}")

    def _warnOnce(self, text: str) -> None:
        if len(self._warned) < 100 and text not in self._warned:
            self._warned.add(text)
            _log.warn("{text}", text=oneLine(text))

    def _asks(self, question: Question) -> None:
        if question.gateway == self._gateway:
            return
        now = self._clock.seconds()
        if abs(now - question.at) > SKEW:
            text = f"the clock of gateway {question.gateway} differs by more than {SKEW:.0f} seconds, or its question"
            self._warnOnce(f"{text} was sent again by someone; it was ignored")
            return
        if not self._isNew(question.id, now):
            return
        if question.word == LEFT:
            self.neighbours.left(question.gateway)
        else:
            self.neighbours.heard(question.gateway)
            self._kept.done(question.id)
            self._answering.answer(question)

    def _isNew(self, id: str, now: float) -> bool:
        if id in self._seen:
            return False
        self._seen[id] = now
        while len(self._seen) > 1:
            first = next(iter(self._seen))
            if len(self._seen) <= _MOST_SEEN and now - self._seen[first] <= 2 * SKEW:
                break
            del self._seen[first]
        return True

    def _part(self, part: Part) -> None:
        asked, name = self._asked.get(part.id), part.gateway
        if asked is None or name in asked.answers or name == self._gateway:
            return
        if part.number != asked.numbers.get(name, 0):
            # One is lost: what has arrived is no answer.
            asked.numbers[name] = -1
            return
        asked.numbers[name] = part.number + 1
        rows = asked.rows.setdefault(name, [])
        rows += part.rows
        isLong = len(rows) > MOST_ROWS or part.number >= MOST_PARTS
        if part.isLast or isLong:
            del rows[MOST_ROWS:]
            missing = (*part.missing, "the answer is too long") if isLong else part.missing
            asked.answers[name] = Collected(asked.rows.pop(name), missing)
            self.neighbours.heard(name)
            self._maybeEnd(part.id, asked)


def _trap(failure: Any) -> None:
    failure.trap(StoreUnavailable)
