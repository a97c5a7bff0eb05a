# -*- test-case-name: mailgate.test.integration.test_smtp -*-
"""
SMTP in front of a real Postfix: XCLIENT, the gateway's login, and mail without a login.
"""

from __future__ import annotations

import smtplib

from mailgate.test.integration.authservice import Answer, accept
from mailgate.test.integration.clients import PATIENCE, arrived, message, smtp, swaks
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.dovecot import PASSWORD
from mailgate.test.integration.postfix import UNKNOWN
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import GatewayTestCase
from mailgate.test.integration.together import together

testSuite = together(__name__)

CLIENT = "127.0.0.9"
"""An address of the client that the gateway itself never uses."""


class SMTPTestCase(GatewayTestCase):
    """Several servers for SMTP, and an IMAP one to read what arrives."""

    needs = ("postfix", "swaks")

    def configuration(self, site):
        """A server for each way to treat the backend."""
        behind = "auth_http_header = X-Backend"
        return (
            site.mail(f"auth_http = {site.auth.url}")
            + site.server("imap")
            + site.server("smtp")
            + site.server("smtp", f"{behind} sasl", name="untrusted")
            + site.server("smtp", f"xclient = off\n{behind} untold", name="xclient-off")
            + site.server("smtp", f"xclient = on\n{behind} sasl", name="xclient-on")
            + site.server("smtp", f"proxy_smtp_auth = on\n{behind} sasl", name="login")
            + site.server("smtp", f"proxy_smtp_auth = on\n{behind} login", name="login-only")
            + site.server("smtp", "smtp_auth = none", name="open")
            + site.server("smtp", "smtp_auth = none plain", name="both")
        )

    def submit(self, name, subject, user="", to=""):
        """Send a message from CLIENT, logged in if C{user} is given; return its Received header, unfolded."""
        address = self.at(name)
        source = (CLIENT, 0)
        with smtplib.SMTP("127.0.0.1", address.port, "client.example", PATIENCE, source) as client:
            if user:
                client.login(user, PASSWORD)
            client.sendmail("a@example.com", [to or f"{self.user}@example.com"], message(subject))
        received = arrived(self.at("imap"), self.user, subject).decode()
        return " ".join(received.partition("\r\nReceived: ")[2].partition("\r\nFrom:")[0].split())


