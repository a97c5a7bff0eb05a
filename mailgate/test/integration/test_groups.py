"""
Groups of backends before a running gateway: which server gets the next login, and what keeps one from getting any.
"""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import time

from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Backend
from mailgate.net.racing import ATTEMPT_DELAY
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import newFolder, shared, waitUntil
from mailgate.test.integration.gateway import environment
from mailgate.test.integration.groupsite import FOR_LONG, GroupSite, namedBackend
from mailgate.test.integration.loggedcase import LoggedTestCase
from mailgate.test.integration.nameserver import Reply
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import SILENCE
from mailgate.test.integration.test_operation import CHECK
from mailgate.test.integration.together import together
from mailgate.upstream.methods import Ring, RingHash
from mailgate.upstream.peer import Peer, PeerLimits

testSuite = together(__name__)

UNAVAILABLE = "NO [UNAVAILABLE]"


class GroupTestCase(LoggedTestCase):
    """One gateway for all tests of a process; each test has groups of its own."""

    def setUp(self):
        self.watch(shared("groups", lambda: _site().start()))

    def enter(self, name, user="alice"):
        """Log in and stay; the answer, and the client."""
        answer, client = self.site.login(name, user)
        self.addCleanup(client.close)
        return answer, client

    def answer(self, name, user="alice"):
        """Log in and leave; the answer."""
        answer, client = self.enter(name, user)
        client.send(b"q LOGOUT\r\n")
        client.ended()
        return answer

    def answers(self, name, count):
        return "".join(self.answer(name) for _ in range(count))

    def becomes(self, name, expected):
        """Wait until a login is answered so."""
        waitUntil(lambda: self.answer(name).startswith(expected), f"{name} answers {expected}")


def _site():
    site = GroupSite()
    site.group("turns", ["A weight=5", "B", "C"])
    site.group("ring", ["A weight=2", "B", "C"], "hash = $user consistent")
    site.group("dead", ["A", f"- weight=2 {FOR_LONG}"])
    site.group("probed", ["A", "B fail_timeout=1s"])
    site.group("full", ["A max_conns=1", "B max_conns=1"])
    site.group("backup", ["- " + FOR_LONG, "B backup"])
    site.group("reloaded", ["A max_conns=1", f"- {FOR_LONG}", "C max_conns=1"])
    for name in ("quit", "closed", "left", "timeout"):
        site.group(name, ["A max_conns=1 max_fails=0"])
    _names(site)
    _rules(site)
    return site


class ChoiceTests(GroupTestCase):
    """Which server is chosen."""

    def test_weights(self):
        """By turns, in the proportion of the weights and spread as nginx spreads them."""
        self.assertEqual(self.answers("turns", 14), "AABACAA" * 2)

    def test_consistent(self):
        """hash ... consistent: each user has a server, that of the ring's point."""
        users = [f"user{number}@example.com" for number in range(8)]
        ports = {name: backend.port for (group, name), backend in self.site.backends.items() if group == "ring"}
        weights = {"A": 2, "B": 1, "C": 1}
        peers = [Peer(Backend(name, 1), ("127.0.0.1", port), PeerLimits(weights[name])) for name, port in ports.items()]
        for user in users:
            chosen = RingHash(peers, Ring(peers), user.encode()).pick(0, lambda peer: True)
            self.assertEqual(self.answer("ring", user), chosen.backend.host, user)

    def test_dead(self):
        """One that refuses connections fails one login, which the next server takes, and rests then."""
        self.assertEqual(self.answers("dead", 6), "A" * 6)
        self.assertEqual(len(self.failures()), 1)
        self.assertIn("refused the connection", self.failures()[0])

    def test_probed(self):
        """Once it has rested, one login tries it again; if that succeeds it serves as before."""
        backend = self.site.backends["probed", "B"]
        backend.script({"GREETING": "* BAD"})
        self.assertEqual(self.answers("probed", 4), "AAAA")
        self.assertEqual(len(self.failures()), 1)
        backend.script({"LOGIN": "TAG OK this is B"})
        self.becomes("probed", "B")
        self.assertIn("B", self.answers("probed", 2))
        self.assertEqual(len(self.failures()), 1)

    def test_full(self):
        """max_conns: one more is refused, the log says why, and gets in when another has left."""
        (first, one), (second, _) = self.enter("full"), self.enter("full")
        self.assertEqual({first, second}, {"A", "B"})
        self.assertTrue(self.answer("full").startswith(UNAVAILABLE))
        self.assertIn("backend upstream full has no usable server", self.failures()[0])
        one.close()
        self.becomes("full", first)

    def test_backup(self):
        """A backup serves where no other can."""
        self.assertEqual(self.answers("backup", 3), "BBB")
        self.assertEqual(len(self.failures()), 1)


