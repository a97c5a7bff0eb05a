"""
Further tries before the client hears anything: the first of three servers fails in each way that servers fail in, and a
client of each protocol logs in without an error, or does not where a second try would do harm.
"""

from __future__ import annotations

import socket
import struct
import threading
import time

from mailgate.test.integration import clients
from mailgate.test.integration.authservice import Answer, AuthService
from mailgate.test.integration.daemon import shared, slowness, waitUntil
from mailgate.test.integration.faultysite import CONNECT, LOGIN, PROTOCOLS, RETRY, TEMPORARY, WELCOME, FaultySite
from mailgate.test.integration.groupsite import FOR_LONG
from mailgate.test.integration.loggedcase import LoggedTestCase

REFUSED = {"imap": "NO [AUTHENTICATIONFAILED]", "pop3": "-ERR [AUTH]", "smtp": "535 5.7.8", "sieve": "NO "}
LIMITED = {"imap": "NO [LIMIT]", "pop3": "-ERR [IN-USE]", "smtp": "550 5.7.0", "sieve": "NO (LIMIT/CONNECTIONS)"}

SLACK = 3.0
"""Seconds that a busy machine may add to a configured time."""

TRIPLE = [f"A {FOR_LONG}", f"B {FOR_LONG}", f"C {FOR_LONG}"]

COUNTED = ("down", "closes", "hangs", "trickles", "garbage", "chatters", "barred", "drops")
"""Faults after which the next server is tried, and which count for max_fails."""

UNCOUNTED = ("full", "busy")
"""Faults after which the next server is tried, and which do not count: the server works."""


def _site():
    site = FaultySite()
    for protocol in PROTOCOLS:
        for fault in (*COUNTED, *UNCOUNTED, "refuses", "limited", "twice", "all"):
            site.group(f"{protocol}-{fault}", TRIPLE, protocol=protocol)
        site.group(f"{protocol}-stalls", TRIPLE, "proxy_login_timeout = 1s", protocol)
        site.group(f"{protocol}-off", TRIPLE, "proxy_next_upstream = off", protocol)
        site.group(f"{protocol}-tries", TRIPLE, "proxy_next_upstream_tries = 2", protocol)
        site.group(f"{protocol}-clear", TRIPLE, "proxy_ssl = starttls", protocol)
        site.group(f"{protocol}-foreign", ["stranger", "B", "C"], "proxy_ssl = starttls", protocol)
        site.lone(f"{protocol}-lone", protocol=protocol)
        site.lone(f"{protocol}-once", "proxy_next_upstream = off", protocol)
        site.lone(f"{protocol}-left", protocol=protocol)
    site.group("deadline", TRIPLE, "proxy_login_timeout = 2s")
    site.group("timeout", TRIPLE, "proxy_next_upstream_timeout = 500ms")
    site.group("single", ["A"])
    site.auth = AuthService({})
    site.auth.start()
    for protocol in PROTOCOLS:
        for name in "ABC":
            site.backend(f"{protocol}-named", name, protocol)
        auth = f"auth_http = {site.auth.url}"
        if protocol == "smtp":
            for name in "ABC":
                site.backend("smtp-none", name, protocol)
            site.server("smtp-none", f"{auth}\nsmtp_auth = none\nxclient = off", protocol)
        site.server(f"{protocol}-named", f"{auth}\nproxy_smtp_auth = on" if protocol == "smtp" else auth, protocol)
    return site


def naming(first, *others):
    """The answer of an authentication service that names several servers."""
    headers = {"Auth-Status": "OK", "Auth-Server": "127.0.0.1", "Auth-Port": str(first.port)}
    return Answer({**headers, "Auth-Server-Next": ", ".join(f"127.0.0.1:{other.port}" for other in others)})


class RetryTestCase(LoggedTestCase):
    """One gateway for all tests of a process; each test has servers of its own."""

    def setUp(self):
        self.watch(shared("retry", lambda: _site().start()))

    def timed(self, group, user="alice"):
        """The answer to a login, and its seconds."""
        began = time.monotonic()
        return self.site.login(group, user), time.monotonic() - began

    def delayed(self, group):
        """The first server of C{group} recovers while a client waits; returns the answer and its seconds."""
        client = self.site.client(group)
        self.addCleanup(client.close)
        # Not before the client is there: on a busy machine that may take longer.
        threading.Timer(RETRY / 2, self.site.backends[group, "A"].recover).start()
        began = time.monotonic()
        return client.login("alice", "wonderland").decode().strip(), time.monotonic() - began

    def logins(self, group):
        """How often each server of C{group} got credentials."""
        return {name: backend.logins for (owner, name), backend in self.site.backends.items() if owner == group}


