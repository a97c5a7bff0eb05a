# -*- test-case-name: mailgate.test.keeper.test_view -*-
"""
What the keeper can learn of one process that serves clients, and what it can order there. In a worker the link to the
keeper (L{mailgate.keeper.link}) uses it, in a single process the keeper itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from attrs import define

from mailgate.service import Gateway
from mailgate.watch.watcher import Watcher

__all__ = ["ANSWERERS", "Answerer", "ProcessView"]

Answerer: TypeAlias = Callable[["ProcessView", Mapping[str, Any]], Iterator[Any]]
"""
Answers a question of the keeper. Yields the rows of the answer, values of JSON. Between two rows the process may serve
clients, so it must tolerate connections that begin or end. It raises C{ValueError} for arguments that are not valid.
"""

ANSWERERS: dict[str, Answerer] = {}
"""What answers each question, by its name. L{mailgate.keeper.answers} fills it."""


@define(eq=False)
class ProcessView:
    """
    One process.

    @ivar member: the name of the process: the beginning of its session ids, such as C{5g0qa}.
    @ivar watcher: what it has observed.
    @ivar gateways: returns its gateways: first the one that accepts new clients, then those that drain.
    """

    member: str
    watcher: Watcher
    gateways: Callable[[], Sequence[Gateway]]

    def answer(self, word: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """
        Answer a question.

        @param word: its name.
        @param arguments: its arguments, by name.
        @return: yields the rows of the answer.
        @raise KeyError: there is no question of this name.
        @raise ValueError: an argument is not valid.
        """
        return ANSWERERS[word](self, arguments)
