"""Tests for L{mailgate.scram.client}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.scram.client import ScramClient
from mailgate.scram.messages import ScramError
from mailgate.test.scram.test_secrets import SECRET


class ScramClientTests(SynchronousTestCase):
    """Tests for L{ScramClient}. C{mailgate.test.scram.test_server} has whole exchanges."""

    def test_message(self) -> None:
        """Names are escaped; an authorization identity is in the header."""
        client = ScramClient(b"a,b=c", b"ann,=", b"abc")
        self.assertEqual(client.message, b"n,a=ann=2C=3D,n=a=2Cb=3Dc,r=abc")

    def test_nonce(self) -> None:
        """A challenge for another exchange, or without a nonce of the server, is refused."""
        for nonce in (b"abd1", b"abc", b"ab"):
            client = ScramClient(b"joe", b"", b"abc")
            self.assertRaises(ScramError, client.first, b"r=" + nonce + b",s=c2FsdA==,i=4096")

    def test_signature(self) -> None:
        """A server that does not know the secret is found out; one that reports an error is not believed either."""
        client = ScramClient(b"joe", b"", b"abc")
        client.first(b"r=abcd,s=c2FsdA==,i=4096")
        client.final(SECRET)
        self.assertRaises(ScramError, client.verify, b"v=aHVzaA==")
        self.assertFalse(client.verify(b"e=invalid-proof"))