class Attempts:
    """What the tests of one protocol do."""

    protocol = ""

    def group(self, name):
        """The name of this protocol's group."""
        return f"{self.protocol}-{name}"

    def backend(self, group, name="A"):
        """A server of a group."""
        return self.site.backends[self.group(group), name]

    def assertServed(self, group, user="alice"):
        """A client of the standard library logs in without an error."""
        with getattr(clients, self.protocol)(self.site.at(self.group(group)), user, "wonderland") as client:
            client.noop()

    def assertAnswered(self, words, group):
        """A login is answered so; returns its seconds."""
        answer, seconds = self.timed(self.group(group))
        self.assertEqual(answer[: len(words[self.protocol])], words[self.protocol], answer)
        return seconds

    def spoil(self, fault, group=""):
        """The first of three servers fails so; a client is served all the same."""
        backend = self.backend(group or fault)
        if fault == "down":
            backend.refuse()
        else:
            backend.fail(fault)
        self.assertServed(group or fault)
        self.assertEqual(len(self.failures()), 1, self.failures())
        self.assertIn(f"127.0.0.1:{backend.port}", self.failures()[0])

    def counted(self, fault):
        """The first login that tries it is the last one."""
        self.spoil(fault)
        for _ in range(4):
            self.assertAnswered(WELCOME, fault)
        self.assertEqual(len(self.failures()), 1, self.failures())
        self.assertIn("[warn]", self.failures()[0])

    def uncounted(self, fault):
        """The next logins in its turn try it as well."""
        self.spoil(fault)
        for _ in range(4):
            self.assertAnswered(WELCOME, fault)
        self.assertEqual(len(self.failures()), 2, self.failures())
        self.assertNotIn("is not used for", self.log())

    def restarted(self, group):
        """A lone server is restarted while a client waits; returns the answer and its seconds."""
        self.backend(group).refuse()
        return self.delayed(self.group(group))


