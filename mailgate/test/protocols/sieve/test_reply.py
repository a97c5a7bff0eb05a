"""
Tests for L{mailgate.protocols.sieve.reply}.
"""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import replyCode
from mailgate.backend.reply import isBusy, isOfAccount, isPassing
from mailgate.login import Denial, Trouble, sieveCode
from mailgate.protocols.sieve.reply import Response, linesOf, parseCapabilities, parseResponse, sieveDenial

LOGIN = PasswordLogin(b"joe", b"sesame")


class ResponseTests(SynchronousTestCase):
    """L{parseResponse}."""

    def test_valid(self) -> None:
        """Statuses, codes and texts, in the forms that servers use."""
        for raw, expected in (
            (b"OK\r\n", Response(b"OK")),
            (b"ok\n", Response(b"OK")),
            (b'NO "x"\r\n', Response(b"NO", text=b"x")),
            (b'BYE (TRYLATER) "x"\r\n', Response(b"BYE", b"TRYLATER", b"x")),
            (b'NO (trylater/noretry) "x"\r\n', Response(b"NO", b"TRYLATER/NORETRY", b"x")),
            (b'OK (SASL "b64") "x"\r\n', Response(b"OK", b'SASL "b64"', b"x")),
            (b"OK (SASL {3}\r\nb64)\r\n", Response(b"OK", b'SASL "b64"')),
            (b"NO {5}\r\na\r\nb\x1b\r\n", Response(b"NO", text=b"a\r\nb\x1b")),
            (b'NO (X (Y) Z) "x"\r\n', Response(b"NO", b"X ( Y")),
            (b'"A" "b"\r\n', Response(strings=(b"A", b"b"))),
            (b"{1}\r\nA {0}\r\n\r\n", Response(strings=(b"A", b""))),
            (b"{0}\r\n", Response(strings=(b"",))),
        ):
            self.assertEqual(parseResponse(raw), expected, raw)

    def test_invalid(self) -> None:
        """Everything else is an empty response."""
        for raw in (
            b"",
            b"\r\n",
            b"+OK\r\n",
            b"* OK\r\n",
            b"OKAY\r\n",
            b"NO (x\r\n",
            b'"a" b\r\n',
            b'"a\r\n',
            b"OK\0 {\r\n",
        ):
            self.assertEqual(parseResponse(raw), Response(), raw)

    def test_line(self) -> None:
        """The line for logs and clients is one line."""
        response = parseResponse(b'NO (REFERRAL "sieve://b") {6}\r\n"a"\r\nb\r\n')
        self.assertEqual(response.line, b'NO (REFERRAL "sieve://b") "\\"a\\" b"\r\n')
        self.assertEqual(parseResponse(response.line).code, response.code)


class CapabilityTests(SynchronousTestCase):
    """L{parseCapabilities}."""

    def test_list(self) -> None:
        """Names in any case and either form of strings; the first of equal names counts."""
        raw = b'"Sieve" "a b"\r\n{8}\r\nSTARTTLS\r\n"X" {8}\r\nOK\r\nOK\r\n\r\n"x" "y"\r\nOK\r\n'
        capabilities = parseCapabilities(raw)
        assert capabilities is not None
        self.assertEqual(capabilities.values, {b"SIEVE": b"a b", b"STARTTLS": b"", b"X": b"OK\r\nOK\r\n"})
        self.assertEqual(capabilities.end, Response(b"OK"))

    def test_mechanisms(self) -> None:
        """Names of mechanisms, in capitals."""
        for raw, names in ((b'"SASL" "plain Login"\r\nOK\r\n', [b"PLAIN", b"LOGIN"]), (b"OK\r\n", [])):
            capabilities = parseCapabilities(raw)
            assert capabilities is not None
            self.assertEqual(capabilities.mechanisms, names)

    def test_invalid(self) -> None:
        """A list without an end, or with something else in it, is none."""
        for raw in (b"", b'"A" "b"\r\n', b'"A" "b" "c"\r\nOK\r\n', b"x\r\nOK\r\n", b'"A" b\r\nOK\r\n'):
            self.assertIsNone(parseCapabilities(raw), raw)

    def test_lines(self) -> None:
        """A literal is part of its line."""
        raw = b'"a"\r\n"b" {4}\r\nx\r\ny "c"\r\nOK\r\n'
        self.assertEqual(list(linesOf(raw)), [b'"a"\r\n', b'"b" {4}\r\nx\r\ny "c"\r\n', b"OK\r\n"])


