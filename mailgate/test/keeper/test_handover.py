# -*- test-case-name: mailgate.test.keeper.test_handover -*-
"""
Tests for L{mailgate.keeper.handover}, and of moves from one keeper to the next.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import capturedLogs

from mailgate.keeper.handover import GIVE_UP_AFTER, handOver
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.messages import Handover, encode
from mailgate.test.keeper.processes import story
from mailgate.test.keeper.test_link import LOGINS, LinkCase
from mailgate.test.keeper.wires import HIGH, End, WiredRendezvous


class HandoverTests(LinkCase):
    """A keeper, its successor, and a process."""

    def setUp(self) -> None:
        super().setUp()
        self.view.login()
        self.start()
        self.successor = Keeper(self.clock, "g1")
        self.successor.expectHandover()
        self.next = WiredRendezvous(self.successor, self.socket)
        self.own: list[End] = []

    def handOver(self, members: tuple[str, ...] = ()) -> Deferred[bool]:
        endpoint: Any = self.socket.endpoint(1, self.own)
        return handOver(self.keeper, self.rendezvous, endpoint, self.clock, members)

    def test_whole(self) -> None:
        """The process moves, with the news that it has, and the successor has the state."""
        self.keeper.reported(self.keeper.members[0], None, [story(at) for at in range(5)])
        self.view.login()
        with capturedLogs() as events:
            handedOver = self.handOver()
            self.next.startService()
            scraped = self.successor.scrape()
            self.turns(100)
        self.assertEqual(events, [])
        self.assertIs(self.successResultOf(handedOver), True)
        self.assertEqual(self.successResultOf(scraped)[LOGINS][0][1], 2)
        self.assertEqual(self.keeper.sums()[LOGINS], self.successor.sums()[LOGINS])
        self.assertEqual([each.name for each in self.successor.members], [self.view.member])
        self.assertEqual(self.keeper.members, [])
        self.assertEqual(len(self.successor.recent("joe")), 5)

    def test_waiting(self) -> None:
        """While no successor accepts, the process and the state wait."""
        handedOver = self.handOver()
        self.turns(100)
        self.clock.advance(1)
        self.turns(100)
        self.assertNoResult(handedOver)
        self.next.startService()
        self.turns(100)
        self.assertIs(self.successResultOf(handedOver), True)
        self.assertTrue(self.link.isLinked)

    def test_long(self) -> None:
        """A long state is sent as fast as it is read, and no faster."""
        member = self.keeper.members[0]
        for user in range(500):
            stories = [story(at, f"user{user}", text='"' * 200, more=["x" * 100] * 10) for at in range(5)]
            self.keeper.reported(member, None, stories)
        handedOver = self.handOver()
        self.turns(100)
        (end,) = self.own
        # A part as JSON, in which quotes and backslashes are longer.
        self.assertLess(end.most, HIGH + 300_000)
        self.next.startService()
        self.turns(5000)
        self.assertIs(self.successResultOf(handedOver), True)
        self.assertEqual(len(self.successor.recent()), 2500)

    def test_answersGoOn(self) -> None:
        """What a process has begun to answer it answers to the old keeper; new questions it answers to the new one."""
        asked = self.ask("many", many=2000, long=1)
        self.turns(4)
        self.assertNoResult(asked)
        self.handOver()
        self.next.startService()
        self.turns(3)
        late = self.successResultOf(self.ask("sessions"))
        self.turns(100)
        self.assertEqual(len(self.successResultOf(asked).rows), 2000)
        self.assertEqual(late.rows, [])
        self.assertIn(late.missing, ([], ["worker 4711 was not asked: it answers to another keeper"]))
        self.assertEqual(len(self.successor.members), 1)

    def test_hanging(self) -> None:
        """A process that does not answer delays the handover by half a second. It is expected at the successor."""
        self.ends[0].setDeaf(True)
        handedOver = self.handOver()
        self.next.startService()
        self.clock.advance(0.5)
        self.turns(50)
        self.assertIs(self.successResultOf(handedOver), True)
        self.assertFalse(self.successor.isComplete)
        self.ends[0].setDeaf(False)
        self.turns(50)
        self.assertTrue(self.successor.isComplete)
        self.assertEqual(len(self.successor.members), 1)

    def test_furtherMembers(self) -> None:
        """The successor waits for the process that the old keeper runs in."""
        self.handOver(("single",))
        self.next.startService()
        self.turns(100)
        self.assertEqual(self.successor._arrivals.names, {"single"})

    def test_noSuccessor(self) -> None:
        """Without a successor the old keeper gives up after a while, and says so in the log."""
        handedOver = self.handOver()
        self.clock.advance(GIVE_UP_AFTER)
        self.assertIs(self.successResultOf(handedOver), False)

    def test_refused(self) -> None:
        """If nothing listens, it gives up at once."""

        class Refusing:
            def connect(self, factory: Any) -> Any:
                return fail(ConnectionRefusedError())

        endpoint: Any = Refusing()
        handedOver = handOver(self.keeper, None, endpoint, self.clock)
        self.assertIs(self.successResultOf(handedOver), False)
        self.assertEqual([each for each in self.clock.getDelayedCalls() if each.getTime() > 1002], [])

    def test_dies(self) -> None:
        """If a successor dies before it has the state, the next one gets it."""
        saved: list[bool] = []
        self.keeper.save = lambda: saved.append(self.keeper.isHandedOver)
        handedOver = self.handOver()
        self.turns(5)
        self.own[0].end(ConnectionError())
        self.turns(5)
        self.assertNoResult(handedOver)
        self.next.startService()
        self.clock.advance(0.1)
        self.turns(100)
        self.assertIs(self.successResultOf(handedOver), True)
        self.assertEqual(self.successor.sums()[LOGINS], self.keeper.sums()[LOGINS])
        self.assertEqual(len(self.own), 2)
        # The memory has the whole state too, and is not written any more.
        self.assertEqual(saved, [False])

    def test_allDie(self) -> None:
        """If no successor lives until it has the state, the old one gives up at the deadline."""
        with capturedLogs() as events:
            handedOver = self.handOver()
            for _ in range(100):
                self.turns(2)
                if self.own and not self.own[-1].isLost:
                    self.own[-1].end(ConnectionError())
                self.clock.advance(0.1)
        self.assertIs(self.successResultOf(handedOver), False)
        self.assertGreater(len(self.own), 10)
        self.assertIn("not within 5 s", events[-1]["reason"])

    def test_otherVersion(self) -> None:
        """A successor of a release that speaks another version refuses the state in words."""
        self.next.startService()
        heard: list[bytes] = []
        endpoint: Any = self.socket.endpoint(1, self.own)
        end = self.successResultOf(endpoint.connect(Factory.forProtocol(Protocol))).transport
        end.protocol.dataReceived = heard.append
        end.write(encode(Handover((), "", True)).replace(b'"version": 1', b'"version": 2') + b"\n")
        self.turns()
        self.assertIn(b'"refused"', b"".join(heard))
        self.assertTrue(self.successor.isHandoverDue)

    def test_lateHello(self) -> None:
        """A process that connects while the keeper leaves is sent on."""
        self.rendezvous.sendAway()
        self.turns(2)
        self.next.startService()
        self.turns(100)
        self.assertEqual([each.name for each in self.successor.members], [self.view.member])
