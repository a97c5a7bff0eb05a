"""
Tests for L{mailgate.cli.transcript} and the arguments of L{mailgate.cli.whoami}.
"""

from __future__ import annotations

import base64
import os

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin
from mailgate.cli.transcript import Transcript
from mailgate.cli.whoami import Who, _decided, whoami
from mailgate.config import parse
from mailgate.login import BackendTLS, Credentials, Method, RouteOptions, TLSOptions
from mailgate.test.cli.test_main import ConsoleCase
from mailgate.testing import resultOf, routeTo

LOGIN = PasswordLogin(b"joe", b"open sesame")
HIDDEN = "S: (a line that repeats the password is not shown)"


class TranscriptTests(SynchronousTestCase):
    """What is shown of a login."""

    def setUp(self) -> None:
        self.transcript = Transcript(LOGIN)

    def test_shown(self) -> None:
        """What comes before the login is shown, line by line, however it came; control characters are escaped."""
        self.transcript.heard(b"* OK rea")
        self.transcript.heard(b"dy\r\n* more\x1b\r\n")
        self.transcript.sent(b'mailgate ID ("x" "y")\r\n')
        self.transcript.note("TLS is established")
        expected = ["S: * OK ready", "S: * more\\x1b", 'C: mailgate ID ("x" "y")', "-- TLS is established"]
        self.assertEqual(list(self.transcript), expected)

    def test_forwarded(self) -> None:
        """The values of additional fields may be private."""
        self.transcript.sent(
            b'mailgate ID ("x-originating-ip" "192.0.2.7" "x-forward-a" "p \\" q" "X-Forward-b" "r")\r\n'
        )
        self.transcript.sent(b"XCLIENT ADDR=192.0.2.7 FORWARD=dGVuYW50PTQy TTL=6\r\n")
        shown = list(self.transcript)
        self.assertEqual(
            shown[0], 'C: mailgate ID ("x-originating-ip" "192.0.2.7" "x-forward-a" *** "X-Forward-b" ***)'
        )
        self.assertEqual(shown[1], "C: XCLIENT ADDR=192.0.2.7 FORWARD=*** TTL=6")

    def test_imap(self) -> None:
        """Of the login the command is shown, and of AUTHENTICATE the mechanism; nothing of literals."""
        self.transcript.began(b"a1 LOGIN {3}", 1)
        self.transcript.sent(b"XCLIENT {11}")
        self.transcript.sent(b"open sesame")
        self.assertEqual(list(self.transcript), ["C: a1 LOGIN ...", "C: ...", "C: ..."])
        transcript = Transcript(LOGIN)
        transcript.began(b"a1 AUTHENTICATE PLAIN AGpvZQBzZXNhbWU=", 1)
        self.assertEqual(list(transcript), ["C: a1 AUTHENTICATE PLAIN ..."])
        transcript = Transcript(LOGIN)
        transcript.began(b"a1 AUTHENTICATE PLAIN", 1)
        self.assertEqual(list(transcript), ["C: a1 AUTHENTICATE PLAIN"])

    def test_smtp(self) -> None:
        """AUTH begins it where no other command does."""
        self.transcript.sent(b"EHLO mx.test")
        self.transcript.sent(b"AUTH LOGIN")
        self.transcript.sent(base64.b64encode(b"joe"))
        self.assertEqual(list(self.transcript), ["C: EHLO mx.test", "C: AUTH LOGIN", "C: ..."])

    def test_repeated(self) -> None:
        """An answer with the password in it, in any form in which it was sent, is not shown."""
        self.transcript.began(b"AUTH XOAUTH2 dXNlcj1qb2U=")
        for said in (
            b"-ERR open sesame?",
            base64.b64encode(b"open sesame"),
            b"-ERR what is dXNlcj1qb2U=",
            b"OPEN SESAME",
        ):
            self.transcript.heard(said + b"\r\n")
        self.transcript.heard(b"-ERR no\r\n")
        self.assertEqual(list(self.transcript), ["C: AUTH XOAUTH2 ...", *[HIDDEN] * 4, "S: -ERR no"])


