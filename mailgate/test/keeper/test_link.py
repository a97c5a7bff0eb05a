# -*- test-case-name: mailgate.test.keeper.test_link -*-
"""
Tests for L{mailgate.keeper.link}, L{mailgate.keeper.listening} and L{mailgate.keeper.members}: a process and a keeper.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.link import MOST_STORIES, KeeperLink
from mailgate.keeper.messages import Hello, Moved, Part, Report, encode
from mailgate.test.keeper.processes import LOGIN, newView, story, turn
from mailgate.test.keeper.wires import HIGH, End, Socket, WiredRendezvous

LOGINS = "mailgate_logins"


class LinkCase(SynchronousTestCase):
    """A keeper and a process."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.socket = Socket(self.clock, Random(1))
        self.keeper = Keeper(self.clock, "g1")
        self.rendezvous = WiredRendezvous(self.keeper, self.socket)
        self.rendezvous.startService()
        self.view = newView()
        self.ends: list[End] = []
        endpoint: Any = self.socket.endpoint(4711, self.ends)
        self.link = KeeperLink(self.view, endpoint, self.clock, 2, 4711)

    def turns(self, number: int = 30) -> None:
        for _ in range(number):
            turn(self.clock)

    def start(self) -> None:
        self.link.startService()
        self.turns()

    def total(self) -> int:
        return sum(self.keeper.sums().get(LOGINS, {}).values())

    def ask(self, word: str, within: float = 2.0, **arguments: Any) -> Any:
        return self.keeper.ask(word, arguments, within)


