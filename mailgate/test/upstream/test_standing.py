"""
Tests for L{mailgate.upstream.standing}.
"""

from __future__ import annotations

from attrs import astuple
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.log.journal import Journal
from mailgate.log.levels import NOTICE
from mailgate.login import Backend
from mailgate.net.naming import NamingReactor
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import Peer
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams

CONFIGURATION = """
[upstream store]
server =
    192.0.2.1:143
    192.0.2.2:143 weight=2
    mail.test:143 resolve

[server imap]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = store
"""


class StandingTests(SynchronousTestCase):
    """Orders of operators, and the list of servers."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        self.upstreams = Upstreams(parse(CONFIGURATION), NamingReactor(self.reactor))
        self.notices = Notices(self.reactor)
        journal = Journal(NOTICE, LogPublisher(), None, self.reactor)
        self.standing = Standing(self.upstreams, self.notices, self.reactor, journal)

    def states(self):
        """The address and state of each server."""
        return [(row.address, row.state) for row in self.standing.rows()]

    def test_rows(self):
        """Servers of groups come first, others behind them."""
        self.upstreams.lone(Backend("2001:db8::1", 143)).connections = 3
        self.assertEqual(
            [astuple(row) for row in self.standing.rows()],
            [
                ("store", "192.0.2.1:143", "", "up", "", None, 0, 1),
                ("store", "192.0.2.2:143", "", "up", "", None, 0, 2),
                ("store", "mail.test:143", "", "up", "", None, 0, 1),
                ("-", "[2001:db8::1]:143", "", "up", "", None, 3, 1),
            ],
        )

    def test_drain(self):
        """A drained server keeps its sessions, with the reason and since when."""
        down = []
        self.standing.whenDown.append(down.append)
        self.assertEqual(self.standing.order("192.0.2.1:143", "drain"), 1)
        self.reactor.advance(7)
        row = next(self.standing.rows())
        self.assertEqual((row.state, row.reason, row.seconds), ("drain", "mailgate backend drain", 7))
        self.standing.order("192.0.2.1:143", "resume")
        self.assertEqual(self.states()[0], ("192.0.2.1:143", "up"))
        self.assertEqual(down, [])

    def test_down(self):
        """A server that goes down is reported once; up forgets its failures."""
        down = []
        self.standing.whenDown.append(down.append)
        peer = self.upstreams.groups[0].peers[0]
        peer.failed(1000)
        self.standing.order("192.0.2.1:143", "down")
        self.standing.order("192.0.2.1:143", "down")
        self.assertEqual(down, [peer])
        self.assertEqual(self.states()[0], ("192.0.2.1:143", "down"))
        self.standing.order("192.0.2.1:143", "up")
        self.assertEqual((self.states()[0], peer.fails), (("192.0.2.1:143", "up"), 0))

    def test_unknown(self):
        """Nothing is published for an address that no server has."""
        self.assertEqual(self.standing.order("192.0.2.9:143", "drain"), 0)
        self.assertEqual(list(self.notices.held()), [])

    def test_met(self):
        """An order for a name holds for the addresses that the DNS adds later, and for a later generation."""
        self.assertEqual(self.standing.order("mail.test:143", "drain"), 1)
        group = self.upstreams.groups[0]
        group.replace(group.settings.servers[2], [Peer(Backend("192.0.2.7", 143), ("mail.test", 143))])
        self.assertEqual(self.states()[2], ("192.0.2.7:143", "drain"))
        self.assertEqual(next(row.server for row in self.standing.rows() if row.server), "mail.test:143")
        later = Upstreams(parse(CONFIGURATION), NamingReactor(self.reactor))
        journal = Journal(NOTICE, LogPublisher(), None, self.reactor)
        rows = list(Standing(later, self.notices, self.reactor, journal).rows())
        self.assertEqual([row.state for row in rows], ["up", "up", "drain"])

    def test_closed(self):
        """A generation that has ended follows no more orders."""
        self.standing.close()
        self.notices.publish("order", "192.0.2.1:143", {"word": "down"})
        self.assertEqual(self.states()[0], ("192.0.2.1:143", "up"))
