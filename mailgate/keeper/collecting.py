# -*- test-case-name: mailgate.test.keeper.test_collecting -*-
"""
Makes one answer of those of all processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from mailgate.keeper.interfaces import Collected, IMember

__all__ = ["collect"]

_log = Logger("mailgate")


def _isOf(row: Mapping[str, Any], member: IMember) -> bool:
    return bool(row.get("worker", member.name) == member.name)


def collect(results: Iterable[tuple[bool, Any]], members: Sequence[IMember], most: int) -> Collected:
    """
    Make one answer.

    @param results: for each process whether it has answered, and the answer or why not, a Failure.
    @param members: the processes.
    @param most: the most rows.
    """
    rows: list[Any] = []
    missing: list[str] = []
    for (isAnswer, result), member in zip(results, members, strict=True):
        if isAnswer:
            # A process that is taken over must not send rows in the name of another one.
            rows += [row for row in result.rows if not isinstance(row, dict) or _isOf(row, member)]
            missing += result.missing
        else:
            if not result.check(CancelledError):
                # Nothing is wrong if the client who has asked has left.
                _log.failure("the keeper cannot ask process {pid}", result, pid=member.pid)
            missing.append(f"process {member.pid} could not be asked; the log has the reason")
    if len(rows) > most:
        del rows[most:]
        missing.append(f"the answer has more than {most} rows")
    return Collected(rows, missing)
