"""
Tests for L{mailgate.process.workers.inquiries}, and for the notices that the master passes on, with fake zygotes.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ProcessTerminated

from mailgate.process.queries import ANSWER_WITHIN, Found
from mailgate.process.workers.inquiries import MOST_INQUIRIES
from mailgate.process.workers.messages import Announce, Begin, Ended, Fork, Query, Ready, Reply, Retired, Started
from mailgate.test.process.workers.test_generation import FakeProcess
from mailgate.test.process.workers.test_master import COUNT, MasterCase


class InquiryTests(MasterCase):
    """Questions to the workers."""

    def ask(self) -> Any:
        return self.master.ask("backend list", {})

    def question(self, zygote: FakeProcess) -> int:
        """The number of the question that C{zygote} has received last."""
        *_, query = zygote.takeHeard()
        assert isinstance(query, Query)
        self.assertEqual((query.word, query.arguments), ("backend list", {}))
        return query.id

    def test_answers(self):
        """The answers of all workers are collected, in parts."""
        zygote = self.start()
        asked = self.ask()
        number = self.question(zygote)
        zygote.says(Reply(number, ["a"], False, "", 1), Reply(number, ["b"], True, "", 0))
        self.assertNoResult(asked)
        zygote.says(Reply(number, ["c"], True, "", 1))
        self.assertEqual(self.successResultOf(asked), [Found(True, ["b"]), Found(True, ["a", "c"])])

    def test_generations(self):
        """Workers of older generations that still have sessions answer, behind those of the current one."""
        before = self.start()
        before.retires = False
        self.reload()
        after = self.reactor.comesUp(COUNT)
        before.says(*(Retired(slot) for slot in range(COUNT)))
        before.says(Ended(1, 2001, 0, 0))
        asked = self.ask()
        number = self.question(before)
        self.assertEqual(self.question(after), number)
        before.says(Reply(number, ["old"], True, "", 0))
        after.says(Reply(number, ["new"], True, "", 0), Reply(number, ["new"], True, "", 1))
        found = [Found(True, ["new"]), Found(True, ["new"]), Found(False, ["old"])]
        self.assertEqual(self.successResultOf(asked), found)

    def test_late(self):
        """A worker that does not answer in time is named; what it says later is ignored."""
        zygote = self.start()
        asked = self.ask()
        number = self.question(zygote)
        zygote.says(Reply(number, ["b"], True, "", 0), Reply(number, ["part"], False, "", 1))
        self.reactor.advance(ANSWER_WITHIN)
        late = Found(True, ["part"], "worker 2001 has not answered within 5 s")
        self.assertEqual(self.successResultOf(asked), [Found(True, ["b"]), late])
        zygote.says(Reply(number, ["c"], True, "", 1))

    def test_failed(self):
        """So is one that cannot answer, or loses its zygote. One that exits has no sessions: nothing is missing."""
        zygote = self.start()
        first, second = self.ask(), self.ask()
        number = self.question(zygote) - 1
        zygote.says(Reply(number, [], True, "unknown question", 0), Ended(1, 2001, 1, 0))
        unknown = "worker 2000 has not answered: unknown question"
        self.assertEqual([found.failure for found in self.successResultOf(first)], [unknown])
        self.assertNoResult(second)
        zygote.exits(ProcessTerminated(signal=9))
        lost = "worker 2000 lost its zygote before it answered"
        self.assertEqual([found.failure for found in self.successResultOf(second)[:1]], [lost])
        self.assertEqual(self.successResultOf(self.ask())[0], Found(True, failure="no worker accepts clients now"))

    def test_starting(self):
        """A worker that does not serve yet is not asked."""
        zygote = self.start()
        zygote.says(Ended(1, 2001, 1, 0))
        self.reactor.advance(0)
        zygote.says(Started(1, 2002))
        asked = self.master.ask("backend list", {})
        *_, query = zygote.takeHeard()
        assert isinstance(query, Query)
        zygote.says(Reply(query.id, [], True, "", 1), Reply(query.id, ["a"], True, "", 0))
        self.assertEqual(self.successResultOf(asked), [Found(True, ["a"])])
        zygote.says(Ready(1))

    def test_many(self):
        """The number of questions that wait for answers is limited."""
        self.start()
        asked = [self.ask() for _ in range(MOST_INQUIRIES)]
        (found,) = self.successResultOf(self.ask())
        self.assertEqual(found.failure, "too many questions wait for answers of the workers")
        self.reactor.advance(ANSWER_WITHIN)
        for each in asked:
            self.successResultOf(each)


class NoticeTests(MasterCase):
    """Notices of workers and of the master."""

    def test_passedOn(self):
        """The notice of a worker reaches all generations. Its own zygote also gets the number of the worker."""
        before = self.start()
        before.retires = False
        self.reload()
        after = self.reactor.comesUp(COUNT)
        before.takeHeard(), after.takeHeard()
        after.says(Announce("rest", "store/a:1", {"seconds": 9}, 0, 1))
        self.assertEqual(before.takeHeard(), [Announce("rest", "store/a:1", {"seconds": 9}, 0)])
        self.assertEqual(after.takeHeard(), [Announce("rest", "store/a:1", {"seconds": 9}, 0, 1)])

    def test_order(self):
        """So does what the master publishes itself."""
        zygote = self.start()
        self.master.notices.publish("order", "a:1", {"word": "drain"})
        self.assertEqual(zygote.takeHeard(), [Announce("order", "a:1", {"word": "drain"}, 0)])

    def test_forged(self):
        """Operators give orders, and workers do not: theirs reach no process and no upgrade."""
        zygote = self.start()
        for topic in ("order", "other"):
            zygote.says(Announce(topic, "a:1", {"word": "down"}, 0, 1))
        self.assertEqual((zygote.takeHeard(), list(self.master.notices.held())), ([], []))

    def test_held(self):
        """A new zygote hears all that holds before it may fork, with the ages; not what was taken back."""
        zygote = self.start()
        zygote.says(Announce("rest", "a:1", 1, 0, 0), Announce("rest", "b:1", 2, 0, 0))
        self.reactor.advance(4)
        zygote.says(Announce("rest", "c:1", 3, 2, 0), Announce("rest", "a:1", None, 0, 1))
        self.reload()
        self.reactor.comesUp(COUNT)
        begin, *others = self.reactor.processes[-1].takeHeard()
        self.assertIsInstance(begin, Begin)
        held = [Announce("rest", "b:1", 2, 4), Announce("rest", "c:1", 3, 2)]
        self.assertEqual(others, [*held, *(Fork(slot) for slot in range(COUNT))])

    def test_first(self):
        """Orders that an upgrade has passed on reach the first zygote."""
        self.master.notices.receive("order", "a:1", {"word": "down"}, 60)
        self.master.privilegedStartService()
        _, notice = self.reactor.processes[0].takeHeard()
        self.assertEqual(notice, Announce("order", "a:1", {"word": "down"}, 60))
        self.addCleanup(lambda: self.master._watch.running and self.master._watch.stopService())

    def test_unknownWorker(self):
        """A zygote that speaks for a worker that it does not have is killed."""
        zygote = self.start()
        zygote.says(Announce("rest", "a:1", 1, 0, COUNT))
        self.assertEqual(zygote.signals, ["KILL"])
        self.assertEqual(list(self.master.notices.held()), [])
