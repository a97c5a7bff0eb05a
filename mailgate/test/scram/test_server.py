"""Tests for L{mailgate.scram.server}, and for both sides together."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Method
from mailgate.scram.client import ScramClient
from mailgate.scram.messages import ScramError
from mailgate.scram.secrets import derivedSecret
from mailgate.scram.server import ScramServer
from mailgate.test.scram.test_secrets import SECRET

VERIFIER = evolve(SECRET, clientKey=None)


class _Nonce(ScramServer):
    """A server with a given nonce."""

    def challenge(self, secret: Any) -> bytes:
        challenge = super().challenge(secret)
        given = self._randomness(18)
        self._nonce = self._nonce.replace(b64encode(given), given)
        self._challenge = challenge.replace(b64encode(given), given)
        return self._challenge


def made(binds: bool = False, offersBinding: bool = False) -> ScramServer:
    """A server whose channel binding is C{data}."""
    return ScramServer(binds, offersBinding, lambda: b"data", lambda n: bytes(n))


class VectorTests(SynchronousTestCase):
    """The examples of the RFCs, in both directions."""

    def exchange(self, method: Method, salt: str, ours: bytes, theirs: bytes) -> tuple[bytes, bytes, bytes]:
        """Run an exchange of the user C{user} with the password C{pencil}; return the last three messages."""
        client = ScramClient(b"user", b"", ours)
        server = _Nonce(False, False, lambda: b"", lambda n: theirs)
        self.assertEqual(client.message, b"n,,n=user,r=" + ours)
        server.first(client.message)
        secret = derivedSecret(method, b"pencil", b64decode(salt), 4096)
        challenge = server.challenge(evolve(secret, clientKey=None))
        client.first(challenge)
        final = client.final(secret)
        self.assertEqual(server.final(final), secret)
        self.assertTrue(client.verify(server.signature))
        return challenge, final, server.signature

    def test_sha1(self) -> None:
        """RFC 5802, section 5."""
        ours, theirs = b"fyko+d2lbbFgONRv9qkxdawL", b"3rfcNHYJY1ZVvWVs7j"
        self.assertEqual(
            self.exchange(Method.SCRAM_SHA_1, "QSXCR+Q6sek8bf92", ours, theirs),
            (
                b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
                b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
                b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
            ),
        )

    def test_sha256(self) -> None:
        """RFC 7677, section 3."""
        ours, theirs = b"rOprNGfwEbeRWgbNEkqO", b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        self.assertEqual(
            self.exchange(Method.SCRAM_SHA_256, "W22ZaJ0SNY7soEsUEjb6gQ==", ours, theirs),
            (
                b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
                b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            ),
        )


class BindingTests(SynchronousTestCase):
    """The rules for channel bindings (RFC 5802, section 6)."""

    def test_allowed(self) -> None:
        """With -PLUS there is a binding; without it a client may say that it or the gateway has none."""
        for server, header in (
            (made(binds=True, offersBinding=True), b"p=tls-exporter,,"),
            (made(offersBinding=True), b"n,,"),
            (made(), b"n,,"),
            (made(), b"y,,"),
        ):
            self.assertEqual(server.first(header + b"n=u,r=x").user, b"u")

    def test_refused(self) -> None:
        """An attacker may have removed -PLUS. Other bindings, and none where one is needed, are refused."""
        for server, header in (
            (made(offersBinding=True), b"y,,"),
            (made(offersBinding=True), b"p=tls-exporter,,"),
            (made(), b"p=tls-exporter,,"),
            (made(binds=True, offersBinding=True), b"n,,"),
            (made(binds=True, offersBinding=True), b"y,,"),
            (made(binds=True, offersBinding=True), b"p=tls-unique,,"),
            (made(binds=True, offersBinding=True), b"p=tls-server-end-point,,"),
        ):
            self.assertRaises(ScramError, server.first, header + b"n=u,r=x")

    def final(self, header: bytes, data: bytes, **kind: bool) -> Any:
        """Play a client with the right password that says C{data} at the end."""
        server = made(**kind)
        client = ScramClient(b"u", b"", b"x")
        client.message = header + client._bare
        client._header = data
        server.first(client.message)
        client.first(server.challenge(VERIFIER))
        return server.final(client.final(SECRET))

    def test_data(self) -> None:
        """The last message has the header and the binding of this very connection."""
        plus = {"binds": True, "offersBinding": True}
        self.assertEqual(self.final(b"p=tls-exporter,,", b"p=tls-exporter,,data", **plus), SECRET)
        for header, data, kind in (
            (b"p=tls-exporter,,", b"p=tls-exporter,,date", plus),
            (b"p=tls-exporter,,", b"p=tls-exporter,,", plus),
            (b"n,,", b"y,,", {}),
            (b"n,,", b"n,,data", {}),
            (b"n,a=ann,", b"n,,", {}),
        ):
            self.assertRaises(ScramError, self.final, header, data, **kind)


class ServerTests(SynchronousTestCase):
    """Tests for L{ScramServer}."""

    def begin(self) -> tuple[ScramServer, ScramClient]:
        server, client = made(), ScramClient(b"joe", b"", b"abc")
        server.first(client.message)
        client.first(server.challenge(VERIFIER))
        return server, client

    def test_nonce(self) -> None:
        """The nonce begins with that of the client, and a proof with another one is refused."""
        server, client = self.begin()
        final = client.final(SECRET)
        self.assertIn(b",r=abcAAAA", final)
        self.assertRaises(ScramError, server.final, final.replace(b"r=abcA", b"r=abcB"))
        self.assertRaises(ScramError, server.final, final.replace(b"r=abcA", b"r=abc"))

    def test_wrong(self) -> None:
        """A wrong password proves nothing, and the server proves nothing to this client."""
        server, client = self.begin()
        other = derivedSecret(Method.SCRAM_SHA_256, b"pencils", VERIFIER.salt, 4096)
        self.assertIsNone(server.final(client.final(other)))
        self.assertEqual(server.signature, b"")
