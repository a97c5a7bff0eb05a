"""
Tests for L{mailgate.tls.rfc2253}. The expected texts are those of C{openssl x509 -subject -nameopt RFC2253} for
certificates with these names, if it accepts the name.
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
    """One element in DER."""
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 0xFF)) + content


def name(*relative: list[tuple[str, int, bytes]]) -> bytes:
    """A name of C{relative} names, each a list of attributes: the type in hexadecimal, the tag, and the value."""
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
        """The last relative name is printed first. Its attributes are joined by a plus, the last first."""
        self.assertPrinted(
            "CN=joe+OU=mail,O=Org,C=ZZ",
            [(COUNTRY, PRINTABLE, b"ZZ")],
            [(ORGANIZATION, UTF8, b"Org")],
            [(UNIT, UTF8, b"mail"), (CN, UTF8, b"joe")],
        )

    def test_empty(self) -> None:
        """An empty name is an empty text, and so is an empty value."""
        self.assertPrinted("")
        self.assertValue("", b"")

    def test_special(self) -> None:
        """Special characters of RFC 2253 are escaped by a backslash, except for the equals sign in a value."""
        self.assertValue(r"Org\, Inc", b"Org, Inc")
        self.assertValue(r"a\,\+\"\\\<\>\;=b", b'a,+"\\<>;=b')

    def test_ends(self) -> None:
        """Blanks at either end and a number sign at the beginning are escaped."""
        self.assertValue(r"\ a b\ ", b" a b ")
        self.assertValue(r"\#a#", b"#a#")
        self.assertValue(r"\ ", b" ")
        self.assertValue("#", b"#")

    def test_bytes(self) -> None:
        """Control characters and bytes beyond ASCII are hexadecimal, so that no line ends."""
        self.assertValue(r"a\0D\0Ab\00\7F", b"a\r\nb\0\x7f")
        self.assertValue(r"J\C3\B6rg", "Jörg".encode())

    def test_strings(self) -> None:
        """Other kinds of strings become UTF-8."""
        self.assertValue(r"J\C3\B6rg", "Jörg".encode("latin-1"), T61)
        self.assertValue(r"J\C3\B6\E2\82\AC", "Jö€".encode("utf-16-be"), BMP)
        self.assertValue(r"\F0\9F\93\A7", "📧".encode("utf-32-be"), 0x1C)
        self.assertPrinted("emailAddress=joe@example.com", [(MAIL, IA5, b"joe@example.com")])

    def test_printableStrings(self) -> None:
        """Characters that are not allowed in a PrintableString, but occur in certificates, are printed as they are."""
        for value in (b"joe@example.com", b"*.example.com", b"A & B_c"):
            self.assertValue(value.decode(), value, PRINTABLE)
        self.assertValue(r"M\C3\BCller", "Müller".encode("latin-1"), PRINTABLE)

    def test_notUTF8(self) -> None:
        """Invalid UTF-8 is not checked."""
        self.assertValue(r"\FF\C3", b"\xff\xc3")

    def test_noString(self) -> None:
        """A value that is not a string, or has half a character, is printed as its DER."""
        self.assertPrinted("x500UniqueIdentifier=#030300AB23", [("55042D", BIT_STRING, b"\0\xab\x23")])
        self.assertValue("#1E0161", b"a", BMP)
        self.assertValue("#1C0400110000", b"\x00\x11\x00\x00", 0x1C)

    def test_unknown(self) -> None:
        """A type without a short name is printed as its number, and its value as DER."""
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
        """The first CN counts, wherever it is."""
        both = name([(UNIT, UTF8, b"x"), (CN, UTF8, "Jörg".encode())], [(CN, UTF8, b"other")])
        self.assertEqual(commonName(both), "Jörg")

    def test_none(self) -> None:
        """There may be no CN, or one that is not text."""
        self.assertEqual(commonName(name([(UNIT, UTF8, b"x")])), "")
        self.assertEqual(commonName(name([(CN, BIT_STRING, b"\0")])), "")
        self.assertEqual(commonName(name([(CN, UTF8, b"a\xff")])), "a\ufffd")


class CertificateTests(SynchronousTestCase):
    """L{namesOf}."""

    def test_names(self) -> None:
        """The subject and the issuer are returned as in the certificate."""
        folder = self.mktemp()
        os.mkdir(folder)
        authority = Authority(folder, "authority")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "joe")])
        certificate, _ = authority.issue("joe", subject)
        found = namesOf(certificate.public_bytes(Encoding.DER))
        self.assertEqual(found, (subject.public_bytes(), authority.subject.public_bytes()))

    def test_nonsense(self) -> None:
        """A truncated certificate raises only C{ValueError}, wherever it is cut."""
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
        """A truncated name raises only C{ValueError}."""
        whole = name([(COUNTRY, PRINTABLE, b"ZZ")], [(CN, UTF8, b"joe")])
        for at in range(1, len(whole)):
            self.assertRaises(ValueError, rfc2253, whole[:at])
        for bad in (b"", element(0x30, element(0x31, element(0x30, element(6, b"") + element(12, b"a"))))):
            self.assertRaises(ValueError, rfc2253, bad)
        self.assertRaises(ValueError, commonName, element(0x30, element(0x31, element(0x30, element(6, b"U\4\3")))))

    def test_longType(self) -> None:
        """
        A number in a type may have 586 bytes, OpenSSL's limit. To print the largest number that fits into a certificate
        would take half a second at each login.
        """
        for size, digits in ((586, True), (587, False), (30000, False)):
            long = name([("2A" + "81" * (size - 1) + "01", UTF8, b"joe")])
            if digits:
                self.assertRegex(rfc2253(long), r"\A1\.2\.[0-9]{1000,}=#0C036A6F65\Z")
            else:
                error = self.assertRaises(ValueError, rfc2253, long)
                self.assertIn("too large a number", str(error))