class CountTests(GroupTestCase):
    """However a session ends, its server has one less."""

    def test_quit(self):
        """The client says goodbye."""
        self.enter("quit")[1].send(b"q LOGOUT\r\n")
        self.becomes("quit", "A")

    def test_closed(self):
        """The backend closes the connection."""
        self.enter("closed")
        self.assertTrue(self.answer("closed").startswith(UNAVAILABLE))
        self.site.backends["closed", "A"].hangUp()
        self.becomes("closed", "A")

    def test_left(self):
        """The client leaves in the middle of the login."""
        backend = self.site.backends["left", "A"]
        backend.script({"LOGIN": SILENCE})
        client = RawClient(self.site.at("left"))
        client.send(b"a LOGIN alice wonderland\r\n")
        waitUntil(lambda: any(b"LOGIN" in heard for heard in backend.heard), "the login is under way")
        client.close()
        backend.script({"LOGIN": "TAG OK this is A"})
        self.becomes("left", "A")

    def test_timeout(self):
        """The backend says nothing for too long."""
        backend = self.site.backends["timeout", "A"]
        backend.script({"LOGIN": SILENCE})
        self.assertTrue(self.answer("timeout").startswith(UNAVAILABLE))
        self.assertIn("timed out after 2 s", self.failures()[0])
        backend.script({"LOGIN": "TAG OK this is A"})
        self.becomes("timeout", "A")


class ReloadTests(GroupTestCase):
    """A reload of a configuration whose groups are the same."""

    def test_kept(self):
        """Servers rest on, and sessions from before count."""
        first, client = self.enter("reloaded")
        second, _ = self.enter("reloaded")
        self.assertEqual({first, second}, {"A", "C"})
        self.assertEqual(len(self.failures()), 1)
        self.site.gateway.signal(signal.SIGHUP)
        waitUntil(lambda: "the new configuration is active" in self.log(), "the reload is done")
        self.assertTrue(self.answer("reloaded").startswith(UNAVAILABLE))
        self.assertEqual(len(self.failures()), 2)
        self.assertIn("has no usable server", self.failures()[1])
        client.close()
        self.becomes("reloaded", first)


class WorkerTests(SynchronousTestCase):
    """With several workers each has its own account of servers."""

    def test_counts(self):
        """max_conns holds for each worker, and sessions that end make room."""
        site = GroupSite("worker_processes = 2")
        site.group("store", ["A max_conns=1"])
        site.start()
        self.addCleanup(site.stop)
        waitUntil(lambda: "serve, forked by zygote" in site.gateway.log(), "the workers serve")
        for _ in range(2):
            entered = [site.login("store") for _ in range(12)]
            count = [answer for answer, _ in entered].count("A")
            self.assertIn(count, (1, 2))
            for _, client in entered:
                client.close()
            waitUntil(lambda: all(not thread.is_alive() for thread, _ in site.backends["store", "A"]._open), "all left")
        self.assertNotIn("Traceback", site.gateway.log())


