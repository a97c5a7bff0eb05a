"""
Tests for L{mailgate.frontend.draining}.
"""

from __future__ import annotations

import itertools
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.frontend.draining import GRACE, LAST_MOMENTS, STEP, Draining, DrainSettings
from mailgate.interfaces import IConnection
from mailgate.login import Trouble
from mailgate.session import Outcome, Phase
from mailgate.testing.fakes import makeSession


class Crowd:
    """A fake of L{mailgate.frontend.factory.ProxyServerFactory}."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()
        self.emptied: Any = None

    def ended(self, connection: Any) -> None:
        self.connections.discard(connection)
        if self.emptied is not None and not self.connections:
            self.emptied()


@implementer(IConnection)
class Connection:
    """A dialogue or a relay that ends on request; a C{stubborn} one ends only when it is aborted."""

    def __init__(self, crowd: Crowd, phase: Phase = Phase.RELAY, stubborn: bool = False) -> None:
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.1:1", 0.0, phase)
        self.dismissed = self.stopped = 0
        self._crowd = crowd
        self._stubborn = stubborn
        crowd.connections.add(self)

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self.dismissed += 1
        self.trouble = trouble
        self.session.conclude(outcome)
        if not self._stubborn:
            self._crowd.ended(self)

    def stop(self) -> None:
        self.stopped += 1
        self.leave()

    def limit(self, moment: float | None) -> None:
        self.session.expires = moment

    def leave(self) -> None:
        self._crowd.ended(self)


class DrainingTests(SynchronousTestCase):
    """Tests for L{Draining}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crowd = Crowd()
        self.draining = Draining([self.crowd, Crowd()], self.clock)

    def assertDone(self, drained: Any, cut: int) -> None:
        self.assertEqual(self.successResultOf(drained), cut)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertIsNone(self.crowd.emptied)

    def test_interface(self) -> None:
        """The connection of these tests implements the interface. Other tests verify the real ones."""
        self.assertTrue(verifyObject(IConnection, Connection(self.crowd)))

    def test_nobody(self) -> None:
        """Without connections the drain is over at once."""
        self.assertDone(self.draining.begin(True, None, 5.0), 0)

    def test_farewell(self) -> None:
        """With a farewell, connections before login end at once, and only those."""
        phases = (Phase.PROXY_HEADER, Phase.TLS, Phase.GREETING, Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH)
        dialogues = [Connection(self.crowd, phase) for phase in phases]
        relay = Connection(self.crowd)
        drained = self.draining.begin(True, None, 5.0)
        self.assertEqual([dialogue.dismissed for dialogue in dialogues], [1] * len(phases))
        self.assertEqual({dialogue.trouble for dialogue in dialogues}, {Trouble.STOPPING})
        self.assertEqual({dialogue.session.outcome for dialogue in dialogues}, {Outcome.STOPPED})
        self.clock.advance(86400)
        self.assertEqual((relay.dismissed, relay.stopped), (0, 0))
        self.assertNoResult(drained)
        relay.leave()
        self.clock.advance(0)
        self.assertDone(drained, 0)

    def test_withoutFarewell(self) -> None:
        """Without a farewell they continue and may log in."""
        dialogue = Connection(self.crowd, Phase.COMMAND)
        drained = self.draining.begin(False, None, 5.0)
        self.clock.advance(86400)
        self.crowd.connections.discard(dialogue)
        relay = Connection(self.crowd)
        self.clock.advance(86400)
        self.assertEqual((dialogue.dismissed, relay.dismissed), (0, 0))
        self.assertNoResult(drained)
        relay.leave()
        self.clock.advance(0)
        self.assertDone(drained, 0)

    def test_patience(self) -> None:
        """After the timeout all remaining connections end. Only proxied sessions are counted."""
        Connection(self.crowd, Phase.AUTH)
        relay = Connection(self.crowd)
        drained = self.draining.begin(False, 30.0, 0)
        self.clock.advance(29.9)
        self.assertEqual(relay.dismissed, 0)
        self.clock.advance(0.1)
        self.clock.advance(0)
        self.assertDone(drained, 1)

    def test_pace(self) -> None:
        """They end one after the other, evenly spread over the given time."""
        relays = [Connection(self.crowd) for _ in range(100)]
        drained = self.draining.begin(True, 10.0, 5.0)
        self.clock.advance(10.0)
        gone = []
        for _ in range(60):
            gone.append(sum(relay.dismissed for relay in relays))
            self.clock.advance(STEP)
        self.assertLessEqual(max(after - before for before, after in itertools.pairwise(gone)), 3)
        self.assertTrue(45 <= gone[25] <= 55, gone)
        self.assertEqual(gone[50], 100)
        self.assertDone(drained, 100)

    def test_meanwhile(self) -> None:
        """Clients that log in during the drain are ended, too."""
        Connection(self.crowd, stubborn=True)
        drained = self.draining.begin(False, 1.0, 1.0)
        self.clock.advance(1.0)
        late = Connection(self.crowd)
        self.clock.pump([STEP] * 15)
        self.assertEqual(late.dismissed, 1)
        self.clock.pump([GRACE, 0])
        self.assertDone(drained, 2)

    def test_stubborn(self) -> None:
        """A connection that does not end is aborted after a moment. After another moment the drain is over anyway."""
        stubborn = Connection(self.crowd, stubborn=True)
        stuck = Connection(self.crowd, stubborn=True)
        self.patch(stuck, "leave", lambda: None)
        drained = self.draining.begin(True, 0, 0)
        self.assertEqual((stubborn.dismissed, stubborn.stopped), (1, 0))
        self.clock.advance(GRACE)
        self.assertEqual((stubborn.stopped, stuck.stopped), (1, 1))
        self.assertNoResult(drained)
        self.clock.advance(LAST_MOMENTS)
        self.assertDone(drained, 2)

    def test_ended(self) -> None:
        """Sessions that are ending already are not counted as cut."""
        ending = Connection(self.crowd, stubborn=True)
        ending.session.conclude(Outcome.RELAYED)
        drained = self.draining.begin(True, 0, 0)
        self.clock.pump([GRACE, LAST_MOMENTS])
        self.assertDone(drained, 0)
        self.assertIs(ending.session.outcome, Outcome.RELAYED)

    def test_sooner(self) -> None:
        """A second, shorter drain ends connections earlier, and both Deferreds fire."""
        relay = Connection(self.crowd)
        first = self.draining.begin(True, None, 5.0)
        second = self.draining.begin(True, 7.0, 0)
        third = self.draining.begin(True, 60.0, 5.0)
        self.clock.advance(7.0)
        self.assertEqual(relay.dismissed, 1)
        self.clock.advance(0)
        for drained in (first, second):
            self.assertEqual(self.successResultOf(drained), 1)
        self.assertDone(third, 1)

    def test_stopWhilePaced(self) -> None:
        """A drain without patience also ends connections whose turn would come later."""
        relays = [Connection(self.crowd) for _ in range(10)]
        drained = self.draining.begin(True, 1.0, 60.0)
        self.clock.advance(1.0)
        self.assertLess(sum(relay.dismissed for relay in relays), 3)
        self.draining.begin(True, 0, 0)
        self.assertEqual([relay.dismissed for relay in relays], [1] * 10)
        self.clock.advance(0)
        self.assertDone(drained, 10)

    def test_twiceNow(self) -> None:
        """A second drain without patience aborts all connections."""
        stubborn = Connection(self.crowd, stubborn=True)
        first = self.draining.begin(True, 0, 0)
        self.assertEqual(stubborn.stopped, 0)
        self.draining.begin(True, 0, 0)
        self.assertEqual(stubborn.stopped, 1)
        self.clock.advance(0)
        self.assertDone(first, 1)

    def test_defect(self) -> None:
        """An exception in one connection does not keep the others from ending."""
        defect, relay = Connection(self.crowd), Connection(self.crowd)

        def dismiss(outcome: Outcome, trouble: Trouble) -> None:
            defect.session.conclude(outcome)
            raise RuntimeError("a defect")

        self.patch(defect, "dismiss", dismiss)
        drained = self.draining.begin(True, 0, 0)
        self.assertEqual(relay.dismissed, 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.clock.advance(GRACE)
        self.clock.advance(0)
        self.assertDone(drained, 2)


class DrainSettingsTests(SynchronousTestCase):
    """Tests for L{DrainSettings}."""

    def test_patience(self) -> None:
        """0, the default, waits without a limit."""
        self.assertIsNone(DrainSettings().patience)
        self.assertIsNone(DrainSettings(0.0).patience)
        self.assertEqual(DrainSettings(1.5).patience, 1.5)
