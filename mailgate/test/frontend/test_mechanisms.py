"""The SASL mechanisms, without a wire."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.mechanisms import (
    MECHANISMS,
    InvalidResponse,
    InvalidToken,
    Mechanism,
    decodeBase64,
    mechanismNames,
)
from mailgate.login import Credentials, Method

NO_TOKENS = (
    b"",
    b" t",
    b"t ",
    b"t t",
    b"t\n",
    b"t\r\nX: y",
    b"t\0",
    b"=",
    b"t=t",
    b"t%20",
    b"t,u",
    b"\xc3\xa4",
    b'"t"',
)
"""What is no token of RFC 6750."""


def begin(name: bytes) -> Mechanism:
    """An exchange with the salt C{<salt>}."""
    return MECHANISMS[name](lambda: b"<salt>")


class Base64Tests(SynchronousTestCase):
    """Base64 as nginx reads it."""

    def test_good(self) -> None:
        """Padding is optional, and anything after it is ignored."""
        for token, decoded in ((b"", b""), (b"=", b""), (b"am9l", b"joe"), (b"am8", b"jo"), (b"am8=x!", b"jo")):
            self.assertEqual(decodeBase64(token), decoded)

    def test_bad(self) -> None:
        """Other characters, and a surplus digit, are refused."""
        for token in (b"*", b"am9lx", b"am9-", b"am\r\n", b"\0", b"am 9l"):
            self.assertRaises(InvalidResponse, decodeBase64, token)


class MechanismTests(SynchronousTestCase):
    """Challenges and credentials."""

    def test_plain(self) -> None:
        """PLAIN returns the authorization identity if it differs from the user, if only in its case."""
        wanted = Credentials(Method.PLAIN, b"joe", b"p\xc3\xa4 q")
        self.assertEqual(begin(b"PLAIN").start(b"joe\0joe\0p\xc3\xa4 q"), wanted)
        for authzid in (b"admin", b"Joe", b"joe "):
            other = Credentials(Method.PLAIN, b"joe", b"p\xc3\xa4 q", authzid=authzid)
            self.assertEqual(begin(b"PLAIN").start(authzid + b"\0joe\0p\xc3\xa4 q"), other)
        exchange = begin(b"PLAIN")
        self.assertEqual(exchange.start(None), b"")
        self.assertEqual(exchange.respond(b"\0joe\0p\xc3\xa4 q"), wanted)

    def test_plainLengths(self) -> None:
        """Each part may have 255 bytes at least (RFC 4616, section 2)."""
        authzid, user, password = (letter * 255 for letter in (b"a", b"u", b"p"))
        wanted = Credentials(Method.PLAIN, user, password, authzid=authzid)
        self.assertEqual(begin(b"PLAIN").start(b"\0".join((authzid, user, password))), wanted)

    def test_plainBroken(self) -> None:
        """Two NULs are required."""
        for response in (b"", b"joe", b"joe\0sesame"):
            self.assertRaises(InvalidResponse, begin(b"PLAIN").respond, response)

    def test_plainOdd(self) -> None:
        """The password may contain NUL; the authenticator decides about an empty name or password."""
        for response, user, password in (
            (b"\0joe\0se\0same", b"joe", b"se\0same"),
            (b"\0joe\0", b"joe", b""),
            (b"\0\0sesame", b"", b"sesame"),
            (b"\0\0", b"", b""),
        ):
            self.assertEqual(begin(b"PLAIN").respond(response), Credentials(Method.PLAIN, user, password))

    def test_login(self) -> None:
        """LOGIN prompts for name and password. An initial response is the name."""
        exchange = begin(b"LOGIN")
        self.assertEqual(exchange.start(None), b"Username:")
        self.assertEqual(exchange.respond(b""), b"Password:")
        self.assertEqual(exchange.respond(b"x"), Credentials(Method.PLAIN, b"", b"x"))
        self.assertEqual(begin(b"LOGIN").start(b"joe"), b"Password:")

    def test_cramMD5(self) -> None:
        """CRAM-MD5's challenge is the salt, which the credentials keep. The name may contain blanks."""
        exchange = begin(b"CRAM-MD5")
        self.assertEqual(exchange.start(None), b"<salt>")
        digest = b"0123456789abcdef" * 2
        self.assertEqual(
            exchange.respond(b"joe doe " + digest), Credentials(Method.CRAM_MD5, b"joe doe", digest, b"<salt>")
        )

    def test_cramMD5Broken(self) -> None:
        """It has no initial response, and its digest has 32 digits."""
        self.assertRaises(InvalidResponse, begin(b"CRAM-MD5").start, b"joe")
        for response in (b"", b"joe", b"joe 0123", b"0123456789abcdef" * 2):
            self.assertRaises(InvalidResponse, begin(b"CRAM-MD5").respond, response)

    def test_external(self) -> None:
        """EXTERNAL returns a name, with the same prompt as nginx."""
        exchange = begin(b"EXTERNAL")
        self.assertEqual(exchange.start(None), b"Username:")
        self.assertEqual(exchange.respond(b"joe"), Credentials(Method.EXTERNAL, b"joe"))
        self.assertEqual(begin(b"EXTERNAL").start(b""), Credentials(Method.EXTERNAL, b""))

    def test_names(self) -> None:
        """The words of the directives enable mechanisms, in nginx's order. apop and none are not mechanisms."""
        self.assertEqual(mechanismNames(("external", "plain", "apop", "none")), (b"PLAIN", b"EXTERNAL"))
        every = tuple(name.decode().lower() for name in MECHANISMS)
        listed = (b"PLAIN", b"LOGIN", b"CRAM-MD5", b"EXTERNAL", b"XOAUTH2", b"OAUTHBEARER")
        self.assertEqual(mechanismNames(every[::-1]), listed)

    def test_secrets(self) -> None:
        """An error contains nothing of the response."""
        for name in (b"PLAIN", b"CRAM-MD5", b"XOAUTH2", b"OAUTHBEARER"):
            error = self.assertRaises(InvalidResponse, begin(name).respond, b"sesame")
            self.assertNotIn("sesame", str(error))


