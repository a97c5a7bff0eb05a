# -*- test-case-name: mailgate.test.process.test_operation -*-
"""
The answer to a command of an operator.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

__all__ = ["Answer"]


@frozen
class Answer:
    """
    The result of a command.

    @ivar done: whether the command succeeded.
    @ivar reasons: why it did not, one text for each error. After a success: what is missing in C{rows}.
    @ivar cut: the number of proxied sessions that the command cut.
    @ivar pid: the process that has taken over, after an upgrade.
    @ivar isUnknown: whether nothing was done because nothing matches the arguments.
    @ivar rows: what the command lists, values of JSON.
    """

    done: bool
    reasons: tuple[str, ...] = ()
    cut: int = 0
    pid: int | None = None
    isUnknown: bool = False
    rows: tuple[Any, ...] = ()
