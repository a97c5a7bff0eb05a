# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
The processes of a gateway in the keeper's books: those with a link and those that are gone, and what each has counted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from mailgate.keeper.interfaces import IMember
from mailgate.keeper.past import Counted, Past, forget, isNews
from mailgate.keeper.state import State
from mailgate.keeper.summing import Summing
from mailgate.keeper.sums import Admission, Values, readValues
from mailgate.watch.metrics import Kind, named
from mailgate.watch.tally import Totals

__all__ = ["Processes"]


class Processes:
    """
    Keeps what the processes have counted.

    @param events: what the keeper itself has counted.
    @param newName: returns a new unique name.
    @ivar past: the sum of the processes that are gone for good.
    """

    def __init__(self, events: Counted, newName: Callable[[], str]) -> None:
        self.past = Past(newName)
        self._admission = Admission()
        self._counted: dict[str, Counted] = {}
        self._summing = Summing(self._admission, self.past, events)

    @property
    def linked(self) -> list[Counted]:
        """Those that have a link now."""
        return [counted for counted in self._counted.values() if counted.member is not None]

    @property
    def counted(self) -> Collection[Counted]:
        """Those with a link, and those without one whose values are not in the past."""
        return self._counted.values()

    def join(self, member: IMember, now: float) -> None:
        """
        Add a process. A member of the same name is the same process, and replaces the earlier object.

        @param member: the process.
        @param now: the time, in seconds of the keeper's clock.
        """
        counted = self._counted.pop(member.name, None)
        if counted is None:
            counted = Counted(member.name, isBaseDue=member.name in self.past)
        elif counted.member is None:
            self._summing.changed()
        counted.member, counted.pid, counted.reported = member, member.pid, now
        # The latest are last.
        self._counted[member.name] = counted

    def left(self, member: IMember) -> bool:
        """
        A process has ended or lost its link. What it has counted stays in the sums.

        @param member: the process.
        @return: whether it had a link: it may have come back already.
        """
        counted = self._counted.get(member.name)
        if counted is None or counted.member is not member:
            return False
        del self._counted[member.name]
        counted.member, counted.gauges = None, {}
        if counted.values:
            self._counted[member.name] = counted
        self._summing.changed()
        return True

    def fold(self, most: int) -> None:
        """
        Add the earliest processes that are gone to the sum of the past.

        @param most: how many of them are still kept one by one.
        """
        gone = [counted for counted in self._counted.values() if counted.member is None]
        for counted in gone[: max(0, len(gone) - most)]:
            self.past.fold(counted)
            del self._counted[counted.name]
            self._summing.changed()

    def reported(self, member: IMember, totals: Totals | None, now: float) -> bool:
        """
        A process has reported. See L{mailgate.keeper.keeper.Keeper.reported}.

        @param member: the process.
        @param totals: what it has counted; L{None} if the report does not say it.
        @param now: the time, in seconds of the keeper's clock.
        @return: whether the process has a link.
        """
        counted = self._counted.get(member.name)
        if counted is None or counted.member is not member:
            return False
        if totals is not None:
            values = readValues(totals, worker=str(getattr(member, "slot", 0)))
            gauges = {name: values.pop(name) for name in [*values] if named(name).kind is Kind.GAUGE}
            # Most reports have counters alone.
            counted.gauges = gauges or counted.gauges
            counted.count(values)
            counted.reported = now
        return True

    def sums(self, names: Sequence[str] | None) -> Values:
        """
        Return the sums.

        @param names: the metrics; L{None} for all.
        """
        return self._summing.values(self._counted.values(), names)

    def missing(self, names: Collection[str]) -> dict[str, int]:
        """
        Return the processes without a link, with their process ids; 0 for one that is not known.

        @param names: the names of the processes in question.
        """
        known = {name: self._counted.get(name) for name in names}
        return {
            name: 0 if counted is None else counted.pid
            for name, counted in known.items()
            if counted is None or counted.member is None
        }

    def admitted(self) -> dict[str, list[str]]:
        """Return the values of labels that the sums have, by label."""
        return {label: list(values) for label, values in self._admission.admitted.items()}

    def restore(self, found: State) -> None:
        """
        Continue with what a predecessor knew. What is not valid is ignored. What is known already is not counted twice.

        @param found: its state.
        """
        self._summing.changed()
        self._admission.restore(found.header.get("admitted"))
        based = {counted.name for counted in found.counted if counted.base is not None}
        for name in self.past.restore(found.past):
            if name not in based:
                forget(self._counted, name)
        # Those that are gone for the longest time come first.
        restored = {counted.name: counted for counted in found.counted if isNews(counted, self._counted, self.past)}
        self._counted = {**restored, **self._counted}