class OAuthTests(SynchronousTestCase):
    """XOAUTH2 and OAUTHBEARER."""

    def assertGives(self, method: Method, response: bytes, user: bytes, token: bytes) -> None:
        """C{response} leads to the credentials, as an initial response and as a response to the empty challenge."""
        name = method.value.upper().encode()
        wanted = Credentials(method, user, token)
        self.assertEqual(begin(name).start(response), wanted)
        exchange = begin(name)
        self.assertEqual(exchange.start(None), b"")
        self.assertEqual(exchange.respond(response), wanted)

    def assertInvalid(self, name: bytes, *responses: bytes) -> None:
        """Each of C{responses} is invalid for mechanism C{name}."""
        for response in responses:
            with self.assertRaises(InvalidResponse, msg=response):
                begin(name).respond(response)

    def test_xoauth2(self) -> None:
        """XOAUTH2 is a name and a token, with keywords in any case."""
        for response, user, token in (
            (b"user=joe@c.test\x01auth=Bearer ya29.t-o~k/e+n==\x01\x01", b"joe@c.test", b"ya29.t-o~k/e+n=="),
            (b"USER=joe\x01Auth=bearer t\x01\x01", b"joe", b"t"),
            (b"user=j,o=e \0\r\n\x01auth=Bearer t\x01\x01", b"j,o=e \0\r\n", b"t"),
            (b"user=\x01auth=Bearer t\x01\x01", b"", b"t"),
            (b"user=joe\x01host=x\x01auth=Bearer t\x01port=143\x01\x01", b"joe", b"t"),
        ):
            self.assertGives(Method.XOAUTH2, response, user, token)

    def test_xoauth2Broken(self) -> None:
        """Anything else is refused, also if one ^A at the end is missing."""
        self.assertInvalid(
            b"XOAUTH2",
            b"",
            b"\x01",
            b"joe\x01auth=Bearer t\x01\x01",
            b"user=joe\x01auth=Bearer t\x01",
            b"user=joe\x01auth=Bearer t",
            b"user=joe\x01auth=Bearer t\x01\x01\x01",
            b"user=joe\x01auth=Bearer t\x01x\x01",
            b"user=joe\x01auth=Basic t\x01\x01",
            b"user=joe\x01auth=Bearert\x01\x01",
            b"user=joe\x01\x01auth=Bearer t\x01\x01",
            b" user=joe\x01auth=Bearer t\x01\x01",
            b"n,a=joe,\x01auth=Bearer t\x01\x01",
            *(b"user=joe\x01auth=Bearer %b\x01\x01" % token for token in NO_TOKENS),
        )

    def test_oauthBearer(self) -> None:
        """OAUTHBEARER may have the name in its GS2 header. The first token of its fields counts."""
        for response, user, token in (
            (b"n,a=joe@c.test,\x01host=c.test\x01port=143\x01auth=Bearer t=\x01\x01", b"joe@c.test", b"t="),
            (b"n,a=joe,\x01auth=Bearer t\x01\x01", b"joe", b"t"),
            (b"y,A=joe,\x01AUTH=bearer t\x01\x01", b"joe", b"t"),
            (b"n,a=j=2Co=3de=3D2C,\x01auth=Bearer t\x01\x01", b"j,o=e=2C", b"t"),
            (b"n,a=joe,\x01auth=Bearer s\x01auth=Bearer t\x01\x01", b"joe", b"s"),
            (b"n,a=joe,\x01xauth=Bearer s\x01auth=Bearer t", b"joe", b"t"),
            (b"n,,\x01auth=Bearer t\x01\x01", b"", b"t"),
            (b"n,a=,\x01auth=Bearer t\x01\x01", b"", b"t"),
        ):
            self.assertGives(Method.OAUTHBEARER, response, user, token)

    def test_oauthBearerBroken(self) -> None:
        """It is refused without a token or a separator. In names, = is only valid in =2C and =3D."""
        self.assertInvalid(
            b"OAUTHBEARER",
            b"",
            b"\x01",
            b"n,\x01auth=Bearer t\x01\x01",
            b"n,a=joe\x01auth=Bearer t\x01\x01",
            b"a=joe,\x01auth=Bearer t\x01\x01",
            b"n,a=joe,auth=Bearer t\x01\x01",
            b"n,a=j=2Do,\x01auth=Bearer t\x01\x01",
            b"n,a=jo=,\x01auth=Bearer t\x01\x01",
            b"n,a=joe,x,\x01auth=Bearer t\x01\x01",
            b"n,a=joe,\x01host=c.test\x01\x01",
            b"n,a=joe,\x01auth=Basic t\x01\x01",
            b"user=joe\x01auth=Bearer t\x01\x01",
            *(b"n,a=joe,\x01auth=Bearer %b\x01\x01" % token for token in NO_TOKENS),
        )

    def test_channelBinding(self) -> None:
        """A client that does not know a binding to the TLS channel is accepted, and one that has bound is not."""
        self.assertGives(Method.OAUTHBEARER, b"y,a=joe,\x01auth=Bearer t\x01\x01", b"joe", b"t")
        for header in (b"p=tls-exporter,a=joe,", b"p=tls-unique,,", b"x,a=joe,", b",a=joe,"):
            self.assertInvalid(b"OAUTHBEARER", header + b"\x01auth=Bearer t\x01\x01")

    def test_invalidToken(self) -> None:
        """An invalid message of OAUTHBEARER, or the lone separator that asks for the error, has its own class."""
        for response in (b"\x01", b"", b"n,a=joe,\x01auth=Bearer \x01\x01"):
            self.assertRaises(InvalidToken, begin(b"OAUTHBEARER").respond, response)
