"""
Tests of L{mailgate.auth.passwdfile.accountfile}: how logins see the file and its changes.
"""

from __future__ import annotations

import os
from typing import Any

from mailgate.auth.passwdfile import accountfile
from mailgate.auth.passwdfile.authenticator import KIND
from mailgate.login import Denial, Route, Trouble
from mailgate.test.support.passwdfiles import DEFAULT, AuthenticatorTestCase


def unreadable(
    path: str, reason: str, consequence: str = "logins get a temporary failure until the file is readable"
) -> str:
    """Return the error for an account file that cannot be read."""
    return f"cannot read auth_file {path}: {reason}; {consequence}"


class FileTests(AuthenticatorTestCase):
    """The file and its changes."""

    def test_lines(self) -> None:
        """Comments, blank lines, CRs at the ends of lines, and a missing end of the last line have no effect."""
        self.build(b"# the accounts", b"", b"  ", b"\t# none:{PLAIN}x", b"joe:{PLAIN}secret\r", b"ann:{PLAIN}a b ")
        with open(self.path, "ab") as file:
            file.write(b"bob:{PLAIN}secret")
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.assertIsInstance(self.login(b"ann", b"a b "), Route)
        self.assertIsInstance(self.login(b"bob", b"secret"), Route)
        self.assertTrue(self.refusal(self.login(b"ann", b"a b")))

    def test_firstCounts(self) -> None:
        """Of two lines for one user the first counts, as in Dovecot."""
        self.build(b"joe:{PLAIN}first", b"JOE:{PLAIN}second")
        self.assertIsInstance(self.login(b"joe", b"first"), Route)
        self.assertTrue(self.refusal(self.login(b"joe", b"second")))

    def test_change(self) -> None:
        """A change takes effect a second later: new users can log in, removed users cannot."""
        self.build(b"joe:{PLAIN}secret")
        self.write(b"ann:{PLAIN}secret")
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.reactor.advance(1)
        self.assertTrue(self.refusal(self.login(b"joe", b"secret")))
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_sameSizeAndTime(self) -> None:
        """A new file in place of the old one is noticed, even with the same size and time."""
        self.build(b"joe:{PLAIN}secret")
        status = os.stat(self.path)
        self.write(b"ann:{PLAIN}secret")
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_samePlaceSizeAndTime(self) -> None:
        """A file that was overwritten is noticed, even with the same size and its old time, as by C{cp -p}."""
        self.build(b"joe:{PLAIN}secret")
        status = os.stat(self.path)
        with open(self.path, "r+b") as opened:
            opened.write(b"ann")
        os.utime(self.path, ns=(status.st_atime_ns, status.st_mtime_ns))
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_unchangedIsNotRead(self) -> None:
        """An unchanged file is not read again, and not examined more than once in a second."""
        self.build(b"joe:{PLAIN}secret")
        looks: list[str] = []

        def counted(name: str) -> None:
            original = getattr(os, name)

            def call(target: Any) -> Any:
                looks.append(name)
                return original(target)

            self.patch(os, name, call)

        counted("stat")
        counted("fstat")
        for _ in range(10):
            self.login(b"joe", b"secret")
        self.assertEqual(looks, [])
        self.reactor.advance(1)
        for _ in range(10):
            self.login(b"joe", b"secret")
        self.assertEqual(looks, ["stat"])

    def test_writtenWhileRead(self) -> None:
        """A file that changes while it is read is read once more."""
        self.write(b"joe:{PLAIN}secret")
        fstat, calls = os.fstat, []

        def meanwhile(descriptor: int) -> os.stat_result:
            calls.append(descriptor)
            if len(calls) == 2:
                with open(self.path, "ab") as file:
                    file.write(b"ann:{PLAIN}secret\n")
            return fstat(descriptor)

        self.patch(os, "fstat", meanwhile)
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertTrue(self.refusal(self.login(b"ann", b"secret")))
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"ann", b"secret"), Route)

    def test_unreadable(self) -> None:
        """While the file cannot be read, the old accounts stay valid, and one error is logged."""
        self.build(b"joe:{PLAIN}secret")
        for trouble in (lambda: os.remove(self.path), lambda: os.mkdir(self.path)):
            trouble()
            for _ in range(3):
                self.reactor.advance(1)
                self.assertIsInstance(self.login(b"joe", b"secret"), Route)
        self.assertEqual(
            self.logged(),
            [unreadable(self.path, "No such file or directory", "the accounts that were read earlier stay valid")],
        )

    def test_readableAgain(self) -> None:
        """A file that is readable again is read, and its next failure is logged again."""
        self.build(b"joe:{PLAIN}secret")
        for user in (b"ann", b"bob"):
            os.remove(self.path)
            self.reactor.advance(1)
            self.login(b"x", b"x")
            self.assertEqual(len([text for text in self.logged() if "cannot read" in text]), 1)
            self.write(user + b":{PLAIN}secret")
            self.reactor.advance(1)
            self.assertIsInstance(self.login(user, b"secret"), Route)

    def test_neverReadable(self) -> None:
        """Until the file could be read once, logins get a temporary failure."""
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertEqual(self.login(b"joe", b"secret"), Denial(Trouble.TEMPORARY, reason="cannot read auth_file"))
        self.write(b"joe:{PLAIN}secret")
        self.reactor.advance(1)
        self.assertIsInstance(self.login(b"joe", b"secret"), Route)

    def test_fifo(self) -> None:
        """A FIFO is rejected without waiting."""
        os.mkfifo(self.path)
        self.authenticator = KIND.build(self.settings(), DEFAULT, self.reactor, self.journal)
        self.assertEqual(self.logged(), [unreadable(self.path, "it is not a regular file")])

    def test_empty(self) -> None:
        """With an empty file, all logins are refused."""
        self.build()
        self.assertTrue(self.refusal(self.login(b"joe", b"secret")))

    def test_tooLarge(self) -> None:
        """A file that is too large is rejected."""
        self.patch(accountfile, "LARGEST", 20)
        self.build(b"joe:{PLAIN}secret-of-joe")
        self.assertEqual(self.logged(), [unreadable(self.path, "it is larger than 20 bytes")])
