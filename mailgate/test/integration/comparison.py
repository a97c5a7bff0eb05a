# -*- test-case-name: mailgate.test.integration.test_comparison -*-
"""
Compares two conversations, apart from intended differences.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from fnmatch import fnmatchcase

from attrs import frozen

from mailgate.test.integration.transcript import Transcript

__all__ = ["WHOLE", "Comparison", "Difference"]

WHOLE = re.compile(r"(?s)\A.*\Z")
"""Everything on a side, also nothing."""

_SIDES = ("client", "auth", "backend")


@frozen
class Difference:
    """
    Where nginx sends C{old}, mailgate sends C{new}, for the given C{reason}.

    @ivar side: the side of the L{Transcript} with the difference.
    @ivar where: patterns of names of conversations. Each pattern must show the difference at least once.
    """

    reason: str
    side: str
    where: tuple[str, ...]
    old: str | re.Pattern[str]
    new: str | Callable[[re.Match[str]], str]

    def apply(self, text: str) -> str:
        """Apply it to C{text}."""
        pattern = re.escape(self.old) if isinstance(self.old, str) else self.old
        new = self.new
        return re.sub(pattern, new if callable(new) else lambda match: new, text)


class Comparison:
    """Compares transcripts, and remembers which of the C{differences}, applied in their order, it met."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        self._differences = differences
        self._met: set[tuple[int, str]] = set()

    def report(self, name: str, nginx: Transcript, mailgate: Transcript) -> str:
        """The unintended differences in the conversation C{name}, line by line; empty if there are none."""
        found: list[str] = []
        for side in _SIDES:
            wanted, got = self._wanted(name, side, getattr(nginx, side)), getattr(mailgate, side)
            if wanted != got:
                lines = difflib.ndiff(wanted.splitlines(), got.splitlines())
                found += [f"{name}: {side}", *(line for line in lines if not line.startswith("?"))]
        return "\n".join(found)

    def _wanted(self, name: str, side: str, text: str) -> str:
        for index, difference in enumerate(self._differences):
            where = [pattern for pattern in difference.where if fnmatchcase(name, pattern)]
            if where and side == difference.side:
                changed = difference.apply(text)
                if changed != text:
                    self._met.update((index, pattern) for pattern in where)
                    text = changed
        return text

    def unmet(self, names: Collection[str]) -> Iterator[str]:
        """The differences that the conversations of these C{names} should show, but do not."""
        for index, difference in enumerate(self._differences):
            for pattern in difference.where:
                isWanted = any(fnmatchcase(name, pattern) for name in names)
                if isWanted and (index, pattern) not in self._met:
                    yield f"{pattern}: {difference.side}: not so any more: {difference.reason}"
