"""
Tests for L{mailgate.keeper.places}: a process that asks the keeper for places.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.messages import encode
from mailgate.keeper.placemessages import AGAIN, LEFT, STAYS, TOOK, Place, Placed, Seat
from mailgate.keeper.places import ProcessPlaces
from mailgate.keeper.questions import DEADLINE, LOGGED_EVERY, MOST_WAITING
from mailgate.store.address import storeAddress
from mailgate.store.settings import StoreSettings
from mailgate.upstream.placing import Owner
from mailgate.upstream.sticky import Sticky

JOE, JANE = Owner("imap", b"joe", Sticky(3600, 60)), Owner("imap", b"jane\xff", Sticky(3600, 60))


class Keeper:
    """Hears messages."""

    isFull = False

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def send(self, message: Any) -> None:
        self.heard.append(message)

    def seats(self) -> list[tuple[str, str, str, str]]:
        """The messages about seats since the last call."""
        found = [each for each in self.heard if isinstance(each, Seat)]
        self.heard = [each for each in self.heard if not isinstance(each, Seat)]
        return [(each.user, each.backend, each.instead, each.what) for each in found]


def refusing(message: Any) -> None:
    """Write C{message} as a connection does, but nowhere."""
    encode(message)


class PlacesCase(SynchronousTestCase):
    """A process and a keeper."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.places = ProcessPlaces(self.clock, self.clock.seconds)
        self.keeper = Keeper()
        self.events: list[Any] = []
        observer: Any = self.events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def attach(self) -> None:
        self.places.attached(self.keeper)

    def log(self) -> str:
        return "\n".join(formatEvent(event) for event in self.events)


