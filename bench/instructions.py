# -*- test-case-name: bench.test.test_instructions -*-
"""
C{python -m bench.instructions}: what limits and the admin side add to a login, in machine instructions.

On a busy machine some microseconds cannot be seen in CPU time. Valgrind counts the instructions of a process, which are
the same in each run but for 0.4 percent, about a microsecond. Each count is the difference of two runs of
L{bench.stage}, of few logins and of more, so that the start of the process is not in it.

It is no measure of time. A cache miss counts like any instruction, and the kernel's work does not count. The
microseconds of the report are instructions divided by how many the same program executes in a microsecond of CPU, which
is the shortest of several runs without Valgrind, and as exact as those.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.options import REPOSITORY, counting
from bench.processes import BenchmarkError
from bench.program import conclude, machine, publish, revision, say
from bench.report import number, simpleTable
from bench.stage import KINDS, SIDES

__all__ = ["counted", "main", "rows"]

_REFERENCES = re.compile(r"I +refs: +([\d,]+)")
_TIMED = 3
"""How often the CPU of logins is measured."""

_AT_ONCE = 2

Counts = Mapping[tuple[str, str], float]
"""Figures of a login by kind and side, as in L{bench.stage}."""


def counted(said: str) -> int:
    """
    Return the number of instructions that Valgrind has counted.

    @param said: what it has written to standard error.
    @raise BenchmarkError: it has counted nothing.
    """
    found = _REFERENCES.search(said)
    if found is None:
        raise BenchmarkError(f"valgrind has counted nothing; it said: {said[-500:]}")
    return int(found[1].replace(",", ""))


def _run(source: str, side: str, kind: str, count: int, *before: str) -> subprocess.CompletedProcess[str]:
    stage = os.path.join(REPOSITORY, "bench", "stage.py")
    # The order of sets is a part of the work.
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONHASHSEED": "0"}
    command = [*before, sys.executable, stage, side, kind, str(count)]
    done = subprocess.run(command, env=environment, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(command)} failed: {done.stderr[-500:]}")
    return done


def _instructions(source: str, logins: int) -> Counts:
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise BenchmarkError("valgrind is not installed")
    tool = (valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
    # Caches are full and all code has run once before those that are counted.
    few = max(100, logins // 3)
    wanted = [(kind, side, count) for kind in KINDS for side in SIDES for count in (few, few + logins)]

    def count(each: tuple[str, str, int]) -> int:
        kind, side, number = each
        return counted(_run(source, side, kind, number, *tool).stderr)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(wanted, pool.map(count, wanted), strict=True))
    return {
        (kind, side): (found[kind, side, few + logins] - found[kind, side, few]) / logins
        for kind in KINDS
        for side in SIDES
    }


def _perMicrosecond(source: str, instructions: Counts, logins: int) -> float:
    kind, side = KINDS[0], SIDES[0]
    return instructions[kind, side] / min(float(_run(source, side, kind, logins).stdout) for _ in range(_TIMED))


def rows(instructions: Counts, perMicrosecond: float) -> list[tuple[str, ...]]:
    """
    Return the rows of the report.

    @param instructions: those of a login.
    @param perMicrosecond: how many are a microsecond.
    """
    made = []
    for kind in KINDS:
        for before, side in zip((None, *SIDES), SIDES, strict=False):
            count = instructions[kind, side]
            more = None if before is None else count - instructions[kind, before]
            added = (None, None) if more is None else (more / 1000, more / perMicrosecond)
            figures = (count / 1000, added[0], count / perMicrosecond, added[1])
            made.append((f"{kind}, {side}", *map(number, figures)))
    return made


def _report(arguments: argparse.Namespace) -> str:
    sources: Sequence[str] = [*filter(None, (arguments.before, arguments.mailgate))]
    facts, tables = [*machine(), ("logins", f"{arguments.logins} counted of each kind")], []
    for source in sources:
        instructions = _instructions(source, arguments.logins)
        rate = _perMicrosecond(source, instructions, arguments.logins)
        say(f"{source}: {rate:.0f} instructions in a microsecond")
        facts.append(("mailgate", f"{source}, revision {revision(source)}; {rate:.0f} instructions in a microsecond"))
        head = ("thousand instructions", "more than before", "us", "us more")
        tables.append(simpleTable([(f"A login in {os.path.basename(source)}", *head), *rows(instructions, rate)]))
    return "\n\n".join(["\n".join(f":{name}: {text}" for name, text in facts), *tables])


def main() -> int:
    """Measure, print and write; return the exit status."""
    arguments = counting().parse_args()
    return conclude(lambda: publish(_report(arguments), arguments.output))


if __name__ == "__main__":
    raise SystemExit(main())
