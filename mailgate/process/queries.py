# -*- test-case-name: mailgate.test.process.test_backends,mailgate.test.process.workers.test_worker -*-
"""
Questions that each process that serves clients can answer, for each of its generations. With workers the master asks
all workers of all generations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import frozen

from mailgate.service import Gateway
from mailgate.upstream.listing import rowsOf

__all__ = ["ANSWER_WITHIN", "LIST_BACKENDS", "QUERIES", "Found", "ask"]

ANSWER_WITHIN = 5.0
"""Seconds until each worker must have answered."""

LIST_BACKENDS = "backend list"

Answerer: TypeAlias = Callable[[Gateway, Mapping[str, Any]], Sequence[Any]]
"""
Answers a question from one gateway and the arguments. Returns values of JSON, the rows of the answer, each of a few
kilobytes at most. It must not wait.
"""


@frozen
class Found:
    """
    The answer of one generation in one process.

    @ivar isCurrent: whether this is the generation that accepts new clients.
    @ivar rows: the rows; those that have arrived if C{failure} is not empty.
    @ivar failure: why the answer is missing or incomplete; empty after a success.
    """

    isCurrent: bool
    rows: Sequence[Any] = ()
    failure: str = ""


def _backends(gateway: Gateway, arguments: Mapping[str, Any]) -> Sequence[Any]:
    return list(rowsOf(gateway.standing, gateway.upstreams))


QUERIES: dict[str, Answerer] = {LIST_BACKENDS: _backends}
"""What answers each question, by its name."""


def ask(gateway: Gateway, word: str, arguments: Mapping[str, Any]) -> Sequence[Any]:
    """
    Answer a question.

    @param gateway: the gateway that it is about.
    @param word: the name of the question.
    @param arguments: its arguments, by name.
    @return: the rows of the answer.
    @raise KeyError: there is no question of this name.
    """
    return QUERIES[word](gateway, arguments)