class DenialTests(SynchronousTestCase):
    """L{sieveDenial}."""

    def denial(self, line: bytes) -> Denial:
        """What the client gets for the refusal C{line}."""
        return sieveDenial(parseResponse(line), LOGIN)

    def test_kinds(self) -> None:
        """The code says what the refusal means."""
        for line, trouble, answer in (
            (b"NO\r\n", Trouble.DENIED, b""),
            (b'NO "x"\r\n', Trouble.DENIED, b'NO "x"'),
            (b'NO (TRYLATER) "x"\r\n', Trouble.TEMPORARY, b'NO (TRYLATER) "x"'),
            (b'NO (LIMIT/CONNECTIONS) "x"\r\n', Trouble.TEMPORARY, b'NO (LIMIT/CONNECTIONS) "x"'),
            (b"NO (TRANSITION-NEEDED)\r\n", Trouble.DENIED, b'NO (TRANSITION-NEEDED) "Authentication failed."'),
            (b'NO (REFERRAL "sieve://b") "x"\r\n', Trouble.PERMANENT, b'NO (REFERRAL "sieve://b") "x"'),
            (b'NO (VND.OWN "y") "x"\r\n', Trouble.DENIED, b'NO "x"'),
            # They are about the gateway.
            (b'NO (ENCRYPT-NEEDED) "x"\r\n', Trouble.TEMPORARY, b""),
            (b'NO (AUTH-TOO-WEAK) "x"\r\n', Trouble.TEMPORARY, b""),
        ):
            self.assertEqual(self.denial(line), Denial(trouble, answer=answer), line)

    def test_secrets(self) -> None:
        """A text that repeats the password does not reach the client."""
        encoded = base64.b64encode(b"\0joe\0sesame")
        for text in (b"no sesame", encoded, b"got AUTHENTICATE " + encoded):
            self.assertEqual(self.denial(b'NO "' + text + b'"\r\n'), Denial(Trouble.DENIED))

    def test_wire(self) -> None:
        """A text with line ends, or too long, is one line for the client."""
        answer = self.denial(b'NO {9}\r\na\r\nOK "b"\r\n').answer
        self.assertEqual(answer, b'NO "a OK \\"b\\""')
        self.assertLess(len(self.denial(b"NO {4000}\r\n" + b"x" * 4000 + b"\r\n").answer), 1100)


class CodeTests(SynchronousTestCase):
    """What the code means to the parts that are the same for all protocols."""

    def test_codes(self) -> None:
        """Another server may accept the login after TRYLATER; limits and referrals are about the account."""
        for line, passing, account, busy in (
            (b'NO (TRYLATER) "x"\r\n', True, False, False),
            (b'NO (TRYLATER/NORETRY) "x"\r\n', True, False, False),
            (b'NO (LIMIT/CONNECTIONS) "x"\r\n', False, True, True),
            (b"NO (LIMIT)\r\n", False, True, True),
            (b'NO (REFERRAL "sieve://b")\r\n', False, True, False),
            (b'NO "(TRYLATER)"\r\n', False, False, False),
            (b"NO\r\n", False, False, False),
        ):
            got = bool(isPassing(line)), bool(isOfAccount(line)), bool(isBusy(line))
            self.assertEqual(got, (passing, account, busy), line)

    def test_logged(self) -> None:
        """The log has known codes."""
        for line, code in (
            (b'NO (TRYLATER) "x"\r\n', "NO (TRYLATER)"),
            (b'NO (LIMIT/CONNECTIONS) "x"\r\n', "NO (LIMIT/CONNECTIONS)"),
            (b'NO (HUNTER2) "x"\r\n', "NO"),
            (b'BYE "x"\r\n', "BYE"),
        ):
            self.assertEqual(replyCode(line), code)

    def test_registered(self) -> None:
        """Codes for clients: registered ones, and the two of Dovecot."""
        for code, expected in (
            (b"encrypt-needed", b"ENCRYPT-NEEDED"),
            (b"TRYLATER", b"TRYLATER"),
            (b"AUTH-TOO-WEAK", b"AUTH-TOO-WEAK"),
            (b'REFERRAL "sieve://joe@b:4190"', b'REFERRAL "sieve://joe@b:4190"'),
            (b'referral "sieve://b"', b'REFERRAL "sieve://b"'),
            (b"REFERRAL", b""),
            (b'REFERRAL "http://b"', b""),
            (b'REFERRAL "sieve://b") "x"', b""),
            (b'TRYLATER "sieve://b"', b""),
            (b"TRYLATER)", b""),
            (b"AuthFailed", b""),
            (b"535 5.7.8", b""),
            (b"", b""),
            (None, b""),
        ):
            self.assertEqual(sieveCode(code), expected, code)