class Retries(Attempts):
    """The tests for one protocol."""

    def test_down(self):
        """It refuses connections."""
        self.counted("down")

    def test_closes(self):
        """It closes connections before its greeting."""
        self.counted("closes")

    def test_hangs(self):
        """It accepts and says nothing."""
        began = time.monotonic()
        self.counted("hangs")
        self.assertGreaterEqual(time.monotonic() - began, CONNECT)
        self.assertIn(f"timed out after {CONNECT:g} s", self.failures()[0])

    def test_trickles(self):
        """It greets byte by byte, so slowly that the greeting takes longer than proxy_connect_timeout."""
        greeting = {"imap": "* OK", "pop3": "+OK", "smtp": "220"}[self.protocol]
        backend = self.backend("trickles")
        backend.usually({"GREETING": f"{greeting} {'slowly ' * 30}"})
        self.counted("trickles")
        self.assertEqual(backend.logins, 0)

    def test_garbage(self):
        """It speaks another protocol, and gets no credentials."""
        self.counted("garbage")
        self.assertEqual(self.backend("garbage").logins, 0)

    def test_chatters(self):
        """Its greeting has no end."""
        self.counted("chatters")

    def test_barred(self):
        """It greets with PREAUTH, or with 554."""
        self.counted("barred")
        self.assertEqual(self.backend("barred").logins, 0)

    def test_full(self):
        """It greets with BYE, -ERR or 421: it has clients enough, and works."""
        self.uncounted("full")
        self.assertEqual(self.backend("full").logins, 0)

    def test_busy(self):
        """It refuses the login temporarily, with the code for that."""
        self.uncounted("busy")

    def test_drops(self):
        """It closes the connection behind the credentials: once the next one is tried."""
        self.counted("drops")
        self.assertEqual(self.logins(self.group("drops"))["A"], 1)

    def test_dropsTwice(self):
        """If the next one does so too, the third is not tried: the login itself may be what they fail at."""
        for name in "AB":
            self.backend("twice", name).fail("drops")
        self.assertAnswered(TEMPORARY, "twice")
        self.assertEqual(self.logins(self.group("twice")), {"A": 1, "B": 1, "C": 0})

    def test_stalls(self):
        """It is silent behind the credentials: they are sent to no other, but other logins pass it over."""
        self.backend("stalls").fail("stalls")
        self.assertLess(self.assertAnswered(TEMPORARY, "stalls"), 1 + SLACK * slowness())
        self.assertEqual(self.logins(self.group("stalls")), {"A": 1, "B": 0, "C": 0})
        for _ in range(4):
            self.assertAnswered(WELCOME, "stalls")
        self.assertEqual(self.logins(self.group("stalls"))["A"], 1)
        self.assertEqual(len(self.failures()), 1)

    def test_refuses(self):
        """It refuses the credentials: no other server gets them."""
        self.backend("refuses").fail("refuses")
        self.assertAnswered(REFUSED, "refuses")
        self.assertEqual(self.logins(self.group("refuses")), {"A": 1, "B": 0, "C": 0})
        self.assertNotIn("is not used for", self.log())

    def test_limited(self):
        """The account has too many sessions, or is locked: the code is passed on, and no other server is tried."""
        self.backend("limited").fail("limited")
        self.assertAnswered(LIMITED, "limited")
        self.assertEqual(self.logins(self.group("limited")), {"A": 1, "B": 0, "C": 0})

    def test_clear(self):
        """It refuses STARTTLS: it gets no credentials, the next one does."""
        self.spoil("clear")
        self.assertEqual(self.backend("clear").logins, 0)
        self.assertNotIn("is not used for", self.log())

    def test_foreign(self):
        """Its certificate is not trusted: the same."""
        self.assertServed("foreign")
        (line,) = self.failures()
        self.assertIn("certificate", line)
        self.assertEqual(self.backend("foreign", "stranger").logins, 0)
        self.assertNotIn("is not used for", self.log())

    def test_all(self):
        """All three are down: a temporary failure, at once."""
        for name in "ABC":
            self.backend("all", name).refuse()
        self.assertLess(self.assertAnswered(TEMPORARY, "all"), SLACK * slowness())
        self.assertEqual(len(self.failures()), 3)
        self.assertIn("[error]", self.failures()[0])

    def test_tries(self):
        """C{proxy_next_upstream_tries = 2}: behind two that are down the third is not tried."""
        for name in "AB":
            self.backend("tries", name).refuse()
        self.assertAnswered(TEMPORARY, "tries")
        self.assertEqual(len(self.failures()), 2)
        self.assertAnswered(WELCOME, "tries")

    def test_off(self):
        """C{proxy_next_upstream = off}: no second server for this login; the next one goes elsewhere."""
        self.backend("off").refuse()
        self.assertLess(self.assertAnswered(TEMPORARY, "off"), SLACK * slowness())
        self.assertEqual(self.logins(self.group("off")), {"A": 0, "B": 0, "C": 0})
        self.assertAnswered(WELCOME, "off")
        self.assertEqual(len(self.failures()), 1)

    def test_lone(self):
        """The only server is down, and comes back within a second: the client does not notice."""
        answer, seconds = self.restarted("lone")
        self.assertEqual(answer[: len(WELCOME[self.protocol])], WELCOME[self.protocol], answer)
        self.assertGreaterEqual(seconds, RETRY - 0.1)

    def test_loneOff(self):
        """With C{proxy_next_upstream = off} the only server is tried once, as nginx does."""
        answer, _ = self.restarted("once")
        # A second try would have succeeded.
        self.assertEqual(answer[: len(TEMPORARY[self.protocol])], TEMPORARY[self.protocol], answer)
        waitUntil(lambda: self.site.login(self.group("once")).startswith(WELCOME[self.protocol]), "it is back")

    def test_left(self):
        """The client leaves before the second try of the only server: there is none, and nothing is left open."""
        backend, other = self.backend("left"), self.backend("lone")
        # A gateway whose ports accept connections may still be starting: it has not opened all that stays open.
        self.assertAnswered(WELCOME, "lone")
        backend.fail("closes")
        before = len(self.site.gateway.descriptors())
        client = self.site.client(self.group("left"))
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        thread = threading.Thread(target=client.login, args=("alice", "wonderland"))
        thread.start()
        self.addCleanup(thread.join)
        waitUntil(lambda: len(backend.heard) == 1, "it has been tried once")
        # A reset: an end alone may be that of a client that still waits for the answer.
        client.socket.shutdown(socket.SHUT_RD)
        thread.join()
        client.close()
        waitUntil(lambda: "client left" in self.log(), "the gateway has noticed", RETRY)
        # The second try of this login would come before that of a login that begins later.
        other.fail("closes")
        tried = len(other.heard)
        later = threading.Thread(target=self.site.login, args=(self.group("lone"),))
        later.start()
        self.addCleanup(later.join)
        waitUntil(lambda: len(other.heard) == tried + 1, "the later login has been tried once")
        other.recover()
        later.join()
        self.assertEqual(len(other.heard), tried + 2)
        self.assertEqual(len(backend.heard), 1)
        waitUntil(lambda: len(self.site.gateway.descriptors()) <= before, "nothing is left open")

    def test_named(self):
        """The authentication service names three servers, the first of which is down."""
        first, second, _ = servers = [self.backend("named", name) for name in "ABC"]
        self.site.auth.manners[self.protocol] = lambda service, question: naming(*servers)
        first.refuse()
        self.assertServed("named", self.protocol)
        self.assertEqual(self.logins(self.group("named")), {"A": 0, "B": 1, "C": 0})
        second.fail("drops")
        self.assertServed("named", self.protocol)
        self.assertEqual(self.logins(self.group("named")), {"A": 0, "B": 2, "C": 1})


