"""
Run fuzz targets for a time::

    python -m mailgate.test.fuzz                        # all, a minute each
    python -m mailgate.test.fuzz imap http --seconds 3600

The first example that breaks a property is shown in its smallest form, with the seed that repeats it. Exit status 1.
"""

from __future__ import annotations

import argparse
import secrets
import time
from collections.abc import Sequence

from mailgate.test.fuzz.frame import Target, exercise
from mailgate.test.fuzz.targets import TARGETS

_ROUND = 500
"""Examples of one seed. Hypothesis keeps all of a round in memory."""


def _fuzz(target: Target, seconds: float, first: int | None) -> None:
    """Run rounds of C{target} until C{seconds} are over. C{first} is the seed of the first one."""
    began, rounds = time.monotonic(), 0
    while not rounds or time.monotonic() - began < seconds:
        start = secrets.randbits(32) if first is None else first + rounds
        try:
            exercise(target, _ROUND, start)
        except BaseException:
            print(f"{target.name}: failed; repeat it by --seed {start}", flush=True)
            raise
        rounds += 1
    print(f"{target.name}: {rounds * _ROUND} examples in {time.monotonic() - began:.0f} s, no finding", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.

    @param arguments: those of the command line; L{None} for the process's own.
    """
    named = {target.name: target for target in TARGETS}
    parser = argparse.ArgumentParser(prog="python -m mailgate.test.fuzz", description="Run fuzz targets for a time.")
    parser.add_argument("target", nargs="*", choices=[[], *named], help=f"one of: {', '.join(named)} (all)")
    parser.add_argument("--seconds", type=float, default=60.0, help="the time for each target (60)")
    parser.add_argument("--seed", type=int, help="the seed of the first round, to repeat a finding (random)")
    given = parser.parse_args(arguments)
    for name in given.target or named:
        _fuzz(named[name], given.seconds, given.seed)


if __name__ == "__main__":
    main()
