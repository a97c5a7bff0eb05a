"""Tests for L{mailgate.scram.messages}."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from mailgate.scram.messages import (
    ClientFirst,
    ScramError,
    parseClientFinal,
    parseClientFirst,
    parseServerFinal,
    parseServerFirst,
    saslName,
    serverFirst,
)


class MessagesTestCase(SynchronousTestCase):
    """Invalid messages."""

    def refused(self, parse: Callable[[bytes], object], *messages: bytes) -> None:
        """Each of C{messages} is invalid, and the error quotes nothing of it."""
        for message in messages:
            error = self.assertRaises(ScramError, parse, message)
            self.assertNotIn("hush", str(error))


class ClientFirstTests(MessagesTestCase):
    """Tests for L{parseClientFirst}."""

    def test_simple(self) -> None:
        """The example of RFC 5802, section 5."""
        self.assertEqual(
            parseClientFirst(b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"),
            ClientFirst(b"n,,", b"n", b"", b"user", b"fyko+d2lbbFgONRv9qkxdawL", b"n=user,r=fyko+d2lbbFgONRv9qkxdawL"),
        )

    def test_bindings(self) -> None:
        """The header says which channel binding the client uses."""
        for header, binding in ((b"y,,", b"y"), (b"p=tls-exporter,,", b"tls-exporter"), (b"n,a=ann,", b"n")):
            self.assertEqual(parseClientFirst(header + b"n=u,r=x").binding, binding)

    def test_names(self) -> None:
        """Commas and equals signs in names are escaped. Other characters, also beyond ASCII, are not."""
        first = parseClientFirst("n,a==3D=2C,n=j=3Do=2Ce é=3D2C,r=x".encode())
        self.assertEqual((first.authzid, first.user), (b"=,", "j=o,e é=2C".encode()))
        self.assertEqual(saslName(first.user), "j=3Do=2Ce é=3D2C".encode())

    def test_extensions(self) -> None:
        """Extensions are ignored, but not those that must not be."""
        self.assertEqual(parseClientFirst(b"n,,n=u,r=x,z=1,t=2").bare, b"n=u,r=x,z=1,t=2")
        self.refused(parseClientFirst, b"n,,m=1,n=hush,r=x", b"n,,n=hush,r=x,m=1", b"n,,n=hush,r=x,z=1,m=2")

    def test_invalid(self) -> None:
        """Anything else is refused."""
        self.refused(
            parseClientFirst,
            *(b"", b"hush", b"n,,", b"n,n=hush,r=x", b"x,,n=hush,r=x", b"n,,r=x,n=hush", b"n,,n=hush"),
            *(b"n,,n=,r=x", b"n,,n=hush,r=", b"n,,n=hu=sh,r=x", b"n,,n=hu=2csh,r=x", b"n,,n=hush\0,r=x"),
            *(b"n,,n=hush,r=x\n", b"n,,n=hush,r=x y", b"n,,n=hush,r=\xc3\xa9", b"n,,n=hush,r=x,", b"n,,n=hush,r=x,z"),
            *(b"n,a=,n=hush,r=x", b"n,hush,n=u,r=x", b"p=,,n=hush,r=x", b"p=tls_exporter,,n=hush,r=x"),
            *(b"n,,n=hush\xff,r=x", b"n,a=hush\xff,n=u,r=x", b"N,,n=hush,r=x", b"n,,n=hush,r=" + b"x" * 1025),
        )


class ClientFinalTests(MessagesTestCase):
    """Tests for L{parseClientFinal}."""

    def test_simple(self) -> None:
        """The header, the nonce and the proof are decoded; extensions belong to what is signed."""
        final = parseClientFinal(b"c=biws,r=abc,z=1,p=aHVzaA==")
        self.assertEqual((final.binding, final.nonce, final.proof), (b"n,,", b"abc", b"hush"))
        self.assertEqual(final.bare, b"c=biws,r=abc,z=1")
        self.assertNotIn("hush", repr(final))

    def test_invalid(self) -> None:
        """Anything else is refused."""
        self.refused(
            parseClientFinal,
            *(b"", b"c=biws,r=abc", b"c=biws,p=aHVzaA==", b"r=abc,p=aHVzaA==", b"c=,r=abc,p=aHVzaA=="),
            *(b"c=bi?s,r=abc,p=aHVzaA==", b"c=biw,r=abc,p=aHVzaA==", b"c=biws,r=abc,p=aHVza", b"c=biws,r=abc,p="),
            *(b"c=biws,r=abc,p=aHVzaA==,z=1", b"c=biws,r=abc,m=1,p=aHVzaA==", b"c=biws,r=abc,p=aHVzaA==\n"),
        )


class ServerFirstTests(MessagesTestCase):
    """Tests for L{parseServerFirst} and L{serverFirst}."""

    def test_simple(self) -> None:
        """What one writes the other reads."""
        first = parseServerFirst(serverFirst(b"abc", b"salt", 4096) + b",z=1")
        self.assertEqual((first.nonce, first.salt, first.iterations), (b"abc", b"salt", 4096))

    def test_invalid(self) -> None:
        """Anything else is refused, with too few and with too many iterations as well."""
        self.refused(
            parseServerFirst,
            *(b"", b"r=abc,s=aHVzaA==", b"r=abc,i=4096", b"s=aHVzaA==,i=4096", b"m=1,r=abc,s=aHVzaA==,i=4096"),
            *(b"r=abc,s=aHVzaA==,i=4096,m=1", b"r=abc,s=aHVza,i=4096", b"r=abc,s=,i=4096", b"r=abc,s=aHVzaA==,i=04096"),
            *(b"r=abc,s=aHVzaA==,i=4095", b"r=abc,s=aHVzaA==,i=2000001", b"r=abc,s=aHVzaA==,i=9999999999"),
        )


class ServerFinalTests(MessagesTestCase):
    """Tests for L{parseServerFinal}."""

    def test_signature(self) -> None:
        """A signature, or the server's error."""
        self.assertEqual(parseServerFinal(b"v=aHVzaA=="), b"hush")
        self.assertIsNone(parseServerFinal(b"e=other-error"))

    def test_invalid(self) -> None:
        """Anything else is refused."""
        self.refused(parseServerFinal, b"", b"v=", b"e=", b"v=aHVza", b"v=aHVzaA==\n", b"x=aHVzaA==", b"aHVzaA==")
