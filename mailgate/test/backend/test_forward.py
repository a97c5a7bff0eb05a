"""
Tests of what an authenticator lets a backend receive about the client: additional fields, or nothing.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.identity import LEFT_OUT, carriesAll, forwardText, idCommand, xclientCommand
from mailgate.backend.settings import ProxySettings
from mailgate.login import Client, Credentials, Envelope, Method, RouteOptions
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.xclient import forwardFor
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.testing import Attempt, routeTo

FIELDS = ((b"tenant", b"42"), (b"plan", b'"gold" \\'))
CLIENT = Client("192.0.2.7", 40123)
SUBMISSION = b"250-mx\r\n250-AUTH PLAIN\r\n250 XCLIENT ADDR PORT FORWARD\r\n"


class TextTests(SynchronousTestCase):
    """The forms of the fields."""

    def test_escaped(self) -> None:
        """Dovecot's escape is the byte of value 1, not a backslash."""
        text, isWhole = forwardText(((b"a", b"1\t2"), (b"b", b"\x01\r\n\0\\")), 1000)
        self.assertTrue(isWhole)
        self.assertEqual(b64decode(text), b"a=1\x01t2\tb=\x011\x01r\x01n\x010\\")

    def test_room(self) -> None:
        """Fields that find no room are left out, at the end."""
        fields = tuple((b"k%d" % number, b"v" * 20) for number in range(10))
        for room in range(0, 400, 7):
            text, isWhole = forwardText(fields, room)
            self.assertLessEqual(len(text), room)
            count = len(b64decode(text).split(b"\t")) if text else 0
            self.assertEqual(isWhole, count == 10)
            self.assertEqual(text, forwardText(fields[:count], 1000)[0])

    def test_id(self) -> None:
        """In ID each field stands before the client's own. What ID cannot carry is left out."""
        command = idCommand(b"t", CLIENT, (b'"name" "x"',), 6, (*FIELDS, (b"bad", b"a\r\nb"), (b"b d", b"x")))
        self.assertTrue(
            command.endswith(
                b' "x-proxy-ttl" "6" "x-forward-tenant" "42" "x-forward-plan" "\\"gold\\" \\\\" "name" "x")\r\n'
            ),
            command,
        )

    def test_most(self) -> None:
        """ID has 30 fields at most, and those of the gateway come before those of the client."""
        fields = tuple((b"k%d" % number, b"v") for number in range(24))
        command = idCommand(b"t", CLIENT, tuple(b'"n%d" ""' % number for number in range(30)), 6, fields)
        self.assertEqual(command.count(b'"') // 4, 30)
        self.assertEqual(command.count(b"x-forward-"), 24)

    def test_pop3(self) -> None:
        """In POP3 they are base64 in one line, which is short enough for Dovecot."""
        command = xclientCommand(CLIENT, 6, FIELDS)
        self.assertEqual(
            command,
            b"XCLIENT ADDR=192.0.2.7 PORT=40123 TTL=6 FORWARD=" + b64encode(b'tenant=42\tplan="gold" \\') + b"\r\n",
        )
        self.assertTrue(carriesAll(command, FIELDS))
        many = tuple((b"k%d" % number, b"v" * 100) for number in range(24))
        command = xclientCommand(CLIENT, 6, many)
        self.assertLess(len(command), 1024)
        self.assertIn(b"FORWARD=", command)
        self.assertFalse(carriesAll(command, many))

    def test_smtp(self) -> None:
        """In SMTP they are sent only to a backend that lists FORWARD, in a line of up to 510 bytes."""
        self.assertEqual(forwardFor(FIELDS, b"ADDR NAME"), (b"", True))
        self.assertEqual(forwardFor((), b"FORWARD"), (b"", True))
        for value in (b"v" * 40, b">>?" * 13):
            text, isWhole = forwardFor(tuple((b"k%d" % number, value) for number in range(24)), b"ADDR FORWARD")
            self.assertFalse(isWhole)
            self.assertGreater(len(text), 100)


class LoginTests(SynchronousTestCase):
    """Logins at backends that offer to receive the client's address."""

    def attempt(self, record: Any, *groups: Any, **options: Any) -> Attempt:
        request = options.pop("request", {})
        attempt = Attempt(record, *groups, route=routeTo(options=RouteOptions(**options)), **request)
        attempt.accept()
        return attempt

    def test_imap(self) -> None:
        """ID has the fields; nothing is sent if the authenticator forbids it, or the backend offers no ID."""
        greeting = b"* OK [CAPABILITY IMAP4rev1 ID] ready\r\n"
        self.assertIn(b'"x-forward-tenant" "42"', self.attempt(IMAP4, forward=FIELDS).says(greeting))
        for attempt, said in (
            (self.attempt(IMAP4, forward=FIELDS, identifies=False), greeting),
            (self.attempt(IMAP4, forward=FIELDS), b"* OK ready\r\n"),
            (self.attempt(IMAP4, ProxySettings(identity="off"), forward=FIELDS), greeting),
            (self.attempt(IMAP4, ProxySettings(proxyProtocol="on"), forward=FIELDS), greeting),
        ):
            attempt.hears()
            self.assertEqual(attempt.says(said), b'a1 LOGIN "joe" "sesame"\r\n')

    def test_gateway(self) -> None:
        """Another gateway receives the number of hops, and nothing about the client, if that is forbidden."""
        ready = b"* OK IMAP4 ready\r\n"
        own = {"envelope": Envelope(fields=(b'"name" "x"',))}
        heard = self.attempt(IMAP4, identifies=False, forward=FIELDS, request=own).says(ready)
        self.assertEqual(heard, b'mailgate ID ("x-proxy-ttl" "6")\r\n')
        self.assertIn(b"x-forward-tenant", self.attempt(IMAP4, forward=FIELDS).says(ready))

    def test_pop3(self) -> None:
        """XCLIENT has the fields; nothing is sent if the authenticator forbids it."""
        greeting = b"+OK [XCLIENT] ready\r\n"
        attempt = self.attempt(POP3, forward=FIELDS)
        self.assertIn(b" FORWARD=", attempt.says(greeting))
        self.assertEqual(self.attempt(POP3, forward=FIELDS, identifies=False).says(greeting), b"USER joe\r\n")

    def test_pop3Room(self) -> None:
        """Fields that find no room are a warning."""
        attempt = self.attempt(POP3, forward=tuple((b"k%d" % number, b"v" * 100) for number in range(20)))
        attempt.says(b"+OK [XCLIENT] ready\r\n", b"+OK\r\n+OK\r\n", b"+OK\r\n")
        self.successResultOf(attempt.result)
        self.assertEqual(len(attempt.log), 1)
        self.assertIn(LEFT_OUT, attempt.log[0])

    def test_smtp(self) -> None:
        """XCLIENT has the fields in a form of its own (xtext), if the backend lists FORWARD."""
        attempt = self.attempt(SMTP, SMTPSettings(proxyAuth=True), forward=FIELDS)
        attempt.says(b"220 ready\r\n")
        heard = attempt.says(SUBMISSION)
        self.assertIn(b" FORWARD=" + b64encode(b'tenant=42\tplan="gold" \\').replace(b"=", b"+3D"), heard)
        attempt = self.attempt(SMTP, SMTPSettings(proxyAuth=True), forward=FIELDS)
        attempt.says(b"220 ready\r\n")
        self.assertNotIn(b"FORWARD", attempt.says(SUBMISSION.replace(b" FORWARD", b"")))

    def test_smtpLikeNginx(self) -> None:
        """Before nginx's own XCLIENT they have a command of their own, as ADDR belongs into the last one."""
        attempt = self.attempt(SMTP, SMTPSettings(xclient="on"), forward=FIELDS)
        attempt.says(b"220 ready\r\n")
        self.assertTrue(attempt.says(SUBMISSION).startswith(b"XCLIENT FORWARD="))
        self.assertEqual(attempt.says(b"220 again\r\n"), b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")

    def test_smtpWithheld(self) -> None:
        """
        If the authenticator forbids XCLIENT, a backend that offers it is not used: the client could send its own.
        """
        for xclient in ("on", "auto", "off"):
            attempt = self.attempt(SMTP, SMTPSettings(proxyAuth=True, xclient=xclient), identifies=False)
            attempt.says(b"220 ready\r\n")
            self.assertNotIn(b"XCLIENT", attempt.says(SUBMISSION))
            self.successResultOf(attempt.result)
            self.assertIn("under Auth-Proxy-Identity: off", attempt.log[0])
            plain = self.attempt(SMTP, SMTPSettings(proxyAuth=True, xclient=xclient), identifies=False)
            plain.says(b"220 ready\r\n")
            heard = plain.says(b"250-mx\r\n250 AUTH PLAIN\r\n")
            self.assertTrue(heard.startswith(b"AUTH PLAIN "), heard)

    def test_smtpWithoutLogin(self) -> None:
        """Mail without a login is not handed over to a backend that does not know the client's address."""
        request = {name: value for name, value in ANYBODY.items() if name != "route"}
        self.assertIs(request["credentials"].method, Method.NONE)
        route = routeTo(user=b"", password=b"", options=RouteOptions(identifies=False, authid=b"m", authzid=b"z"))
        attempt = Attempt(SMTP, SMTPSettings(xclient="on"), route=route, **request)
        attempt.accept()
        attempt.says(b"220 ready\r\n")
        self.assertEqual(attempt.says(SUBMISSION), b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n")

    def test_methodInSMTP(self) -> None:
        """A method that the authenticator names is used without proxy_smtp_auth; none sends no AUTH with it."""
        offers = b"250-mx\r\n250 AUTH PLAIN\r\n"
        for proxyAuth, method, expected in ((False, "plain", b"AUTH PLAIN"), (True, "none", b""), (False, "", b"")):
            attempt = self.attempt(SMTP, SMTPSettings(proxyAuth=proxyAuth), method=method)
            attempt.says(b"220 ready\r\n")
            self.assertEqual(attempt.says(offers)[:10], expected)

    def test_master(self) -> None:
        """A master user logs in by PLAIN for the mailbox, in each protocol."""
        message = b64encode(b"joe\0master\0sesame")
        imap = self.attempt(IMAP4, authid=b"master")
        greeting = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n"
        self.assertEqual(imap.says(greeting), b"a1 AUTHENTICATE PLAIN " + message + b"\r\n")
        pop3 = self.attempt(POP3, authid=b"master")
        self.assertEqual(pop3.says(b"+OK ready\r\n"), b"AUTH PLAIN\r\n")
        self.assertEqual(pop3.says(b"+ \r\n"), message + b"\r\n")
        smtp = self.attempt(SMTP, SMTPSettings(proxyAuth=True), authid=b"master")
        smtp.says(b"220 ready\r\n")
        self.assertEqual(smtp.says(b"250-mx\r\n250 AUTH PLAIN\r\n"), b"AUTH PLAIN " + message + b"\r\n")

    def test_external(self) -> None:
        """EXTERNAL names the mailbox and proves no password."""
        request = {"credentials": Credentials(Method.PLAIN, b"joe", b"sesame")}
        attempt = self.attempt(IMAP4, method="external", request=request)
        heard = attempt.says(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=EXTERNAL] ready\r\n")
        self.assertEqual(heard, b"a1 AUTHENTICATE EXTERNAL " + b64encode(b"joe") + b"\r\n")
        self.assertNotIn(b"sesame", heard)
