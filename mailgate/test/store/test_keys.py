"""Tests for L{mailgate.store.keys}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.keys import DIGEST, NO_ADDRESS, StoreKeys


class StoreKeysTests(SynchronousTestCase):
    """Digests of two gateways with the same secret, and of one with another secret."""

    def setUp(self) -> None:
        self.one, self.same, self.other = StoreKeys(b"s" * 32), StoreKeys(b"s" * 32), StoreKeys(b"t" * 32)

    def test_digest(self) -> None:
        """The same secret makes the same digests. Kinds and secrets make different ones, which have no names."""
        digest = self.one.digest(b"user", b"joe@example.org")
        self.assertEqual(digest, self.same.digest(b"user", b"joe@example.org"))
        self.assertEqual(len(digest), DIGEST)
        others = {
            self.one.digest(b"address", b"joe@example.org"),
            self.one.digest(b"user", b"ann@example.org"),
            self.other.digest(b"user", b"joe@example.org"),
        }
        self.assertEqual(len(others - {digest}), 3)
        self.assertNotIn(b"joe", digest)

    def test_derived(self) -> None:
        """Each purpose has a secret of its own, which is not that of the digests."""
        derived = {self.one.derived(b"seal"), self.one.derived(b"tag"), self.other.derived(b"seal"), self.one.secret}
        self.assertEqual(len(derived), 4)
        self.assertEqual(self.one.derived(b"seal"), self.same.derived(b"seal"))

    def test_mark(self) -> None:
        """Marks tell whether secrets are the same, and have no part of them."""
        self.assertEqual(self.one.mark, self.same.mark)
        self.assertNotEqual(self.one.mark, self.other.mark)
        self.assertEqual(len(self.one.mark), 8)
        self.assertNotIn(self.one.mark, self.one.secret.hex())

    def test_both(self) -> None:
        """The digest of a pair depends on both of its parts."""
        user, address = self.one.digest(b"user", b"joe"), self.one.digest(b"address", b"\xc0\x00\x02\x07")
        both = StoreKeys.both(user, address)
        self.assertEqual(StoreKeys.both(both, address), user)
        self.assertEqual(len(both), DIGEST)

    def test_part(self) -> None:
        """Sessions count by protocol and address, also without an address."""
        imap, address = self.one.protocol("imap"), self.one.digest(b"address", b"\xc0\x00\x02\x07")
        self.assertNotEqual(imap, self.one.protocol("smtp"))
        self.assertEqual(StoreKeys.part(imap, address), imap + address[:4])
        self.assertEqual(StoreKeys.part(imap, b""), imap + NO_ADDRESS)
