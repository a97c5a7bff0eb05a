"""Tests for L{mailgate.limits.telling}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Rule
from mailgate.limits.telling import DELAYED, DRY_RUN, REFUSED, Telling
from mailgate.log.journal import Journal
from mailgate.log.levels import NOTICE
from mailgate.log.rate import Rate
from mailgate.testing.fakes import makeSession


class Acts:
    """The part of a watch that limits use."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, str]] = []

    def limited(self, rule: str, action: str) -> None:
        self.acts.append((rule, action))


class TellingTests(SynchronousTestCase):
    """The line and the metric of a limit that acts."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.watch: Any = Acts()
        self.session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:40123", 0.0, id="s1")
        self.session.user = b'joe"\r\nx'

    def telling(self, level: Any = LogLevel.info, shown: Any = LogLevel.info, rate: Rate | None = None) -> Telling:
        publisher: Any = LogPublisher(self.events.append)  # type: ignore[arg-type]
        return Telling(Journal(shown, publisher, rate, Clock()), level, self.watch)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def test_line(self) -> None:
        """The line has the rule behind the client. A text of the client ends no line."""
        self.telling().acted(self.session, Rule.PAIR_BLOCK, REFUSED)
        begin = "limited: client 192.0.2.7:40123, R2, protocol imap, action refused, server 0.0.0.0:143, session s1, "
        self.assertEqual(self.lines(), [begin + r'user "joe\"\r\nx"'])
        self.assertEqual(self.watch.acts, [("R2", "refused")])

    def test_dryRun(self) -> None:
        """The line says what a limit would have done."""
        self.telling().acted(self.session, Rule.REQ_LOGIN, DRY_RUN, "refuse")
        self.assertIn("limit_req login, protocol imap, action dry_run, would refuse, server", self.lines()[0])
        self.assertEqual(self.watch.acts, [("limit_req login", "dry_run")])

    def test_level(self) -> None:
        """The line has the level of C{limit_log_level}. Without the line, the metric counts all the same."""
        for level, shown, expected in (
            (LogLevel.info, LogLevel.error, []),
            (NOTICE, LogLevel.warn, []),
            (NOTICE, LogLevel.info, [LogLevel.info]),
            (LogLevel.warn, LogLevel.warn, [LogLevel.warn]),
            (LogLevel.error, LogLevel.warn, [LogLevel.error]),
        ):
            self.events.clear()
            self.telling(level, shown).acted(self.session, Rule.PAIR_DELAY, DELAYED)
            self.assertEqual([event["log_level"] for event in self.events], expected)
        self.assertEqual(len(self.watch.acts), 5)

    def test_rate(self) -> None:
        """A stranger cannot fill the log. All acts are counted."""
        telling = self.telling(rate=Rate(3, 60.0))
        for _ in range(100):
            telling.acted(self.session, Rule.ADDRESS_BLOCK, REFUSED)
        self.assertEqual(len(self.events), 3)
        self.assertEqual(len(self.watch.acts), 100)
