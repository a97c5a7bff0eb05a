"""
The host names of clients.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.journal import Journal
from mailgate.net import reversedns
from mailgate.net.resolver import Resolver
from mailgate.net.reversedns import MOST_LOOKUPS, TEMPORARILY_UNAVAILABLE, UNAVAILABLE, ReverseDNS
from mailgate.test.support.datagrams import DatagramReactor

HOST = "192.0.2.7"
REVERSE = b"7.2.0.192.in-addr.arpa"
NAME = b"client.example"
POINTER = dns.Record_PTR(NAME)


class ReverseDNSTestCase(SynchronousTestCase):
    """Lookups on a reactor without a network, with two name servers."""

    def setUp(self) -> None:
        self.reactor = DatagramReactor()
        self.events: list[dict[str, Any]] = []
        self.begin()

    def begin(self, timeout: float = 30, **settings: Any) -> None:
        """Start with these settings."""
        resolver = Resolver((("192.0.2.53", 53), ("192.0.2.54", 53)), **settings)
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.names = ReverseDNS(resolver, timeout, self.reactor, Journal(LogLevel.info, publisher))

    def logged(self) -> list[str]:
        """Return the lines of the log."""
        return [f"[{event['log_level'].name}] {formatEvent(event)}" for event in self.events]

    def pointed(self, host: str = HOST, name: bytes = NAME, reverse: bytes = REVERSE, **fields: Any) -> Deferred[str]:
        """Return the lookup of C{host}, whose address was answered with C{name}."""
        named = self.names.nameOf(host)
        self.reactor.answer(reverse, dns.Record_PTR(name), **fields)
        return named

    def confirm(self, *addresses: str, name: bytes = NAME, **fields: Any) -> None:
        """Answer the queries for the addresses of C{name}."""
        for record, type in ((dns.Record_A, dns.A), (dns.Record_AAAA, dns.AAAA)):
            found = [record(address) for address in addresses if (":" in address) is (type == dns.AAAA)]
            self.reactor.answer(name, *found, type=type, **fields)

    def assertNamed(self, named: Deferred[str], expected: str) -> None:
        self.assertEqual(self.successResultOf(named), expected)
        self.assertEqual(self.reactor.open, [])
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConfirmationTests(ReverseDNSTestCase):
    """Results by nginx's rules."""

    def test_name(self) -> None:
        """A name that resolves to the client's address is the client's."""
        named = self.pointed()
        self.assertNoResult(named)
        self.confirm(HOST)
        self.assertNamed(named, "client.example")
        self.assertEqual(self.logged(), [])

    def test_questions(self) -> None:
        """The address is queried, then the addresses of its name in both families. The servers take turns."""
        self.pointed()
        name = "client.example"
        self.assertEqual(
            self.reactor.sent,
            [
                ("192.0.2.53", dns.PTR, REVERSE.decode()),
                ("192.0.2.54", dns.A, name),
                ("192.0.2.53", dns.AAAA, name),
            ],
        )

    def test_several(self) -> None:
        """The name may have other addresses, too."""
        named = self.pointed()
        self.confirm("192.0.2.8", HOST, "2001:db8::1")
        self.assertNamed(named, "client.example")

    def test_ipv6(self) -> None:
        """An IPv6 address is queried by its nibbles."""
        nibbles = b".".join(b"%c" % digit for digit in b"20010db8000000000000000000000007"[::-1]) + b".ip6.arpa"
        named = self.pointed("2001:db8::7", reverse=nibbles)
        self.confirm("2001:db8:0::7")
        self.assertNamed(named, "client.example")

    def test_scope(self) -> None:
        """The scope of an address is not queried."""
        self.names.nameOf("fe80::1%lo")
        self.assertTrue(self.reactor.sent[0][2].startswith("1.0.0.0.0."))
        self.assertTrue(self.reactor.sent[0][2].endswith(".0.8.e.f.ip6.arpa"))

    def test_mapped(self) -> None:
        """An IPv4-mapped address is queried as IPv4."""
        named = self.pointed("::ffff:192.0.2.7")
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_elsewhere(self) -> None:
        """A name that resolves to other addresses does not count."""
        named = self.pointed()
        self.confirm("192.0.2.8", "2001:db8::1")
        self.assertNamed(named, UNAVAILABLE)

    def test_nowhere(self) -> None:
        """A name that does not resolve does not count."""
        named = self.pointed()
        self.confirm()
        self.assertNamed(named, UNAVAILABLE)
        self.assertEqual(self.logged(), ['[info] "client.example" could not be resolved (3: Host not found)'])

    def test_unixSocket(self) -> None:
        """A client at a unix socket has no address to look up."""
        self.assertNamed(self.names.nameOf("unix:"), TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.reactor.ports, [])

    def test_case(self) -> None:
        """A name is in lower case, as in nginx, and has no dot at its end."""
        named = self.pointed(name=b"Client.EXAMPLE.")
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_firstPointer(self) -> None:
        """Of several names the first one counts."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, POINTER, dns.Record_PTR(b"other.example"))
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_aliasAndPointer(self) -> None:
        """A name may follow a CNAME (RFC 2317)."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, dns.Record_CNAME(b"7.0-7.2.0.192.in-addr.arpa"), POINTER, type=dns.PTR)
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_ipv6Off(self) -> None:
        """With ipv6=off IPv6 addresses are not queried."""
        self.begin(ipv6=False)
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_A(HOST))
        self.assertNamed(named, "client.example")

    def test_ipv4Off(self) -> None:
        """With ipv4=off IPv4 addresses are not queried, so IPv4 clients have no name."""
        self.begin(ipv4=False)
        named = self.pointed()
        self.assertEqual([type for _, type, _ in self.reactor.sent], [dns.PTR, dns.AAAA])
        self.reactor.answer(NAME, dns.Record_AAAA("2001:db8::1"))
        self.assertNamed(named, UNAVAILABLE)


