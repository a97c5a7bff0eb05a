"""
Tests of L{mailgate.backend.hops}: how gateways that lead back to each other are found out.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.hops import hopsAfter, noopWithHops, parseHops
from mailgate.backend.settings import ProxySettings
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendTLS
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.loginscripts import SIEVE_GREETING, TEMPORARY
from mailgate.testing import Attempt, Conversation, routeTo
from mailgate.tls.settings import TLSSettings

GREETINGS = {IMAP4: b"* OK IMAP4 ready\r\n", POP3: b"+OK POP3 ready\r\n", SMTP: b"220 other.test ESMTP ready\r\n"}
OTHERS = {
    IMAP4: (b"* OK IMAP4 ready.\r\n", b"* OK [ALERT] IMAP4 ready\r\n", b"* OK imap4 ready\r\n", b"* OK IMAP4 ready\n"),
    POP3: (b"+OK POP3 ready.\r\n", b"+OK POP3 ready <a b@c>\r\n", b"+OK POP3 server ready\r\n"),
    SMTP: (b"220 mx.test ESMTP ready.\r\n", b"220 ESMTP ready\r\n", b"220 mx.test ESMTP Postfix\r\n"),
}
ADDRESS = b'"x-originating-ip" "192.0.2.7" "x-originating-port" "40123"'


class NumberTests(SynchronousTestCase):
    """The number on the wire."""

    def test_noop(self) -> None:
        """What one gateway says the other understands."""
        self.assertEqual(noopWithHops(6), b"NOOP x-proxy-ttl=6")
        self.assertEqual(hopsAfter(b"X-Proxy-TTL=6"), b"6")
        for argument in (b"", b"6", b"x-proxy-ttl", b"ttl=6", b" x-proxy-ttl=6"):
            self.assertEqual(hopsAfter(argument), b"")

    def test_parsed(self) -> None:
        """Only a short decimal is a number."""
        self.assertEqual([parseHops(said) for said in (b"0", b"6", b"007", b"255")], [0, 6, 7, 255])
        for said in (b"", b"-1", b"+1", b" 1", b"1 ", b"1000", b"1e1", b"\xb2", b"NIL"):
            self.assertIsNone(parseHops(said))


class SettingTests(SynchronousTestCase):
    """The directive C{proxy_hops}."""

    def test_values(self) -> None:
        """It is a number from 2 to 255."""
        for value, isGood in (("2", True), ("255", True), ("1", False), ("0", False), ("256", False), ("off", False)):
            text = f"[server imap]\nlisten = 143\nproxy_pass = 10.0.0.1:143\nproxy_hops = {value}\n"
            if isGood:
                self.assertEqual(parse(text).servers[0][ProxySettings].hops, int(value))
            else:
                self.assertIn("proxy_hops", str(self.assertRaises(ConfigurationError, parse, text)))


class ClientTests(SynchronousTestCase):
    """What backends are told."""

    def begin(self, record: MailProtocol, *groups: Any, **changes: Any) -> Attempt:
        """A login at a backend that has accepted the connection; a PROXY header has been read."""
        attempt = Attempt(record, *groups, **changes)
        attempt.accept()
        attempt.hears()
        return attempt

    def test_otherGreetings(self) -> None:
        """A backend that greets in any other way hears nothing more than ever."""
        for record, greetings in OTHERS.items():
            for greeting in greetings:
                heard = self.begin(record).says(greeting)
                self.assertIn(heard[:9], (b"a1 LOGIN ", b"USER joe\r", b"EHLO mx.t"), greeting)

    def test_imap(self) -> None:
        """ID tells it, with all that it tells; the login waits for the answer, which the client does not hear."""
        for answer in (b"* ID NIL\r\nmailgate OK completed\r\n", b"mailgate BAD invalid command\r\n"):
            attempt = self.begin(IMAP4)
            heard = attempt.says(GREETINGS[IMAP4])
            self.assertEqual(heard, b"mailgate ID (" + ADDRESS + b' "x-proxy-ttl" "6")\r\n')
            self.assertEqual(attempt.says(answer), b'a1 LOGIN "joe" "sesame"\r\n')
            attempt.says(b"a1 OK done\r\n")
            self.assertEqual(self.successResultOf(attempt.result).reply, b"a1 OK done\r\n")
            self.assertEqual(attempt.log, [])

    def test_imapUnidentified(self) -> None:
        """Where nothing else is to be told the hops are."""
        for groups in ((ProxySettings(identity="off"),), (ProxySettings(proxyProtocol="on"),)):
            self.assertEqual(self.begin(IMAP4, *groups).says(GREETINGS[IMAP4]), b'mailgate ID ("x-proxy-ttl" "6")\r\n')

    def test_imapGarbled(self) -> None:
        """What is no answer to ID is a failure."""
        for said in (b"+ go ahead\r\n", b"what?\r\n"):
            attempt = self.begin(IMAP4)
            attempt.says(GREETINGS[IMAP4], said)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_pop3(self) -> None:
        """NOOP tells it; a refusal of that does not matter, unless it may be one of the PROXY header."""
        for greeting in (GREETINGS[POP3], b"+OK POP3 ready <7.1000@mx.test>\r\n"):
            for answer in (b"+OK\r\n", b"-ERR what?\r\n"):
                attempt = self.begin(POP3)
                self.assertEqual(attempt.says(greeting), b"NOOP x-proxy-ttl=6\r\n")
                self.assertEqual(attempt.says(answer), b"USER joe\r\n")
        for said in (b"-ERR what?\r\n", b"what?\r\n"):
            attempt = self.begin(POP3, ProxySettings(proxyProtocol="on"))
            attempt.says(GREETINGS[POP3], said)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_sieve(self) -> None:
        """NOOP tells it, as its tag; a refusal of that does not matter, unless it may be one of the PROXY header."""
        greeting = SIEVE_GREETING.replace(b'OK "hi"', b'OK "ManageSieve ready"')
        for answer in (b'OK (TAG "x-proxy-ttl=6") "Done"\r\n', b'NO "what?"\r\n'):
            attempt = self.begin(SIEVE)
            self.assertEqual(attempt.says(greeting), b'NOOP "x-proxy-ttl=6"\r\n')
            self.assertTrue(attempt.says(answer).startswith(b"AUTHENTICATE "))
        for groups, answer in (((ProxySettings(proxyProtocol="on"),), b"NO\r\n"), ((), b'"x"\r\n')):
            attempt = self.begin(SIEVE, *groups)
            attempt.says(greeting, answer)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertTrue(self.begin(SIEVE).says(SIEVE_GREETING).startswith(b"AUTHENTICATE "))

    def test_smtp(self) -> None:
        """NOOP tells it before the greeting; a refusal does not matter, unless it may be one of the PROXY header."""
        for answer in (b"250 ok\r\n", b"500 what?\r\n"):
            attempt = self.begin(SMTP)
            self.assertEqual(attempt.says(GREETINGS[SMTP]), b"NOOP x-proxy-ttl=6\r\n")
            self.assertEqual(attempt.says(answer), b"EHLO mx.test\r\n")
        attempt = self.begin(SMTP, ProxySettings(proxyProtocol="on"))
        attempt.says(GREETINGS[SMTP], b"500 what?\r\n")
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_xclientOn(self) -> None:
        """With C{xclient = on} the bytes are nginx's."""
        self.assertEqual(self.begin(SMTP, SMTPSettings(xclient="on")).says(GREETINGS[SMTP]), b"EHLO mx.test\r\n")

    def test_startTLS(self) -> None:
        """With STARTTLS it is told over TLS."""
        attempt = self.begin(POP3, route=routeTo(Backend("192.0.2.99", 110, BackendTLS.STARTTLS)))
        self.assertEqual(attempt.says(GREETINGS[POP3]), b"STLS\r\n")
        attempt.says(b"+OK\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"NOOP x-proxy-ttl=6\r\n")

    def test_lower(self) -> None:
        """One less than the client has said, and never more than C{proxy_hops} allows."""
        for hops, said, told in ((7, 3, b"2"), (7, 200, b"6"), (3, None, b"2"), (2, None, b"1")):
            attempt = self.begin(POP3, ProxySettings(hops=hops), hops=said)
            self.assertEqual(attempt.says(GREETINGS[POP3]), b"NOOP x-proxy-ttl=%b\r\n" % told)

    def test_spent(self) -> None:
        """With none left nothing is connected to, and one line names the loop."""
        for record in GREETINGS:
            for said in (0, 1):
                attempt = Attempt(record, hops=said)
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
                self.assertEqual((attempt.tried, attempt.levels), ([], ["error"]))
                self.assertTrue(attempt.log[0].startswith("login loops: client 192.0.2.7:40123, "), attempt.log)


class ServerTests(SynchronousTestCase):
    """What clients say."""

    def hops(self, record: MailProtocol, *lines: bytes) -> int | None:
        """What a client's login has that says C{lines} before it."""
        conversation = Conversation(record)
        conversation.says(*lines)
        return conversation.requests[0].hops

    def test_imap(self) -> None:
        """IMAP's clients say it by ID; the least counts."""
        login = b"a LOGIN joe sesame"
        for lines, hops in (
            ((), None),
            ((b'i ID ("name" "x" "X-Proxy-TTL" "5")',), 5),
            ((b'i ID ("x-proxy-ttl" "5")', b'i ID ("x-proxy-ttl" "6")'), 5),
            ((b'i ID ("x-proxy-ttl" "5")', b'i ID ("x-proxy-ttl" "2")', b"i ID NIL"), 2),
            ((b'i ID ("x-proxy-ttl" "-1")', b'i ID ("x-proxy-ttl" NIL)', b'i ID ("x-proxy-ttl")'), None),
        ):
            self.assertEqual(self.hops(IMAP4, *lines, login), hops, lines)

    def test_pop3(self) -> None:
        """Those of POP3 by NOOP, before USER or behind it."""
        self.assertEqual(self.hops(POP3, b"NOOP x-proxy-ttl=5", b"USER joe", b"PASS sesame"), 5)
        self.assertEqual(self.hops(POP3, b"USER joe", b"NOOP x-proxy-ttl=5", b"PASS sesame"), 5)
        self.assertIsNone(self.hops(POP3, b"NOOP", b"NOOP 5", b"USER joe", b"PASS sesame"))

    def test_smtp(self) -> None:
        """Those of SMTP too, and by no other command."""
        login = b"AUTH PLAIN AGpvZQBzZXNhbWU="
        self.assertEqual(self.hops(SMTP, b"NOOP x-proxy-ttl=5", b"EHLO x", login), 5)
        self.assertIsNone(self.hops(SMTP, b"NOOP", b"RSET x-proxy-ttl=5", b"EHLO x-proxy-ttl=5", login))

    def test_acrossTLS(self) -> None:
        """STARTTLS raises no number."""
        conversation = Conversation(POP3, TLSSettings(starttls="on"))
        conversation.says(b"NOOP x-proxy-ttl=5", b"STLS")
        conversation.transport.shakeHands()
        conversation.says(b"NOOP x-proxy-ttl=7", b"USER joe", b"PASS sesame")
        self.assertEqual(conversation.requests[0].hops, 5)
