# -*- test-case-name: mailgate.test.process.keeper.test_orders -*-
"""
What operators order through the keeper: how it reaches the master, and how the master carries it out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from attrs import asdict
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.process.answer import Answer
from mailgate.process.commands import COMMANDS, CommandError
from mailgate.process.keeper.talk import Request, Result
from mailgate.process.operation import Operation
from mailgate.process.workers.messages import Message

__all__ = ["ALLOWED", "ANSWERED_WITHIN", "MOST_REQUESTS", "Orders", "RemoteOperator", "carryOut"]

ALLOWED = frozenset(("reload", "backend list", "backend drain", "backend resume", "backend down", "backend up"))
"""The commands that may come through the admin server. Others end the gateway, or start another program."""

ANSWERED_WITHIN = 60.0
"""Seconds until the master must have answered. A reload reads the configuration and starts workers."""

MOST_REQUESTS = 16
"""Requests that wait for answers at the same time."""

_log = Logger("mailgate")


def carryOut(operation: Operation, command: str, arguments: Mapping[str, Any]) -> Deferred[Answer]:
    """
    Carry out an order in the process that has the operation.

    @param operation: carries out the orders of operators.
    @param command: the name of the command.
    @param arguments: its arguments, by name.
    @return: fires with the answer. It never fails.
    """
    if command not in ALLOWED:
        return succeed(Answer(False, ("the admin server does not take this command",)))
    found = COMMANDS[command]
    try:
        made = found.made(arguments)
    except CommandError as error:
        return succeed(Answer(False, (str(error),)))
    _log.info("received command {name} from the admin server", name=command)
    return maybeDeferred(found.run, operation, made).addErrback(_broke)


def _broke(failure: Failure) -> Answer:
    _log.failure("a command failed", failure)
    return Answer(False, ("the command failed; the error log has the reason",))


class Orders:
    """
    The master's end: carries out what the keeper requests.

    @param send: sends a message to the zygote of the keeper.
    @ivar order: called with the name of a command and its arguments, fires with the L{Answer}; L{None} until the
        process has set it.
    """

    def __init__(self, send: Callable[[Message], object]) -> None:
        self.order: Callable[[str, Mapping[str, Any]], Deferred[Answer]] | None = None
        self._send = send
        self._underWay = 0

    def requested(self, request: Request, slot: int) -> None:
        """
        The keeper passes on an order.

        @param request: the order.
        @param slot: the number of the keeper.
        """
        if self.order is None:
            self._answer(Answer(False, ("the gateway does not serve yet",)), request, slot)
        elif self._underWay >= MOST_REQUESTS:
            # The keeper has the same bound, unless it is taken over.
            self._answer(Answer(False, ("too many orders wait for the gateway",)), request, slot)
        else:
            self._underWay += 1
            self.order(request.command, request.arguments).addCallback(self._ordered, request, slot)

    def _ordered(self, answer: Answer, request: Request, slot: int) -> None:
        self._underWay -= 1
        self._answer(answer, request, slot)

    def _answer(self, answer: Answer, request: Request, slot: int) -> None:
        fields = asdict(answer)
        try:
            result = Result(request.id, slot, answer.done, fields)
        except (ValueError, TypeError):
            fields = asdict(Answer(answer.done, ("the answer is too long to list",)))
            result = Result(request.id, slot, answer.done, fields)
        self._send(result)


class RemoteOperator:
    """
    The keeper's end: an L{IOperator<mailgate.keeper.keeper.IOperator>} that passes orders on to the master.

    @param send: sends a message to the zygote without waiting; returns whether the zygote will receive it.
    @param clock: the timers.
    """

    def __init__(self, send: Callable[[Message], bool], clock: IReactorTime) -> None:
        self._send = send
        self._clock = clock
        self._numbers = count(1)
        self._waiting: dict[int, Deferred[Answer]] = {}

    def order(self, command: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """
        See L{mailgate.keeper.keeper.IOperator.order}.

        @param command: its name.
        @param arguments: its arguments.
        """
        if len(self._waiting) >= MOST_REQUESTS:
            return succeed(Answer(False, ("too many orders wait for the gateway",)))
        number = next(self._numbers)
        try:
            request = Request(number, command, dict(arguments))
        except (ValueError, TypeError):
            return succeed(Answer(False, ("the command is not valid",)))
        if not self._send(request):
            return succeed(Answer(False, ("the gateway's main process cannot be reached",)))
        answered: Deferred[Answer] = Deferred()
        self._waiting[number] = answered
        # The clock of a Deferred's timeout needs callLater only.
        answered.addTimeout(ANSWERED_WITHIN, self._clock)
        return answered.addErrback(self._late).addBoth(self._forget, number)

    def _late(self, failure: Failure) -> Answer:
        failure.trap(TimeoutError)
        reason = f"the gateway has not answered within {ANSWERED_WITHIN:g} s; the order may still be carried out"
        return Answer(False, (reason,))

    def _forget(self, result: Any, number: int) -> Any:
        self._waiting.pop(number, None)
        return result

    def answered(self, result: Result) -> None:
        """
        The master has answered.

        @param result: the answer.
        """
        waiting = self._waiting.get(result.id)
        if waiting is not None:
            waiting.callback(_answerOf(result))


def _answerOf(result: Result) -> Answer:
    given = dict(result.answer)
    for name in ("reasons", "rows"):
        given[name] = tuple(given.get(name, ()))
    return Answer(**given)
