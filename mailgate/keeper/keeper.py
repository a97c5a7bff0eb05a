# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
The keeper itself, the same object in a process of its own and in a gateway without workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mailgate.keeper.arrivals import Arrivals
from mailgate.keeper.asking import MOST_QUESTIONS, MOST_ROWS, Asking
from mailgate.keeper.cluster.registry import Registry
from mailgate.keeper.gauges import Gauges
from mailgate.keeper.history import WATCHED, WIDE, WIDE_APART, WIDE_KEPT, History
from mailgate.keeper.incidents import Incidents
from mailgate.keeper.interfaces import Collected, IMember, IOperator, IOthers
from mailgate.keeper.limitstate import limitLines, limitsOf, restoreLimits
from mailgate.keeper.past import Counted
from mailgate.keeper.placing import Placing
from mailgate.keeper.processes import Processes
from mailgate.keeper.recent import MOST_ENDS, Recent
from mailgate.keeper.rings import DRAWN, Plots
from mailgate.keeper.state import MOST_STATE, readState, writeState
from mailgate.keeper.sums import Values, writeTotals
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import IDefence
from mailgate.watch.metrics import EVENTS, named
from mailgate.watch.tally import Totals

__all__ = ["MOST_GONE", "MOST_QUESTIONS", "MOST_ROWS", "Collected", "IMember", "IOperator", "Keeper"]

MOST_GONE = 64
"""Processes that are gone and whose values are kept one by one. The earliest are added up beyond that."""

_SAMPLED = tuple(dict.fromkeys((*WATCHED, *DRAWN)))