def _names(site):
    """Groups whose servers have names."""
    resolver = f"resolver = 127.0.0.1:{site.names.port}\nresolver_timeout = 1s"
    port = (one := namedBackend("one", "127.0.0.1")).port
    site.backends["names", "one"] = one
    site.backends["names", "two"] = namedBackend("two", "127.0.0.2", port)
    for name, line in {
        "moving": f"moving.test:{port} resolve",
        "vanishing": f"vanishing.test:{port} resolve",
        "cached": f"cached.test:{port}",
        "racing": f"racing.test:{port}",
        "blackhole": f"blackhole.test:{port}",
        "hole6": f"hole6.test:{port}",
        "services": "services.test service=imap",
        "unknown": f"unknown.test:{port}",
    }.items():
        site.section(f"upstream {name}", f"server = {line}\n{resolver}")
        site.server(name, f"proxy_pass = {name}")
    for name in ("moving", "vanishing", "cached"):
        _point(site, name, "127.0.0.1")
    # Nothing listens at the first address.
    _point(site, "racing", "127.0.0.3", "127.0.0.2")
    _point(site, "backend", "127.0.0.2")
    site.names.zone[b"_imap._tcp.services.test", dns.SRV] = Reply(
        (dns.Record_SRV(10, 0, port, b"backend.test"), dns.Record_SRV(20, 0, port, b"moving.test")), ttl=60
    )


def _point(site, name, *addresses, ttl=1):
    """C{name}.test has C{addresses} from now on."""
    name = f"{name}.test".encode()
    for kind, record, mark in ((dns.A, dns.Record_A, "."), (dns.AAAA, dns.Record_AAAA, ":")):
        records = tuple(record(address, ttl) for address in addresses if mark in address)
        site.names.zone[name, kind] = Reply(records, ttl=ttl)


class NameTests(GroupTestCase):
    """Servers with names, which a name server knows."""

    def test_moving(self):
        """Where the address of a name changes, logins follow it when its time is over; with resolve it is logged."""
        for name in ("moving", "cached"):
            self.becomes(name, "one")
            _point(self.site, name, "127.0.0.2")
        for name in ("moving", "cached"):
            self.becomes(name, "two")
        self.assertIn("upstream moving: server moving.test", self.log())

    def test_vanishing(self):
        """A name that exists no more keeps its last address; the log says so once."""
        self.becomes("vanishing", "one")
        for kind in (dns.A, dns.AAAA):
            del self.site.names.zone[b"vanishing.test", kind]
        waitUntil(lambda: "could not be resolved" in self.site.gateway.log(), "the name server is asked again")
        self.assertEqual(self.answer("vanishing"), "one")
        (line,) = (line for line in self.log().splitlines() if "could not be resolved" in line)
        self.assertIn("server vanishing.test", line)
        self.assertIn("the name does not exist", line)

    def test_unknown(self):
        """A name that does not exist is a temporary failure, and a line of the log."""
        self.assertTrue(self.answer("unknown").startswith(UNAVAILABLE))
        self.assertIn("unknown.test", self.failures()[0])

    def test_services(self):
        """SRV records name the servers: those of the least priority serve."""
        self.becomes("services", "two")
        self.assertEqual(self.answer("services"), "two")

    def test_secondAddress(self):
        """Where the first address of a name refuses, the second one serves, and nothing has failed."""
        self.assertEqual([self.answer("racing") for _ in range(2)], ["two", "two"])
        self.assertEqual(self.failures(), [])

    def test_blackHole(self):
        """Beside an address that does not answer at all, be it of IPv4 or IPv6, the other one serves soon."""
        for name, hole, family in (("blackhole", "127.0.0.4", socket.AF_INET), ("hole6", "::1", socket.AF_INET6)):
            if self._dig(hole, family):
                _point(self.site, name, hole, "127.0.0.1")
                began = time.monotonic()
                self.assertEqual(self.answer(name), "one")
                if name == "blackhole":
                    # Or else it was no black hole.
                    self.assertGreaterEqual(time.monotonic() - began, ATTEMPT_DELAY)
        self.assertEqual(self.failures(), [])

    def _dig(self, address, family):
        """Make a black hole of C{address}; whether that can be done here."""
        port = self.site.backends["names", "one"].port
        try:
            hole = socket.socket(family)
            self.addCleanup(hole.close)
            hole.bind((address, port))
        except OSError:
            return False
        # With its queue full the kernel answers no more.
        hole.listen(0)
        for _ in range(3):
            waiting = socket.socket(family)
            self.addCleanup(waiting.close)
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        return True


