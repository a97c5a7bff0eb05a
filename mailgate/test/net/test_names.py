"""
Tests for L{mailgate.net.names}.
"""

from __future__ import annotations

import os
import tempfile

from twisted.internet.defer import Deferred, TimeoutError, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.net.names import (
    FAILURE_TTL,
    MOST_ADDRESSES,
    RESOLUTION_DELAY,
    STALE_FOR,
    CachedNames,
    Found,
    ServerNames,
    Service,
    systemServers,
)
from mailgate.net.resolver import Resolver

SIX = dns.Record_AAAA("2001:db8::1", 60)
ONE, TWO = Found(("192.0.2.1",), 30.0), Found(("192.0.2.2",), 30.0)


class Slow:
    """Names that are found when the test says so."""

    def __init__(self):
        self.asked = []

    def lookup(self, name):
        waiting = Deferred()
        self.asked.append((name, waiting))
        return waiting

    def answer(self, result):
        self.asked[-1][1].callback(result)

    def fail(self):
        self.asked[-1][1].errback(DNSLookupError("gone"))


class CachedNamesTests(SynchronousTestCase):
    """What is kept."""

    def setUp(self):
        self.clock = Clock()
        self.names = Slow()
        self.cached = CachedNames(self.names, self.clock)

    def found(self, name="a.test"):
        return self.successResultOf(self.cached.lookup(name))

    def begin(self, answer=ONE):
        waiting = self.cached.lookup("a.test")
        self.names.answer(answer)
        self.successResultOf(waiting)

    def test_shared(self):
        """Those who wait for a name share one lookup; another name has its own."""
        waiting = [self.cached.lookup("a.test") for _ in range(3)]
        self.cached.lookup("b.test")
        self.assertEqual([name for name, _ in self.names.asked], ["a.test", "b.test"])
        self.names.asked[0][1].callback(ONE)
        self.assertEqual([self.successResultOf(each) for each in waiting], [ONE] * 3)

    def test_left(self):
        """One that no longer waits takes nothing from the others."""
        first, second = self.cached.lookup("a.test"), self.cached.lookup("a.test")
        first.addErrback(lambda failure: None)
        first.cancel()
        self.names.answer(ONE)
        self.assertEqual(self.successResultOf(second), ONE)

    def test_ttl(self):
        """Within its time an answer is used; then the old one is, while a new one is fetched."""
        self.begin()
        self.clock.advance(29)
        self.assertEqual(self.found(), ONE)
        self.assertEqual(len(self.names.asked), 1)
        self.clock.advance(1)
        self.assertEqual(self.found(), ONE)
        self.assertEqual(self.found(), ONE)
        self.assertEqual(len(self.names.asked), 2)
        self.names.answer(TWO)
        self.assertEqual(self.found(), TWO)

    def test_stale(self):
        """A failure changes nothing for a day, and is not repeated for some seconds."""
        self.begin()
        self.clock.advance(30)
        self.found()
        self.names.fail()
        self.assertEqual(self.found(), ONE)
        self.assertEqual(len(self.names.asked), 2)
        self.clock.advance(FAILURE_TTL)
        self.assertEqual(self.found(), ONE)
        self.assertEqual(len(self.names.asked), 3)
        self.names.fail()
        self.clock.advance(STALE_FOR)
        waiting = self.cached.lookup("a.test")
        self.names.fail()
        self.failureResultOf(waiting, DNSLookupError)

    def test_raises(self):
        """A lookup that raises is a failure, and the next one is made as usual."""

        def lookup(name):
            raise UnicodeError("label empty")

        self.names.lookup = lookup
        for _ in range(2):
            self.failureResultOf(self.cached.lookup("a..test"), DNSLookupError)
            self.clock.advance(FAILURE_TTL)

    def test_goOnFrom(self):
        """Another cache goes on with the addresses that were found, but not with failures."""
        self.begin()
        failed = self.cached.lookup("b.test")
        self.names.fail()
        self.failureResultOf(failed, DNSLookupError)
        after = CachedNames(self.names, self.clock)
        after.goOnFrom(self.cached)
        self.clock.advance(30)
        self.assertEqual(self.successResultOf(after.lookup("a.test")), ONE)
        self.names.fail()
        self.assertEqual(self.successResultOf(after.lookup("a.test")), ONE)
        self.assertNoResult(after.lookup("b.test"))

    def test_negative(self):
        """A name that was not found is not asked for again for some seconds."""
        waiting = self.cached.lookup("a.test")
        self.names.fail()
        self.failureResultOf(waiting, DNSLookupError)
        self.failureResultOf(self.cached.lookup("a.test"), DNSLookupError)
        self.assertEqual(len(self.names.asked), 1)
        self.clock.advance(FAILURE_TTL)
        waiting = self.cached.lookup("a.test")
        self.names.answer(ONE)
        self.assertEqual(self.successResultOf(waiting), ONE)

    def test_bounded(self):
        """However many names there are, memory is bounded."""
        self.patch(self.names, "lookup", lambda name: succeed(ONE))
        self.patch(__import__("mailgate.net.names", fromlist=["x"]), "MOST_NAMES", 10)
        for number in range(100):
            self.found(f"{number}.test")
        self.assertLessEqual(len(self.cached._entries), 10)


class Servers:
    """Name servers with the records C{answers}, by type."""

    def __init__(self, **answers):
        self.answers = answers
        self.asked = []

    def ask(self, query, suits, timeout):
        self.asked.append(str(query.name))
        records = self.answers.get(dns.QUERY_TYPES[query.type], ())
        if isinstance(records, Exception):
            return fail(Failure(records))
        if isinstance(records, Deferred):
            return records
        message = dns.Message(rCode=0 if records else dns.ENAME)
        message.answers = [
            dns.RRHeader(str(query.name), record.TYPE, ttl=record.ttl, payload=record) for record in records
        ]
        return succeed(message)


