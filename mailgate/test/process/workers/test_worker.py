"""
Tests for L{mailgate.process.workers.worker} with a gateway that serves no clients.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.log.errorlog import ErrorLogs
from mailgate.login import Backend
from mailgate.process.workers.messages import Announce, Message, Order, Query, Ready, Reply, Tell, encode
from mailgate.process.workers.worker import ROWS_A_TURN, Worker
from mailgate.service import Gateway, ProcessState
from mailgate.upstream.notices import Notices

CONFIGURATION = """
[mailgate]
use = reactor
[upstream store]
server =
    192.0.2.1:143
    192.0.2.2:143
[server imap]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = store
"""


class WorkerTests(SynchronousTestCase):
    """A worker, and what it tells its zygote."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.notices = Notices(self.clock, isFirst=True)
        clock = MemoryReactorClock()
        self.gateway = Gateway(parse(CONFIGURATION), clock, state=ProcessState.of(clock, self.notices))
        self.addCleanup(self.gateway.stopService)
        self.told: list[Message] = []
        self.takes = True
        self.worker = Worker(self.gateway, ErrorLogs(), self.tell, lambda cut: None, self.clock)
        transport: Any = object()
        self.worker.makeConnection(transport)
        self.assertEqual(self.take(), [Ready()])

    def tell(self, message: Message) -> bool:
        if self.takes:
            self.told.append(message)
        return self.takes

    def take(self) -> list[Message]:
        told, self.told = self.told, []
        return told

    def hear(self, *messages: Message) -> None:
        self.worker.dataReceived(b"".join(map(encode, messages)))

    def states(self) -> list[str]:
        return [row.state for row in self.gateway.standing.rows()]

    def test_published(self) -> None:
        """What this worker publishes is passed on, with its age."""
        self.gateway.standing.order("192.0.2.1:143", "drain")
        self.assertEqual(self.take(), [Announce("order", "192.0.2.1:143", {"word": "drain"}, 0)])
        self.assertEqual(self.states(), ["drain", "up"])

    def test_received(self) -> None:
        """A notice of another process is applied, and not passed on again."""
        self.hear(Announce("order", "192.0.2.1:143", {"word": "down"}, 3))
        self.assertEqual(self.states(), ["down", "up"])
        self.assertEqual([self.notices.age(notice) for notice in self.notices.held()], [3])
        self.assertEqual(self.take(), [])

    def test_bothPublish(self) -> None:
        """If two workers publish a notice of one key at the same time, both end with what the master has got last."""
        heard: list[Any] = []
        self.notices.subscribe("rest", lambda key, body, age: heard.append(body))
        self.notices.publish("rest", "a:1", "mine")
        (mine,) = self.take()
        assert isinstance(mine, Announce)
        # The master has got it before this worker's notice.
        self.hear(evolve(mine, body="earlier"))
        self.hear(evolve(mine, slot=0))
        self.assertEqual(heard, ["mine"])
        self.hear(evolve(mine, body="later"))
        self.assertEqual(heard, ["mine", "later"])

    def test_notTaken(self) -> None:
        """If the zygote has exited, the worker does not wait for a confirmation."""
        self.takes = False
        self.notices.publish("rest", "a:1", "mine")
        self.hear(Announce("rest", "a:1", "other", 0))
        self.assertEqual([notice.body for notice in self.notices.held()], ["other"])

    def test_tooLong(self) -> None:
        """A notice that cannot be passed on is logged; it holds in this worker."""
        with capturedLogs() as events:
            self.notices.publish("rest", "x" * 2000, "mine")
        self.assertEqual(self.take(), [])
        (text,) = map(formatEvent, events)
        self.assertIn("cannot pass on to the other workers what this one knows of a backend", text or "")
        self.assertEqual(len(list(self.notices.held())), 1)

    def test_first(self) -> None:
        """A worker that stops accepting no longer does what one worker does for all."""
        self.hear(Tell(Order.REOPEN))
        self.assertTrue(self.notices.isFirst)
        self.hear(Tell(Order.RETIRE))
        self.assertFalse(self.notices.isFirst)

    def test_list(self) -> None:
        """A list of 1,024 servers and more is answered in parts, between which clients are served."""
        for number in range(1024):
            self.gateway.upstreams.lone(Backend(f"host{number}.{'x' * 200}.example", 143))
        self.hear(Query(7, "backend list", {}))
        parts = self.take()
        self.assertEqual(len(parts), 1)
        self.clock.advance(0)
        parts += self.take()
        replies = [part for part in parts if isinstance(part, Reply)]
        self.assertEqual(len(replies), len(parts))
        self.assertEqual([reply.isLast for reply in replies], [False] * (len(parts) - 1) + [True])
        self.assertTrue(all(len(reply.rows) <= ROWS_A_TURN and reply.id == 7 for reply in replies))
        rows = [row for reply in replies for row in reply.rows]
        self.assertEqual((len(rows), len({row["address"] for row in rows})), (1026, 1026))
        for reply in replies:
            encode(reply)

    def test_unknownQuestion(self) -> None:
        """A question that this release does not know is answered, too."""
        self.hear(Query(7, "sessions", {}))
        self.assertEqual(self.take(), [Reply(7, [], True, "unknown question")])

    def test_failedAnswer(self) -> None:
        """An error while a question is answered is logged, and reported."""
        self.patch(self.gateway.standing, "rows", lambda: 1 / 0)
        self.hear(Query(7, "backend list", {}))
        self.assertEqual(self.take(), [Reply(7, [], True, "it failed; its log has the reason")])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