def _rules(site):
    """Servers that choose by rules."""
    for name, backend in (("near", "N"), ("far", "F")):
        site.backends["rules", backend] = made = namedBackend(backend)
        site.section(f"upstream {name}", f"server = 127.0.0.1:{made.port}")
    site.section("geo nearest", "default = far\n10.8.0.0/16 = near\n10.8.9.0/24 = far\n2001:db8::/32 = near")
    site.section("map host", "source = $ssl_server_name\ndefault = far\nnear.example = near\n*.near.example = near")
    site.server("geo", "proxy_pass = $nearest\nset_real_ip_from = 127.0.0.1", "proxy_protocol")
    site.server("sni", "proxy_pass = $host", "ssl")
    site.server("domain", "proxy_pass = $domain")


class RuleTests(GroupTestCase):
    """The client's address, the host that it asks for, and the user's domain choose the group."""

    def test_geo(self):
        """The address of the PROXY header counts."""
        for source, expected in (
            ("10.8.1.1", "N"),
            ("10.8.9.1", "F"),
            ("192.0.2.1", "F"),
            ("2001:db8::7", "N"),
        ):
            family = "TCP6" if ":" in source else "TCP4"
            destination = "::1" if ":" in source else "127.0.0.1"
            connection = socket.create_connection(("127.0.0.1", self.site.at("geo").port), PATIENCE)
            connection.sendall(f"PROXY {family} {source} {destination} 1 2\r\n".encode())
            client = RawClient(self.site.at("geo"), connection)
            self.addCleanup(client.close)
            self.assertEqual(client.login("alice", "wonderland").strip().decode(), f"OK this is {expected}")

    def test_serverName(self):
        """So does the host name of SNI, in whatever case."""
        context = ssl.create_default_context(cafile=self.site.authority.path)
        context.check_hostname = False
        for name, expected in (("Near.Example", "N"), ("mail.near.example", "N"), ("x.example", "F")):
            connection = socket.create_connection(("127.0.0.1", self.site.at("sni").port), PATIENCE)
            with context.wrap_socket(connection, server_hostname=name) as wrapped, wrapped.makefile("rb") as lines:
                lines.readline()
                wrapped.sendall(b"a LOGIN alice wonderland\r\n")
                self.assertEqual(lines.readline().strip().decode(), f"a OK this is {expected}")

    def test_nowhere(self):
        """A domain that is the name of a group leads there; any other is a temporary failure with a line of the log."""
        self.assertEqual(self.answer("domain", "alice@near"), "N")
        for user in ("alice@nowhere.example", "alice", "alice@127.0.0.1:25"):
            before = len(self.failures())
            self.assertTrue(self.answer("domain", user).startswith(UNAVAILABLE), user)
            line = self.failures()[before]
            self.assertIn("backend $domain stands for no group of backends and no address", line)

    def test_check(self):
        """What can be known to lead nowhere is refused, in one line with its place."""
        folder = newFolder("check")
        path = f"{folder}/gateway.ini"
        with open(path, "w") as file:
            file.write(
                "[geo nearest]\ndefault = far\n10.0.0.0/8 = near\n[upstream far]\nserver = 127.0.0.1:1143\n"
                "[server imap]\nprotocol = imap\nlisten = 127.0.0.1:11143\nproxy_pass = $nearest\n"
            )
        run = subprocess.run(
            [*CHECK, path], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
        )
        self.assertEqual(run.returncode, 78, run.stdout)
        (line,) = (line for line in run.stdout.splitlines() if "near" in line)
        self.assertIn("[server imap] proxy_pass = $nearest", line)
        self.assertIn('may be "near", and there is no [upstream near]', line)
