"""Tests for L{mailgate.frontend.clearing}: C{on_down = close}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.frontend.clearing import Clearing
from mailgate.log.journal import Journal
from mailgate.log.levels import NOTICE
from mailgate.login import Trouble
from mailgate.net.naming import NamingReactor
from mailgate.session import Outcome, Phase
from mailgate.testing.fakes import makeSession
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import Peer
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams

CONFIGURATION = """
[upstream store]
server =
    192.0.2.1:143
    192.0.2.2:143
max_disconnect_delay = 10s
{more}

[server imap]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = store
"""


class Connection:
    """A relay that notes when it was dismissed."""

    def __init__(self, clock: Clock, peer: Peer, trouble: bool = False) -> None:
        self._clock = clock
        self._trouble = trouble
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0, phase=Phase.RELAY)
        self.session.place = peer
        self.ended: list[float] = []

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        self.session.conclude(outcome)
        self.ended.append(round(self._clock.seconds(), 1))
        if self._trouble:
            raise RuntimeError("it cannot be closed")


class Factory:
    """A factory with connections."""

    def __init__(self) -> None:
        self.connections: set[Any] = set()


class ClearingTests(SynchronousTestCase):
    """L{Clearing}, with the orders of operators."""

    def gateway(self, more: str = "on_down = close") -> None:
        """One generation, whose first server has sessions."""
        self.reactor = MemoryReactorClock()
        self.events: list[Any] = []
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.journal = Journal(NOTICE, publisher, None, self.reactor)
        self.settings = parse(CONFIGURATION.format(more=more))
        self.notices = Notices(self.reactor)
        self.shuffled = 0
        self.upstreams, self.standing, self.factory, self.clearing = self.generation()
        self.peer, self.other = (peer for _, peer in self.upstreams.everyPeer())

    def generation(self) -> tuple[Upstreams, Standing, Factory, Clearing]:
        """Another one."""
        upstreams = Upstreams(self.settings, NamingReactor(self.reactor))
        standing = Standing(upstreams, self.notices, self.reactor, self.journal)
        factory = Factory()
        clearing = Clearing(upstreams, [factory], self.reactor, self.journal, self.shuffle)
        standing.whenDown.append(clearing.down)
        return upstreams, standing, factory, clearing

    def shuffle(self, sessions: list[Any]) -> None:
        """Random enough."""
        self.shuffled += 1
        sessions.reverse()

    def connections(self, count: int, peer: Peer | None = None, **more: Any) -> list[Connection]:
        """Sessions at C{peer}, the first server without it."""
        made = [Connection(self.reactor, peer or self.peer, **more) for _ in range(count)]
        self.factory.connections.update(made)
        return made

    def order(self, word: str) -> None:
        """An operator's order for the first server."""
        self.standing.order("192.0.2.1:143", word)

    def logged(self) -> list[str]:
        """The lines in the log."""
        return [formatEvent(event) for event in self.events if "failure" not in str(event.get("log_failure", ""))]

    def test_closedByTheLast(self) -> None:
        """The last session may end the gateway, and with it this."""
        self.gateway()
        (last,) = self.connections(1)
        dismiss = last.dismiss

        def ends(*arguments: Any) -> None:
            dismiss(*arguments)
            self.clearing.close()

        self.patch(last, "dismiss", ends)
        self.order("down")
        self.assertEqual((self.clearing._running, last.ended), ({}, [0.0]))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_spread(self) -> None:
        """Its sessions end over the whole time, at an even pace, and in random order; those of others stay."""
        self.gateway()
        connections, others = self.connections(20), self.connections(3, self.other)
        self.order("down")
        gone = []
        for _ in range(11):
            gone.append(sum(len(each.ended) for each in connections))
            self.reactor.pump([0.25] * 4)
        self.assertEqual(gone, [2, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20])
        self.assertEqual({each.session.outcome for each in connections}, {Outcome.BACKEND_DOWN})
        self.assertEqual({each.session.outcome for each in others}, {None})
        self.assertEqual(self.shuffled, 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        text = "upstream store: backend 192.0.2.1:143 is taken down; its 20 sessions end within 10 s"
        self.assertEqual(self.logged(), [text])

    def test_kept(self) -> None:
        """By default they stay, and so they do while a server is drained."""
        for more, word in (("", "down"), ("on_down = keep", "down"), ("on_down = close", "drain")):
            self.gateway(more)
            connections = self.connections(5)
            self.order(word)
            self.reactor.advance(60)
            self.assertEqual([each.ended for each in connections], [[]] * 5)
            self.assertEqual(self.logged(), [])

    def test_upAgain(self) -> None:
        """If it comes up again meanwhile, the rest stay, and the log has their number."""
        self.gateway()
        connections = self.connections(20)
        self.order("down")
        self.reactor.pump([0.25] * 20)
        self.order("up")
        self.reactor.advance(60)
        self.assertEqual(sum(len(each.ended) for each in connections), 10)
        self.assertEqual(
            self.logged()[1:], ["upstream store: backend 192.0.2.1:143 is up again; its other 10 sessions stay"]
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_again(self) -> None:
        """If it is taken down once more, the spreading begins again."""
        self.gateway()
        connections = self.connections(20)
        self.order("down")
        self.reactor.pump([0.25] * 20)
        self.order("up")
        self.order("down")
        self.reactor.pump([0.25] * 41)
        self.assertEqual([len(each.ended) for each in connections], [1] * 20)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_ended(self) -> None:
        """Sessions that have ended by then are left alone."""
        self.gateway()
        connections = self.connections(20)
        connections[0].session.conclude(Outcome.RELAYED)
        self.order("down")
        for each in connections:
            each.session.conclude(Outcome.RELAYED)
        before = sum(len(each.ended) for each in connections)
        self.reactor.pump([1.0] * 11)
        self.assertEqual(sum(len(each.ended) for each in connections), before)
        self.assertIn("its 19 sessions", self.logged()[0])

    def test_empty(self) -> None:
        """Without sessions nothing is logged."""
        self.gateway()
        self.order("down")
        self.assertEqual((self.logged(), self.reactor.getDelayedCalls()), ([], []))

    def test_atOnce(self) -> None:
        """Without a delay all end at once."""
        self.gateway("on_down = close")
        self.settings = parse(CONFIGURATION.format(more="on_down = close").replace("= 10s", "= 0"))
        self.upstreams, self.standing, self.factory, self.clearing = self.generation()
        self.peer, self.other = (peer for _, peer in self.upstreams.everyPeer())
        connections = self.connections(50)
        self.order("down")
        self.assertEqual([len(each.ended) for each in connections], [1] * 50)

    def test_generations(self) -> None:
        """Sessions of older generations end as well, although both share what is known of the server."""
        self.gateway()
        old = self.connections(2)
        upstreams, self.standing, self.factory, self.clearing = self.generation()
        upstreams.goOnFrom(self.upstreams)
        self.assertIn(self.peer, [peer for _, peer in upstreams.everyPeer()])
        new = self.connections(2)
        self.order("down")
        self.reactor.pump([1.0] * 11)
        self.assertEqual([len(each.ended) for each in (*old, *new)], [1] * 4)

    def test_trouble(self) -> None:
        """If one cannot be closed, the others end as well."""
        self.gateway()
        connections = self.connections(4, trouble=True)
        self.order("down")
        self.reactor.pump([1.0] * 11)
        self.assertEqual([len(each.ended) for each in connections], [1] * 4)

    def test_closed(self) -> None:
        """A gateway that stops waits for nothing."""
        self.gateway()
        self.connections(20)
        self.order("down")
        self.clearing.close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
