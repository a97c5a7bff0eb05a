# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
Answers the questions of other gateways, and carries out their orders, from a fixed table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger

from mailgate.keeper.cluster.wire import Question, answerChannel, parts
from mailgate.keeper.interfaces import Collected
from mailgate.log.journal import oneLine
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.seal import Seal

__all__ = ["MOST_ANSWERS", "Answering", "Answers"]

MOST_ANSWERS = 64
"""Questions of other gateways that are answered at the same time."""

_LONGEST_WORD = 64

Answers: TypeAlias = Mapping[str, Callable[[Mapping[str, Any]], Deferred[Collected]]]
"""What this gateway answers and carries out: called with the arguments of the question, by its word."""

_log = Logger("mailgate")


class Answering:
    """
    Answers.

    @param gateway: the name of this gateway.
    @param store: the store.
    @param seal: seals the answers.
    @param answers: what it answers.
    """

    def __init__(self, gateway: str, store: IStore, seal: Seal, answers: Answers) -> None:
        self._gateway = gateway
        self._store = store
        self._seal = seal
        self._answers = answers
        self._running: set[Deferred[None]] = set()

    def stop(self) -> None:
        """Drop all answers that are under way."""
        for each in list(self._running):
            each.cancel()

    def answer(self, question: Question) -> None:
        """
        Answer another gateway. An order is carried out also if the answer gets lost.

        @param question: its question.
        """
        if len(self._running) >= MOST_ANSWERS:
            busy = Collected((), ("too many questions of other gateways wait for answers",))
            self._begin(self._send(question, busy))
        else:
            self._begin(self._answer(question))

    def _begin(self, steps: Any) -> None:
        answered: Deferred[None] = Deferred.fromCoroutine(steps)
        self._running.add(answered)
        answered.addErrback(lambda failure: failure.trap(CancelledError, StoreUnavailable) and None)
        answered.addErrback(lambda failure: _log.failure("cannot answer another gateway", failure))
        answered.addBoth(lambda _: self._running.discard(answered))

    async def _answer(self, question: Question) -> None:
        await self._send(question, await self.carryOut(question.word, question.arguments))

    def carryOut(self, word: str, arguments: Mapping[str, Any]) -> Deferred[Collected]:
        """
        Carry out an order, or find an answer.

        @param word: which.
        @param arguments: its arguments, not checked.
        @return: fires with the answer.
        """
        found = self._answers.get(word)
        if found is None:
            # It may be of a later release.
            text = f"gateway {self._gateway} does not know the question {oneLine(word[:_LONGEST_WORD])}"
            done: Deferred[Collected] = Deferred()
            done.callback(Collected((), (text,)))
            return done
        return maybeDeferred(found, arguments).addErrback(self._refused, word)

    def _refused(self, failure: Any, word: str) -> Collected:
        if failure.check(CancelledError):
            return failure  # type: ignore[no-any-return]
        if failure.check(ValueError):
            return Collected((), (oneLine(str(failure.value)),))
        _log.failure("cannot answer the question {word} of another gateway", failure, word=word)
        return Collected((), (f"gateway {self._gateway} cannot answer; its log has the reason",))

    async def _send(self, question: Question, found: Collected) -> None:
        channel = answerChannel(question.gateway)
        for part in parts(question.id, self._gateway, found.rows, found.missing):
            # One after the other: the store need not keep a long answer.
            await self._store.publish(channel, self._seal.close(part, channel.encode("ascii")))
