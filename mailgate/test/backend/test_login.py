"""
Tests for the logins at backends: L{mailgate.protocols.imap4.client.IMAP4Client},
L{mailgate.protocols.pop3.client.POP3Client} and L{mailgate.protocols.smtp.client.SMTPClient}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Denial, Refusal
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import (
    INITIAL_RESPONSE,
    SCRIPTS,
    SIEVE_GREETING,
    SMTP_ANYBODY,
    STARTTLS,
    TEMPORARY,
)
from mailgate.testing import Attempt, routeTo


class ScriptTests(SynchronousTestCase):
    """Invariants of every login, at every byte."""

    def assertDone(self, attempt: Attempt, rest: bytes = b"") -> Any:
        client = self.successResultOf(attempt.result)
        self.assertNotIsInstance(client, Denial)
        self.assertEqual(leftOver(client), rest)
        self.assertEqual(attempt.log, [])
        return client

    def test_anyCut(self) -> None:
        """A login does not depend on how TCP splits the backend's replies."""
        for script in SCRIPTS:
            replies = set()
            for position in range(script.length):
                attempt = script.begin()
                for segments, heard in script.cutAt(position):
                    self.assertEqual(attempt.says(*segments), heard)
                replies.add(self.assertDone(attempt).reply)
            self.assertEqual(len(replies), 1)

    def test_byteByByte(self) -> None:
        """It is the same byte by byte, and no command is sent before the last reply is complete."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                self.assertNoResult(attempt.result)
                self.assertEqual(attempt.says(*(said[i : i + 1] for i in range(len(said) - 1))), b"")
                self.assertEqual(attempt.says(said[-1:]), heard)
            self.assertDone(attempt)

    def test_whatFollows(self) -> None:
        """Bytes after the login's reply, even in the same segment, are kept unchanged."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, _ in script.steps[:-1]:
                attempt.says(said)
            attempt.says(script.steps[-1][0] + b"and\0more\r")
            self.assertDone(attempt, b"and\0more\r")

    def test_bareLineFeeds(self) -> None:
        """Lines of a backend may end with bare LF."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                self.assertEqual(attempt.says(said.replace(b"\r\n", b"\n")), heard)
            self.assertDone(attempt)

    def assertTemporary(self, attempt: Attempt, phase: str = "backend-login") -> None:
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(attempt.levels, ["error"])
        self.assertIn(f"in phase {phase}", attempt.log[0])
        self.assertNotIn("sesame", attempt.log[0])
        self.assertTrue(attempt.hasNoTimers())
        self.assertTrue(attempt.transport.disconnecting)

    def truncated(self, end: Callable[[Attempt], None]) -> None:
        """Each login up to each of its bytes, followed by C{end}."""
        for script in SCRIPTS:
            for position in range(script.length):
                attempt = script.begin()
                left = position
                self.hasGreeted = position >= len(script.steps[0][0])
                for said, _ in script.steps:
                    attempt.says(said[: max(0, left)])
                    left -= len(said)
                self.assertNoResult(attempt.result)
                end(attempt)
                self.assertTemporary(attempt)

    def test_dropped(self) -> None:
        """A backend that drops the connection at any byte is a temporary failure."""
        self.truncated(lambda attempt: attempt.transport.lose(ConnectionLost()))

    def test_ended(self) -> None:
        """So is one that closes its side."""
        self.truncated(lambda attempt: attempt.transport.protocol.readConnectionLost())

    def test_silent(self) -> None:
        """So is one that falls silent: before its greeting after proxy_connect_timeout, then after the login's time."""

        def wait(attempt: Attempt) -> None:
            attempt.reactor.advance(29.9 if self.hasGreeted else 9.9)
            self.assertNoResult(attempt.result)
            attempt.reactor.advance(0.1)

        self.truncated(wait)

    def test_endless(self) -> None:
        """So is one that never ends a line or a reply, however small its segments."""
        endless = {
            IMAP4: (b"x", b"* OK more\r\n"),
            POP3: (b"+OK",),
            SMTP: (b"2", b"220-more\r\n", b"250-more\r\n", b"235-more\r\n"),
            SIEVE: (b'"', b'"A" "more"\r\n', b"{9}\r\n123456789"),
        }
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                for piece in endless[script.record]:
                    attempt = script.begin()
                    for said, _ in script.steps[:step]:
                        attempt.says(said)
                    for _ in range(9000 // len(piece)):
                        attempt.says(piece)
                    self.assertTemporary(attempt)

    def test_garbled(self) -> None:
        """So is one that sends nonsense at any step; the log shows it on one line."""
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                attempt = script.begin()
                for said, _ in script.steps[:step]:
                    attempt.says(said)
                attempt.says(b"\x00\x1b[2Jwhat? \xff\n")
                self.assertTemporary(attempt)
                self.assertTrue(attempt.log[0].isprintable())

    def test_emptyLine(self) -> None:
        """An empty line is nonsense too."""
        for script in SCRIPTS:
            for step in range(len(script.steps)):
                attempt = script.begin()
                for said, _ in script.steps[:step]:
                    attempt.says(said)
                attempt.says(b"\r\n")
                self.assertTemporary(attempt)

    def test_greetedWithRefusal(self) -> None:
        """
        With proxy_pass_error_message on a refusal instead of the greeting goes to the client. Nonsense does not, and
        neither does a backend's reply about the connection in place of a reply to a recipient.
        """
        refusals = {IMAP4: b"* BYE too busy\r\n", POP3: b"-ERR too busy\r\n", SMTP: b"421 too busy\r\n"}
        refusals[SIEVE] = b'BYE "too busy"\r\n'
        for script in SCRIPTS:
            refusal = refusals[script.record]
            passed = TEMPORARY if script is SMTP_ANYBODY else Refusal(refusal, True)
            for greeting, expected in ((refusal, passed), (b"too busy\r\n", TEMPORARY)):
                attempt = Attempt(script.record, *script.groups, PASS_ON, **script.changes)
                attempt.accept()
                attempt.says(greeting)
                self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_ownCommands(self) -> None:
        """
        With proxy_pass_error_message on a refusal of a command that is the gateway's own, such as STARTTLS, does not go
        to the client: in IMAP it has another tag than the client's login, and in SMTP its code is not about AUTH.
        """
        cases = {
            IMAP4: (b"* OK ready\r\n", b"mailgate NO no TLS here\r\n"),
            POP3: (b"+OK ready\r\n", b"-ERR no TLS here\r\n"),
            SMTP: (b"220 ready\r\n", b"250 mx\r\n", b"502 5.5.1 no TLS here\r\n"),
            SIEVE: (SIEVE_GREETING, b'NO "no TLS here"\r\n'),
        }
        for record, replies in cases.items():
            attempt = Attempt(record, PASS_ON, route=routeTo(STARTTLS))
            attempt.accept()
            for reply in replies:
                attempt.says(reply)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertIn("no TLS here", attempt.log[0])

    def test_ownTag(self) -> None:
        """A BYE while the gateway talks to the backend for itself goes to the client, but no line with another tag."""
        for reply, expected in (
            (b"* BYE stopping\r\n", Refusal(b"* BYE stopping\r\n", True)),
            (b"other NO what\r\n", TEMPORARY),
        ):
            attempt = Attempt(IMAP4, PASS_ON, route=routeTo())
            attempt.accept()
            attempt.says(b"* OK IMAP4 ready\r\n", reply)
            self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_oldAUTH(self) -> None:
        """SMTP servers older than RFC 2554 write C{AUTH=LOGIN}. Where AUTH is offered too, that counts."""
        for lines, expected in (
            (b"250 AUTH=LOGIN\r\n", b"AUTH LOGIN\r\n"),
            (b"250 auth=login\r\n", b"AUTH LOGIN\r\n"),
            (b"250-AUTH PLAIN LOGIN\r\n250 AUTH=LOGIN\r\n", b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n"),
            (b"250 AUTH=PLAIN LOGIN\r\n", b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n"),
        ):
            attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True))
            attempt.accept()
            attempt.says(b"220 ready\r\n")
            self.assertEqual(attempt.says(b"250-mx\r\n" + lines), expected)

    def test_echo(self) -> None:
        """If a backend repeats the command with the password, it is not logged."""
        for script in SCRIPTS:
            attempt = script.begin()
            for said, heard in script.steps:
                if b"sesame" in heard or INITIAL_RESPONSE in heard or base64.b64encode(b"sesame") in heard:
                    attempt.says(said)
                    attempt.says(heard)
                    break
                attempt.says(said)
            for event in attempt.log:
                for secret in ("sesame", INITIAL_RESPONSE.decode(), base64.b64encode(b"sesame").decode()):
                    self.assertNotIn(secret, event)