class DecidedTests(SynchronousTestCase):
    """What the answer of the authenticator decides."""

    def test_all(self) -> None:
        """Each option is a line by the name of its header, without control characters and private values."""
        self.assertEqual(list(_decided(routeTo())), [])
        self.assertEqual(list(_decided(routeTo(options=RouteOptions()))), [])
        options = RouteOptions(
            key=b"k\x1b",
            tls=TLSOptions(BackendTLS.STARTTLS, False, "mail.test", ("key:00", "key:01")),
            method="plain",
            authid=b"master",
            authzid=b"ann",
            identifies=False,
            forward=((b"tenant", b"confidential"),),
            hold=5.0,
            lifetime=0.0,
            isUnlimited=True,
        )
        expected = [
            "Auth-Upstream-Key: k\\x1b",
            "Auth-Proxy-SSL: starttls",
            "Auth-Proxy-SSL-Verify: off",
            "Auth-Proxy-SSL-Name: mail.test",
            "Auth-Proxy-SSL-Pin: key:00 key:01",
            "Auth-Proxy-Method: plain",
            "Auth-Proxy-Authid: master",
            "Auth-Proxy-Authzid: ann",
            "Auth-Proxy-Identity: off",
            "Auth-Proxy-Forward: tenant=***",
            "Auth-Proxy-Hold: 5, which is skipped here",
            "Auth-Session-Timeout: 0",
            "Auth-Limit: none",
        ]
        self.assertEqual(list(_decided(routeTo(options=options))), expected)


class ArgumentTests(ConsoleCase):
    """What keeps the command from trying anything."""

    def said(self, status: int, *arguments: str) -> str:
        """What is said of C{arguments}, the configuration first."""
        ini = self.write("[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 127.0.0.1:144\n")
        self.assertEqual(self.run_("whoami", "--config", ini, "--user", "joe", *arguments), status)
        self.assertEqual(self.stdout.getvalue(), "")
        said: str = self.stderr.getvalue()
        return said

    def test_server(self) -> None:
        """A server that there is not."""
        self.assertIn("there is no [server x]", self.said(78, "--password-file", "/dev/null", "--server", "x"))

    def test_password(self) -> None:
        """A file that there is not."""
        missing = os.path.abspath(self.mktemp())
        self.assertEqual(
            self.said(1, "--password-file", missing), f"{missing}: cannot be read: No such file or directory\n"
        )

    def test_address(self) -> None:
        """What is no address."""
        said = self.said(1, "--password-file", "/dev/null", "--address", "store.test")
        self.assertEqual(said, "--address store.test: is no address\n")

    def test_configuration(self) -> None:
        """A configuration that cannot be used."""
        ini = self.write("[server imap]\n")
        status = self.run_("whoami", "--config", ini, "--user", "joe", "--password-file", "/dev/null")
        self.assertEqual(status, 78)


class PathTests(SynchronousTestCase):
    """Logins that the test lets fail."""

    def test_silent(self) -> None:
        """A backend that does not answer in time is named as that, and its connection ends."""
        settings = parse("[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = 192.0.2.1:143\ntimeout = 20s\n")
        reactor, said = MemoryReactorClock(), list[str]()
        who = Who(Credentials(Method.PLAIN, b"joe", b"sesame"), "192.0.2.7")
        result = resultOf(whoami(settings, settings.servers, who, reactor, said.append))
        reactor.advance(20)
        self.assertFalse(self.successResultOf(result))
        self.assertEqual(said[-1], "  failed: no answer within 20 s")
        self.assertEqual(reactor.getDelayedCalls(), [])


class CheckTests(ConsoleCase):
    """C{mailgate check}."""

    def test_cleartext(self) -> None:
        """It warns of passwords that cross to another host in the clear."""
        ini = self.write("[server imap]\nlisten = 127.0.0.1:21143\nprotocol = imap\nproxy_pass = 192.0.2.1:143\n")
        self.assertEqual(self.run_("check", "--config", ini), 0)
        self.assertIn("is sent passwords in the clear over the network", self.stderr.getvalue())
