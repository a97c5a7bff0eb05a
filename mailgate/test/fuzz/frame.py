"""
What all fuzz targets share: how bytes are made, how they are cut, and what no parser may do with them.

A parser takes bytes in pieces. Its outcome is a value that can be compared, the documented errors included. For all
bytes and all cuts these properties hold:

  - It raises nothing else.
  - It ends, within L{MOST_SECONDS} of processor time.
  - Its outcome does not depend on the cuts.

A target checks its own bound of memory, while it takes the pieces.
"""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from attrs import frozen
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["MOST_SECONDS", "Looping", "Run", "Target", "exercise", "mutations", "pieces"]

MOST_SECONDS = 5.0
"""The processor time in seconds that the parser has for one example, which takes milliseconds."""

_MOST_CUTS = 6
_MOST_CHANGES = 5
_LONGEST_NOISE = 40
_LONGEST = 20000
"""Bytes of an example: more than most limits, and not so many that single bytes take long."""
_PHASES = (Phase.explicit, Phase.generate, Phase.shrink)

Run = Callable[[Sequence[bytes]], Any]
"""Feeds pieces to a new parser, and returns the outcome."""


class Looping(Exception):
    """A parser has not come to its end."""


@frozen
class Target:
    """
    A parser and its input.

    @ivar name: the name in the command and in the tests.
    @ivar run: see L{Run}.
    @ivar inputs: makes input.
    @ivar examples: the number of examples in the tests, so that each target takes about a second.
    @ivar isCut: whether the parser takes its input in pieces.
    """

    name: str
    run: Run
    inputs: SearchStrategy[bytes]
    examples: int = 100
    isCut: bool = True


def mutations(examples: Sequence[bytes], words: Sequence[bytes]) -> SearchStrategy[bytes]:
    """
    Make input that is nearly valid: one of C{examples} with some changes, or C{words} in any order.

    @param examples: valid input.
    @param words: what input consists of.
    """
    parts = st.one_of(st.sampled_from(tuple(words)), st.binary(max_size=_LONGEST_NOISE))
    repeated = st.builds(lambda part, times: part * times, parts, st.sampled_from((1, 1, 1, 2, 50)))
    change = st.tuples(st.integers(0, 1 << 16), st.integers(0, 1 << 16), repeated)
    changed = st.builds(
        _changed, st.sampled_from(tuple(examples)), st.lists(change, max_size=_MOST_CHANGES), st.booleans()
    )
    made = st.one_of(changed, st.lists(repeated, max_size=30).map(b"".join))
    return made.map(lambda data: data[:_LONGEST])


def _changed(data: bytes, changes: Sequence[tuple[int, int, bytes]], isLong: bool) -> bytes:
    """Replace a slice of C{data} for each of C{changes}, a place, a length and what to insert there."""
    for place, length, part in changes:
        start = place % (len(data) + 1)
        end = start + length % ((len(data) - start if isLong else 3) + 1)
        data = data[:start] + part + data[end:]
    return data


def pieces(data: bytes, places: Sequence[int]) -> list[bytes]:
    """
    Cut C{data}.

    @param data: the bytes.
    @param places: where to cut them, modulo the length; a negative number stands for single bytes.
    """
    if any(place < 0 for place in places):
        return [data[start : start + 1] for start in range(len(data))]
    bounds = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(bounds)]


@contextmanager
def _watched() -> Iterator[None]:
    """Limit the processor time. The time of day would fail on a busy computer."""

    def stop(*arguments: object) -> None:
        raise Looping(f"an example takes more than {MOST_SECONDS:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def exercise(target: Target, examples: int, start: int | None = None) -> None:
    """
    Run a target.

    @param target: the target.
    @param examples: the number of examples.
    @param start: from what the random numbers are made; L{None} for the same examples in each run.
    @raise Exception: a property does not hold. Hypothesis adds the smallest example.
    """
    cuts = st.lists(st.integers(-1, 1 << 16), min_size=1, max_size=_MOST_CUTS)

    def check(data: bytes, places: list[int]) -> None:
        with _watched():
            whole = target.run([data])
            if target.isCut and len(data) > 1:
                cut = target.run(pieces(data, places))
                assert cut == whole, f"in pieces: {cut!r}\nas a whole: {whole!r}"

    options: dict[str, Any] = {
        "max_examples": examples,
        "derandomize": start is None,
        "database": None,
        "deadline": None,
        "phases": _PHASES,
        "suppress_health_check": list(HealthCheck),
    }
    run = settings(**options)(given(data=target.inputs, places=cuts)(check))
    with warnings.catch_warnings():
        # Hypothesis compares bytes and numbers in a cache of its own.
        warnings.filterwarnings("ignore", category=BytesWarning, module="hypothesis")
        (run if start is None else seed(start)(run))()
