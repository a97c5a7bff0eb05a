"""
Tests for L{mailgate.tls.rfc2253}. What is expected is what C{openssl x509 -subject -nameopt RFC2253} prints of
certificates with these names, where it takes such a name at all.
"""

from __future__ import annotations

import os

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL._util import ffi, lib
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.certificates import Authority
from mailgate.tls.rfc2253 import _SHORT_NAMES, commonName, namesOf, rfc2253

PRINTABLE, UTF8, IA5, BMP, T61, BIT_STRING = 0x13, 0x0C, 0x16, 0x1E, 0x14, 0x03
CN, ORGANIZATION, UNIT, COUNTRY, MAIL = "550403", "55040A", "55040B", "550406", "2A864886F70D010901"


def element(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 0xFF)) + content


def name(*relative: list[tuple[str, int, bytes]]) -> bytes:
    """A name of C{relative} ones, each a list of attributes: type, in hexadecimal, tag and value."""
    sets = []
    for attributes in relative:
        made = [element(0x30, element(6, bytes.fromhex(oid)) + element(tag, value)) for oid, tag, value in attributes]
        sets.append(element(0x31, b"".join(made)))
    return element(0x30, b"".join(sets))


class PrintTests(SynchronousTestCase):
    """L{rfc2253}."""

    def assertPrinted(self, expected: str, *relative: list[tuple[str, int, bytes]]) -> None:
        self.assertEqual(rfc2253(name(*relative)), expected)

    def assertValue(self, expected: str, value: bytes, tag: int = UTF8) -> None:
        self.assertPrinted(f"CN={expected}", [(CN, tag, value)])

    def test_order(self) -> None:
        """The last comes first; parts of one are joined by a plus, and they too in reverse."""
        self.assertPrinted(
            "CN=joe+OU=mail,O=Org,C=ZZ",
            [(COUNTRY, PRINTABLE, b"ZZ")],
            [(ORGANIZATION, UTF8, b"Org")],
            [(UNIT, UTF8, b"mail"), (CN, UTF8, b"joe")],
        )

    def test_empty(self) -> None:
        """A name of nothing is nothing, and a value of nothing too."""
        self.assertPrinted("")
        self.assertValue("", b"")

    def test_special(self) -> None:
        """What has a meaning in RFC 2253 has a backslash before it; the equals sign has none inside a value."""
        self.assertValue(r"Org\, Inc", b"Org, Inc")
        self.assertValue(r"a\,\+\"\\\<\>\;=b", b'a,+"\\<>;=b')

    def test_ends(self) -> None:
        """So have blanks at either end, and a number sign at the beginning."""
        self.assertValue(r"\ a b\ ", b" a b ")
        self.assertValue(r"\#a#", b"#a#")
        self.assertValue(r"\ ", b" ")
        self.assertValue("#", b"#")

    def test_bytes(self) -> None:
        """Control characters and bytes beyond ASCII are hexadecimal: nothing here ends a line."""
        self.assertValue(r"a\0D\0Ab\00\7F", b"a\r\nb\0\x7f")
        self.assertValue(r"J\C3\B6rg", "Jörg".encode())

    def test_strings(self) -> None:
        """Strings of other kinds become UTF-8."""
        self.assertValue(r"J\C3\B6rg", "Jörg".encode("latin-1"), T61)
        self.assertValue(r"J\C3\B6\E2\82\AC", "Jö€".encode("utf-16-be"), BMP)
        self.assertValue(r"\F0\9F\93\A7", "📧".encode("utf-32-be"), 0x1C)
        self.assertPrinted("emailAddress=joe@example.com", [(MAIL, IA5, b"joe@example.com")])

    def test_printableStrings(self) -> None:
        """Characters that a PrintableString may not have, and that certificates have in it, are shown as they are."""
        for value in (b"joe@example.com", b"*.example.com", b"A & B_c"):
            self.assertValue(value.decode(), value, PRINTABLE)
        self.assertValue(r"M\C3\BCller", "Müller".encode("latin-1"), PRINTABLE)

    def test_notUTF8(self) -> None:
        """UTF-8 that is none is not looked at."""
        self.assertValue(r"\FF\C3", b"\xff\xc3")

    def test_noString(self) -> None:
        """What is no string is dumped, as are strings of half a character."""
        self.assertPrinted("x500UniqueIdentifier=#030300AB23", [("55042D", BIT_STRING, b"\0\xab\x23")])
        self.assertValue("#1E0161", b"a", BMP)
        self.assertValue("#1C0400110000", b"\x00\x11\x00\x00", 0x1C)

    def test_unknown(self) -> None:
        """A type that has no short name goes by its number, and its value is dumped."""
        self.assertPrinted("1.2.3.4=#0C0161", [("2A0304", UTF8, b"a")])
        self.assertPrinted("2.999.3=#0C0161", [("883703", UTF8, b"a")])

    def test_openSSLsNames(self) -> None:
        """The short names are OpenSSL's."""
        for oid, short in _SHORT_NAMES.items():
            known = ffi.string(lib.OBJ_nid2sn(lib.OBJ_txt2nid(oid.encode()))).decode()
            self.assertEqual(short, known, oid)


