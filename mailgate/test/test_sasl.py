"""The SASL mechanisms, without a wire."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Credentials, Method
from mailgate.sasl import MECHANISMS, InvalidResponse, Mechanism, decodeBase64, mechanismNames


def begin(name: bytes) -> Mechanism:
    """An exchange whose salt is C{<salt>}."""
    return MECHANISMS[name](lambda: b"<salt>")


class Base64Tests(SynchronousTestCase):
    """nginx's reading of base64."""

    def test_good(self) -> None:
        """Padding may be left out, and nothing behind it is looked at."""
        for token, decoded in ((b"", b""), (b"=", b""), (b"am9l", b"joe"), (b"am8", b"jo"), (b"am8=x!", b"jo")):
            self.assertEqual(decodeBase64(token), decoded)

    def test_bad(self) -> None:
        """Other characters, and a digit too many, are refused."""
        for token in (b"*", b"am9lx", b"am9-", b"am\r\n", b"\0", b"am 9l"):
            self.assertRaises(InvalidResponse, decodeBase64, token)


class MechanismTests(SynchronousTestCase):
    """Challenges and credentials."""

    def test_plain(self) -> None:
        """PLAIN ignores the authorization identity; the password may hold NUL."""
        wanted = Credentials(Method.PLAIN, b"joe", b"p\0q")
        self.assertEqual(begin(b"PLAIN").start(b"admin\0joe\0p\0q"), wanted)
        exchange = begin(b"PLAIN")
        self.assertEqual(exchange.start(None), b"")
        self.assertEqual(exchange.respond(b"\0joe\0p\0q"), wanted)
        self.assertEqual(begin(b"PLAIN").start(b"\0\0"), Credentials(Method.PLAIN, b"", b""))

    def test_plainBroken(self) -> None:
        """Two NULs are needed."""
        for response in (b"", b"joe", b"joe\0sesame"):
            self.assertRaises(InvalidResponse, begin(b"PLAIN").respond, response)

    def test_login(self) -> None:
        """LOGIN asks for name and password; an initial response is the name."""
        exchange = begin(b"LOGIN")
        self.assertEqual(exchange.start(None), b"Username:")
        self.assertEqual(exchange.respond(b""), b"Password:")
        self.assertEqual(exchange.respond(b"x"), Credentials(Method.PLAIN, b"", b"x"))
        self.assertEqual(begin(b"LOGIN").start(b"joe"), b"Password:")

    def test_cramMD5(self) -> None:
        """CRAM-MD5's challenge is the salt, which the credentials keep; the name may hold blanks."""
        exchange = begin(b"CRAM-MD5")
        self.assertEqual(exchange.start(None), b"<salt>")
        digest = b"0123456789abcdef" * 2
        self.assertEqual(
            exchange.respond(b"joe doe " + digest), Credentials(Method.CRAM_MD5, b"joe doe", digest, b"<salt>")
        )

    def test_cramMD5Broken(self) -> None:
        """It has no initial response, and its digest 32 digits."""
        self.assertRaises(InvalidResponse, begin(b"CRAM-MD5").start, b"joe")
        for response in (b"", b"joe", b"joe 0123", b"0123456789abcdef" * 2):
            self.assertRaises(InvalidResponse, begin(b"CRAM-MD5").respond, response)

    def test_external(self) -> None:
        """EXTERNAL gives a name, asked for as nginx does."""
        exchange = begin(b"EXTERNAL")
        self.assertEqual(exchange.start(None), b"Username:")
        self.assertEqual(exchange.respond(b"joe"), Credentials(Method.EXTERNAL, b"joe"))
        self.assertEqual(begin(b"EXTERNAL").start(b""), Credentials(Method.EXTERNAL, b""))

    def test_names(self) -> None:
        """Directive words switch mechanisms on, in nginx's order; apop and none are no mechanisms."""
        self.assertEqual(mechanismNames(("external", "plain", "apop", "none")), (b"PLAIN", b"EXTERNAL"))

    def test_secrets(self) -> None:
        """An error holds nothing of what was sent."""
        error = self.assertRaises(InvalidResponse, begin(b"PLAIN").respond, b"sesame")
        self.assertNotIn("sesame", str(error))