class XCLIENTTests(SMTPTestCase):
    """Postfix's Received header shows what XCLIENT sent."""

    def test_client(self):
        """It has the client's address, its EHLO, and its user."""
        received = self.submit("smtp", "conveyed", self.user)
        self.assertTrue(received.startswith(f"from client.example (unknown [{CLIENT}])"), received)
        self.assertIn(f"(Authenticated sender: {self.user})", received)

    def test_mappedUser(self):
        """With Auth-User the user is that of the authentication service."""
        self.site.auth.manners["rabbit"] = lambda service, question: Answer(
            {**accept(service, question).headers, "Auth-User": "white.rabbit"}
        )
        self.assertIn("(Authenticated sender: white.rabbit)", self.submit("smtp", "mapped", "rabbit"))

    def test_withoutLogin(self):
        """With smtp_auth none it has the address and the EHLO, but no user."""
        received = self.submit("open", "without login")
        self.assertTrue(received.startswith(f"from client.example (unknown [{CLIENT}])"), received)
        self.assertNotIn("Authenticated", received)

    def test_off(self):
        """With xclient off Postfix sees the gateway."""
        received = self.submit("xclient-off", "not conveyed", self.user)
        self.assertIn("[127.0.0.1])", received)
        self.assertNotIn(CLIENT, received)
        self.assertNotIn("Authenticated", received)

    def test_notOffered(self):
        """With auto, the default, XCLIENT is not sent to a backend that does not offer it."""
        client = RawClient(self.at("untrusted"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"235")
        self.assertEqual(client.noop()[:3], b"250")

    def test_insistent(self):
        """With on it is sent nevertheless; Postfix refuses it, which is a temporary failure."""
        client = RawClient(self.at("xclient-on"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(self.user, PASSWORD)[:9], b"454 4.7.0")
        waitUntil(lambda: "[error]" in self.log(), "an error is logged")
        self.assertIn("backend-login", self.log())


class ProxySMTPAuthTests(SMTPTestCase):
    """With proxy_smtp_auth the gateway logs in at the backend."""

    def assertLogged(self, words):
        """Postfix logs C{words}."""
        waitUntil(lambda: words in self.backends.postfix.log(), f"Postfix logs {words}")

    def test_plain(self):
        """With PLAIN if Postfix offers it."""
        received = self.submit("login", "by plain", self.user)
        self.assertIn(f"(Authenticated sender: {self.user})", received)
        self.assertLogged(f"sasl_method=PLAIN, sasl_username={self.user}")

    def test_login(self):
        """With LOGIN if Postfix offers only that."""
        received = self.submit("login-only", "by login", self.user)
        self.assertIn(f"(Authenticated sender: {self.user})", received)
        self.assertLogged(f"sasl_method=LOGIN, sasl_username={self.user}")

    def test_password(self):
        """With the password of the authentication service."""
        self.site.auth.manners["hatter"] = lambda service, question: Answer(
            {**accept(service, question).headers, "Auth-User": self.user, "Auth-Pass": PASSWORD}
        )
        client = RawClient(self.at("login"))
        self.addCleanup(client.close)
        self.assertEqual(client.login("hatter", "tea-time")[:3], b"235")
        self.assertNotIn("tea-time", self.log())

    def test_refused(self):
        """
        If a backend refuses a password that the authentication service accepted, the login fails temporarily, the log
        has an error, and the session continues.
        """
        self.site.auth.manners[self.user] = accept
        client = RawClient(self.at("login"))
        self.addCleanup(client.close)
        self.assertEqual(client.login(self.user, "looking-glass")[:9], b"454 4.7.0")
        waitUntil(lambda: "[error]" in self.log(), "an error is logged")
        self.assertNotIn("looking-glass", self.log())
        self.assertEqual(client.login(self.user, PASSWORD)[:3], b"235")

    def test_swaks(self):
        """swaks sends mail this way, with STARTTLS."""
        to = f"{self.user}@example.com"
        login = ("--auth", "LOGIN", "--auth-user", self.user, "--auth-password", PASSWORD)
        ran = swaks(self.at("login", "starttls"), to, "by swaks", *login)
        self.assertEqual(ran.returncode, 0, ran.stdout)
        arrived(self.at("imap"), self.user, "by swaks")


def notForUnknown(service, question):
    """Accept all recipients except one, who is refused after a second."""
    if UNKNOWN not in question["Auth-SMTP-To"]:
        return accept(service, question)
    return Answer({"Auth-Status": "Not here", "Auth-Error-Code": "550 5.7.1", "Auth-Wait": "1"})


class WithoutLoginTests(SMTPTestCase):
    """With smtp_auth none the recipient decides."""

    def rcpt(self, client, to):
        """The reply to RCPT."""
        client.send(f"RCPT TO:<{to}>\r\n".encode())
        return client.reply()

    def connect(self, name="open"):
        """A client that has sent MAIL."""
        client = RawClient(self.at(name))
        self.addCleanup(client.close)
        client.send(b"MAIL FROM:<a@example.com>\r\n")
        self.assertEqual(client.reply()[:3], b"250")
        return client

    def test_noAuthOffered(self):
        """AUTH is not offered, and mail arrives."""
        with smtp(self.at("open", "starttls")) as client:
            client.ehlo()
            self.assertFalse(client.has_extn("auth"))
            client.sendmail("a@example.com", [f"{self.user}@example.com"], message("open"))
        arrived(self.at("imap"), self.user, "open")

    def test_unknownRecipient(self):
        """Postfix's own refusal is the reply to RCPT, and the next recipient is accepted."""
        client = self.connect()
        self.assertRegex(self.rcpt(client, UNKNOWN), rb"\A550 5\.1\.1 .*nobody@example\.com")
        self.assertEqual(self.rcpt(client, f"{self.user}@example.com")[:3], b"250")

    def test_question(self):
        """The request to the service has MAIL, RCPT and the greeting, and neither user nor password."""
        client = self.connect()
        self.rcpt(client, f"{self.user}@example.com")
        (question,) = [one for one in self.site.auth.asked if self.user in one.get("Auth-SMTP-To", "")]
        self.assertEqual(question["Auth-Method"], "none")
        self.assertEqual(question["Auth-SMTP-Helo"], "client.example")
        self.assertEqual(question["Auth-SMTP-From"], "MAIL FROM:<a@example.com>")
        self.assertEqual((question["Auth-User"], question["Auth-Pass"]), ("", ""))

    def test_parameters(self):
        """Parameters and addresses that are not ASCII reach the service and the backend as the client sends them."""
        client = RawClient(self.at("open"))
        self.addCleanup(client.close)
        mail = "MAIL FROM:<bjørn@example.com> BODY=8BITMIME SMTPUTF8 SIZE=1000 RET=HDRS ENVID=a+3Db"
        to = f"RCPT TO:<bjørn.{self.user}@example.com> NOTIFY=NEVER ORCPT=rfc822;a+2Bb@example.com"
        tooLarge = "RSET\r\nMAIL FROM:<bjørn@example.com> SMTPUTF8 SIZE=99999999999\r\n"
        client.send(f"{mail}\r\n{to}\r\n{tooLarge}".encode())
        replies = [client.reply()[:9] for _ in range(4)]
        self.assertEqual(replies, [b"250 2.0.0", b"250 2.1.5", b"250 2.0.0", b"552 5.3.4"])
        (question,) = [one for one in self.site.auth.asked if self.user in one.get("Auth-SMTP-To", "")]
        sent = (question["Auth-SMTP-From"], question["Auth-SMTP-To"])
        self.assertEqual(tuple(each.encode("latin-1").decode() for each in sent), (mail, to))

    def manner(self, manner):
        """Change the manner for clients that do not log in, in this test."""
        self.site.auth.manners[""] = manner
        self.addCleanup(self.site.auth.manners.pop, "")

    def test_refused(self):
        """The service's refusal, with its code, is the reply to RCPT; another recipient may follow."""
        self.manner(notForUnknown)
        client = self.connect()
        self.assertEqual(self.rcpt(client, UNKNOWN), b"550 5.7.1 Not here\r\n")
        self.assertEqual(self.rcpt(client, f"{self.user}@example.com")[:3], b"250")

    def test_chunk(self):
        """A message that is pipelined after a refused recipient is discarded, although it contains other messages."""
        self.manner(notForUnknown)
        client = self.connect()
        to = f"{self.user}@example.com"
        smuggled = (
            f"RSET\r\nMAIL FROM:<ceo@example.com>\r\nRCPT TO:<{to}>\r\nDATA\r\n\r\nsmuggled\r\n.\r\n".encode() * 99999
        )
        client.send(f"RCPT TO:<{UNKNOWN}>\r\nBDAT {len(smuggled)} LAST\r\n".encode() + smuggled + b"NOOP\r\n")
        self.assertEqual([client.reply()[:9] for _ in range(3)], [b"550 5.7.1", b"503 5.5.1", b"250 2.0.0"])
        self.assertEqual([one for one in self.site.auth.asked if to in one.get("Auth-SMTP-To", "")], [])

    def test_troubledService(self):
        """A service that cannot decide causes a temporary failure of that recipient; the session continues."""
        self.manner(lambda service, question: Answer({}, 500))
        client = self.connect()
        self.assertEqual(self.rcpt(client, f"{self.user}@example.com")[:9], b"451 4.3.0")
        self.site.auth.manners[""] = accept
        self.assertEqual(self.rcpt(client, f"{self.user}@example.com")[:3], b"250")

    def test_notConfigured(self):
        """Without smtp_auth none, MAIL needs a login."""
        client = RawClient(self.at("smtp"))
        self.addCleanup(client.close)
        client.send(b"MAIL FROM:<a@example.com>\r\n")
        self.assertEqual(client.reply(), b"530 5.7.1 Authentication required\r\n")

    def test_both(self):
        """With none and other methods, a login is possible."""
        self.assertIn("Authenticated sender", self.submit("both", "with login", self.user))
        self.assertNotIn("Authenticated sender", self.submit("both", "without login"))
