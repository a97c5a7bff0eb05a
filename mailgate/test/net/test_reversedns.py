"""What a client is called."""

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
    """Lookups on a reactor without a network, at two name servers."""

    def setUp(self) -> None:
        self.reactor = DatagramReactor()
        self.events: list[dict[str, Any]] = []
        self.begin()

    def begin(self, timeout: float = 30, **settings: Any) -> None:
        """Start afresh, with these settings."""
        resolver = Resolver((("192.0.2.53", 53), ("192.0.2.54", 53)), **settings)
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.names = ReverseDNS(resolver, timeout, self.reactor, Journal(LogLevel.info, publisher))

    def logged(self) -> list[str]:
        """The log."""
        return [f"[{event['log_level'].name}] {formatEvent(event)}" for event in self.events]

    def pointed(self, host: str = HOST, name: bytes = NAME, reverse: bytes = REVERSE, **fields: Any) -> Deferred[str]:
        """The name of C{host}, whose address has been answered with C{name}."""
        named = self.names.nameOf(host)
        self.reactor.answer(reverse, dns.Record_PTR(name), **fields)
        return named

    def confirm(self, *addresses: str, name: bytes = NAME, **fields: Any) -> None:
        """Answer the questions for the addresses of C{name}."""
        for record, type in ((dns.Record_A, dns.A), (dns.Record_AAAA, dns.AAAA)):
            found = [record(address) for address in addresses if (":" in address) is (type == dns.AAAA)]
            self.reactor.answer(name, *found, type=type, **fields)

    def assertNamed(self, named: Deferred[str], expected: str) -> None:
        self.assertEqual(self.successResultOf(named), expected)
        self.assertEqual(self.reactor.open, [])
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class ConfirmationTests(ReverseDNSTestCase):
    """Outcomes by nginx's rules."""

    def test_name(self) -> None:
        """A name that leads back is the client's."""
        named = self.pointed()
        self.assertNoResult(named)
        self.confirm(HOST)
        self.assertNamed(named, "client.example")
        self.assertEqual(self.logged(), [])

    def test_questions(self) -> None:
        """The address is asked about, then the addresses of its name of both families; the servers take turns."""
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
        """It may have other addresses too."""
        named = self.pointed()
        self.confirm("192.0.2.8", HOST, "2001:db8::1")
        self.assertNamed(named, "client.example")

    def test_ipv6(self) -> None:
        """A client of IPv6 has its name by its nibbles."""
        nibbles = b".".join(b"%c" % digit for digit in b"20010db8000000000000000000000007"[::-1]) + b".ip6.arpa"
        named = self.pointed("2001:db8::7", reverse=nibbles)
        self.confirm("2001:db8:0::7")
        self.assertNamed(named, "client.example")

    def test_scope(self) -> None:
        """A scope is of no interest to name servers."""
        self.names.nameOf("fe80::1%lo")
        self.assertTrue(self.reactor.sent[0][2].startswith("1.0.0.0.0."))
        self.assertTrue(self.reactor.sent[0][2].endswith(".0.8.e.f.ip6.arpa"))

    def test_mapped(self) -> None:
        """An IPv4 address that is mapped into IPv6 is looked up as IPv4."""
        named = self.pointed("::ffff:192.0.2.7")
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_elsewhere(self) -> None:
        """A name that leads elsewhere is none."""
        named = self.pointed()
        self.confirm("192.0.2.8", "2001:db8::1")
        self.assertNamed(named, UNAVAILABLE)

    def test_nowhere(self) -> None:
        """Nor is one that leads nowhere."""
        named = self.pointed()
        self.confirm()
        self.assertNamed(named, UNAVAILABLE)
        self.assertEqual(self.logged(), ['[info] "client.example" could not be resolved (3: Host not found)'])

    def test_unixSocket(self) -> None:
        """A client of a unix socket has no address to look up."""
        self.assertNamed(self.names.nameOf("unix:"), TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.reactor.ports, [])

    def test_case(self) -> None:
        """A name is in lower-case letters, as nginx tells it, and has no dot at its end."""
        named = self.pointed(name=b"Client.EXAMPLE.")
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_firstPointer(self) -> None:
        """Of several names the first is the one that counts."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, POINTER, dns.Record_PTR(b"other.example"))
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_aliasAndPointer(self) -> None:
        """A name may come behind an alias (RFC 2317)."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, dns.Record_CNAME(b"7.0-7.2.0.192.in-addr.arpa"), POINTER, type=dns.PTR)
        self.confirm(HOST)
        self.assertNamed(named, "client.example")

    def test_ipv6Off(self) -> None:
        """With ipv6=off no IPv6 address is looked for."""
        self.begin(ipv6=False)
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_A(HOST))
        self.assertNamed(named, "client.example")

    def test_ipv4Off(self) -> None:
        """With ipv4=off no IPv4 address is, and who has one has no name."""
        self.begin(ipv4=False)
        named = self.pointed()
        self.assertEqual([type for _, type, _ in self.reactor.sent], [dns.PTR, dns.AAAA])
        self.reactor.answer(NAME, dns.Record_AAAA("2001:db8::1"))
        self.assertNamed(named, UNAVAILABLE)


