# -*- test-case-name: mailgate.test.integration.test_trouble -*-
"""
Failures behind the gateway: its client gets the right reply of its protocol, in time, and may try again on the same
connection.
"""

from __future__ import annotations

import base64
import time

from mailgate.test.integration.authservice import Answer, accept, hang, hangUp, refuse
from mailgate.test.integration.daemon import freePort, slowness, waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.fakebackend import DROPS_AT_LOGIN, DROPS_AT_ONCE, GARBLED, SILENT, FakeBackend
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.transports import IDLE_SLACK

OUTAGE = " is down: it "
"""Is in the line about the begin of an outage, which no phase of a login has."""

SLACK = 1.5
"""Seconds that a busy machine may add to a configured time."""


class TroubleTestCase(GatewayTestCase):
    """A gateway with short times."""

    def configuration(self, site):
        """The times have the names of the tests."""
        common = site.mail(f"auth_http = {site.auth.url}\nauth_http_timeout = 1500ms\ntimeout = 2s\nproxy_timeout = 2s")
        quick = site.server("imap") + site.server("pop3") + site.server("smtp", "proxy_smtp_auth = on")
        open_ = "".join(
            site.server(protocol, f"proxy_pass_error_message = on{auth}", name=f"{protocol}-open")
            for protocol, auth in (("imap", ""), ("pop3", ""), ("smtp", "\nproxy_smtp_auth = on"))
        )
        return common + quick + open_

    def startSite(self):
        """The Postfix that requires a login."""
        site = super().startSite()
        if "smtp" in self.backends.protocols:
            site.auth.backends["smtp"] = self.backends.services["sasl"]
        return site