class Keeper:
    """
    Adds up, asks, remembers.

    @param name: the name of the gateway (C{gateway_name}).
    @param remembers: of how many ended connections it keeps the stories; 0: of none.
    @param randomness: called with a number, returns that many random bytes.
    @param runs: returns whether the process with an id runs. The keeper does not wait for one that has ended.
    @ivar clock: the time and timers. Its seconds are those since 1970.
    @ivar name: the name of the gateway.
    @ivar limits: the failures, rates and blocks of the gateway; L{None} if it has no limits.
    @ivar others: the other gateways; L{None} without C{store}.
    @ivar registry: the sessions of the gateway, for others; L{None} without a store.
    @ivar placing: the places of users in sticky groups; L{None} if the gateway has none.
    @ivar lines: how many lines this process has logged, by Twisted's levels; empty if a worker runs in it, which counts
        them.
    @ivar operator: carries out orders; L{None} if this gateway takes none, as in an application.
    @ivar began: when the gateway was started, in seconds of the clock.
    @ivar loaded: when its configuration was loaded, in seconds of the clock.
    @ivar history: the sums of the last minutes.
    @ivar wide: those of single backends and services, fewer of them.
    @ivar plots: the points of the plots.
    @ivar incidents: what has happened to the gateway that operators must know.
    @ivar stories: the stories of connections and logins that have ended.
    @ivar isLeaving: whether its processes go to a successor.
    @ivar isHandedOver: whether the state goes to a successor, too: it must not change any more.
    @ivar save: called when the next keeper must not know less than this one now: before a L{scrape} returns the
        metrics, and when a predecessor has handed over. It writes L{state} to memory that outlives this process.
    @ivar load: returns what the predecessor has written there; L{None} if there is nothing.
    @ivar loadLimits: returns what it has written there of C{limits}.
    @ivar limitsChanged: called when the tables of C{limits} are others: those of the predecessor.
    """

    def __init__(
        self,
        clock: IReactorTime,
        name: str,
        remembers: int = MOST_ENDS,
        randomness: Callable[[int], bytes] = os.urandom,
        runs: Callable[[int], bool] = lambda pid: True,
    ) -> None:
        self.name = name
        self.operator: IOperator | None = None
        self.limits: IDefence | None = None
        self.others: IOthers | None = None
        self.registry: Registry | None = None
        self.placing: Placing | None = None
        self.began = self.loaded = clock.seconds()
        self.history = History()
        self.wide = History(WIDE_KEPT, WIDE_APART)
        self.plots = Plots()
        self.incidents = Incidents()
        self.stories = Recent(remembers)
        self.isLeaving = self.isHandedOver = False
        self.save: Callable[[], object] = lambda: None
        self.load: Callable[[], bytes | None] = lambda: None
        self.loadLimits: Callable[[], bytes | None] = lambda: None
        self.limitsChanged: Callable[[], object] = lambda: None
        self.lines: Mapping[Any, int] = {}
        self.clock = clock
        self._events = Counted(f"keeper.{randomness(8).hex()}")
        self._gauges = Gauges(self._events)
        self._processes = Processes(self._events, lambda: randomness(8).hex())
        self._asking = Asking(lambda: self.members, self.whenComplete)
        self._scrapes: list[Deferred[Totals]] = []
        self._arrivals = Arrivals(clock, self.restoreSaved, runs)

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        return self.clock.seconds()

    def turn(self) -> Deferred[None]:
        """Return what fires in the next turn of the event loop: clients are served before."""
        return deferLater(self.clock, 0)

    @property
    def members(self) -> list[IMember]:
        """The processes that have a link now."""
        return [counted.member for counted in self._processes.linked]

    def join(self, member: IMember) -> None:
        """
        Add a process. A member of the same name is the same process, and replaces the earlier object.

        @param member: the process.
        """
        self._processes.join(member, self.clock.seconds())
        self._arrivals.arrived(member.name)

    def left(self, member: IMember) -> None:
        """
        A process has ended or lost its link. What it has counted stays in the sums.

        @param member: the process.
        """
        if self._processes.left(member):
            self._fold()

    def _fold(self) -> None:
        """Keep the values of single processes of the past within bounds."""
        if self.isLeaving or not self._arrivals.isComplete:
            # They may be back already, at the successor; or the state of the predecessor may know better.
            return
        self._processes.fold(MOST_GONE)

    def reported(
        self, member: IMember, totals: Totals | None, stories: Sequence[Mapping[str, Any]], isOwn: bool = False
    ) -> None:
        """
        A process has reported.

        @param member: the process.
        @param totals: what it has counted from its start on, and its gauges. Counters and histograms that have not
            changed may be missing, and all gauges together. L{None}: it has only stories.
        @param stories: the stories since its last report.
        @param isOwn: whether it is this process, which need not check its own stories.
        """
        if not self._processes.reported(member, totals, self.clock.seconds()):
            return
        self.stories.add(stories, isOwn)
        self.sample()

    def sample(self) -> None:
        """Keep the sums of this moment, if it is time for that."""
        now = self.clock.seconds()
        if self.history.isDue(now):
            values = self._processes.sums(_SAMPLED)
            isWhole = all(each.gauges for each in self._processes.linked)
            if not self._arrivals.isComplete:
                self.plots.interrupt()
            else:
                self.plots.add(now, values if isWhole else {**values, "mailgate_sessions": {}})
            self.history.add(now, values)
        if self.wide.isDue(now):
            self.wide.add(now, self._processes.sums(WIDE))

    def reportAges(self) -> dict[str, tuple[int, float]]:
        """Return for each process with a link, by its name, its process id and the seconds since its last report."""
        now = self.clock.seconds()
        linked = self._processes.linked
        return {counted.name: (counted.pid, max(0.0, now - counted.reported)) for counted in linked}

    def happened(self, name: str, labels: Sequence[str], reasons: Sequence[str] = ()) -> None:
        """
        Count an event of the gateway, such as a reload.

        @param name: a counter of L{mailgate.watch.metrics}.
        @param labels: the values of its labels.
        @param reasons: why it has happened.
        @raise TypeError: the counter has another number of labels.
        """
        if len(labels) != len(named(name).labels):
            raise TypeError(f"{name} has other labels")
        values = self._events.values.setdefault(name, {})
        values[tuple(labels)] = values.get(tuple(labels), 0) + 1
        self._events.text = ""
        self.incidents.happened(self.clock.seconds(), name, labels, reasons)
        if name == "mailgate_reloads" and tuple(labels) == ("ok",):
            self.loaded = self.clock.seconds()

    def judgeBy(self, defence: IDefence) -> None:
        """
        Use limits.

        @param defence: the failures, rates and blocks of the gateway.
        """
        self.limits = defence
        defence.happened = self.limited

    def limited(self, rule: Rule, thing: str, words: str) -> None:
        """
        A rule of C{limits} has begun to act on something that operators must know of.

        @param rule: the rule.
        @param thing: what it acts on: for R6 the user.
        @param words: why.
        """
        if rule is Rule.USER_SLOW:
            self.incidents.attacked(self.clock.seconds(), thing)

    def ask(self, word: str, arguments: Mapping[str, Any], within: float = 2.0) -> Deferred[Collected]:
        """
        Ask all processes.

        @param word: a name of L{mailgate.keeper.view.ANSWERERS}.
        @param arguments: its arguments.
        @param within: seconds until a process must have answered. What has arrived then is the answer.
        @return: fires with the answers.
        """
        return self._asking.ask(word, arguments, within)

    def look(self, within: float) -> Deferred[Collected]:
        """
        Ask each process for a report, so that L{sums} are those of now. Unlike L{scrape}, this does not save them.

        @param within: seconds until a process must have reported.
        @return: fires when they have.
        """
        return self._asking.askAll("report", {}, within)

    def scrape(self, within: float = 0.2) -> Deferred[Totals]:
        """
        Return all metrics of the gateway: it asks each process, and uses the last report of each that is late.

        @param within: seconds until a process must have answered.
        @return: fires with the metrics. They are shared: do not change them.
        """
        scraped: Deferred[Totals] = Deferred()
        self._scrapes.append(scraped)
        if len(self._scrapes) == 1:
            asked = self._asking.askAll("report", {}, within)
            asked.addCallback(self._measure).addBoth(self._scraped)
        return scraped

    def _measure(self, _: Collected) -> Totals:
        totals = writeTotals(self.sums())
        self.save()
        return totals

    def _scraped(self, result: Any) -> None:
        scrapes, self._scrapes = self._scrapes, []
        for scraped in scrapes:
            # A Failure errbacks.
            scraped.callback(result)

    def sums(self) -> Values:
        """Return all metrics, with the last report of each process."""
        self._gauges.readLines(self.lines)
        values = {**self._gauges.readLimits(self.limits), **self._processes.sums(None)}
        values.update(self._gauges.readStore(self.others))
        for name, rows in EVENTS.items():
            values[name] = {**dict.fromkeys(rows, 0), **values.get(name, {})}
        values.update(self._gauges.read(self._processes.linked, self.clock.seconds(), self.loaded))
        return values

    def recent(self, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        """
        Return the stories that are kept, the latest first.

        @param user: the user name, in whatever case; L{None}: the stories of all.
        """
        return self.stories.stories(user)

    def whenComplete(self) -> Deferred[None]:
        """
        Return what fires as soon as the state of the predecessor and its processes have arrived, at most
        L{mailgate.keeper.arrivals.PATIENCE} after it began to wait. Without a predecessor it fires at once.
        """
        return self._arrivals.whenComplete()

    @property
    def isComplete(self) -> bool:
        """Whether L{whenComplete} has fired."""
        return self._arrivals.isComplete

    @property
    def isHandoverDue(self) -> bool:
        """Whether a predecessor has not handed over yet, so that it knows more."""
        return self._arrivals.isHandoverDue

    @property
    def knowsMost(self) -> bool:
        """Whether no other keeper knows more: one that hands over to this one, or has taken over."""
        return not (self.isHandoverDue or self.isHandedOver)

    def expectHandover(self, settled: Callable[[], object] = lambda: None) -> None:
        """
        A predecessor hands over its state: wait for it.

        @param settled: called when it has done so, is gone, or is late.
        """

        def settle() -> None:
            settled()
            self.limitsChanged()

        self._arrivals.settled = settle
        self._arrivals.expectHandover()

    def restoreSaved(self) -> bool:
        """Continue with what a predecessor has left in the memory. Return whether it has tables of C{limits}."""
        loaded, state = self.loaded, self.load()
        if state is not None:
            self.restore(state)
            self.loaded = max(self.loaded, loaded)
        return self._restoreLimits(self.loadLimits())

    def _restoreLimits(self, state: bytes | None) -> bool:
        isRestored = self.limits is not None and restoreLimits(self.limits, state)
        if isRestored:
            self.limitsChanged()
        return isRestored

    def predecessorGone(self) -> None:
        """The predecessor has ended. If it has not handed over, its state is in the memory."""
        if self.isHandoverDue:
            self.restoreSaved()
            self._arrivals.handedOver()
            self.save()

    def handedOver(self, state: bytes, members: Collection[str]) -> None:
        """
        Continue with the C{state} of a predecessor that exits.

        @param state: its L{state}.
        @param members: the names of the processes that it has sent to this keeper.
        """
        loaded = self.loaded
        if not self.restore(state):
            # Large tables are in the memory alone.
            self._restoreLimits(self.loadLimits())
        # The predecessor had an earlier configuration.
        self.loaded = max(self.loaded, loaded)
        self._arrivals.expect(self._processes.missing(members))
        self._arrivals.handedOver()
        self.save()

    def state(self) -> bytes:
        """
        Return what a successor continues with: sums and stories, L{mailgate.keeper.state.MOST_STATE} bytes at most.
        """
        processes = self._processes
        header = {
            **{"began": self.began, "loaded": self.loaded, "admitted": processes.admitted()},
            **{"incidents": self.incidents.write(), "plots": self.plots.write()},
        }
        counted = [*processes.counted, self._events]
        return writeState(header, processes.past.write(), counted, self._arrivals.names, self.stories.lines())

    def stateToHandOver(self) -> bytes:
        """Return L{state}, with the tables of C{limits}, and the places."""
        state = self.state()
        lines = [] if self.limits is None else [*limitLines(self.limits)]
        if self.placing is not None:
            lines += self.placing.state(min(MOST_STATE // 2, 2 * MOST_STATE - len(state) - sum(map(len, lines))))
        return b"\n".join((state, *(line.encode("ascii") for line in lines)))

    def restore(self, state: bytes) -> bool:
        """
        Continue with the C{state} of a predecessor. What is not valid is ignored. What is known already is not counted
        twice. The processes that had a link are expected.

        @param state: its L{state}.
        @return: whether it has tables of C{limits}.
        """
        found = readState(state)
        if found is None:
            return False
        self.began = min(self.began, found.moment("began", self.began))
        self.loaded = found.moment("loaded", self.loaded)
        self.incidents.restore(found.header.get("incidents"))
        self.plots.restore(found.header.get("plots"))
        self.plots.interrupt()
        self._processes.restore(found)
        self.stories.restore(found.stories)
        self._arrivals.expect(self._processes.missing(found.linked))
        self._fold()
        if self.placing is not None:
            self.placing.restore(found.places)
        return self._restoreLimits(limitsOf(found.limits))