class AliasTests(ReverseDNSTestCase):
    """Names that are aliases (CNAME)."""

    def test_together(self) -> None:
        """Addresses may come in one answer with the alias."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), dns.Record_A(HOST), type=dns.A)
        self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=dns.AAAA)
        self.assertNamed(named, "client.example")

    def test_followed(self) -> None:
        """If they do not the alias is followed; the name stays that of the address."""
        named = self.pointed()
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.confirm(HOST, name=b"real.example")
        self.assertNamed(named, "client.example")

    def test_circle(self) -> None:
        """Nobody is led in a circle for long."""
        named = self.pointed()
        for _ in range(20):
            for type in (dns.A, dns.AAAA):
                self.reactor.answer(NAME, dns.Record_CNAME(NAME), type=type)
        self.assertNamed(named, UNAVAILABLE)
        self.assertLess(len(self.reactor.sent), 20)

    def test_time(self) -> None:
        """All aliases together have the time of one lookup."""
        named = self.pointed()
        self.reactor.advance(20)
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.reactor.advance(9)
        self.assertNoResult(named)
        self.reactor.advance(1)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)

    def test_lateTimer(self) -> None:
        """Even if the timer is late, and an answer comes before it."""
        named = self.pointed()
        self.reactor.rightNow += 31
        for type in (dns.A, dns.AAAA):
            self.reactor.answer(NAME, dns.Record_CNAME(b"real.example"), type=type)
        self.reactor.advance(0)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertIn("(110: Operation timed out)", self.logged()[0])


class TroubleTests(ReverseDNSTestCase):
    """What is no name, and what cannot be found out."""

    def test_noAddress(self) -> None:
        """An address that does not exist in the DNS has no name."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, code=dns.ENAME)
        self.assertNamed(named, UNAVAILABLE)
        self.assertEqual(self.logged(), ["[info] 192.0.2.7 could not be resolved (3: Host not found)"])

    def test_nothing(self) -> None:
        """Nor has one without a PTR."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE)
        self.assertNamed(named, UNAVAILABLE)

    def test_codes(self) -> None:
        """Every other code of a name server is a temporary trouble, and no error of ours, in nginx's words."""
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
        """So it is of the name's addresses, of one family too."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_A(HOST))
        self.reactor.answer(NAME, type=dns.AAAA, code=dns.ESERVER)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.logged(), ['[info] "client.example" could not be resolved (2: Server failure)'])

    def test_forwardNotFound(self) -> None:
        """If one family says that there is no such name there is none, whatever the other says."""
        for first, second in ((dns.A, dns.AAAA), (dns.AAAA, dns.A)):
            for other in (dns.OK, dns.ESERVER):
                named = self.pointed()
                self.reactor.answer(NAME, type=first, code=dns.ENAME)
                self.reactor.answer(NAME, type=second, code=other)
                self.assertNamed(named, UNAVAILABLE)

    def test_timeout(self) -> None:
        """Without an answer it is given up after resolver_timeout."""
        self.begin(timeout=12)
        named = self.names.nameOf(HOST)
        self.reactor.pump([5, 5, 1])
        self.assertNoResult(named)
        self.reactor.advance(1)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)
        self.assertEqual(self.logged()[0], "[info] 192.0.2.7 could not be resolved (110: Operation timed out)")

    def test_silent(self) -> None:
        """
        Where nobody has been looked up for resolver_timeout it seems to lie with our own name servers: that is an
        error, once until they answer again.
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
        """While others are looked up it lies with the name servers of the client."""
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
        """The name has that time for itself."""
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
        """An alias alone is passed over, and with it records that nobody has asked for."""
        named = self.names.nameOf(HOST)
        self.reactor.answer(REVERSE, dns.Record_CNAME(b"other.example"), dns.Record_TXT(b"hm"), type=dns.PTR)
        self.assertNoResult(named)
        self.reactor.advance(30)
        self.assertNamed(named, TEMPORARILY_UNAVAILABLE)

    def test_uselessAddresses(self) -> None:
        """Records that are no addresses, or not of the Internet, are none."""
        named = self.pointed()
        self.reactor.answer(NAME, dns.Record_TXT(b"hm"), type=dns.A)
        chaos = [dns.RRHeader(NAME, dns.AAAA, dns.CH, 60, dns.Record_AAAA("::ffff:192.0.2.7"))]
        self.reactor.answer(NAME, type=dns.AAAA, answers=chaos)
        self.assertNamed(named, UNAVAILABLE)

    def test_invalidName(self) -> None:
        """A name may hold letters, digits, hyphens and dots; one that holds anything else is looked up no further."""
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
        """In the log it is escaped."""
        self.pointed(name=b'a"b\r\n[emerg].example')
        self.assertEqual(self.logged(), ['[info] 192.0.2.7 resolved to invalid host name "a\\"b\\r\\n[emerg].example"'])

    def test_longName(self) -> None:
        """A name that is too long for the DNS is no name, and does not fill the log."""
        self.assertNamed(self.pointed(name=b".".join([b"a" * 60] * 9)), TEMPORARILY_UNAVAILABLE)
        self.assertLess(len(self.logged()[0]), 400)

    def test_unaskable(self) -> None:
        """A name with a label that is empty, or too long, cannot be asked about; as with nginx it is not found."""
        self.assertNamed(self.pointed(name=b"a..example"), UNAVAILABLE)
        self.assertNamed(self.pointed(name=b"a" * 64 + b".example"), UNAVAILABLE)

    def test_noSocket(self) -> None:
        """If there is no socket to ask from that is an error of ours, and no reason to keep the client waiting."""
        self.reactor.taken = [OSError(errno.EMFILE, "Too many open files")]
        self.assertNamed(self.names.nameOf(HOST), TEMPORARILY_UNAVAILABLE)
        self.assertIn("[error] cannot open a socket to resolve 192.0.2.7: ", self.logged()[0])

    def test_defect(self) -> None:
        """A defect is logged, and costs nobody the connection."""
        self.names._servers = None  # type: ignore[assignment]
        self.assertNamed(self.names.nameOf(HOST), TEMPORARILY_UNAVAILABLE)
        self.assertIn("log_failure", self.events[-1])


