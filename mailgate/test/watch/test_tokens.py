"""
Tests for L{mailgate.watch.tokens}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.admincase import writeTokens
from mailgate.watch.tokens import LEAST, MOST, Grant, Level, TokenError, parseTokens, readTokens

TOKEN = "0123456789abcdefghij"


class ParseTests(SynchronousTestCase):
    """Tests for L{parseTokens}."""

    def test_lines(self) -> None:
        """A line is a name, a level and a token, or the word certificate. Comments and blanks are left out."""
        tokens = parseTokens(
            f"# comment\n\n ops.1\tadmin   {TOKEN} \r\n  # another\n".encode()
            + f"scraper@x read {TOKEN}2\nhost-1 operate certificate".encode()
        )
        self.assertEqual(
            [(grant.name, grant.level) for grant in tokens.grants],
            [("ops.1", Level.ADMIN), ("scraper@x", Level.READ), ("host-1", Level.OPERATE)],
        )
        self.assertEqual(tokens.ofToken(TOKEN.encode()), tokens.grants[0])
        self.assertEqual(tokens.ofToken(TOKEN.encode() + b"2"), tokens.grants[1])
        self.assertEqual(tokens.ofCertificate("host-1"), Grant("host-1", Level.OPERATE))

    def test_wrong(self) -> None:
        """No other token fits, and no name of a token is one of a certificate."""
        tokens = parseTokens(f"a admin {TOKEN}\nb read certificate\n".encode())
        for wrong in (b"", b"certificate", TOKEN[:-1].encode(), TOKEN.encode() + b" ", b"\xff", b"a", b"b"):
            self.assertIs(tokens.ofToken(wrong), None)
        for wrongName in ("", "a", "B", "b ", "b\0"):
            self.assertIs(tokens.ofCertificate(wrongName), None)

    def test_refused(self) -> None:
        """The error names the line, and never shows what may be a token."""
        for content, reason in (
            ("", "contains no token"),
            ("# a\n", "contains no token"),
            (f"a admin {TOKEN}\n\nb {TOKEN}", "line 3: must be NAME, then read, operate or admin, then TOKEN"),
            (f"a admin {TOKEN} x", "line 1: must be NAME, then read, operate or admin, then TOKEN"),
            (f"a {TOKEN} admin", "line 1: the second word must be read, operate or admin"),
            (f"a Admin {TOKEN}", "line 1: the second word must be read, operate or admin; did you mean admin?"),
            (f"a none {TOKEN}", "line 1: the second word must be read, operate or admin"),
            (f'a"b admin {TOKEN}', "line 1: the name must be at most 64 letters, digits, dots, @, - and _"),
            (f"{65 * 'a'} admin {TOKEN}", "line 1: the name must be at most 64 letters, digits, dots, @, - and _"),
            (f"a admin {TOKEN}é", "line 1: the token must be printable ASCII"),
            (
                f"a admin {TOKEN[1:]}",
                f"line 1: the token is shorter than {LEAST} characters; make one with: openssl rand -hex 20",
            ),
            (f"a admin {TOKEN}\na read {TOKEN}2", 'line 2: the name "a" is repeated'),
            (f"a admin {TOKEN}\nb read {TOKEN}", 'line 2: "b" has the token of another name'),
        ):
            error = self.assertRaises(TokenError, parseTokens, content.encode())
            self.assertEqual(str(error), reason)
            self.assertNotIn(TOKEN[1:], str(error))

    def test_repr(self) -> None:
        """Neither the tokens nor their hashes are shown."""
        tokens = parseTokens(f"a admin {TOKEN}".encode())
        shown = repr(tokens)
        self.assertNotIn(TOKEN, shown)
        self.assertNotIn("hidden", shown)
        self.assertNotIn(TOKEN.encode(), tokens.grants[0].hidden)


class ReadTests(SynchronousTestCase):
    """Tests for L{readTokens}."""

    def test_read(self) -> None:
        """A file of the owner, or of the owner and a group that may read it."""
        for mode in (0o600, 0o400, 0o640):
            self.assertEqual(len(readTokens(writeTokens(self.mktemp(), mode=mode)).grants), 3)

    def refusal(self, path: str) -> str:
        return str(self.assertRaises(TokenError, readTokens, path))

    def test_mode(self) -> None:
        """A file that others may read or write is refused."""
        for mode in (0o604, 0o602, 0o666, 0o644):
            path = writeTokens(self.mktemp(), mode=mode)
            self.assertEqual(self.refusal(path), f"every user on this host can open it; run: chmod o-rw {path}")

    def test_unreadable(self) -> None:
        """So is what is no file, and what is too long."""
        self.assertEqual(self.refusal(self.mktemp()), "cannot be read: No such file or directory")
        os.mkfifo(fifo := self.mktemp())
        self.assertEqual(self.refusal(fifo), "cannot be read: it is not a regular file")
        long = writeTokens(self.mktemp(), [f"a admin {TOKEN}", "#" + MOST * "x"])
        self.assertEqual(self.refusal(long), "is longer than 64 KiB")
