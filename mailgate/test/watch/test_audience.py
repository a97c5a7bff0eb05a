"""
Tests for L{mailgate.watch.audience}.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.interfaces import IWatch
from mailgate.log.journal import Journal
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing.fakes import makeSession
from mailgate.watch.audience import Audience, watchOf

SESSION = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
EVENTS: tuple[tuple[Any, ...], ...] = (
    ("began", SESSION),
    ("encrypted", SESSION, True, None),
    ("asked", "127.0.0.1:80", "accepted", 0.1),
    ("cached", "hit"),
    ("attempted", SESSION, None, None, 0.1, 0.2),
    ("limited", "R2", "refused"),
    ("denied", SESSION, None),
    ("relaying", SESSION, 0.5),
    ("ended", SESSION),
)


class Broken:
    """A watch of an application that fails at everything."""

    def __getattr__(self, name: str) -> Any:
        def fail(*values: Any) -> None:
            raise ValueError(name)

        return fail


class AudienceTests(SynchronousTestCase):
    """L{Audience}."""

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.journal = Journal(LogLevel.error, LogPublisher(self.events.append))  # type: ignore[arg-type]

    def test_all(self) -> None:
        """Every method of the interface passes on to both."""
        self.assertEqual({name for name, *_ in EVENTS}, set(IWatch.names()))
        own, others = RecordingWatch(), RecordingWatch()
        audience = Audience(own, others, self.journal)
        verifyObject(IWatch, audience)
        for name, *values in EVENTS:
            getattr(audience, name)(*values)
        self.assertEqual(own.names, [name for name, *_ in EVENTS])
        self.assertEqual(own.events, others.events)

    def test_broken(self) -> None:
        """Exceptions of the application are logged, and harm nothing."""
        own = RecordingWatch()
        audience = Audience(own, Broken(), self.journal)  # type: ignore[arg-type]
        for name, *values in EVENTS:
            getattr(audience, name)(*values)
        self.assertEqual(own.names, [name for name, *_ in EVENTS])
        self.assertEqual(len(self.events), len(EVENTS))
        self.assertIn("the watch of the application failed at began", formatEvent(self.events[0]))

    def test_earlier(self) -> None:
        """An application's watch of an earlier release knows nothing of limits, which is no error."""
        own = RecordingWatch()
        audience = Audience(own, object(), self.journal)  # type: ignore[arg-type]
        audience.limited("R2", "refused")
        self.assertEqual((own.events, self.events), ([("limited", "R2", "refused")], []))

    def test_times(self) -> None:
        """Only the gateway's own watch reads the times of sessions, so without it the dialogue settles them."""
        application = RecordingWatch()
        self.assertTrue(Audience(RecordingWatch(), application, self.journal).readsTimes)
        self.assertFalse(Audience(None, application, self.journal).readsTimes)

    def test_chosen(self) -> None:
        """Without an application the gateway's own is called directly; without both there is none."""
        own = RecordingWatch()
        self.assertIs(watchOf(own, None, self.journal), own)
        self.assertIsNone(watchOf(None, None, self.journal))
        self.assertIsInstance(watchOf(None, own, self.journal), Audience)

    def test_lacking(self) -> None:
        """An application's object without methods of the interface is refused at once, not with each connection."""
        lacking = type("Lacking", (), {"began": None, "ended": lambda self, session: None})()
        error = self.assertRaises(TypeError, watchOf, None, lacking, self.journal)
        self.assertEqual(
            str(error), "Lacking is no IWatch: it has no asked, attempted, began, cached, denied, encrypted, relaying"
        )