class CacheTests(ReverseDNSTestCase):
    """Outcomes that are given again."""

    def look(self, host: str = HOST, confirmed: str = HOST, pointerTTL: int = 60, ttl: int = 60) -> None:
        """Have C{host} looked up."""
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
        """A name is good for as long as the name server says of the address, and of the name."""
        for ttls in ((60, 90), (90, 60)):
            self.begin()
            self.look(pointerTTL=ttls[0], ttl=ttls[1])
            self.reactor.advance(59)
            self.assertAsksAgain(False)
            self.reactor.advance(1)
            self.assertAsksAgain(True)

    def test_given(self) -> None:
        """What is given again is the same."""
        self.look()
        self.assertNamed(self.names.nameOf(HOST), "client.example")
        self.assertNamed(self.names.nameOf("::ffff:192.0.2.7"), "client.example")

    def test_unconfirmed(self) -> None:
        """That a name leads elsewhere is kept too."""
        self.look(confirmed="192.0.2.8")
        self.assertNamed(self.names.nameOf(HOST), UNAVAILABLE)

    def test_zero(self) -> None:
        """A TTL of nothing, or one that is negative (RFC 2181), means that it is not kept."""
        for ttl in (0, 2**31):
            self.begin()
            self.look(ttl=ttl)
            self.assertAsksAgain(True)

    def test_valid(self) -> None:
        """With valid= it is that time, whatever the name server says."""
        self.begin(valid=100)
        self.look(ttl=0)
        self.reactor.advance(99)
        self.assertAsksAgain(False)
        self.reactor.advance(1)
        self.assertAsksAgain(True)

    def test_notFound(self) -> None:
        """As with nginx, that there is no name is not kept, nor is a trouble."""
        self.begin(valid=100)
        for code in (dns.ENAME, dns.ESERVER):
            named = self.names.nameOf(HOST)
            self.reactor.answer(REVERSE, code=code)
            self.successResultOf(named)
            self.assertAsksAgain(True)

    def test_clockSetBack(self) -> None:
        """A clock that is set back makes nothing live longer."""
        self.look()
        self.reactor.rightNow -= 10
        self.assertAsksAgain(True)

    def test_bound(self) -> None:
        """There are not more than so many; the one that was used least recently goes first."""
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
    """Lookups that several wait for, and how many there may be."""

    def test_shared(self) -> None:
        """All who wait for the name of one address share one lookup."""
        named = [self.names.nameOf(HOST) for _ in range(3)]
        self.assertEqual(len(self.reactor.sent), 1)
        self.reactor.answer(REVERSE, POINTER)
        self.confirm(HOST)
        for each in named:
            self.assertNamed(each, "client.example")

    def test_left(self) -> None:
        """Who leaves takes it from nobody; if all have left it goes on, for the next."""
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
        """Beyond so many lookups nobody is looked up, but who is being looked up already may be waited for."""
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
        """close gives up all lookups, and leaves neither socket nor timer; nothing of it is an error."""
        named = [self.names.nameOf(HOST), self.pointed("192.0.2.8", reverse=b"8.2.0.192.in-addr.arpa")]
        closed = self.names.close()
        self.assertNoResult(closed)
        for each in named:
            self.assertNamed(each, TEMPORARILY_UNAVAILABLE)
        self.successResultOf(closed)
        self.assertEqual(self.logged(), [])