class AliasTests(ReverseDNSTestCase):
    """Names with a CNAME."""

    def test_together(self) -> None:
        """Addresses may be in the same answer as the CNAME."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), dns.Record_A(HOST), type=dns.A)
        self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=dns.AAAA)
        self.assertNamed(named, "client.example")

    def test_followed(self) -> None:
        """Otherwise the CNAME is followed. The client keeps the name of its address."""
        named = self.pointed()
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.confirm(HOST, name=b"real.example")
        self.assertNamed(named, "client.example")

    def test_circle(self) -> None:
        """A loop of CNAMEs ends."""
        named = self.pointed()
        for _ in range(20):
            for type in (dns.A, dns.AAAA):
                self.reactor.answer(NAME, dns.Record_CNAME(NAME), type=type)
        self.assertNamed(named, UNAVAILABLE)
        self.assertLess(len(self.reactor.sent), 20)

    def test_time(self) -> None:
        """All CNAMEs together have the time of one lookup."""
        named = self.pointed()
        self.reactor.advance(20)
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.reactor.advance(9)
        self.assertNoResult(named)
        self.reactor.advance(1)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)

    def test_lateTimer(self) -> None:
        """They have that time even if the timer is late, and an answer arrives before it."""
        named = self.pointed()
        self.reactor.rightNow += 31
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.reactor.advance(0)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertIn("(110: Operation timed out)", self.logged()[0])


class TroubleTests(ReverseDNSTestCase):
    """Lookups that fail."""

    def test_noAddress(self) -> None:
        """An address that does not exist in the DNS has no name."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, code=dns.ENAME)
        self.assertNamed(named, UNAVAILABLE)
        self.assertEqual(self.logged(), ["[info] 192.0.2.7 could not be resolved (3: Host not found)"])

    def test_nothing(self) -> None:
        """An address without a PTR record has no name."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE)
        self.assertNamed(named, UNAVAILABLE)

    def test_codes(self) -> None:
        """Every other code is a temporary failure, logged at info in nginx's words."""
        for code, words in (
            (1, "Format error"),
            (2, "Server failure"),
            (4, "Unimplemented"),
            (5, "Operation refused"),
            (9, "Unknown error"),
        ):
            named = self.names.nameOf(HOST)
            self.reactor.answer(REVERSE, code=code)
            self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
            self.assertEqual(self.logged()[-1], f"[info] 192.0.2.7 could not be resolved ({code}: {words})")

    def test_forwardCodes(self) -> None:
        """Every other code for the addresses of the name is a temporary failure, even for one family."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_A(HOST))
        self.reactor.answer(NAME, type=dns.AAAA, code=dns.ESERVER)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.logged(), ['[info] "client.example" could not be resolved (2: Server failure)'])

    def test_forwardNotFound(self) -> None:
        """If one family says that the name does not exist, it does not exist, whatever the other says."""
        for first, second in ((dns.A, dns.AAAA), (dns.AAAA, dns.A)):
            for other in (dns.OK, dns.ESERVER):
                named = self.pointed()
                self.reactor.answer(NAME, type=first, code=dns.ENAME)
                self.reactor.answer(NAME, type=second, code=other)
                self.assertNamed(named, UNAVAILABLE)

    def test_timeout(self) -> None:
        """Without an answer the lookup ends after resolver_timeout."""
        self.begin(timeout=12)
        named = self.names.nameOf(HOST)
        self.reactor.pump([5, 5, 1])
        self.assertNoResult(named)
        self.reactor.advance(1)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.logged()[0], "[info] 192.0.2.7 could not be resolved (110: Operation timed out)")

    def test_silent(self) -> None:
        """
        If all lookups fail for resolver_timeout, the gateway's own name servers seem to be the cause. That is logged as
        an error, once until they answer again.
        """
        for number in (1, 2):
            named = self.names.nameOf(f"192.0.2.{number}")
            self.reactor.advance(30)
            self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        failed = "192.0.2.1 could not be resolved (110: Operation timed out)"
        told = f"resolver 192.0.2.53 192.0.2.54: all lookups failed for 30 s; last error: {failed}"
        lines = [f"[info] {failed}", f"[error] {told}", f"[info] {failed.replace('2.1 ', '2.2 ')}"]
        self.assertEqual(self.logged(), lines)
        del self.events[:]
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, code=dns.ENAME)
        self.assertNamed(named, UNAVAILABLE)
        self.assertEqual(self.logged()[0], "[info] resolver 192.0.2.53 192.0.2.54 answers again")
        del self.events[:]
        named = self.names.nameOf(HOST)
        self.reactor.advance(31)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual([line.split()[0] for line in self.logged()], ["[info]", "[error]"], "another outage")

    def test_silentForOne(self) -> None:
        """If other lookups succeed, the client's name servers are the cause."""
        for number in range(1, 5):
            named = self.names.nameOf(f"198.51.100.{number}")
            self.reactor.advance(20)
            other = self.names.nameOf(HOST)
            self.reactor.answer(REVERSE, code=dns.ENAME)
            self.successResultOf(other)
            self.reactor.advance(10)
            self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual({line.split()[0] for line in self.logged()}, {"[info]"})

    def test_secondTimeout(self) -> None:
        """The lookup of the name has the whole time again."""
        named = self.names.nameOf(HOST)
        self.reactor.advance(29)
        self.reactor.answer(REVERSE, POINTER)
        self.reactor.answer(NAME, dns.Record_A(HOST))
        self.reactor.advance(29)
        self.assertNoResult(named)
        self.reactor.advance(1)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertLessEqual(59, self.names.longest)

    def test_onlyAnAlias(self) -> None:
        """A CNAME alone is ignored, and so are records of other types."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, dns.Record_CNAME(b"other.example"), dns.Record_TXT(b"hm"), type=dns.PTR)
        self.assertNoResult(named)
        self.reactor.advance(30)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)

    def test_uselessAddresses(self) -> None:
        """Records that are not addresses, or not of class IN, are ignored."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_TXT(b"hm"), type=dns.A)
        chaos = [dns.RRHeader(NAME, dns.AAAA, dns.CH, 60, dns.Record_AAAA("::ffff:192.0.2.7"))]
        self.reactor.answer(NAME, type=dns.AAAA, answers=chaos)
        self.assertNamed(named, UNAVAILABLE)

    def test_invalidName(self) -> None:
        """A name may have letters, digits, hyphens and dots. A name with other characters is not looked up."""
        for name in (
            b"ev il.example",
            b"a\r\nb.example",
            b"under_score.example",
            b"\xe4.example",
            b"a\0.b",
            b"a=b",
            b"",
        ):
            named = self.pointed(name=name)
            self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual({type for _, type, _ in self.reactor.sent}, {dns.PTR})

    def test_invalidNameLogged(self) -> None:
        """In the log the name is escaped."""
        self.pointed(name=b'a"b\r\n[emerg].example')
        self.assertEqual(self.logged(), ['[info] 192.0.2.7 resolved to invalid host name "a\\"b\\r\\n[emerg].example"'])

    def test_longName(self) -> None:
        """A name that is too long for the DNS is invalid, and is cut in the log."""
        self.assertNamed(self.pointed(name=b".".join([b"a" * 60] * 9)), TEMPORARILY_UNAVAILABLE)
        self.assertLess(len(self.logged()[0]), 400)

    def test_unaskable(self) -> None:
        """A name with an empty or too long label cannot be queried. As in nginx, it is "not found"."""
        self.assertNamed(self.pointed(name=b"a..example"), UNAVAILABLE)
        self.assertNamed(self.pointed(name=b"a" * 64 + b".example"), UNAVAILABLE)

    def test_noSocket(self) -> None:
        """If there is no socket for the query, an error is logged, and the client does not wait."""
        self.reactor.taken = [OSError(errno.EMFILE, "Too many open files")]
        self.assertNamed(self.names.nameOf(HOST), TEMPORARILY_UNAVAILABLE)
        self.assertIn("[error] cannot open a socket to resolve 192.0.2.7: ", self.logged()[0])

    def test_defect(self) -> None:
        """A defect is logged, and the connection goes on."""
        self.names._servers = None  # type: ignore[assignment]
        self.assertNamed(self.names.nameOf(HOST), TEMPORARILY_UNAVAILABLE)
        self.assertIn("log_failure", self.events[-1])


