# -*- test-case-name: mailgate.test.keeper.test_past -*-
"""
What processes have counted that are gone, so that sums do not fall.

The keeper keeps the last values of each process, also after its end: a process that has only lost its link comes back
under the same name, and its values take the place of the earlier ones. Only when too many processes are gone, the
values of the earliest are folded into one sum.

A keeper may learn the same past twice: from memory that an earlier keeper has shared, and from that keeper itself. So
each sum has the name of its line of keepers, and the number of processes that are folded into it: of two sums of one
line, the one with more processes contains the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, MutableMapping
from typing import Any

from attrs import define, field

from mailgate.keeper.sums import Admission, Sums, Values, grown, less, readValues, writeValues

__all__ = ["MOST_FOLDED", "Counted", "Past", "forget", "isNews"]

MOST_FOLDED = 1000
"""Names of folded processes that are remembered, in case one comes back."""

_MOST_LINES = 8


@define(eq=False)
class Counted:
    """
    What one process has counted.

    @ivar name: its name.
    @ivar pid: its process id.
    @ivar member: the process while it has a link; L{None} if it has none.
    @ivar values: its counters and histograms.
    @ivar gauges: its gauges, while it has a link.
    @ivar base: the part of C{values} that is in the sum of the past already.
    @ivar isBaseDue: whether C{base} is what it reports next.
    @ivar reported: when it has last reported, in seconds of the keeper's clock.
    @ivar text: C{values} and C{base} as JSON, while they do not change; empty otherwise.
    """

    name: str
    pid: int = 0
    member: Any = None
    values: Values = field(factory=dict)
    gauges: Values = field(factory=dict)
    base: Values | None = None
    isBaseDue: bool = False
    reported: float = 0.0
    text: str = field(default="", repr=False)

    def count(self, values: Values) -> None:
        """
        Take over what it has reported.

        @param values: its counters and histograms.
        """
        self.values, self.text = grown(self.values, values), ""
        if self.isBaseDue:
            self.isBaseDue, self.base = False, self.values

    @property
    def own(self) -> Values:
        """What it adds to the sums."""
        return self.values if self.base is None else less(self.values, self.base)


@define
class _Line:
    """The sum of one line of keepers, and how many processes are in it."""

    folds: int = 0
    values: Values = field(factory=dict)


class Past:
    """
    The sum of the processes that are gone for good.

    @param newName: returns a new unique name.
    """

    def __init__(self, newName: Callable[[], str]) -> None:
        self._newName = newName
        self._name = ""
        self._lines: dict[str, _Line] = {}
        self._folded: dict[str, None] = {}

    def __contains__(self, name: str) -> bool:
        """Whether the process C{name} is in the sum."""
        return name in self._folded

    @property
    def sums(self) -> Iterator[Values]:
        """Yields the sums to add."""
        for line in self._lines.values():
            yield line.values

    def fold(self, counted: Counted) -> None:
        """
        Add a process to the sum.

        @param counted: what it has counted.
        """
        self._name = self._name or self._newName()
        line = self._lines.setdefault(self._name, _Line())
        line.values, line.folds = _added(line.values, counted.own), line.folds + 1
        self._remember(counted.name)

    def _remember(self, name: str) -> None:
        self._folded[name] = None
        if len(self._folded) > MOST_FOLDED:
            del self._folded[next(iter(self._folded))]

    def write(self) -> dict[str, Any]:
        """Return it as a value of JSON."""
        return {
            "line": self._name,
            "folded": list(self._folded),
            "lines": {
                name: {"folds": line.folds, "values": writeValues(line.values)} for name, line in self._lines.items()
            },
        }

    def restore(self, given: Any) -> Collection[str]:
        """
        Continue with that of a predecessor. What is not valid is ignored.

        @param given: what L{write} has returned there.
        @return: the processes that are in the sum from now on, and were not before.
        """
        if not isinstance(given, dict):
            return ()
        lines, folded, name = given.get("lines"), given.get("folded"), given.get("line")
        isNews = False
        for each, line in lines.items() if isinstance(lines, dict) else ():
            isNews = self._restoreLine(each, line) or isNews
        if not self._name and isinstance(name, str) and name in self._lines:
            self._name = name
        self._bound()
        if not isNews or not isinstance(folded, list):
            return ()
        fresh = [each for each in folded[-MOST_FOLDED:] if isinstance(each, str) and each not in self._folded]
        for each in fresh:
            self._remember(each)
        return fresh

    def _restoreLine(self, name: Any, line: Any) -> bool:
        """Take over the sum of one line if it contains more processes. Return whether it does."""
        if not isinstance(name, str) or not 0 < len(name) <= 64 or not isinstance(line, dict):
            return False
        folds = line.get("folds")
        known = self._lines.get(name)
        if type(folds) is not int or folds <= (0 if known is None else known.folds):
            return False
        values = readValues(line.get("values"), areMicro=True)
        self._lines[name] = _Line(folds, values if known is None else grown(known.values, values))
        return True

    def _bound(self) -> None:
        """Join the earliest lines if there are too many."""
        while len(self._lines) > _MOST_LINES:
            first, second = [name for name in self._lines if name != self._name][:2]
            gone, kept = self._lines.pop(first), self._lines[second]
            kept.values = _added(kept.values, gone.values)


def _added(one: Values, other: Values) -> Values:
    # The sums of the gateway bound the labels, not this.
    sums = Sums(Admission(isBounded=False))
    sums.add(one)
    sums.add(other)
    return sums.values


def forget(counted: MutableMapping[str, Counted], name: str) -> None:
    """
    A predecessor has added a process to the sum of the past.

    @param counted: the processes, by their names.
    @param name: the name of the process.
    """
    found = counted.get(name)
    if found is None:
        return
    if found.member is None:
        del counted[name]
    elif found.values:
        found.base, found.text = found.values, ""
    else:
        found.isBaseDue = True


def isNews(restored: Counted, counted: MutableMapping[str, Counted], past: Past) -> bool:
    """
    Return whether a process of a predecessor is not known here. If it is known, restore its values.

    @param restored: the process.
    @param counted: the processes that are known, by their names.
    @param past: the sum of the past.
    """
    known = counted.get(restored.name)
    if known is None:
        return restored.base is not None or restored.name not in past
    known.values, known.text = grown(restored.values, known.values), ""
    if restored.base is not None:
        # The predecessor has seen it earlier.
        known.base, known.isBaseDue = restored.base, False
    return False
