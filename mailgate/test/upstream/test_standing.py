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

    def test_failingAlone(self):
        """A server that is alone does not rest. The list has the reason of its failures, until a login succeeds."""
        peer = self.upstreams.lone(Backend("192.0.2.9", 143))
        peer.explain("refused the connection")
        peer.failingSince = 1000.0
        row = list(self.standing.rows())[-1]
        self.assertEqual((row.state, row.reason), ("up", "refused the connection"))
        peer.failingSince = 0.0
        self.assertEqual(list(self.standing.rows())[-1].reason, "")

    def test_restOver(self):
        """A server whose rest is over is up since then. The reason stays until a login has succeeded there."""
        peer = self.upstreams.groups[0].peers[0]
        self.reactor.advance(100)
        self.assertTrue(self.upstreams.groups[0].failed(peer, "refused the connection"))
        self.reactor.advance(15)
        row = next(self.standing.rows())
        self.assertEqual((row.state, row.reason, row.seconds), ("up", "refused the connection", 5))

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

    def test_strange(self):
        """An order of another release that this one does not know has no effect."""
        for body in (None, {}, [], {"word": "explode"}, {"word": 3}):
            self.notices.publish("order", "192.0.2.1:143", body)
            self.assertEqual(self.states()[0], ("192.0.2.1:143", "up"))

    def test_closed(self):
        """A generation that has ended follows no more orders."""
        self.standing.close()
        self.notices.publish("order", "192.0.2.1:143", {"word": "down"})
        self.assertEqual(self.states()[0], ("192.0.2.1:143", "up"))


class Process:
    """
    One process of a gateway, with its own peers.

    @param reactor: the clock of all.
    @param text: the configuration.
    """

    def __init__(self, reactor, text, isFirst=True, notices=None):
        self.notices = notices or Notices(reactor, isFirst)
        self.upstreams = Upstreams(parse(text), NamingReactor(reactor))
        self.standing = Standing(self.upstreams, self.notices, reactor, Journal(NOTICE, LogPublisher(), None, reactor))
        self.down = []
        self.standing.whenDown.append(self.down.append)
        self.group = self.upstreams.groups[0]
        self.peers = self.group.peers
        self.reactor = reactor

    def states(self):
        """The state of each server."""
        return [row.state for row in self.standing.rows()]

    def fail(self, peer):
        """A login fails there; the connector reports what rests because of that."""
        peer.chosen(self.group.now)
        rests = peer.failed(self.group.now)
        peer.reason = "refused the connection"
        if rests:
            self.upstreams.whenRested(self.group.name, peer)
        peer.ended()

    def succeed(self, peer):
        """A login succeeds there."""
        peer.chosen(self.group.now)
        self.group.succeeded(peer)
        peer.ended()


CHECKED = CONFIGURATION.replace("server =", "health_check = on\nserver =", 1)