class Troubles:
    """Failures. The tests run once for each protocol."""

    protocol = ""
    temporary = b""
    accepted = b""
    refused = b""
    invalid = b""
    farewell = b""

    def goodbye(self, reason):
        """The goodbye after the last reply, if the protocol has one."""
        start = {"imap": "* BYE ", "smtp": "421 4.7.0 "}.get(self.protocol)
        return f"{start}{reason}, closing connection\r\n".encode() if start else b""

    def setUp(self):
        super().setUp()
        self.auth = self.site.auth

    def connect(self, name="", tls="plain"):
        """A client of the gateway."""
        client = RawClient(self.at(name or self.protocol, tls))
        self.addCleanup(client.close)
        return client

    def timed(self, client, password=PASSWORD):
        """The reply to a login, and its time in seconds."""
        begun = time.monotonic()
        return client.login(self.user, password), time.monotonic() - begun

    def expectTemporary(self, client, phase, least=0.0, most=0.0, logged=""):
        """
        A login now fails temporarily, within the given seconds. The log has an error with C{phase} and C{logged}. If it
        has another one that an outage begins, that has C{logged} as well.
        """
        answer, seconds = self.timed(client)
        self.assertTrue(answer.startswith(self.temporary), answer)
        self.assertGreaterEqual(seconds, least - 0.05)
        self.assertLess(seconds, most + SLACK * slowness())
        waitUntil(lambda: [error for error in self.errors() if OUTAGE not in error], "an error is logged")
        for error in self.errors():
            self.assertIn(logged, error)
            if OUTAGE not in error:
                self.assertIn(phase, error)

    def errors(self):
        """The errors logged."""
        return [line for line in self.log().splitlines() if "[error]" in line]

    def expectAccepted(self, *clients):
        """Each of them can log in, and so can a new client, and talk to the backend."""
        for client in (*clients, self.connect()):
            answer, _ = self.timed(client)
            self.assertTrue(answer.startswith(self.accepted), answer)
            self.assertTrue(client.noop().startswith((b"OK ", b"+OK", b"250")))
            client.close()

    def treat(self, manner):
        """Set the manner of the authentication service for the user in this test."""
        self.auth.manners[self.user] = manner
        self.addCleanup(self.auth.manners.pop, self.user, None)

    def recover(self):
        """Treat the user as any other."""
        del self.auth.manners[self.user]

    def backend(self, says):
        """Send the user to a fake backend."""
        fake = FakeBackend(says)
        self.addCleanup(fake.stop)
        self.sendTo(fake.port)
        return fake

    def sendTo(self, port):
        """Send the user to another backend."""
        headers = {"Auth-Status": "OK", "Auth-Server": "127.0.0.1", "Auth-Port": str(port)}
        self.treat(lambda service, question: Answer(headers))

    def test_wrongPassword(self):
        """The service's own words, after the second that it requested; then another attempt."""
        for tls in ("plain", "starttls", "implicit"):
            client = self.connect(tls=tls)
            answer, seconds = self.timed(client, "looking-glass")
            self.assertEqual(answer, self.refused)
            self.assertGreaterEqual(seconds, 0.95)
            self.expectAccepted(client)
        self.assertNotIn("looking-glass", self.log())
        self.assertEqual(self.errors(), [])

    def test_attempts(self):
        """The service gets the number of the attempt."""
        client = self.connect()
        client.login(self.user, "looking-glass")
        self.expectAccepted(client)
        attempts = [question["Auth-Login-Attempt"] for question in self.auth.askedAbout(self.user)]
        self.assertEqual(attempts, ["1", "2", "1"])

    def test_refusedForGood(self):
        """A refusal without Auth-Wait ends the connection; another client is served."""
        self.treat(refuse)
        client = self.connect()
        self.assertEqual(self.timed(client)[0], self.refused)
        self.assertEqual(client.rest(), self.goodbye("Refused"))
        self.recover()
        self.expectAccepted()

    def test_wait(self):
        """WAIT causes the same request again a second later, unnoticed by the client."""
        answers = [Answer({"Auth-Status": "WAIT", "Auth-Wait": "1"})]
        self.treat(lambda service, question: answers.pop() if answers else accept(service, question))
        client = self.connect()
        answer, seconds = self.timed(client)
        self.assertTrue(answer.startswith(self.accepted), answer)
        self.assertGreaterEqual(seconds, 0.95)
        asked = self.auth.askedAbout(self.user)
        self.assertEqual(len(asked), 2)
        self.assertEqual(*asked)

    def test_deadService(self):
        """The service does not listen."""
        client = self.connect()
        self.auth.stop()
        self.addCleanup(self.ensureService)
        self.expectTemporary(client, "auth", logged=self.auth.url)
        self.auth.start()
        self.expectAccepted(client)

    def ensureService(self):
        """After each test the service runs."""
        self.auth.stop()
        self.auth.start()

    def test_hangingService(self):
        """The service does not reply: the client gets a reply after auth_http_timeout."""
        self.treat(hang)
        client = self.connect()
        self.expectTemporary(client, "auth", least=1.5, most=1.5, logged=self.auth.url)
        self.recover()
        self.expectAccepted(client)

    def test_hangingServiceHoldsNobodyUp(self):
        """While one user's request hangs, another user is served."""
        self.treat(hang)
        self.beginLogin(self.connect())
        quick = self.connect()
        begun = time.monotonic()
        self.assertTrue(quick.login("someone", PASSWORD).startswith(self.accepted))
        self.assertLess(time.monotonic() - begun, 1.3 * slowness())

    def test_serviceHangsUp(self):
        """The service closes the connection without a reply."""
        self.treat(hangUp)
        client = self.connect()
        self.expectTemporary(client, "auth", logged=self.auth.url)
        self.recover()
        self.expectAccepted(client)

    def test_serviceFails(self):
        """The service replies 500, or without Auth-Status, which does not count as accepted."""
        answers = [
            Answer({}, 500),
            Answer({"Auth-Server": "127.0.0.1", "Auth-Port": "1"}),
            Answer({"Auth-Status": "", "Auth-Server": "127.0.0.1", "Auth-Port": "1"}),
        ]
        for answer in answers:
            client = self.connect()
            self.logged = len(self.site.gateway.log())
            self.treat(lambda service, question, answer=answer: answer)
            self.expectTemporary(client, "auth", logged=self.auth.url)
            # A login that succeeds ends the outage: in a known one further failures are no errors.
            self.recover()
            self.expectAccepted(client)

    def test_deadBackend(self):
        """The backend does not listen."""
        port = freePort()
        self.sendTo(port)
        client = self.connect()
        self.expectTemporary(client, "connect", logged=f"127.0.0.1:{port}")
        self.recover()
        self.expectAccepted(client)

    def test_backendDropsAtOnce(self):
        """The backend closes the connection before its greeting."""
        fake = self.backend(DROPS_AT_ONCE)
        client = self.connect()
        self.expectTemporary(client, "backend-login", logged=f"127.0.0.1:{fake.port}")
        self.recover()
        self.expectAccepted(client)

    def test_backendDropsAtLogin(self):
        """The backend closes the connection during the login."""
        fake = self.backend(DROPS_AT_LOGIN[self.protocol])
        client = self.connect()
        self.expectTemporary(client, "backend-login", logged=f"127.0.0.1:{fake.port}")
        self.assertTrue(fake.heard)
        self.recover()
        self.expectAccepted(client)

    def test_silentBackend(self):
        """The backend does not send anything: the client gets a reply after timeout."""
        fake = self.backend(SILENT)
        client = self.connect()
        self.expectTemporary(client, "backend-login", least=2.0, most=2.0, logged=f"127.0.0.1:{fake.port}")
        self.assertEqual(fake.heard, b"")
        self.recover()
        self.expectAccepted(client)

    def test_garbledBackend(self):
        """The backend speaks another protocol, and gets no password."""
        fake = self.backend(GARBLED)
        client = self.connect()
        self.expectTemporary(client, "backend-login", logged=f"127.0.0.1:{fake.port}")
        self.assertEqual(fake.heard, b"")
        self.recover()
        self.expectAccepted(client)

    def test_backendRefuses(self):
        """A backend that refuses a login which the service accepted is a temporary failure, and an error in the log."""
        self.treat(accept)
        client = self.connect()
        answer, _ = self.timed(client, "looking-glass")
        self.assertTrue(answer.startswith(self.temporary), answer)
        waitUntil(self.errors, "an error is logged")
        self.assertIn("backend-login", self.errors()[0])
        self.assertNotIn("looking-glass", self.log())
        self.expectAccepted(client)

    def test_backendRefusesOpenly(self):
        """With proxy_pass_error_message on the reply has the backend's own words, and the connection ends."""
        self.treat(accept)
        client = self.connect(f"{self.protocol}-open")
        answer, _ = self.timed(client, "looking-glass")
        self.assertRegex(answer, rb"(?i)authentication fail")
        self.assertFalse(answer.startswith(self.temporary))
        self.assertEqual(client.rest(), self.goodbye("Refused"))
        self.recover()
        self.expectAccepted()

    def test_silentClient(self):
        """A silent client gets a message after timeout, and the connection ends."""
        client = self.connect()
        begun = time.monotonic()
        farewell = client.rest()
        self.assertGreaterEqual(time.monotonic() - begun, 1.9)
        self.assertLess(time.monotonic() - begun, 2.0 + SLACK * slowness())
        self.assertTrue(farewell.startswith(self.farewell), farewell)

    def test_idleRelay(self):
        """If neither side sends anything for proxy_timeout, both connections end."""
        client = self.connect()
        client.login(self.user, PASSWORD)
        begun = time.monotonic()
        self.assertEqual(client.rest(), b"")
        self.assertGreaterEqual(time.monotonic() - begun, 1.9)
        self.assertLess(time.monotonic() - begun, 2.0 + IDLE_SLACK + SLACK * slowness())

    def beginLogin(self, client):
        """Send a login, and wait for the request at the service."""
        response = base64.b64encode(f"\0{self.user}\0x".encode()).decode()
        words = {
            "imap": f"a LOGIN {self.user} x\r\n",
            "pop3": f"USER {self.user}\r\nPASS x\r\n",
            "smtp": f"AUTH PLAIN {response}\r\n",
        }
        client.send(words[self.protocol].encode())
        waitUntil(lambda: self.auth.askedAbout(self.user), "the service is asked")

    def test_impatientClient(self):
        """A client that leaves during the request is noticed, and leaves nothing behind."""
        self.treat(hang)
        client = self.connect()
        self.beginLogin(client)
        client.close()
        waitUntil(lambda: "client left" in self.log(), "the end is logged")
        self.recover()
        self.expectAccepted()

    def test_tooManyErrors(self):
        """Five invalid lines get replies, then the connection ends."""
        client = self.connect()
        client.send(b"HEIGHDY HO\r\n" * 10)
        self.assertEqual(client.rest(), self.invalid * 5 + self.goodbye("Too many invalid commands"))
        waitUntil(lambda: "too many invalid commands" in self.log(), "the end is logged")


class IMAPTroubleTests(Troubles, TroubleTestCase):
    """By IMAP."""

    protocol = "imap"
    temporary = b"NO [UNAVAILABLE]"
    accepted = b"OK "
    refused = b"NO Invalid login or password\r\n"
    invalid = b"HEIGHDY BAD invalid command\r\n"
    farewell = b"* BYE"


class POP3TroubleTests(Troubles, TroubleTestCase):
    """By POP3."""

    protocol = "pop3"
    temporary = b"-ERR [SYS/TEMP]"
    accepted = b"+OK"
    refused = b"-ERR [AUTH] Invalid login or password\r\n"
    invalid = b"-ERR invalid command\r\n"
    farewell = b"-ERR"


class SMTPTroubleTests(Troubles, TroubleTestCase):
    """SMTP, in front of a Postfix that requires a login."""

    protocol = "smtp"
    temporary = b"454 4.7.0"
    accepted = b"235"
    refused = b"535 5.7.0 Invalid login or password\r\n"
    invalid = b"500 5.5.1 Invalid command\r\n"
    farewell = b"421 4.4.2"
