"""Tests for L{mailgate.scram.secrets} and L{mailgate.login.ScramSecret}."""

from __future__ import annotations

from base64 import b64decode, b64encode

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Method
from mailgate.scram.secrets import (
    BadSecret,
    derivedSecret,
    fakeSecret,
    parseSecret,
    proofOf,
    saltFor,
    signatureOf,
    unlocked,
    written,
)

SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
SECRET = derivedSecret(Method.SCRAM_SHA_256, b"pencil", SALT, 4096)
STORED = (
    b"4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,"
    b"wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)
"""The secret of RFC 7677, section 3, as PostgreSQL and Dovecot store it."""


class DerivedTests(SynchronousTestCase):
    """Tests for L{derivedSecret} and what its keys prove."""

    def test_stored(self) -> None:
        """The keys are those that other servers store."""
        self.assertEqual(written(SECRET), STORED)

    def test_proof(self) -> None:
        """A right proof reveals the client's key; any other one reveals nothing."""
        bare = evolve(SECRET, clientKey=None)
        proof = proofOf(SECRET, b"message")
        self.assertEqual(unlocked(bare, proof, b"message"), SECRET)
        self.assertIsNone(unlocked(bare, proof, b"massage"))
        self.assertIsNone(unlocked(bare, proof[:-1] + bytes([proof[-1] ^ 1]), b"message"))
        for other in (b"", proof[:-1], proof + b"\0"):
            self.assertIsNone(unlocked(bare, other, b"message"))

    def test_noKey(self) -> None:
        """A verifier proves nothing to a server."""
        self.assertRaises(RuntimeError, proofOf, evolve(SECRET, clientKey=None), b"message")

    def test_methods(self) -> None:
        """The keys of the two methods differ in length."""
        sha1 = derivedSecret(Method.SCRAM_SHA_1, b"pencil", SALT, 4096)
        self.assertEqual((len(sha1.storedKey), len(SECRET.storedKey)), (20, 32))
        self.assertEqual((len(signatureOf(sha1, b"")), len(signatureOf(SECRET, b""))), (20, 32))

    def test_prepared(self) -> None:
        """Spellings of a password that SASLprep makes equal have the same secret."""
        one, other = (
            derivedSecret(Method.SCRAM_SHA_1, text.encode(), SALT, 4096) for text in ("caf\u00e9", "cafe\u0301")
        )
        self.assertEqual(one, other)

    def test_hidden(self) -> None:
        """No key and no salt is in the representation."""
        self.assertEqual(repr(SECRET), f"ScramSecret(method={Method.SCRAM_SHA_256!r}, iterations=4096)")


class ParseTests(SynchronousTestCase):
    """Tests for L{parseSecret}."""

    def test_parse(self) -> None:
        """Dovecot's form is read, and written again."""
        self.assertEqual(parseSecret(Method.SCRAM_SHA_256, STORED), evolve(SECRET, clientKey=None))

    def test_invalid(self) -> None:
        """Anything else is refused, and the error quotes nothing of it."""
        count, salt, stored, server = STORED.split(b",")
        invalid = (
            b"",
            STORED + b",",
            b" " + STORED,
            STORED + b"\n",
            b"{SCRAM-SHA-256}" + STORED,
            b",".join((count, salt, stored)),
            b",".join((b"04096", salt, stored, server)),
            b",".join((count, b"", stored, server)),
            b",".join((count, b"W2=2", stored, server)),
            b",".join((count, salt, server[:-4], server)),
            b",".join((count, salt, stored, salt)),
            b",".join((count, b64encode(bytes(2000)), stored, server)),
        )
        for text in invalid:
            error = self.assertRaises(BadSecret, parseSecret, Method.SCRAM_SHA_256, text)
            self.assertEqual(
                str(error), "must be ITERATIONS,SALT,STOREDKEY,SERVERKEY with base64, and keys of 32 bytes", text
            )
        # Keys of SHA-256 are too long for SHA-1.
        self.assertRaises(BadSecret, parseSecret, Method.SCRAM_SHA_1, STORED)

    def test_iterations(self) -> None:
        """Too few iterations are too weak, and too many would keep clients busy."""
        for count in (b"1", b"4095", b"2000001", b"999999999"):
            error = self.assertRaises(BadSecret, parseSecret, Method.SCRAM_SHA_256, STORED.replace(b"4096", count, 1))
            self.assertEqual(str(error), "must have 4096 to 2000000 iterations")
        for count in (b"4096", b"2000000"):
            parseSecret(Method.SCRAM_SHA_256, STORED.replace(b"4096", count, 1))


class FakeTests(SynchronousTestCase):
    """Tests for L{fakeSecret}."""

    def test_stable(self) -> None:
        """A user gets the same secret each time; another user, key or method gets another one."""
        fake = fakeSecret(b"k", Method.SCRAM_SHA_256, b"joe")
        self.assertEqual(fakeSecret(b"k", Method.SCRAM_SHA_256, b"JOE"), fake)
        others = (
            fakeSecret(b"k", Method.SCRAM_SHA_256, b"ann"),
            fakeSecret(b"l", Method.SCRAM_SHA_256, b"joe"),
            fakeSecret(b"k", Method.SCRAM_SHA_1, b"joe"),
        )
        for other in others:
            self.assertNotEqual(other.salt, fake.salt)
            self.assertNotEqual(other.storedKey, fake.storedKey)

    def test_likeOthers(self) -> None:
        """It has the salt of a user with a plain password, so that both look alike."""
        fake = fakeSecret(b"k", Method.SCRAM_SHA_1, b"joe", 5000, 20)
        self.assertEqual(fake.salt, saltFor(b"k", Method.SCRAM_SHA_1, b"joe", 20))
        self.assertEqual((fake.iterations, len(fake.salt), fake.clientKey), (5000, 20, None))
        self.assertEqual(parseSecret(Method.SCRAM_SHA_1, written(fake)), fake)