class SharingTests(SynchronousTestCase):
    """Two processes that tell each other what they find."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)

    def processes(self, text=CONFIGURATION):
        """Two workers, the first and another."""
        first, other = Process(self.reactor, text), Process(self.reactor, text, isFirst=False)
        self.told = []
        for here, there in ((first, other), (other, first)):

            def tell(notice, there=there):
                self.told.append((notice.topic, notice.key, notice.body))
                there.notices.receive(notice.topic, notice.key, notice.body)

            here.notices.tell = tell
        return first, other

    def later(self, process, text=CONFIGURATION):
        """A later generation in a new process, which inherits the notices of C{process}."""
        notices = Notices(self.reactor)
        for notice in process.notices.held():
            notices.receive(notice.topic, notice.key, notice.body, process.notices.age(notice))
        return Process(self.reactor, text, notices=notices)

    # Rests.

    def test_rest(self):
        """A server that rests in one process rests in the others, for as long, and for the same reason."""
        first, other = self.processes()
        first.fail(first.peers[0])
        self.assertEqual(other.states(), ["resting", "up", "up"])
        row = next(other.standing.rows())
        self.assertEqual((row.reason, row.seconds), ("refused the connection", 0))
        self.reactor.advance(10)
        self.assertEqual(other.states(), first.states())
        self.assertEqual(other.states(), ["resting", "up", "up"])
        self.reactor.advance(1)
        self.assertEqual(other.states(), ["up", "up", "up"])
        self.assertEqual(first.states(), ["up", "up", "up"])

    def test_toldOnce(self):
        """Many logins that fail at the same time are one notice."""
        first, _ = self.processes()
        for _ in range(50):
            first.fail(first.peers[0])
        self.assertEqual(len(self.told), 1)
        self.reactor.advance(5)
        first.fail(first.peers[0])
        self.assertEqual(len(self.told), 2)

    def test_reload(self):
        """A generation that starts during a rest keeps what is left of it."""
        first, _ = self.processes()
        first.fail(first.peers[0])
        self.reactor.advance(4)
        later = self.later(first)
        self.assertEqual(later.states()[0], "resting")
        self.reactor.advance(6)
        self.assertEqual(later.states()[0], "resting")
        self.reactor.advance(1)
        self.assertEqual(later.states()[0], "up")
        self.assertEqual(self.later(first).states()[0], "up")

    def test_changedLimits(self):
        """The limits of the new configuration hold: a shorter fail_timeout, or none."""
        first, _ = self.processes()
        first.fail(first.peers[0])
        self.reactor.advance(4)
        for parameter, state in (("fail_timeout=3s", "up"), ("fail_timeout=20s", "resting"), ("max_fails=0", "up")):
            text = CONFIGURATION.replace("192.0.2.1:143", f"192.0.2.1:143 {parameter}")
            self.assertEqual(self.later(first, text).states()[0], state, parameter)

    def test_alone(self):
        """The only server of a group does not rest."""
        first, _ = self.processes()
        first.fail(first.peers[0])
        text = "[upstream store]\nserver = 192.0.2.1:143\n[server imap]" + CONFIGURATION.split("[server imap]")[1]
        self.assertEqual(self.later(first, text).states(), ["up"])

    def test_recovered(self):
        """When a login has succeeded after the rest all processes know, without another notice for each login."""
        first, other = self.processes()
        first.fail(first.peers[0])
        self.reactor.advance(11)
        other.succeed(other.peers[0])
        self.assertEqual((first.peers[0].fails, other.peers[0].fails), (0, 0))
        self.assertEqual(first.peers[0].recovered, 1011)
        self.assertEqual(self.told[-1], ("rest", "store/192.0.2.1:143", None))
        count = len(self.told)
        for _ in range(10):
            other.succeed(other.peers[0])
        self.assertEqual(len(self.told), count)

    def test_lone(self):
        """A server outside of groups rests in all processes, also where it is met later."""
        first, other = self.processes()
        backend = Backend("192.0.2.9", 143)
        peer = first.upstreams.lone(backend)
        peer.failed(1000)
        first.upstreams.whenRested("", peer)
        self.assertTrue(other.upstreams.lone(backend).isResting(1000))
        self.assertFalse(other.upstreams.lone(Backend("192.0.2.8", 143)).isResting(1000))

    def test_nonsense(self):
        """What another process says is checked."""
        first, _ = self.processes()
        for body in ({"fails": 1, "seconds": 1e300}, {"fails": 1e300, "seconds": 5}):
            first.notices.receive("rest", "store/192.0.2.1:143", body)
            self.assertLessEqual(first.peers[0].checked, 1000)
        for key in ("", "/", "store", "store/", "elsewhere/192.0.2.1:143"):
            first.notices.receive("rest", key, {"fails": 1, "seconds": 5})
            first.notices.receive("verdict", key, {"failing": True})
        first.notices.receive("verdict", "store/192.0.2.2:143", {"failing": "yes"})
        self.assertEqual(first.states(), ["resting", "up", "up"])

    # Verdicts.

    def judge(self, process, failing, reason="refused the connection", server="192.0.2.1:143"):
        process.notices.publish("verdict", f"store/{server}", {"failing": failing, "reason": reason})

    def test_verdict(self):
        """A verdict takes the server out of use in all processes, and puts it back; each hears of it once."""
        first, other = self.processes(CHECKED)
        for _ in range(2):
            self.judge(first, True)
        for process in (first, other):
            self.assertEqual(process.states(), ["down", "up", "up"])
            self.assertEqual(process.down, [process.peers[0]])
        self.reactor.advance(7)
        row = next(other.standing.rows())
        self.assertEqual((row.reason, row.seconds), ("refused the connection", 7))
        self.judge(first, False)
        self.assertEqual(other.states(), ["up", "up", "up"])
        self.assertEqual(other.peers[0].recovered, 1007)
        self.judge(first, True)
        self.assertEqual(len(other.down), 2)

    def test_unchecked(self):
        """A group without health_check does not follow verdicts."""
        first, other = self.processes()
        self.judge(first, True)
        self.assertEqual(other.states(), ["up", "up", "up"])
        self.assertEqual(other.down, [])

    def test_reviewed(self):
        """Neither does one that had a check before a reload, although it takes over the servers."""
        first, _ = self.processes(CHECKED)
        self.judge(first, True)
        for text, state in ((CONFIGURATION, "up"), (CHECKED, "down")):
            later = Process(self.reactor, text, notices=first.notices)
            later.upstreams.goOnFrom(first.upstreams)
            later.standing.review()
            self.assertEqual(later.states()[0], state)
            self.assertEqual(later.down, [])

    def test_upForgets(self):
        """up, ordered at any process, forgets verdict and rest in all, and in generations to come."""
        first, other = self.processes(CHECKED)
        for here in (first, other):
            self.judge(first, True)
            first.fail(first.peers[0])
            here.standing.order("192.0.2.1:143", "up")
            for process in (first, other, self.later(first, CHECKED), self.later(other, CHECKED)):
                self.assertEqual(process.states(), ["up", "up", "up"])
                self.assertEqual(process.peers[0].fails, 0)

    def test_upForgetsUnchecked(self):
        """The order up forgets the verdict even if a later generation, which has no health check, shares the server."""
        first, _ = self.processes(CHECKED)
        later = Process(self.reactor, CONFIGURATION, notices=first.notices)
        later.upstreams.goOnFrom(first.upstreams)
        later.standing.review()
        self.judge(first, True)
        self.assertEqual(later.states()[0], "up")
        # The DNS names the server no more, to the later generation only.
        later.group.replace(later.group.settings.servers[0], [])
        first.down.clear()
        first.standing.order("192.0.2.1:143", "up")
        self.assertEqual((first.states()[0], first.down), ("up", []))
        self.assertFalse(first.standing.verdictOf("store", first.peers[0]).failing)

    def test_upAgo(self):
        """A verdict after the order up counts, also for a later generation that hears of both."""
        first, _ = self.processes(CHECKED)
        first.standing.order("192.0.2.1:143", "up")
        self.reactor.advance(1)
        self.judge(first, True)
        self.assertEqual(self.later(first, CHECKED).states()[0], "down")

    def test_orderFirst(self):
        """The reason is that of the order while it holds, then that of the verdict."""
        first, _ = self.processes(CHECKED)
        first.standing.order("192.0.2.1:143", "drain")
        self.judge(first, True)
        row = next(first.standing.rows())
        self.assertEqual((row.state, row.reason), ("drain", "mailgate backend drain"))
        self.assertEqual(first.down, [first.peers[0]])
        self.reactor.advance(3)
        first.standing.order("192.0.2.1:143", "resume")
        row = next(first.standing.rows())
        self.assertEqual((row.state, row.reason, row.seconds), ("down", "refused the connection", 3))
        self.assertEqual(len(first.down), 1)

    def test_generationsShare(self):
        """Two generations of one process that share a server both react when it goes down."""
        first, _ = self.processes(CHECKED)
        later = Process(self.reactor, CHECKED, notices=first.notices)
        later.upstreams.goOnFrom(first.upstreams)
        later.standing.review()
        self.judge(first, True)
        self.assertEqual((first.down, later.down), ([first.peers[0]], [first.peers[0]]))

    def test_mandatory(self):
        """With mandatory a server is not used before a verdict; one that a reload takes over is."""
        text = CHECKED.replace("= on", "= mandatory", 1)
        fresh = Process(self.reactor, text)
        self.assertEqual(fresh.states(), ["down", "down", "down"])
        self.assertEqual(next(fresh.standing.rows()).reason, "has not passed a health check yet")
        self.assertEqual(fresh.down, [])
        before = Process(self.reactor, CHECKED)
        later = Process(self.reactor, text, notices=before.notices)
        later.upstreams.goOnFrom(before.upstreams)
        later.standing.review()
        self.assertEqual(later.states(), ["up", "up", "up"])