class IMAPRetryTests(Retries, RetryTestCase):
    """By IMAP."""

    protocol = "imap"

    def test_deadline(self):
        """C{proxy_login_timeout} bounds all tries together."""
        for name in "ABC":
            self.site.backends["deadline", name].fail("hangs")
        answer, seconds = self.timed("deadline")
        self.assertTrue(answer.startswith(TEMPORARY["imap"]), answer)
        self.assertLess(seconds, 3 * CONNECT)

    def test_timeout(self):
        """C{proxy_next_upstream_timeout}: after so long no other try begins; the one that runs goes on."""
        self.site.backends["timeout", "A"].fail("hangs")
        answer, seconds = self.timed("timeout")
        self.assertTrue(answer.startswith(TEMPORARY["imap"]), answer)
        self.assertGreaterEqual(seconds, CONNECT - 0.1)
        self.assertEqual(self.logins("timeout"), {"A": 0, "B": 0, "C": 0})

    def test_single(self):
        """The only server of a group is tried again as a server of no group is."""
        backend = self.site.backends["single", "A"]
        backend.fail("closes")
        answer, seconds = self.delayed("single")
        self.assertTrue(answer.startswith("OK"), answer)
        self.assertLess(seconds, LOGIN)


class POP3RetryTests(Retries, RetryTestCase):
    """By POP3."""

    protocol = "pop3"


class SMTPRetryTests(Retries, RetryTestCase):
    """By SMTP."""

    protocol = "smtp"

    def deliver(self):
        """The last line of the answer to a recipient, without a login."""
        client = self.site.client("smtp-none")
        self.addCleanup(client.close)
        client.send(b"MAIL FROM:<white@rabbit.example>\r\n")
        self.assertTrue(client.reply().startswith(b"250"))
        client.send(b"RCPT TO:<alice@example.com>\r\n")
        return client.reply().decode()

    def recipients(self):
        """How often each server was asked for a recipient."""
        return [sum(b"RCPT TO" in heard for heard in self.backend("none", name).heard) for name in "ABC"]

    def test_withoutLogin(self):
        """With C{smtp_auth = none} a server that is down or full is passed over; a refusal of the recipient is not."""
        first, second, _ = servers = [self.backend("none", name) for name in "ABC"]
        self.site.auth.manners[""] = lambda service, question: naming(*servers)
        first.refuse()
        second.fail("full")
        self.assertEqual(self.deliver()[:3], "250")
        self.assertEqual(self.recipients(), [0, 0, 1])
        second.usually({"RCPT": "550 5.1.1 no such user"})
        second.recover()
        self.assertEqual(self.deliver()[:3], "550")
        self.assertEqual(self.recipients(), [0, 1, 1])


def _sieveSite():
    site = FaultySite()
    for fault in ("closes", "garbage", "chatters", "full", "busy", "drops", "refuses", "limited"):
        site.group(f"sieve-{fault}", TRIPLE, protocol="sieve")
    site.group("sieve-stalls", TRIPLE, "proxy_login_timeout = 1s", "sieve")
    site.group("sieve-clear", TRIPLE, "proxy_ssl = starttls", "sieve")
    return site


class SieveRetryTests(Attempts, RetryTestCase):
    """
    By ManageSieve: what it has words of its own for. The other tests are about tries, which all protocols share.
    """

    protocol = "sieve"

    def setUp(self):
        self.watch(shared("retry-sieve", lambda: _sieveSite().start()))

    test_closes = Retries.test_closes
    test_garbage = Retries.test_garbage
    test_chatters = Retries.test_chatters
    test_full = Retries.test_full
    test_busy = Retries.test_busy
    test_drops = Retries.test_drops
    test_stalls = Retries.test_stalls
    test_refuses = Retries.test_refuses
    test_limited = Retries.test_limited
    test_clear = Retries.test_clear
