"""
Tests for L{mailgate.backend.health}. The test plays the servers.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.health import CHECKER, MOST_AT_ONCE
from mailgate.backend.visiting import FAREWELL
from mailgate.login import Backend
from mailgate.registry import PROTOCOLS
from mailgate.test.support.healthchecks import GREETING, ONE, A, B, Checked, configuration
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import Peer, PeerLimits


class CheckTests(SynchronousTestCase):
    """One check."""

    def one(self, check: str = "interval=5s jitter=0", more: str = "") -> Checked:
        return Checked(configuration(check, ONE, more)).start()

    def test_conversation(self) -> None:
        """A check sends a harmless command and a goodbye; the next one follows after the interval."""
        checked = self.one()
        self.assertEqual(checked.works(), b"mailgate NOOP\r\nmailgate LOGOUT\r\n")
        self.assertEqual(checked.elapse(4.8), [])
        self.assertEqual(checked.elapse(0.3), [f"{A}:143"])
        self.assertEqual((checked.states, checked.log), (["up"], []))

    def test_greeting(self) -> None:
        """With C{greeting} it sends the goodbye only."""
        checked = self.one("greeting")
        transport = checked.accept()
        self.assertEqual(transport.value(), b"")
        transport.protocol.dataReceived(GREETING)
        self.assertEqual(transport.value(), b"mailgate LOGOUT\r\n")

    def test_port(self) -> None:
        """With C{port} another port is checked; the verdict is about the server."""
        checked = self.one("port=4143 fails=1")
        self.assertEqual(checked.reactor.tcpClients[-1][:2], (A, 4143))
        checked.refuse()
        self.assertEqual(checked.log[0], f"upstream store: backend {A}:143 is down: refused the connection")

    def test_header(self) -> None:
        """Where sessions begin with a PROXY header, checks do."""
        checked = Checked(configuration(lines=ONE) + "proxy_protocol = on\n").start()
        self.assertEqual(checked.accept().value(), b"PROXY TCP4 10.0.0.1 192.0.2.1 12345 143\r\n")

    def test_tls(self) -> None:
        """Where sessions use TLS, checks do."""
        checked = self.one(more="proxy_ssl = on")
        transport = checked.accept()
        self.assertEqual(len(transport.tls), 1)
        transport = self.one(more="proxy_ssl = starttls").accept()
        transport.protocol.dataReceived(GREETING)
        self.assertEqual(transport.value(), b"mailgate STARTTLS\r\n")

    def test_failAtOnce(self) -> None:
        """Any number of servers may fail before a connection is tried."""
        lines = "\n    ".join(f"10.1.{number // 250}.{number % 250 + 1}:143" for number in range(600))
        checked = Checked(configuration("interval=60s jitter=0 fails=1 mandatory", lines)).start()
        connect = checked.reactor.connectTCP

        def fail(*arguments: Any, **more: Any) -> Any:
            connector = connect(*arguments, **more)
            checked.refuse()
            return connector

        self.patch(checked.reactor, "connectTCP", fail)
        for place in range(MOST_AT_ONCE):
            checked.refuse(place)
        self.assertEqual(len(checked.reactor.tcpClients), 600)
        self.assertEqual(set(checked.states), {"down"})
        self.assertEqual(len(list(checked.notices.held("verdict"))), 600)

    def test_neverStarted(self) -> None:
        """Checks that were never started can be stopped: a gateway may fail to bind its sockets."""
        Checked(configuration("fails=1", ONE)).checks.stopService()

    def test_silent(self) -> None:
        """A server that accepts connections and says nothing has failed after health_check_timeout."""
        checked = self.one("fails=1")
        transport = checked.accept()
        checked.elapse(2.8)
        self.assertEqual((checked.states, transport.aborted), (["up"], False))
        checked.elapse(0.3)
        self.assertEqual((checked.states, transport.aborted), (["down"], True))
        self.assertEqual(checked.log[0], f"upstream store: backend {A}:143 is down: did not answer within 3 s")

    def test_silentAtGoodbye(self) -> None:
        """A server that does not answer the goodbye has passed; its connection ends nevertheless."""
        checked = self.one("fails=1 interval=5s jitter=0")
        transport = checked.accept()
        transport.protocol.dataReceived(GREETING)
        transport.protocol.dataReceived(b"mailgate OK\r\n")
        checked.elapse(FAREWELL + 0.1)
        self.assertTrue(transport.aborted)
        self.assertEqual(checked.states, ["up"])
        self.assertEqual(checked.elapse(5), [f"{A}:143"])

    def test_words(self) -> None:
        """The log has what the server says, escaped."""
        checked = self.one("fails=1")
        checked.accept().protocol.dataReceived(b"* HTTP \x1b\r\n")
        self.assertEqual(
            checked.log[0],
            f'upstream store: backend {A}:143 is down: greets with an invalid reply, text "* HTTP \\x1b"',
        )

    def test_full(self) -> None:
        """A server that is full keeps its state, and gets a goodbye."""
        checked = self.one("fails=1 jitter=0")
        for _ in range(3):
            transport = checked.accept()
            transport.protocol.dataReceived(b"* BYE too many connections\r\n")
            self.assertEqual(transport.value(), b"mailgate LOGOUT\r\n")
            transport.lose()
            checked.elapse(5.1)
        self.assertEqual((checked.states, checked.log), (["up"], []))

    def test_stopped(self) -> None:
        """When the gateway drains, the check that is going on is given up, and no other begins."""
        checked = self.one("fails=1")
        transport = checked.accept()
        checked.checks.stopService()
        self.assertTrue(transport.aborted)
        self.assertEqual(checked.reactor.getDelayedCalls(), [])
        checked.elapse(60)
        self.assertEqual((checked.states, checked.log), (["up"], []))
        self.assertEqual(checked.standing.whenMet, [])

    def test_defect(self) -> None:
        """A defect of the gateway is logged, changes no state, and does not end the checks."""

        def fail(*_: Any) -> Any:
            raise ZeroDivisionError

        patched = self.patch(PROTOCOLS["imap"].client, "greeted", fail)
        checked = self.one("fails=1 jitter=0")
        patched.restore()
        self.assertEqual(checked.levels, ["critical"])
        self.assertEqual(checked.states, ["up"])
        self.assertEqual(checked.elapse(5.1), [f"{A}:143"])


class RiseAndFallTests(SynchronousTestCase):
    """The state of one server."""

    def one(self, check: str, lines: str = ONE) -> Checked:
        return Checked(configuration(f"interval=5s jitter=0 {check}", lines)).start()

    def test_down(self) -> None:
        """As many failures as C{fails} says, one after another, take the server down; each is logged once."""
        checked = self.one("fails=3")
        checked.rounds(2, checked.refuse)
        checked.rounds(1, checked.works)
        checked.rounds(2, checked.refuse)
        self.assertEqual((checked.states, checked.log, checked.down), (["up"], [], []))
        checked.rounds(1, checked.refuse)
        self.assertEqual((checked.states, checked.down), (["down"], [f"{A}:143"]))
        checked.rounds(5, checked.refuse)
        self.assertEqual(
            checked.log,
            [
                f"upstream store: backend {A}:143 is down: refused the connection",
                "upstream store: no server is up: logins get a temporary failure until a health check succeeds",
            ],
        )
        self.assertEqual(checked.levels, ["warn", "error"])
        self.assertEqual(checked.down, [f"{A}:143"])
        row = next(checked.standing.rows())
        self.assertEqual((row.reason, row.seconds), ("refused the connection", 25))

    def test_up(self) -> None:
        """As many successes as C{passes} says put it to use again."""
        checked = self.one("fails=1 passes=2")
        checked.rounds(1, checked.refuse)
        checked.rounds(1, checked.works)
        checked.rounds(1, checked.refuse)
        checked.rounds(1, checked.works)
        self.assertEqual(checked.states, ["down"])
        checked.rounds(1, checked.works)
        self.assertEqual(checked.states, ["up"])
        self.assertEqual(checked.log[2:], [f"upstream store: backend {A}:143 is up again after 20 s"])
        checked.rounds(3, checked.works)
        self.assertEqual(len(checked.log), 3)

    def test_othersServe(self) -> None:
        """While another server is up, a failure is a warning only."""
        checked = self.one("fails=1", f"{A}:143\n    {B}:143")
        checked.refuse()
        self.assertEqual(checked.levels, ["warn"])
        self.assertEqual(checked.states, ["down", "up"])

    def test_outOfUse(self) -> None:
        """No login is sent to a server that is down, also if it is the only one."""
        checked = self.one("fails=1")
        checked.refuse()
        self.assertFalse(checked.upstreams.groups[0].peers[0].isEligible(int(checked.reactor.seconds()), True))

    def test_mandatory(self) -> None:
        """With C{mandatory} it is used after the first success; that is not logged, as it never was down."""
        checked = self.one("fails=2 passes=3 mandatory")
        row = next(checked.standing.rows())
        self.assertEqual((row.state, row.reason), ("down", "has not passed a health check yet"))
        checked.rounds(1, checked.refuse)
        checked.rounds(1, checked.works)
        self.assertEqual((checked.states, checked.log, checked.down), (["up"], [], []))

    def test_mandatoryFails(self) -> None:
        """If a server never passes that is logged once, too."""
        checked = self.one("fails=2 passes=2 mandatory")
        checked.rounds(4, checked.refuse)
        self.assertEqual(checked.log[0], f"upstream store: backend {A}:143 is down: refused the connection")
        self.assertEqual(len(checked.log), 2)
        checked.rounds(2, checked.works)
        self.assertEqual(checked.states, ["up"])
        self.assertEqual(checked.log[2:], [f"upstream store: backend {A}:143 is up again after 20 s"])

    def test_orders(self) -> None:
        """An order goes before the verdict, and up forgets it; then the checks count anew."""
        checked = self.one("fails=2")
        checked.rounds(3, checked.refuse)
        checked.standing.order(ONE, "drain")
        self.assertEqual(checked.states, ["drain"])
        checked.standing.order(ONE, "resume")
        row = next(checked.standing.rows())
        self.assertEqual((row.state, row.reason), ("down", "refused the connection"))
        checked.standing.order(ONE, "up")
        self.assertEqual(checked.states, ["up"])
        checked.rounds(1, checked.refuse)
        self.assertEqual(checked.states, ["up"])
        checked.rounds(1, checked.refuse)
        self.assertEqual(checked.states, ["down"])

    def test_switchedOff(self) -> None:
        """A server that an operator, or the configuration, takes down is not connected to."""
        checked = self.one("", f"{A}:143 down\n    {B}:143")
        checked.elapse(3)
        checked.works()
        checked.standing.order(f"{B}:143", "down")
        self.assertEqual(checked.elapse(30), [])
        checked.standing.order(f"{B}:143", "resume")
        self.assertEqual(checked.elapse(5.1), [f"{B}:143"])


class TimesTests(SynchronousTestCase):
    """When servers are checked."""

    MANY = "\n    ".join(f"192.0.2.{number}:143" for number in range(1, 101))

    def test_jitter(self) -> None:
        """A random time up to C{jitter} is added to the interval."""
        for draw, seconds in ((0.0, 5.0), (0.5, 6.0), (1.0, 7.0)):
            checked = Checked(configuration("interval=5s jitter=2s", ONE), draw=draw).start()
            checked.works()
            self.assertEqual(checked.elapse(seconds - 0.2), [], draw)
            self.assertEqual(checked.elapse(0.3), [ONE], draw)

    def test_spread(self) -> None:
        """The first checks of many servers are spread over the interval."""
        checked = Checked(configuration("interval=10s jitter=0", self.MANY)).start()
        checked.works()
        most = 0
        for _ in range(50):
            before = len(checked.reactor.tcpClients)
            checked.reactor.advance(0.2)
            most = max(most, len(checked.reactor.tcpClients) - before)
            for place in range(before, len(checked.reactor.tcpClients)):
                checked.works(place)
        self.assertEqual(len({client[0] for client in checked.reactor.tcpClients}), 100)
        self.assertLessEqual(most, 3)

    def test_most(self) -> None:
        """Only some are done at a time; with C{mandatory} all are due at once."""
        checked = Checked(configuration("mandatory", self.MANY)).start()
        self.assertEqual(len(checked.reactor.tcpClients), MOST_AT_ONCE)
        for place in range(100):
            self.assertEqual(len(checked.reactor.tcpClients), min(100, MOST_AT_ONCE + place))
            checked.works(place)
        self.assertEqual(set(checked.states), {"up"})

    def test_mostOfSilent(self) -> None:
        """Servers that say nothing delay others by health_check_timeout only."""
        checked = Checked(configuration("mandatory fails=1", self.MANY)).start()
        for place in range(MOST_AT_ONCE):
            checked.accept(place)
        checked.elapse(3.1)
        self.assertEqual(len(checked.reactor.tcpClients), 2 * MOST_AT_ONCE)


class ProcessesTests(SynchronousTestCase):
    """Several processes, reloads, and servers that the DNS names."""

    def test_notFirst(self) -> None:
        """A process that is not the first one checks nothing, and learns the verdicts without a line in its log."""
        checked = Checked(configuration("fails=1", ONE))
        other = Checked(configuration("fails=1", ONE), Notices(checked.reactor, isFirst=False))
        checked.notices.tell = lambda notice: other.notices.receive(notice.topic, notice.key, notice.body)
        other.start()
        checked.start()
        self.assertEqual(other.reactor.tcpClients, [])
        checked.refuse()
        self.assertEqual((other.states, other.down, other.log), (["down"], [ONE], []))

    def test_checker(self) -> None:
        """While another process checks, this one does not, not even what has begun; then it goes on."""
        checked = Checked(configuration("interval=5s jitter=0 fails=1", ONE))
        checked.notices.receive(CHECKER, "", True)
        checked.start()
        self.assertEqual(checked.elapse(11), [])
        checked.notices.receive(CHECKER, "", None)
        self.assertEqual(checked.elapse(1), [ONE])
        checked.accept()
        checked.notices.receive(CHECKER, "", True)
        self.assertEqual(checked.elapse(20), [])
        self.assertEqual((checked.states, checked.log), (["up"], []))
        checked.notices.receive(CHECKER, "", None)
        checked.elapse(1)
        checked.refuse()
        self.assertEqual(checked.states, ["down"])

    def test_checkerEnds(self) -> None:
        """A gateway that has stopped does not begin to check when the other process has ended."""
        checked = Checked(configuration("interval=5s jitter=0", ONE))
        checked.notices.receive(CHECKER, "", True)
        checked.start()
        checked.checks.stopService()
        checked.notices.receive(CHECKER, "", None)
        self.assertEqual(checked.elapse(11), [])

    def test_kept(self) -> None:
        """A later generation keeps the verdict of an unchanged server, and does not report it again."""
        checked = Checked(configuration("fails=1", ONE)).start()
        checked.refuse()
        checked.reactor.advance(7)
        later = Checked(configuration("fails=1", f"{ONE} weight=2"), before=checked).start()
        row = next(later.standing.rows())
        self.assertEqual((row.state, row.reason, row.seconds), ("down", "refused the connection", 7))
        self.assertEqual((later.down, later.log), ([], []))

    def test_keptMandatory(self) -> None:
        """So does it with C{mandatory}: what worked before works."""
        checked = Checked(configuration("mandatory", ONE)).start()
        checked.works()
        self.assertEqual(Checked(configuration("mandatory", ONE), before=checked).states, ["up"])

    def test_takenBack(self) -> None:
        """What was found of a server that is checked in another way, or not at all, counts no more."""
        for text in (
            configuration("off", ONE),
            configuration("fails=1 port=4143", ONE),
            configuration("fails=1", ONE, "proxy_ssl = on"),
            configuration("fails=1", f"{ONE} name=mail.test"),
            configuration("fails=1", ONE) + "proxy_protocol = on\n",
        ):
            checked = Checked(configuration("fails=1", ONE)).start()
            checked.refuse()
            self.assertEqual(checked.states, ["down"])
            later = Checked(text, before=checked)
            later.upstreams.goOnFrom(checked.upstreams)
            later.standing.review()
            later.start()
            self.assertEqual(later.states, ["up"], text)

    def test_removed(self) -> None:
        """A server that is removed and comes back later is a new one."""
        checked = Checked(configuration("fails=1", f"{ONE}\n    {B}:143")).start()
        checked.refuse()
        later = Checked(configuration("fails=1", f"{B}:143"), before=checked).start()
        self.assertEqual(list(later.notices.held("verdict")), [])

    def test_dns(self) -> None:
        """A server that the DNS adds is checked, and one that it removes no more."""
        checked = Checked(configuration("interval=5s jitter=0 fails=1", "mail.test:143 resolve"), draw=0.2)
        group = checked.upstreams.groups[0]
        line = group.settings.servers[0]

        def names(*hosts: str) -> None:
            group.replace(line, [Peer(Backend(host, 143), ("mail.test", 143)) for host in hosts])

        names(A)
        checked.start()
        checked.works()
        names(A, B)
        self.assertEqual(checked.elapse(1.1), [f"{B}:143"])
        checked.refuse()
        self.assertEqual(checked.states, ["up", "down"])
        names(A)
        self.assertEqual(checked.elapse(5.1), [ONE])
        checked.works()
        self.assertEqual(list(checked.notices.held("verdict")), [])
        names(A, B)
        self.assertEqual(checked.states, ["up", "up"])

    def test_dnsWeight(self) -> None:
        """A server that is down stays so if the DNS names it with another weight, and the checks go on."""
        checked = Checked(configuration("interval=5s jitter=0 fails=1 passes=1", "mail.test:143 resolve"))
        group = checked.upstreams.groups[0]
        for weight in (1, 2):
            peer = Peer(Backend(A, 143), ("mail.test", 143), PeerLimits(weight))
            group.replace(group.settings.servers[0], [peer])
            if weight == 1:
                checked.start()
                checked.refuse()
        self.assertEqual(checked.states, ["down"])
        self.assertEqual(checked.elapse(5), [ONE])
        checked.works()
        self.assertEqual((checked.states, group.peers), (["up"], [peer]))

    def test_startsLater(self) -> None:
        """Nothing is done before the reactor runs: a worker could tell the others nothing yet."""
        checked = Checked(configuration("mandatory", ONE))
        checked.checks.startService()
        self.assertEqual(checked.reactor.tcpClients, [])
        checked.checks.stopService()
        checked.elapse(10)
        self.assertEqual(checked.reactor.tcpClients, [])

    def test_dnsMandatory(self) -> None:
        """With C{mandatory} a server that the DNS adds is checked at once, and not used before."""
        checked = Checked(configuration("mandatory", "mail.test:143 resolve"))
        group = checked.upstreams.groups[0]
        group.replace(group.settings.servers[0], [])
        checked.start()
        group.replace(group.settings.servers[0], [Peer(Backend(A, 143), ("mail.test", 143))])
        self.assertEqual(checked.states, ["down"])
        checked.reactor.advance(0)
        checked.works()
        self.assertEqual(checked.states, ["up"])

    def test_dnsLater(self) -> None:
        """A generation that does not know the addresses yet takes nothing back."""
        checked = Checked(configuration("fails=1", "mail.test:143 resolve"))
        group = checked.upstreams.groups[0]
        group.replace(group.settings.servers[0], [Peer(Backend(A, 143), ("mail.test", 143))])
        checked.start()
        checked.refuse()
        later = Checked(configuration("fails=1", "mail.test:143 resolve"), before=checked).start()
        group = later.upstreams.groups[0]
        group.replace(group.settings.servers[0], [Peer(Backend(A, 143), ("mail.test", 143))])
        self.assertEqual(later.states, ["down"])
