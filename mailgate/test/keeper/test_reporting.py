"""
Tests of L{mailgate.keeper.reporting}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.reporting import LONGEST, PART, WORK, Reporter
from mailgate.test.keeper.processes import View
from mailgate.watch.tally import Totals


class Survey:
    """Takes some steps, each of which lasts for C{seconds}, and finds C{gauges}."""

    def __init__(self, clock: Clock, steps: int, seconds: float, gauges: Totals) -> None:
        self.looked: Totals = {}
        self.taken = 0
        self._clock, self._steps, self._seconds, self._gauges = clock, steps, seconds, gauges

    def __iter__(self) -> Iterator[None]:
        for _ in range(self._steps):
            self.taken += 1
            self._clock.rightNow += self._seconds
            yield
        self.looked = self._gauges


class ReporterTests(SynchronousTestCase):
    """L{Reporter}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.view = View("a")
        self.view.watcher.survey = self.survey
        self.surveys: list[Survey] = []
        self.seconds = 0.0
        self.steps = 9
        self.reporter = Reporter(self.view, self.clock)  # type: ignore[arg-type]
        self.looks: list[str] = []

    def survey(self, gateways: Sequence[Any]) -> Survey:
        gauges: Totals = {"mailgate_sessions": [[["imap", "relay"], len(self.surveys) + 1]]}
        self.surveys.append(Survey(self.clock, self.steps, self.seconds, gauges))
        return self.surveys[-1]

    def sessions(self, totals: Totals) -> int | None:
        return totals["mailgate_sessions"][0][1] if "mailgate_sessions" in totals else None

    def look(self) -> None:
        self.reporter.look(lambda: self.looks.append("looked"))

    def test_few(self) -> None:
        """A look at few connections is over at once, and no timer is left."""
        self.look()
        self.assertEqual(self.looks, ["looked"])
        self.assertEqual(self.sessions(self.reporter.totals()), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many(self) -> None:
        """A look at many takes several turns of the event loop, none of which is long. Then the result is there."""
        self.seconds = 0.6 * WORK
        pauses: list[int] = []
        later = self.clock.callLater

        def callLater(*arguments: Any) -> Any:
            pauses.append(self.surveys[0].taken)
            return later(*arguments)

        self.clock.callLater = callLater  # type: ignore[method-assign, assignment]
        self.look()
        self.assertEqual(self.looks, [])
        self.clock.advance(0)
        self.assertEqual(pauses, [2, 4, 6, 8])
        self.assertEqual(self.looks, ["looked"])

    def test_shared(self) -> None:
        """Who asks during a look gets its result."""
        self.seconds = WORK
        self.look()
        self.look()
        while self.clock.getDelayedCalls():
            self.clock.advance(0)
        self.assertEqual((len(self.surveys), self.looks), (1, ["looked"] * 2))

    def test_counters(self) -> None:
        """The counters are those of the moment, also between two looks."""
        self.reporter.regular()
        self.view.login()
        self.assertEqual(self.reporter.totals()["mailgate_logins"], [[["imap", "plain", "accepted"], 1]])

    def test_regular(self) -> None:
        """Looks that cost nothing come with each report. Others take a small part of the time."""
        self.assertEqual(self.sessions(self.reporter.regular()), 1)
        self.clock.advance(1)
        self.assertEqual(self.sessions(self.reporter.regular()), 2)
        self.seconds = WORK / 10
        self.clock.advance(1)
        self.reporter.regular()
        spent = 9 * self.seconds
        self.clock.advance(PART * spent - 0.01)
        self.assertEqual(self.sessions(self.reporter.regular()), 3)
        self.clock.advance(0.02)
        self.assertEqual(self.sessions(self.reporter.regular()), 4)

    def test_bounded(self) -> None:
        """However long a look takes, the next one is due soon; also after the clock was set back."""
        self.steps, self.seconds = 1, 5.0
        self.reporter.regular()
        self.clock.advance(0)
        self.clock.advance(LONGEST - 0.1)
        self.reporter.regular()
        self.assertEqual(len(self.surveys), 1)
        self.clock.advance(0.1)
        self.reporter.regular()
        self.clock.advance(0)
        self.assertEqual(len(self.surveys), 2)
        self.clock.rightNow -= 500
        self.reporter.regular()
        self.clock.advance(0)
        self.assertEqual(len(self.surveys), 3)

    def test_finish(self) -> None:
        """At the end a look that has begun is finished at once, and those who wait get its result."""
        self.seconds = WORK
        self.look()
        self.reporter.finish()
        self.assertEqual((len(self.surveys), self.looks), (1, ["looked"]))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.reporter.finish()
        self.assertEqual(self.sessions(self.reporter.totals()), 2)

    def test_broken(self) -> None:
        """A failed look is logged. The counters are reported, and the next look is as any other."""
        self.view.login()
        self.view.watcher.survey = lambda gateways: iter(lambda: 1 / 0, None)
        self.look()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.looks, ["looked"])
        self.assertIn("mailgate_logins", self.reporter.totals())
        self.view.watcher.survey = self.survey
        self.look()
        self.assertEqual(self.sessions(self.reporter.totals()), 1)