class CommonNameTests(SynchronousTestCase):
    """L{commonName}."""

    def test_first(self) -> None:
        """The first counts, wherever it stands."""
        both = name([(UNIT, UTF8, b"x"), (CN, UTF8, "Jörg".encode())], [(CN, UTF8, b"other")])
        self.assertEqual(commonName(both), "Jörg")

    def test_none(self) -> None:
        """It may be missing, or nothing that can be read."""
        self.assertEqual(commonName(name([(UNIT, UTF8, b"x")])), "")
        self.assertEqual(commonName(name([(CN, BIT_STRING, b"\0")])), "")
        self.assertEqual(commonName(name([(CN, UTF8, b"a\xff")])), "a\ufffd")


class CertificateTests(SynchronousTestCase):
    """L{namesOf}."""

    def test_names(self) -> None:
        """The subject and the issuer, as the certificate has them."""
        folder = self.mktemp()
        os.mkdir(folder)
        authority = Authority(folder, "authority")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "joe")])
        certificate, _ = authority.issue("joe", subject)
        found = namesOf(certificate.public_bytes(Encoding.DER))
        self.assertEqual(found, (subject.public_bytes(), authority.subject.public_bytes()))

    def test_nonsense(self) -> None:
        """What is none of it is a C{ValueError}, and nothing else, wherever it is cut."""
        folder = self.mktemp()
        os.mkdir(folder)
        certificate, _ = Authority(folder, "authority").issue("joe")
        der = certificate.public_bytes(Encoding.DER)
        for at in range(0, len(der) - 1, 7):
            self.assertRaises(ValueError, namesOf, der[:at])
        for bad in (
            b"",
            b"\x30",
            b"\x30\x80\0\0",
            b"\x30\x85" + b"\0" * 9,
            b"\x3f\x81\x01\0",
            b"\x30\x00",
            b"\x30\x02\x30\x00",
        ):
            self.assertRaises(ValueError, namesOf, bad)

    def test_nonsensicalName(self) -> None:
        """The same goes for names."""
        whole = name([(COUNTRY, PRINTABLE, b"ZZ")], [(CN, UTF8, b"joe")])
        for at in range(1, len(whole)):
            self.assertRaises(ValueError, rfc2253, whole[:at])
        for bad in (b"", element(0x30, element(0x31, element(0x30, element(6, b"") + element(12, b"a"))))):
            self.assertRaises(ValueError, rfc2253, bad)
        self.assertRaises(ValueError, commonName, element(0x30, element(0x31, element(0x30, element(6, b"U\4\3")))))

    def test_longType(self) -> None:
        """
        A number in a type may have 586 bytes, OpenSSL's bound: of one with all that a certificate may have the decimal
        digits would take half a second, at each login.
        """
        for size, digits in ((586, True), (587, False), (30000, False)):
            long = name([("2A" + "81" * (size - 1) + "01", UTF8, b"joe")])
            if digits:
                self.assertRegex(rfc2253(long), r"\A1\.2\.[0-9]{1000,}=#0C036A6F65\Z")
            else:
                error = self.assertRaises(ValueError, rfc2253, long)
                self.assertIn("too large a number", str(error))