class QuestionTests(PlacesCase):
    """Questions."""

    def test_answer(self) -> None:
        """The keeper's answer is the place."""
        self.attach()
        asked = self.places.ask(JOE, "a:143")
        self.assertNoResult(asked)
        (message,) = self.keeper.heard
        self.assertEqual(message, Place(1, "imap", "joe", "a:143", 3600))
        self.places.placed(Placed(1, "b:143"))
        self.assertEqual(self.successResultOf(asked), "b:143")
        # Twice, or for no question: nothing happens.
        self.places.placed(Placed(1, "c:143"))
        self.places.placed(Placed(77, "c:143"))

    def test_without(self) -> None:
        """Without a keeper, or if it does not read, nothing is known, at once."""
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.attach()
        self.keeper.isFull = True
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.assertEqual(self.keeper.heard, [])

    def test_late(self) -> None:
        """After the deadline nothing is known, later logins do not wait, and one line says so, until it is back."""
        self.attach()
        first = self.places.ask(JOE, "a:143")
        self.clock.advance(DEADLINE / 2)
        second = self.places.ask(JANE, "a:143")
        self.clock.advance(DEADLINE / 2)
        self.assertEqual(self.successResultOf(first), "")
        self.assertNoResult(second)
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.clock.advance(DEADLINE / 2)
        self.assertEqual(self.successResultOf(second), "")
        self.assertEqual(self.log().count("has not answered about places within 50 ms"), 1)
        for number in (1, 2):
            self.places.placed(Placed(number, "b:143"))
        self.assertEqual(self.log().count("answers about places again"), 1)
        third = self.places.ask(JOE, "a:143")
        self.assertNoResult(third)
        self.clock.advance(DEADLINE)
        self.assertEqual(self.log().count("has not answered"), 1)
        self.places.placed(Placed(3, ""))
        self.clock.advance(LOGGED_EVERY)
        self.places.ask(JOE, "a:143")
        self.clock.advance(DEADLINE)
        self.assertEqual(self.log().count("has not answered"), 2)

    def test_patience(self) -> None:
        """A login that has waited before waits for the rest of its time, in silence, and for none if none is left."""
        self.attach()
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143", DEADLINE)), "")
        self.assertEqual(self.keeper.heard, [])
        late, inTime = (self.places.ask(JOE, "a:143", DEADLINE * 0.6) for _ in range(2))
        self.clock.advance(DEADLINE * 0.3)
        self.assertNoResult(late)
        self.places.placed(Placed(2, "c:143"))
        self.clock.advance(DEADLINE * 0.2)
        self.assertEqual([self.successResultOf(late), self.successResultOf(inTime)], ["", "c:143"])
        self.assertNoResult(self.places.ask(JOE, "a:143"))
        self.places.placed(Placed(1, "b:143"))
        self.places.placed(Placed(3, "b:143"))
        self.clock.advance(DEADLINE)
        self.assertEqual(self.log(), "")

    def test_configured(self) -> None:
        """All waits of a login end 10 ms after C{store_timeout}. Without a store they end as the keeper's deadline."""
        store = StoreSettings(storeAddress("redis://h", "/"), timeout=0.2)
        for settings, patience in ((store, 0.21), (StoreSettings(), DEADLINE)):
            places = ProcessPlaces.of(settings, self.clock)
            places.attached(self.keeper)
            asked = places.ask(JOE, "a:143", 0.02)
            self.clock.advance(patience - 0.021)
            self.assertNoResult(asked)
            self.clock.advance(0.002)
            self.assertEqual(self.successResultOf(asked), "")

    def test_gone(self) -> None:
        """If the keeper goes, what waits is answered; the next one is asked."""
        self.attach()
        asked = self.places.ask(JOE, "a:143")
        self.places.detached(Keeper())
        self.assertNoResult(asked)
        self.places.detached(self.keeper)
        self.assertEqual(self.successResultOf(asked), "")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.attach()
        self.assertNoResult(self.places.ask(JOE, "a:143"))

    def test_cancelled(self) -> None:
        """A login that is cancelled wants no answer; its answer comes late without harm."""
        self.attach()
        asked = self.places.ask(JOE, "a:143")
        asked.addErrback(lambda failure: None)
        asked.cancel()
        self.places.placed(Placed(1, "b:143"))
        self.clock.advance(1)
        self.assertEqual(self.log(), "")

    def test_bounds(self) -> None:
        """So many questions wait; a name that is too long for a message has no place."""
        self.attach()
        for _ in range(MOST_WAITING):
            self.places.ask(JOE, "a:143")
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.assertEqual(len(self.keeper.heard), MOST_WAITING)
        self.places.detached(self.keeper)
        self.attach()
        long = Owner("imap", b"x" * 5000)
        self.keeper.send = refusing  # type: ignore[method-assign]
        self.assertEqual(self.successResultOf(self.places.ask(long, "a:143")), "")
        self.places.seated(long, "a:143", "", False)
        self.places.left(long)
        self.assertEqual(self.log(), "")

    def test_defect(self) -> None:
        """If a message cannot be sent for another reason, the login goes on, and the log has that reason."""
        self.attach()

        def failing(message: Any) -> None:
            raise ZeroDivisionError

        self.keeper.send = failing  # type: ignore[method-assign]
        self.assertEqual(self.successResultOf(self.places.ask(JOE, "a:143")), "")
        self.places.seated(JOE, "a:143", "", False)
        self.assertEqual(self.log(), "\n".join(["cannot tell the keeper about the place of a user"] * 2))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        # A question that was not asked is not waited for.
        self.clock.advance(DEADLINE)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SeatTests(PlacesCase):
    """Sessions."""

    def test_counted(self) -> None:
        """The keeper hears of the first session of a user and of the end of the last one, and of each change."""
        self.attach()
        self.places.seated(JOE, "a:143", "", False)
        self.places.seated(JOE, "a:143", "", False)
        self.places.seated(JANE, "a:143", "", True)
        self.assertEqual(self.keeper.seats(), [("joe", "a:143", "", STAYS), ("jane\udcff", "a:143", "", TOOK)])
        self.places.seated(JOE, "b:143", "a:143", True)
        self.assertEqual(self.keeper.seats(), [("joe", "b:143", "a:143", TOOK)])
        for _ in range(2):
            self.places.left(JOE)
        self.assertEqual(self.keeper.seats(), [])
        self.places.left(JOE)
        self.assertEqual(self.keeper.seats(), [("joe", "b:143", "", LEFT)])

    def test_again(self) -> None:
        """A new keeper hears of all who have sessions, also of those who came while there was none."""
        self.places.seated(JOE, "a:143", "", True)
        self.places.seated(JANE, "b:143", "", True)
        self.places.left(JANE)
        self.attach()
        self.assertEqual(self.keeper.seats(), [("joe", "a:143", "", AGAIN)])
        self.keeper = Keeper()
        self.attach()
        self.assertEqual(self.keeper.seats(), [("joe", "a:143", "", AGAIN)])
