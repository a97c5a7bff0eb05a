"""
Tests for L{mailgate.upstream.following}.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredSemaphore, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.log.journal import Journal
from mailgate.net.endpoints import MOST_LOOKUPS
from mailgate.net.names import CachedNames, Found, Service
from mailgate.rules.facts import Facts
from mailgate.rules.rules import Rules
from mailgate.test.support.journals import recorder
from mailgate.upstream.following import RETRY, Following, serviceName
from mailgate.upstream.group import Upstream
from mailgate.upstream.settings import UpstreamSettings

FACTS = Facts("192.0.2.7", "joe", "imap", "")


class DNS:
    """The DNS, as the test has it: C{hosts}, and C{records} of services, each with their time in seconds."""

    def __init__(self):
        self.hosts, self.records, self.ttl = {}, {}, 60.0
        self.asked = []

    def lookup(self, name):
        self.asked.append(name)
        found = self.hosts.get(name)
        return (
            fail(DNSLookupError(f"{name} could not be resolved")) if found is None else succeed(Found(found, self.ttl))
        )

    def services(self, name):
        self.asked.append(name)
        found = self.records.get(name)
        return fail(DNSLookupError(f"{name} has no SRV record")) if found is None else succeed((found, self.ttl))


class FollowingTests(SynchronousTestCase):
    """The servers of a group, as the DNS has them."""

    def setUp(self):
        self.clock, self.dns = Clock(), DNS()
        self.events, observer = recorder()
        self.journal = Journal(LogLevel.info, observer)

    def follow(self, line):
        text = f"[upstream store]\nserver =\n    {line}\n[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = store\n"
        settings = parse(text)
        self.group = Upstream("store", settings.sections(UpstreamSettings)["store"], Rules(settings), self.clock)
        names = CachedNames(self.dns, self.clock)
        self.line = self.group.settings.servers[0]
        self.following = Following(self.group, self.line, names, self.dns, self.clock, self.journal)
        self.following.startService()
        self.addCleanup(self.stop)

    def stop(self):
        if self.following.running:
            self.following.stopService()

    def test_broken(self):
        """A defect of what reacts to new servers is logged, and does not end the look-ups."""
        self.dns.hosts["mail.test"] = ("192.0.2.1",)
        self.follow("mail.test:143 resolve")
        self.group.whenMet = lambda peer: 1 / 0
        for address in ("192.0.2.2", "192.0.2.3"):
            self.dns.hosts["mail.test"] = (address,)
            self.clock.advance(61)
            self.assertEqual([peer.backend.host for peer in self.group.peers], [address])
        self.assertEqual(len([each for each in self.events if each["log_level"] is LogLevel.critical]), 2)

    @property
    def servers(self):
        return [str(peer.backend) for peer in self.group.peers]

    def test_addresses(self):
        """Each address is a server of its own, which remembers the name."""
        self.dns.hosts["mail.test"] = ("192.0.2.1", "2001:db8::1")
        self.follow("mail.test:143 resolve")
        self.assertEqual(self.servers, ["192.0.2.1:143", "[2001:db8::1]:143"])
        self.assertEqual({peer.server[0] for peer in self.group.peers}, {"mail.test"})

    def test_changed(self):
        """After its time the name is looked up again; an address that stays keeps what is known of it."""
        self.dns.hosts["mail.test"] = ("192.0.2.1", "192.0.2.2")
        self.follow("mail.test:143 resolve")
        kept = self.group.peers[1]
        self.dns.hosts["mail.test"] = ("192.0.2.2", "192.0.2.3")
        self.clock.advance(59)
        self.assertEqual(self.servers, ["192.0.2.1:143", "192.0.2.2:143"])
        self.clock.advance(1)
        self.assertEqual(self.servers, ["192.0.2.2:143", "192.0.2.3:143"])
        self.assertIs(self.group.peers[0], kept)

    def test_gone(self):
        """A name that does not exist any more changes nothing, which is logged once."""
        self.dns.hosts["mail.test"] = ("192.0.2.1",)
        self.follow("mail.test:143 resolve")
        del self.dns.hosts["mail.test"]
        for _ in range(3):
            self.clock.advance(60)
            self.assertEqual(self.servers, ["192.0.2.1:143"])
        errors = [event for event in self.events if event["log_level"].name == "error"]
        self.assertEqual(len(errors), 1)
        self.assertEqual(errors[0]["reason"], "mail.test could not be resolved")
        self.dns.hosts["mail.test"] = ("192.0.2.2",)
        self.clock.advance(RETRY)
        self.assertEqual(self.servers, ["192.0.2.2:143"])

    def test_once(self):
        """The servers can be looked up once, without a timer for the next time."""
        self.follow("mail.test:143 resolve")
        self.stop()
        self.failureResultOf(self.following.once(), DNSLookupError)
        self.dns.hosts["mail.test"] = ("192.0.2.1",)
        self.clock.advance(3600)
        self.successResultOf(self.following.once())
        self.assertEqual(self.servers, ["192.0.2.1:143"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self):
        """A lookup ends with the group: its sockets are not left open."""
        cancelled = []
        self.dns.lookup = lambda name: Deferred(cancelled.append)
        self.follow("mail.test:143 resolve")
        self.stop()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual([event for event in self.events if event["log_level"].name == "error"], [])

    def test_unknownAtFirst(self):
        """Until it is found the name itself is the server."""
        self.follow("mail.test:143 resolve")
        self.assertEqual(self.servers, ["mail.test:143"])

    def test_services(self):
        """SRV records: those of the least priority serve, the others are backups, weights are theirs."""
        self.dns.records["_imaps._tcp.mail.test"] = (
            Service(20, 1, 994, "spare.test"),
            Service(10, 3, 993, "one.test"),
            Service(10, 0, 993, "two.test"),
        )
        self.dns.hosts.update({"one.test": ("192.0.2.1",), "two.test": ("192.0.2.2",), "spare.test": ("192.0.2.3",)})
        self.follow("mail.test service=imaps")
        self.assertEqual(self.servers, ["192.0.2.1:993", "192.0.2.2:993", "192.0.2.3:994"])
        self.assertEqual([peer.limits.weight for peer in self.group.peers], [3, 1, 1])
        self.assertEqual({peer.server[0] for peer in self.group.peers}, {"mail.test"})
        first = [self.group.attempts(FACTS).next().backend.host for _ in range(4)]
        self.assertNotIn("192.0.2.3", first)

    def test_manyServices(self):
        """All hosts of SRV records are found, although the system looks up few names at a time."""
        hosts = [f"host{number}.test" for number in range(6)]
        self.dns.records["_imaps._tcp.mail.test"] = tuple(Service(10, 0, 993, host) for host in hosts)
        waiting = []

        def lookup(name):
            if len(waiting) >= MOST_LOOKUPS:
                return fail(DNSLookupError("too many"))
            waiting.append((name, Deferred()))
            return waiting[-1][1]

        self.dns.lookup = lookup
        self.follow("mail.test service=imaps")
        while waiting:
            name, looked = waiting.pop(0)
            looked.callback(Found((f"192.0.2.{name[4]}",), 60.0))
        self.assertEqual(self.servers, [f"192.0.2.{number}:993" for number in range(6)])

    def test_turns(self):
        """Those that share turns look up after one another; one that fails gives its turn up."""
        late = Deferred()
        self.dns.lookup = lambda name: late
        self.follow("mail.test:143 resolve")
        turns = DeferredSemaphore(1)
        followings = [
            Following(self.group, self.line, CachedNames(self.dns, self.clock), None, self.clock, self.journal, turns)
            for _ in range(2)
        ]
        asked = []
        self.dns.lookup = lambda name: asked.append(Deferred()) or asked[-1]
        for each in followings:
            each.startService()
            self.addCleanup(each.stopService)
        self.assertEqual(len(asked), 1)
        asked[0].errback(DNSLookupError("no"))
        self.assertEqual(len(asked), 2)

    def test_backupServices(self):
        """With backup those of the least priority are backups, and the others are not used."""
        self.dns.records["_imap._tcp.mail.test"] = (Service(10, 0, 143, "one.test"), Service(20, 0, 143, "two.test"))
        self.dns.hosts.update({"one.test": ("192.0.2.1",), "two.test": ("192.0.2.2",)})
        text = "mail.test service=imap backup\n    192.0.2.9:143"
        settings = parse(
            f"[upstream store]\nserver =\n    {text}\n[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = store\n"
        )
        group = Upstream("store", settings.sections(UpstreamSettings)["store"], Rules(settings), self.clock)
        names = CachedNames(self.dns, self.clock)
        self.following = Following(group, group.settings.servers[0], names, self.dns, self.clock, self.journal)
        self.following.startService()
        self.assertEqual([str(peer.backend) for peer in group.peers], ["192.0.2.9:143", "192.0.2.1:143"])
        self.stop()

    def test_name(self):
        """A service without a dot is one over TCP; with a dot it is taken as it is."""
        for written, expected in (("imaps", "_imaps._tcp.mail.test"), ("_x._udp", "_x._udp.mail.test")):
            self.follow(f"mail.test service={written}")
            self.assertEqual(serviceName(self.line), expected)
            self.stop()

    def test_stopped(self):
        """When it stops no timer is left, and an answer that comes later changes nothing."""
        late = Deferred()
        self.dns.lookup = lambda name: late
        self.follow("mail.test:143 resolve")
        self.following.stopService()
        late.callback(Found(("192.0.2.1",), 1.0))
        self.assertEqual(self.servers, ["mail.test:143"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