class CacheTests(ReverseDNSTestCase):
    """The cache."""

    def look(self, host: str = HOST, confirmed: str = HOST, pointerTTL: int = 60, ttl: int = 60) -> None:
        """Look up C{host}."""
        named = self.pointed(host, ttl=pointerTTL)
        self.confirm(confirmed, ttl=ttl)
        self.successResultOf(named)

    def assertAsksAgain(self, again: bool, host: str = HOST) -> None:
        before = len(self.reactor.sent)
        named = self.names.nameOf(host)
        self.assertEqual(len(self.reactor.sent) > before, again)
        if again:
            self.reactor.answer(REVERSE, code=dns.ENAME)
        self.successResultOf(named)

    def test_ttl(self) -> None:
        """A result is cached for the smaller TTL of the two answers."""
        for ttls in ((60, 90), (90, 60)):
            self.begin()
            self.look(pointerTTL=ttls[0], ttl=ttls[1])
            self.reactor.advance(59)
            self.assertAsksAgain(False)
            self.reactor.advance(1)
            self.assertAsksAgain(True)

    def test_given(self) -> None:
        """The cached name is the same, also for the IPv4-mapped form of the address."""
        self.look()
        self.assertNamed(self.names.nameOf(HOST), "client.example")
        self.assertNamed(self.names.nameOf("::ffff:192.0.2.7"), "client.example")

    def test_unconfirmed(self) -> None:
        """A name that resolves to other addresses is cached as such."""
        self.look(confirmed="192.0.2.8")
        self.assertNamed(self.names.nameOf(HOST), UNAVAILABLE)

    def test_zero(self) -> None:
        """A TTL of 0, or a negative one (RFC 2181), means that the result is not cached."""
        for ttl in (0, 2**31):
            self.begin()
            self.look(ttl=ttl)
            self.assertAsksAgain(True)

    def test_valid(self) -> None:
        """With valid= this time counts, whatever the TTL is."""
        self.begin(valid=100)
        self.look(ttl=0)
        self.reactor.advance(99)
        self.assertAsksAgain(False)
        self.reactor.advance(1)
        self.assertAsksAgain(True)

    def test_notFound(self) -> None:
        """As in nginx, "not found" and temporary failures are not cached."""
        self.begin(valid=100)
        for code in (dns.ENAME, dns.ESERVER):
            named = self.names.nameOf(HOST)
            self.reactor.answer(REVERSE, code=code)
            self.successResultOf(named)
            self.assertAsksAgain(True)

    def test_clockSetBack(self) -> None:
        """If the clock is set back, results are not valid for longer."""
        self.look()
        self.reactor.rightNow -= 10
        self.assertAsksAgain(True)

    def test_bound(self) -> None:
        """The cache is bounded, and drops the least recently used result."""
        self.patch(reversedns, "MOST_NAMES", 2)
        self.look()
        for last in (8, 9):
            self.successResultOf(self.names.nameOf(HOST))
            named = self.pointed(f"192.0.2.{last}", reverse=b"%d.2.0.192.in-addr.arpa" % last)
            self.confirm(HOST)
            self.successResultOf(named)
        self.assertAsksAgain(False)
        self.assertAsksAgain(False, "192.0.2.9")
        before = len(self.reactor.sent)
        self.names.nameOf("192.0.2.8")
        self.assertGreater(len(self.reactor.sent), before)


