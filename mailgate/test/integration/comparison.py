# -*- test-case-name: mailgate.test.integration.test_comparison -*-
"""
Whether what was said in two conversations is the same, but for the differences that are wanted.
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
"""All that there is on a side, be it nothing."""

_SIDES = ("client", "auth", "backend")


@frozen
class Difference:
    """
    Where nginx says C{old}, mailgate says C{new}, for a C{reason}.

    C{side} is that of the L{Transcript} which shows it; C{where} are patterns of names of conversations, each of which
    is to show it at least once.
    """

    reason: str
    side: str
    where: tuple[str, ...]
    old: str | re.Pattern[str]
    new: str | Callable[[re.Match[str]], str]

    def apply(self, text: str) -> str:
        """What becomes of C{text}."""
        pattern = re.escape(self.old) if isinstance(self.old, str) else self.old
        new = self.new
        return re.sub(pattern, new if callable(new) else lambda match: new, text)


class Comparison:
    """Compares transcripts, keeping in mind which of the C{differences}, applied in their order, it has met."""

    def __init__(self, differences: Sequence[Difference]) -> None:
        self._differences = differences
        self._met: set[tuple[int, str]] = set()

    def report(self, name: str, nginx: Transcript, mailgate: Transcript) -> str:
        """What in the conversation C{name} differs and is not to differ, line by line; or nothing."""
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
        """The differences that conversations of these C{names} were to show, and did not."""
        for index, difference in enumerate(self._differences):
            for pattern in difference.where:
                isWanted = any(fnmatchcase(name, pattern) for name in names)
                if isWanted and (index, pattern) not in self._met:
                    yield f"{pattern}: {difference.side}: not so any more: {difference.reason}"
