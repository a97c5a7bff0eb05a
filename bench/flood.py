# -*- test-case-name: bench.test.test_limits -*-
"""
A flood of failed logins, each of another user from another address, against the tables of the limits, in a process of
its own::

    python -m bench.flood COUNT MEMORY

It prints what the process has grown by, in JSON: C{grown} in bytes, and C{seconds} of CPU.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator

from bench.procfs import memory
from mailgate.limits.attempt import Action, Attempt, Result
from mailgate.limits.defence import Defence
from mailgate.limits.policy import LoginPolicy, Prefixes

__all__ = ["attempts", "flood", "main"]

_FEW = 1000
"""Logins before memory is measured: what a process needs anyway is there then."""


def attempts(first: int, count: int) -> Iterator[Attempt]:
    """
    Yield logins, each of another user from another network, of IPv4 and IPv6 in turns.

    @param first: the number of the first one.
    @param count: how many.
    """
    for number in range(first, first + count):
        if number % 2:
            host = f"2a00:{number >> 16:x}:{number & 0xFFFF:x}::1"
        else:
            host = f"{1 + (number >> 17)}.{number >> 9 & 255}.{number >> 1 & 255}.7"
        yield Attempt(host, b"user%d@example.com" % number, tag=number.to_bytes(16, "big"))


def flood(defence: Defence, logins: Iterator[Attempt]) -> None:
    """
    Let C{logins} fail, unless they are refused.

    @param defence: counts them.
    @param logins: the logins.
    """
    for attempt in logins:
        verdict = defence.check(attempt)
        if verdict.action is not Action.REFUSE:
            defence.record(attempt, verdict.ticket, Result.FAILED)


def main(count: int, limit: int) -> dict[str, float]:
    """
    Flood new tables.

    @param count: how many logins.
    @param limit: C{limit_memory} in bytes.
    @return: the figures.
    """
    defence = Defence()
    defence.configure(LoginPolicy(), Prefixes(), limit)
    flood(defence, attempts(0, _FEW))
    before, began = memory([os.getpid()]), time.process_time()
    flood(defence, attempts(_FEW, count))
    seconds = time.process_time() - began
    return {"grown": memory([os.getpid()]) - before, "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
