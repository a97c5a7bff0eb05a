# -*- test-case-name: bench.test.test_bytecodes -*-
"""
C{python bench/traced.py FILE ARGUMENT...}: twistd, whose bytecodes are counted between two signals L{SIGNAL}.

It is run by its path, because the tree in the current folder, which is counted, need not have this benchmark.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["SIGNAL", "Counted", "main", "run"]

SIGNAL = signal.SIGRTMIN + 9
"""Neither Python, nor Twisted, nor mailgate uses it."""

_MARKS = ("/site-packages/", f"/lib/python{sys.version_info.major}.{sys.version_info.minor}/")


class Counted:
    """
    The bytecodes that each function executes, and its calls.

    @ivar bytecodes: the bytecodes by function.
    @ivar calls: the calls by function. A coroutine is called each time when it continues.
    """

    def __init__(self) -> None:
        self.bytecodes: Counter[CodeType] = Counter()
        self.calls: Counter[CodeType] = Counter()

    def begin(self) -> None:
        """Count from now on what this thread calls."""
        sys.settrace(self._called)

    def end(self) -> None:
        """Count no more."""
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self.calls[frame.f_code] += 1
        return self._executes

    def _executes(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
        if event == "opcode":
            self.bytecodes[frame.f_code] += 1
        return self._executes

    def rows(self, folder: str) -> list[tuple[str, int, int]]:
        """
        Return name, bytecodes and calls of each function.

        @param folder: the source tree, which the names do not repeat.
        """
        return [
            (f"{_below(code.co_filename, folder)} {code.co_qualname}", self.bytecodes[code], calls)
            for code, calls in self.calls.items()
        ]


def _below(path: str, folder: str) -> str:
    for mark in (*_MARKS, f"{folder}{os.sep}"):
        if mark in path:
            return path.split(mark, 1)[1]
    return path


def main(path: str) -> None:
    """
    Count between two signals, and then write the rows as JSON.

    @param path: the file for them.
    """
    counted = Counted()
    counting = False

    def change(number: int, frame: FrameType | None) -> None:
        nonlocal counting
        counting = not counting
        if counting:
            counted.begin()
            return
        counted.end()
        with open(f"{path}.part", "w", encoding="utf-8") as stream:
            json.dump(counted.rows(os.getcwd()), stream)
        os.rename(f"{path}.part", path)

    signal.signal(SIGNAL, change)


def run() -> None:
    """Count what twistd does with the further arguments."""
    path = sys.argv[1]
    # Where "python -c" would look first: the tree that is counted.
    sys.path[0] = os.getcwd()
    sys.argv[:2] = ["twistd"]
    main(path)
    from twisted.scripts.twistd import run as twistd

    twistd()


if __name__ == "__main__":
    run()