class LinkTests(LinkCase):
    """The link of one process."""

    def test_reports(self) -> None:
        """A process joins, and reports each second what has changed; a report without news is not sent."""
        self.view.login()
        self.start()
        (member,) = self.keeper.members
        self.assertEqual((member.name, member.pid, member.isRetiring), (self.view.member, 4711, False))
        self.assertTrue(self.link.isLinked)
        self.assertEqual(self.total(), 1)
        self.view.login()
        self.clock.advance(0.9)
        self.turns()
        self.assertEqual(self.total(), 1)
        self.clock.advance(0.1)
        self.turns()
        self.assertEqual(self.total(), 2)
        reported: list[Any] = []
        self.keeper.reported = lambda *report: reported.append(report)  # type: ignore[method-assign]
        for _ in range(5):
            self.clock.advance(1)
            self.turns()
        self.assertEqual(reported, [])
        # What has not changed is not reported again.
        self.view.watcher.tally.count("mailgate_reloads", ("ok",))
        self.clock.advance(1)
        self.turns()
        self.assertEqual([totals for _, totals, _ in reported], [{"mailgate_reloads": [[["ok"], 1]]}])

    def test_scrape(self) -> None:
        """A scrape has what was counted just before."""
        self.start()
        self.view.login()
        scraped = self.keeper.scrape()
        self.turns()
        self.assertEqual(self.successResultOf(scraped)[LOGINS], [[list(LOGIN), 1]])

    def test_lateScrape(self) -> None:
        """A process that hangs delays a scrape by 200 ms: its last report counts, and its age is seen."""
        self.view.login()
        self.start()
        self.clock.advance(3.3)
        self.turns()
        self.ends[0].setDeaf(True)
        self.view.login()
        scraped = self.keeper.scrape()
        self.clock.advance(0.2)
        totals = self.successResultOf(scraped)
        self.assertEqual(totals[LOGINS], [[list(LOGIN), 1]])
        ((worker, age),) = totals["mailgate_worker_report_age_seconds"]
        self.assertEqual(worker, ["2"])
        self.assertAlmostEqual(age, 3.5)

    def test_stories(self) -> None:
        """Stories arrive once, with the next report."""
        self.start()
        self.view.watcher.stories = [story(at) for at in range(5)]
        self.clock.advance(1)
        self.turns()
        self.assertEqual(len(self.keeper.recent("joe")), 5)

    def test_longStories(self) -> None:
        """Stories that are too long for one message come in several; one that is longer than any is dropped."""
        self.start()
        long = {"x": ["y" * 1000] * 15}
        self.view.watcher.stories = [story(at, f"user{at}", text="z" * 15000) for at in range(90)]
        self.view.watcher.stories.append(story(1, "huge", more={"x": "y" * 2_000_000}))
        self.view.watcher.stories.append(story(1, "bytes", more=b"x"))
        self.view.watcher.stories.append(story(1, "long", more=long))
        self.clock.advance(1)
        self.turns(500)
        self.assertEqual(len(self.keeper.recent()), 90)

    def test_retire(self) -> None:
        """The keeper learns at once that the process accepts no new clients, also a later keeper."""
        self.start()
        self.link.retire()
        self.turns()
        self.assertTrue(self.keeper.members[0].isRetiring)
        self.ends[0].end(ConnectionError())
        self.turns()
        self.assertTrue(self.keeper.members[0].isRetiring)

    def test_stop(self) -> None:
        """At its end the process reports for the last time."""
        self.start()
        self.view.login()
        stopped = self.link.stopService()
        self.turns()
        self.successResultOf(stopped)
        self.assertEqual((self.total(), self.keeper.members), (1, []))
        self.clock.advance(60)
        self.turns()
        self.assertEqual(self.keeper.members, [])

    def test_stopBounded(self) -> None:
        """A keeper that does not read delays the end by a second."""
        self.start()
        self.ends[0].other.setDeaf(True)
        self.view.login()
        stopped = self.link.stopService()
        self.clock.advance(0.9)
        self.turns()
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        self.turns()
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopWithout(self) -> None:
        """Without a keeper the process ends at once."""
        self.socket.isOpen = False
        self.start()
        self.successResultOf(self.link.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_backOff(self) -> None:
        """Without a keeper it tries at once, then with growing pauses of a second at most, for ever."""
        self.socket.isOpen = False
        tries: list[float] = []
        connect = self.link._endpoint.connect

        def counted(factory: Any) -> Any:
            tries.append(self.clock.seconds() - 1000)
            return connect(factory)

        self.patch(self.link._endpoint, "connect", counted)
        self.start()
        for _ in range(1280):
            self.clock.advance(1 / 128)
        pauses = [round(after - before, 1) for before, after in pairwise(tries)]
        self.assertEqual(pauses[:6], [0.1, 0.1, 0.2, 0.4, 0.8, 1.0])
        self.assertEqual(set(pauses[6:]), {1.0})
        self.socket.isOpen = True
        self.clock.advance(1)
        self.turns()
        self.assertTrue(self.link.isLinked)
        self.ends[0].end(ConnectionError())
        turn(self.clock)
        self.assertEqual(len(self.ends), 2, "it connects at once")

    def test_failOpen(self) -> None:
        """Without a keeper, and with one that does not read, the process keeps a bounded number of stories."""
        self.start()
        self.ends[0].other.setDeaf(True)
        for second in range(20):
            self.view.login()
            self.view.watcher.stories = [story(at, text=f"{second}" * 100) for at in range(1280)]
            self.clock.advance(1)
            self.turns()
        self.assertEqual(len(self.link._stories), MOST_STORIES)
        self.assertLess(self.ends[0].most, 2 * HIGH)
        self.ends[0].other.setDeaf(False)
        self.turns(500)
        self.assertEqual(self.total(), 20)
        self.assertEqual(len(self.link._stories), 0)

    def test_brokenWatcher(self) -> None:
        """A failure while it reports is logged, and the process tries again."""
        self.start()
        self.view.watcher.gauges = None
        self.view.login()
        self.clock.advance(1)
        self.turns()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.view.watcher.gauges = {}
        self.clock.advance(1)
        self.turns()
        self.assertEqual(self.total(), 1)


class QuestionTests(LinkCase):
    """Questions to the process."""

    def test_answer(self) -> None:
        """An answer of many rows arrives in parts, complete."""
        self.start()
        asked = self.ask("many", many=1234, long=10)
        self.turns(100)
        collected = self.successResultOf(asked)
        self.assertEqual([row["number"] for row in collected.rows], list(range(1234)))
        self.assertEqual(collected.missing, [])
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])

    def test_longRows(self) -> None:
        """Rows of long names are sent in smaller parts; a row that fits into no part is missing, in words."""
        self.start()
        asked = self.ask("many", many=300, long=10_000)
        self.turns(3000)
        self.assertEqual(len(self.successResultOf(asked).rows), 300)
        asked = self.ask("many", many=1, long=2_000_000)
        self.turns(100)
        collected = self.successResultOf(asked)
        self.assertEqual(
            (collected.rows, collected.missing), ([], ["worker 4711 has not answered completely: a row is too long"])
        )

    def test_failures(self) -> None:
        """What a process cannot answer is missing, in its words."""
        self.start()
        for word, why in (
            ("nothing", "it does not know the question"),
            ("bad", "the address is not valid"),
            ("broken", "it failed; its log has the reason"),
        ):
            asked = self.ask(word)
            self.turns()
            missing = self.successResultOf(asked).missing
            self.assertEqual(missing, [f"worker 4711 has not answered completely: {why}"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_deadline(self) -> None:
        """At the deadline the rows that have arrived are the answer, and the process stops answering."""
        self.start()
        asked = self.ask("endless", within=1)
        self.turns(10)
        self.assertNoResult(asked)
        self.clock.rightNow += 1
        self.turns(1)
        collected = self.successResultOf(asked)
        self.assertGreater(len(collected.rows), 200)
        self.assertEqual(collected.missing, ["worker 4711 has not answered completely within 1 s"])
        self.turns(10)
        self.assertEqual([each for each in self.clock.getDelayedCalls() if each.getTime() <= self.clock.seconds()], [])

    def test_tooMany(self) -> None:
        """An answer without an end is cut."""
        from mailgate.keeper import members

        self.patch(members, "MOST_ROWS", 500)
        self.start()
        asked = self.ask("endless")
        self.turns(100)
        collected = self.successResultOf(asked)
        self.assertEqual(len(collected.rows), 500)
        self.assertEqual(collected.missing, ["worker 4711 has not answered completely: it has more than 500 rows"])

    def test_tooLong(self) -> None:
        """So is one of more bytes than the keeper should keep."""
        from mailgate.keeper import members

        self.patch(members, "MOST_BYTES", 1024 * 1024)
        self.start()
        asked = self.ask("many", many=10_000, long=500, within=100)
        self.turns(500)
        collected = self.successResultOf(asked)
        self.assertEqual(collected.missing, ["worker 4711 has not answered completely: it has more than 1 MiB"])
        self.assertTrue(1000 < len(collected.rows) < 2500, len(collected.rows))

    def test_slowReader(self) -> None:
        """A keeper that does not read makes the process wait with the answer, not keep it."""
        self.start()
        asked = self.ask("many", many=10_000, long=500, within=100)
        self.turns(3)
        self.ends[0].other.setDeaf(True)
        self.turns(500)
        self.assertLess(self.ends[0].most, HIGH + 200 * 600)
        self.ends[0].other.setDeaf(False)
        self.turns(3000)
        self.assertEqual(len(self.successResultOf(asked).rows), 10_000)

    def test_lostBetween(self) -> None:
        """What waits for the answer of a process that exits may ask at once: that process is not asked again."""
        self.start()
        following = self.ask("endless").addCallback(lambda _: self.ask("endless"))
        self.turns(3)
        self.ends[0].end(ConnectionError())
        self.assertEqual(self.successResultOf(following).missing, [])

    def test_lost(self) -> None:
        """A process that ends before it has answered is named."""
        self.start()
        asked = self.ask("endless")
        self.turns(3)
        self.ends[0].end(ConnectionError())
        missing = self.successResultOf(asked).missing
        self.assertEqual(missing, ["worker 4711 has closed its link before it answered completely"])

    def test_notAsked(self) -> None:
        """A question that is too long, and one too many, are refused in words."""
        self.start()
        asked = self.ask("sessions", user="x" * 20_000)
        self.assertEqual(self.successResultOf(asked).missing, ["worker 4711 was not asked: the question is too long"])


class RendezvousTests(LinkCase):
    """Who may connect, and what a keeper makes of strange messages."""

    def raw(self, pid: int = 4711) -> Any:
        """A connection of another process, which sends what a test says."""
        from twisted.internet.protocol import Factory, Protocol

        endpoint: Any = self.socket.endpoint(pid, self.ends)
        return self.successResultOf(endpoint.connect(Factory.forProtocol(Protocol))).transport

    def test_strangeMessages(self) -> None:
        """A connection with messages that do not belong there is closed; others go on."""
        self.start()
        hello = encode(Hello("other", 4712, 0)) + b"\n"
        report = encode(Report({}, [], False)) + b"\n"
        for data in (
            b"x\n",
            b"GET / HTTP/1.1\r\n\r\n",
            report,
            encode(Moved()) + b"\n",
            encode(Part(1, [], True, "")) + b"\n",
            hello + hello,
            b"x" * (2 * 1024 * 1024),
        ):
            end = self.raw(4712)
            end.write(data)
            self.turns(300)
            self.assertTrue(end.isLost, data[:40])
        self.assertEqual([each.name for each in self.keeper.members], [self.view.member])

    def test_late(self) -> None:
        """Who does not say who it is has ten seconds."""
        end = self.raw()
        self.clock.advance(10)
        self.turns()
        self.assertTrue(end.isLost)

    def test_otherVersion(self) -> None:
        """A process that speaks another version is refused in words."""
        end = self.raw()
        heard: list[bytes] = []
        end.protocol.dataReceived = heard.append
        end.write(b'{"kind": "hello", "version": 2}\n')
        self.turns()
        self.assertIn(b"version 1 of the keeper's messages is needed", b"".join(heard))
        self.assertTrue(end.isLost)

    def test_names(self) -> None:
        """No process takes the place of another; the same process does."""
        self.start()
        hello = encode(Hello(self.view.member, 4712, 0)) + b"\n"
        for pid in (4712, 4711):
            # One has another process id, and one says so.
            end = self.raw(pid)
            end.write(hello)
            self.turns()
            self.assertTrue(end.isLost)
        end = self.raw(4711)
        end.write(encode(Hello(self.view.member, 4711, 2)) + b"\n")
        self.turns(3)
        self.assertFalse(end.isLost)
        self.assertTrue(self.ends[0].isLost)
        self.assertEqual(len(self.keeper.members), 1)

    def test_users(self) -> None:
        """Only root, this user and that of the workers may connect."""
        import os

        from mailgate.keeper.peers import Peer, isAllowed

        uid = os.geteuid()
        for peer, workers, isOne in (
            (None, None, True),
            (Peer(1, 0, 0), None, True),
            (Peer(1, uid, 0), None, True),
            (Peer(1, 4444, 0), 4444, True),
            (Peer(1, 4444, 0), None, False),
            (Peer(1, 4444, 0), 4445, False),
        ):
            self.assertIs(isAllowed(peer, workers), isOne)
        self.rendezvous.peerOf = lambda transport: Peer(4711, 4444, 0)
        end = self.raw()
        self.turns()
        self.assertTrue(end.isLost)

    def test_most(self) -> None:
        """Connections are bounded."""
        from mailgate.keeper import listening

        self.patch(listening, "MOST_CONNECTIONS", 3)
        ends = [self.raw() for _ in range(4)]
        self.turns()
        self.assertEqual([end.isLost for end in ends], [False, False, False, True])