class ServerNamesTests(SynchronousTestCase):
    """Answers of name servers."""

    def names(self, valid=0, ipv6=True, **answers):
        names = ServerNames(Resolver((("192.0.2.53", 53),), valid, ipv6=ipv6), 5.0, Clock())
        self.servers = names._servers = Servers(**answers)
        return names

    def test_both(self):
        """Addresses of both families, for the least of their times."""
        names = self.names(
            A=[dns.Record_A("192.0.2.1", 60), dns.Record_A("192.0.2.2", 40)], AAAA=[dns.Record_AAAA("2001:db8::1", 50)]
        )
        found = self.successResultOf(names.lookup("a.test"))
        self.assertEqual(found, Found(("192.0.2.1", "192.0.2.2", "2001:db8::1"), 40.0))

    def test_bounds(self):
        """The time is at least a second, at most an hour; valid= says another."""
        for ttl, valid, expected in ((0, 0, 1.0), (86400, 0, 3600.0), (60, 7, 7)):
            names = self.names(valid, A=[dns.Record_A("192.0.2.1", ttl)])
            self.assertEqual(self.successResultOf(names.lookup("a.test")).ttl, expected)

    def test_oneFamily(self):
        """With ipv6=off no such address is asked for; a family that cannot be asked for does not matter."""
        names = self.names(ipv6=False, A=[dns.Record_A("192.0.2.1", 60)])
        self.assertEqual(self.successResultOf(names.lookup("a.test")).addresses, ("192.0.2.1",))
        self.assertEqual(len(self.servers.asked), 1)
        names = self.names(A=[dns.Record_A("192.0.2.1", 60)], AAAA=TimeoutError())
        self.assertEqual(self.successResultOf(names.lookup("a.test")).addresses, ("192.0.2.1",))

    def test_oneFamilySilent(self):
        """Where questions for one family get no answer the addresses of the other are used soon."""
        for silent, answers in (("AAAA", {"A": [dns.Record_A("192.0.2.1", 60)]}), ("A", {"AAAA": [SIX]})):
            names = self.names(**answers, **{silent: Deferred()})
            found = names.lookup("a.test")
            self.assertNoResult(found)
            names._reactor.advance(RESOLUTION_DELAY)
            self.assertEqual(len(self.successResultOf(found).addresses), 1)
            self.assertEqual(names._reactor.getDelayedCalls(), [])
        waiting = self.names(A=[], AAAA=Deferred()).lookup("a.test")
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: None)
        waiting.cancel()

    def test_none(self):
        """A name without an address is a failure that says why."""
        failure = self.failureResultOf(self.names().lookup("a.test"), DNSLookupError)
        self.assertIn("the name does not exist", failure.getErrorMessage())

    def test_services(self):
        """SRV records; the target "." is none."""
        names = self.names(SRV=[dns.Record_SRV(10, 3, 993, "one.test", 60), dns.Record_SRV(0, 0, 0, "", 60)])
        services, ttl = self.successResultOf(names.services("_imaps._tcp.test"))
        self.assertEqual((services, ttl), ((Service(10, 3, 993, "one.test"),), 60.0))
        self.assertEqual(self.servers.asked, ["_imaps._tcp.test"])
        self.failureResultOf(self.names().services("_imaps._tcp.test"), DNSLookupError)
        failure = self.failureResultOf(self.names(SRV=TimeoutError(5.0)).services("_imaps._tcp.test"), DNSLookupError)
        self.assertEqual(failure.value.args, ("no answer in time",))

    def test_hostileServices(self):
        """Hosts that are no host names, and port 0, are left out: the system's resolver would not survive the names."""
        names = self.names(
            SRV=[
                dns.Record_SRV(10, 3, 993, "good.test", 60),
                *(dns.Record_SRV(0, 0, 993, host, 60) for host in (b"a..test", b"\xff.test", b"a b", b"x/y", b"10.1")),
                dns.Record_SRV(0, 0, 0, "zero.test", 60),
            ]
        )
        services, _ = self.successResultOf(names.services("_imaps._tcp.test"))
        self.assertEqual(services, (Service(10, 3, 993, "good.test"),))

    def test_many(self):
        """Of an answer with thousands of records a bounded number is used."""
        names = self.names(
            A=[dns.Record_A(f"192.0.{number >> 8}.{number & 255}", 60) for number in range(2000)],
            SRV=[dns.Record_SRV(0, 0, 993, f"host{number}.test", 60) for number in range(500)],
        )
        self.assertEqual(len(self.successResultOf(names.lookup("a.test")).addresses), MOST_ADDRESSES)
        self.assertEqual(len(self.successResultOf(names.services("a.test"))[0]), MOST_ADDRESSES)


class SystemServersTests(SynchronousTestCase):
    """The system's name servers."""

    def test_read(self):
        """Those of resolv.conf, or the one of this host."""
        folder = tempfile.mkdtemp()
        path = os.path.join(folder, "resolv.conf")
        self.assertEqual(systemServers(path), (("127.0.0.1", 53),))
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                "# nameserver 192.0.2.9\nsearch a.test\nnameserver 192.0.2.1\n nameserver fe80::1%eth0\nnameserver x\n"
            )
        self.assertEqual(systemServers(path), (("192.0.2.1", 53), ("fe80::1", 53)))