class SharingTests(ReverseDNSTestCase):
    """Shared lookups, and the limit of lookups."""

    def test_shared(self) -> None:
        """All logins from one address share a lookup."""
        named = [self.names.nameOf(HOST) for _ in range(3)]
        self.assertEqual(len(self.reactor.sent), 1)
        self.reactor.answer(REVERSE, POINTER)
        self.confirm(HOST)
        for each in named:
            self.assertNamed(each, "client.example")

    def test_left(self) -> None:
        """
        If one login is cancelled, the others get the result. If all are cancelled, the lookup goes on for the next one.
        """
        first, second = self.names.nameOf(HOST), self.names.nameOf(HOST)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertNoResult(second)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.reactor.answer(REVERSE, POINTER)
        self.confirm(HOST)
        self.assertNamed(self.names.nameOf(HOST), "client.example")

    def test_bound(self) -> None:
        """Beyond the limit no lookup is begun, but lookups in progress can be shared."""
        first = [self.names.nameOf(f"192.0.2.{number}") for number in range(MOST_LOOKUPS)]
        self.assertEqual(self.successResultOf(self.names.nameOf("198.51.100.1")), TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.logged(), ["[warn] 198.51.100.1 was not resolved: too many lookups are in progress"])
        self.assertNoResult(self.names.nameOf(HOST))
        self.reactor.answer(REVERSE, code=dns.ENAME)
        self.assertNamedOne(first[7])
        self.assertNoResult(self.names.nameOf("198.51.100.1"))

    def assertNamedOne(self, named: Deferred[str]) -> None:
        self.assertEqual(self.successResultOf(named), UNAVAILABLE)

    def test_close(self) -> None:
        """close cancels all lookups, closes all sockets and timers, and logs no error."""
        named = [self.names.nameOf(HOST), self.pointed("192.0.2.8", reverse=b"8.2.0.192.in-addr.arpa")]
        closed = self.names.close()
        self.assertNoResult(closed)
        for each in named:
            self.assertNamed(each, TEMPORARILY_UNAVAILABLE)
        self.successResultOf(closed)
        self.assertEqual(self.logged(), [])
