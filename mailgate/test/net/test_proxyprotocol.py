"""
Tests for L{mailgate.net.proxyprotocol}: valid headers in pieces of any size, each possible fault, and headers for
backends to the byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Client, ClientCertificate, ProxiedAddresses, TLSDetails, TLSState
from mailgate.net.proxyprotocol import (
    LONGEST_TEXT,
    MOST_BYTES,
    Header,
    HeaderError,
    HeaderParser,
    crc32c,
    headerFor,
    namesClient,
)
from mailgate.test.support.proxyheaders import (
    BINARY4,
    BINARY6,
    ENDS4,
    ENDS6,
    IPV4,
    IPV6,
    SIGNATURE,
    TEXT4,
    TEXT6,
    WITH_TLVS,
    binary,
    checked,
)

LONGEST_UNKNOWN = (
    b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".replace(b"f...f", b"ffff:ffff:ffff:ffff:ffff:ffff")
    + b"\r\n"
)
GOOD = {
    TEXT4: IPV4,
    TEXT6: IPV6,
    b"PROXY UNKNOWN\r\n": None,
    LONGEST_UNKNOWN: None,
    BINARY4: IPV4,
    BINARY6: IPV6,
    WITH_TLVS: IPV4,
    binary(b"", 0x20, 0x00): None,
}


def parse(data: bytes) -> Header | None:
    """Parse one piece."""
    return HeaderParser().feed(data)


class ParserCase(SynchronousTestCase):
    """Bytes that are not a header are refused with a reason."""

    def assertBroken(self, data: bytes, reason: str) -> None:
        error = self.assertRaises(HeaderError, parse, data)
        self.assertIn(reason, str(error), data)


class CuttingTests(ParserCase):
    """Headers in several pieces."""

    def test_whole(self) -> None:
        """A header in one piece is parsed. Nothing follows it."""
        for header, addresses in GOOD.items():
            self.assertEqual(parse(header), Header(addresses, b""), header)

    def test_cutAnywhere(self) -> None:
        """It gives the same result in any two pieces, and the bytes after it are complete."""
        for header, addresses in GOOD.items():
            for cut in range(len(header)):
                parser = HeaderParser()
                self.assertIsNone(parser.feed(header[:cut]), header)
                self.assertEqual(parser.feed(header[cut:] + b"NOOP\r\n\0"), Header(addresses, b"NOOP\r\n\0"), header)

    def test_byteByByte(self) -> None:
        """It gives the same result in single bytes."""
        for header, addresses in GOOD.items():
            parser = HeaderParser()
            for byte in header[:-1]:
                self.assertIsNone(parser.feed(bytes([byte])))
            self.assertEqual(parser.feed(header[-1:]), Header(addresses, b""))

    def test_restIsNoHeader(self) -> None:
        """A second header is not parsed."""
        for header, addresses in GOOD.items():
            self.assertEqual(parse(header + TEXT6), Header(addresses, TEXT6))

    def test_otherBeginnings(self) -> None:
        """Other bytes are refused at the first wrong one."""
        for data in (b"E", b"EHLO x\r\n", b"\x16\x03\x01", b"PROXYX", b"proxy TCP4", b"\r\n\r\nX", b"\n", b"PROXY\r\n"):
            self.assertBroken(data, "is not a PROXY header")
        parser = HeaderParser()
        self.assertIsNone(parser.feed(b"PROX"))
        self.assertRaises(HeaderError, parser.feed, b"I")

    def test_shown(self) -> None:
        """The log may show the beginning of a refused header, but nothing that may be a password."""
        for data, shown in (
            (b"PRONTO", b"PRONTO"),
            (b"a LOGIN joe sesame\r\n", b"a LOGIN "),
            (b"PROXY TCP4 a b c d\r\na LOGIN joe sesame", b"PROXY TCP4 a b c d\r"),
            (b"PROXY TCP4 " + b"x" * 200, b"PROXY TCP4 " + b"x" * (LONGEST_TEXT - 11)),
            (binary(b"", 0x31) + b"a LOGIN joe sesame\r\n", binary(b"", 0x31)),
        ):
            parser = HeaderParser()
            self.assertRaises(HeaderError, parser.feed, data)
            self.assertEqual(parser.shown, shown)


class TextTests(ParserCase):
    """Version 1."""

    def test_longest(self) -> None:
        """The longest header that the specification allows is accepted."""
        self.assertEqual(len(LONGEST_UNKNOWN), LONGEST_TEXT)
        self.assertIsNotNone(parse(LONGEST_UNKNOWN))

    def test_tooLong(self) -> None:
        """A header with one byte more is refused, before its end arrives."""
        self.assertBroken(LONGEST_UNKNOWN[:-2] + b"5\r\n", "longer than 107 bytes")
        self.assertIsNone(parse(b"PROXY UNKNOWN " + b"x" * (LONGEST_TEXT - 15)))
        self.assertBroken(b"PROXY UNKNOWN " + b"x" * (LONGEST_TEXT - 14), "longer than 107 bytes")

    def test_lineEnd(self) -> None:
        """It must end with CRLF. CR or LF alone is refused."""
        self.assertBroken(TEXT4.replace(b"\r", b""), "does not end with CRLF")
        self.assertIsNone(parse(TEXT4.replace(b"\n", b"")))
        self.assertBroken(TEXT4.replace(b"\n", b"EHLO\r\n"), "invalid port")

    def test_unknown(self) -> None:
        """After UNKNOWN anything may follow, also addresses. It is ignored."""
        for line in (b"PROXY UNKNOWN", b"PROXY UNKNOWN \xff\0", b"PROXY UNKNOWN 192.0.2.7 192.0.2.1 1 2"):
            self.assertEqual(parse(line + b"\r\nx"), Header(None, b"x"))

    def test_family(self) -> None:
        """There are three families."""
        for family in (b"TCP", b"TCP5", b"tcp4", b"UDP4", b"UNKNOWNX", b"", b"UNIX"):
            header = b"PROXY " + family + b" 192.0.2.7 192.0.2.1 1 2\r\n"
            self.assertBroken(header, "names a protocol other than TCP4, TCP6 and UNKNOWN")

    def test_words(self) -> None:
        """There are two addresses and two ports, separated by single spaces."""
        for rest in (
            b"",
            b" ",
            b" 192.0.2.7 192.0.2.1 1",
            b" 192.0.2.7 192.0.2.1 1 2 3",
            b" 192.0.2.7 192.0.2.1 1 2 ",
            b"  192.0.2.7 192.0.2.1 1 2",
        ):
            self.assertBroken(b"PROXY TCP4" + rest + b"\r\n", "does not have exactly two addresses and two ports")

    def test_otherFamily(self) -> None:
        """An address must be valid and of the named family. nginx accepts any hexadecimal digits, dots and colons."""
        for family, address in (
            (b"TCP4", b"::1"),
            (b"TCP4", b"::ffff:192.0.2.7"),
            (b"TCP6", b"192.0.2.7"),
            (b"TCP4", b"abc"),
            (b"TCP4", b"192.0.2"),
            (b"TCP4", b"192.0.2.256"),
            (b"TCP4", b"192.0.2.07"),
            (b"TCP4", b"0xc0000207"),
            (b"TCP4", b"\xd9\xa1.0.0.1"),
            (b"TCP4", b"1.2.3.4\0"),
            (b"TCP6", b"2001:db8:::7"),
            (b"TCP6", b"[::1]"),
            (b"TCP6", b"fe80::1%lo"),
            (b"TCP6", b"1:2:3:4:5:6:7:8:9"),
        ):
            good = b"192.0.2.1" if family == b"TCP4" else b"::1"
            for ends in ((address, good), (good, address)):
                self.assertBroken(b"PROXY %s %s %s 1 2\r\n" % (family, *ends), "address that does not match its family")

    def test_spelling(self) -> None:
        """An address is returned in its usual spelling; an IPv4-mapped one is returned as IPv4."""
        header = parse(b"PROXY TCP6 2001:0DB8:0:0:0:0:0:7 ::FFFF:192.0.2.1 1 2\r\n")
        self.assertEqual(header, Header(ProxiedAddresses("2001:db8::7", 1, "192.0.2.1", 2), b""))

    def test_mapped(self) -> None:
        """An IPv4-mapped address in version 2 is returned as IPv4, too."""
        ends = (ip_address(f"::ffff:192.0.2.{host}").packed for host in (7, 1))
        data = SIGNATURE + struct.pack("!BBH16s16sHH", 0x21, 0x21, 36, *ends, 40123, 143)
        self.assertEqual(parse(data), Header(ProxiedAddresses("192.0.2.7", 40123, "192.0.2.1", 143), b""))

    def test_ports(self) -> None:
        """Ports go from 0 to 65535, as decimals without signs and leading zeros."""
        for port in (b"0", b"1", b"65535"):
            header = parse(b"PROXY TCP4 192.0.2.7 192.0.2.1 %s %s\r\n" % (port, port))
            expected = ProxiedAddresses("192.0.2.7", int(port), "192.0.2.1", int(port))
            self.assertEqual(header, Header(expected, b""))
        for port in (b"65536", b"-1", b"+1", b"00", b"01", b"x", b"1e3", b"99999999", b"\xd9\xa1", b"1\r"):
            for ports in ((port, b"1"), (b"1", port)):
                self.assertBroken(b"PROXY TCP4 192.0.2.7 192.0.2.1 %s %s\r\n" % ports, "invalid port")


class BinaryTests(ParserCase):
    """Version 2."""

    def test_version(self) -> None:
        """Other versions are refused."""
        for command in (0x11, 0x31, 0x01):
            self.assertBroken(binary(ENDS4, command), f"unknown version {command >> 4}")

    def test_command(self) -> None:
        """There are two commands."""
        for command in (0x22, 0x2F):
            self.assertBroken(binary(ENDS4, command), f"unknown command {command & 15}")

    def test_local(self) -> None:
        """The content of a LOCAL header is ignored."""
        for rest, family in ((b"", 0x11), (ENDS4, 0x11), (b"\xff" * 30, 0xFF), (b"\x03\x00\x04ABCD", 0x00)):
            self.assertEqual(parse(binary(rest, 0x20, family) + b"x"), Header(None, b"x"))

    def test_otherFamilies(self) -> None:
        """Other transports than TCP have no usable addresses."""
        for rest, family in ((ENDS4, 0x12), (ENDS6, 0x22), (bytes(216), 0x31), (bytes(216), 0x32), (b"abc", 0x00)):
            self.assertEqual(parse(binary(rest, family=family) + b"x"), Header(None, b"x"))
        self.assertEqual(parse(binary(ENDS4, family=0x10)), Header(None, b""))

    def test_unassigned(self) -> None:
        """Values that the specification has not assigned are refused, as it demands."""
        for family in (0x41, 0xF1, 0x13, 0x2F):
            self.assertBroken(binary(bytes(216), family=family), f"unknown family and transport 0x{family:02x}")

    def test_tooShort(self) -> None:
        """Addresses are not read beyond the given length."""
        for ends, family in ((ENDS4, 0x11), (ENDS6, 0x21), (bytes(216), 0x31)):
            self.assertBroken(binary(ends[:-1], family=family) + b"xxxx", "too short for its addresses")

    def test_tooLong(self) -> None:
        """A header of the maximum length is accepted. A longer one is refused before it arrives."""
        padding = MOST_BYTES - len(ENDS4) - 3
        header = binary(ENDS4 + b"\x04" + struct.pack("!H", padding) + bytes(padding))
        self.assertEqual(parse(header), Header(IPV4, b""))
        self.assertBroken(binary(b"", length=MOST_BYTES + 1), "longer than 4112 bytes")
        self.assertBroken(binary(b"", length=0xFFFF), "longer than 4112 bytes")

    def test_tlvs(self) -> None:
        """TLVs are ignored, also unknown ones."""
        tlvs = b"\x01\x00\x02h2\xee\x00\x00\x20\x00\x05\x01\x00\x00\x00\x00"
        self.assertEqual(parse(binary(ENDS4 + tlvs) + b"x"), Header(IPV4, b"x"))

    def test_brokenTLVs(self) -> None:
        """TLVs must fill the header exactly."""
        for tlvs in (b"\x01", b"\x01\x00", b"\x01\x00\x01", b"\x01\x00\x02h2\x02", b"\x01\xff\xffabc"):
            self.assertBroken(binary(ENDS4 + tlvs) + b"x" * 70000, "ends within a TLV")

    def test_checksum(self) -> None:
        """A header with a checksum is refused if any byte has changed."""
        for at in range(len(SIGNATURE) + 4, len(WITH_TLVS)):
            if at == len(WITH_TLVS) - 7:
                # The type of the checksum TLV.
                continue
            spoilt = WITH_TLVS[:at] + bytes([WITH_TLVS[at] ^ 1]) + WITH_TLVS[at + 1 :]
            self.assertRaises(HeaderError, parse, spoilt)
        self.assertBroken(WITH_TLVS[:-1] + bytes([WITH_TLVS[-1] ^ 1]), "wrong checksum")

    def test_checksumNotLast(self) -> None:
        """The checksum may come before other TLVs, which it covers as well."""
        header = binary(ENDS4 + b"\x03\x00\x04" + bytes(4) + b"\x04\x00\x01x")
        value = struct.pack("!I", crc32c(header))
        at = len(SIGNATURE) + 4 + len(ENDS4) + 3
        self.assertEqual(parse(header[:at] + value + header[at + 4 :]), Header(IPV4, b""))

    def test_malformedChecksum(self) -> None:
        """There may be only one checksum, of four bytes. A thousand would block the process for a second."""
        for tlvs in (b"\x03\x00\x03abc", b"\x03\x00\x05abcde", b"\x03\x00\x00"):
            self.assertBroken(binary(ENDS4 + tlvs), "malformed checksum")
        twice = WITH_TLVS[:14] + struct.pack("!H", len(WITH_TLVS) - 16 + 7) + WITH_TLVS[16:]
        self.assertBroken(checked(twice) + WITH_TLVS[-7:], "checksum")

    def test_crc(self) -> None:
        """The checksum is CRC32C: its check value, and those of RFC 3720, appendix B.4."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)


CLIENT = Client("192.0.2.7", 40123, local="198.51.100.1", localPort=993)
CLIENT6 = Client("2001:db8::7", 65535, local="2001:db8::1", localPort=1)
TLS = TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384")
CERTIFICATE = ClientCertificate("CN=joe", "CN=ca", "01", "aa", "joe", b"")
MIXED = (
    (Client("2001:db8::7", 1, local="192.0.2.1", localPort=2), b"2001:db8::7 ::ffff:c000:201 1 2"),
    (Client("192.0.2.7", 1, local="2001:db8::1", localPort=2), b"::ffff:c000:207 2001:db8::1 1 2"),
)


class TextHeaderTests(SynchronousTestCase):
    """Headers of version 1 for backends."""

    def test_families(self) -> None:
        """In both families the client is the source, and the address that it connected to is the destination."""
        self.assertEqual(headerFor(CLIENT, "on"), TEXT4)
        self.assertEqual(headerFor(CLIENT6, "on"), b"PROXY TCP6 2001:db8::7 2001:db8::1 65535 1\r\n")

    def test_mixed(self) -> None:
        """If one address is IPv4 and the other IPv6, both become IPv6. nginx's line is invalid then."""
        for client, ends in MIXED:
            self.assertEqual(headerFor(client, "on"), b"PROXY TCP6 " + ends + b"\r\n")

    def test_mapped(self) -> None:
        """If both addresses are IPv4-mapped, both become IPv4."""
        client = Client("::ffff:192.0.2.7", 40123, local="198.51.100.1", localPort=993)
        self.assertEqual(headerFor(client, "on"), TEXT4)

    def test_linkLocal(self) -> None:
        """The name of the interface is left out."""
        client = Client("fe80::7%eth0", 1, local="fe80::1%eth0", localPort=2)
        self.assertEqual(headerFor(client, "on"), b"PROXY TCP6 fe80::7 fe80::1 1 2\r\n")

    def test_unknown(self) -> None:
        """With a unix socket at either end there are no addresses."""
        for client in (Client("unix:", local="unix:"), Client("192.0.2.7", 1, local="unix:"), Client("unix:")):
            self.assertEqual(headerFor(client, "on"), b"PROXY UNKNOWN\r\n")
            self.assertFalse(namesClient(client))

    def test_namesClient(self) -> None:
        """With all other addresses the header names the client."""
        for client in (CLIENT, CLIENT6, *(client for client, _ in MIXED)):
            self.assertTrue(namesClient(client))

    def test_longest(self) -> None:
        """The longest header is within the limit."""
        address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        header = headerFor(Client(address, 65535, local=address, localPort=65535), "on")
        self.assertLessEqual(len(header), LONGEST_TEXT)
        self.assertIn(address.encode(), header)

    def test_understood(self) -> None:
        """Twisted's parser reads it correctly."""
        for client in (CLIENT, CLIENT6, *(client for client, _ in MIXED)):
            info: Any = V1Parser.parse(headerFor(client, "on").removesuffix(b"\r\n"))
            self.assertEqual((info.source.port, info.destination.port), (client.port, client.localPort))


def tlvs(client: Client) -> dict[int, bytes]:
    """Return the TLVs of the header for C{client} without the checksum, and the TLVs within the SSL one."""
    header = headerFor(client, "v2")
    size = {0x11: 12, 0x21: 36, 0x00: 0}[header[13]]
    found = dict(split(header[16 + size : -7]))
    return found | dict(split(found[0x20][5:])) if 0x20 in found else found


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the TLVs in C{data}."""
    while data:
        kind, length = struct.unpack_from("!BH", data)
        assert len(data) >= 3 + length
        yield kind, data[3 : 3 + length]
        data = data[3 + length :]


class BinaryHeaderTests(SynchronousTestCase):
    """Headers of version 2 for backends."""

    def test_addresses(self) -> None:
        """It has signature, command, family, length, both ends, and the checksum of all."""
        self.assertEqual(
            headerFor(CLIENT, "v2"), checked(SIGNATURE + b"\x21\x11\x00\x13" + ENDS4 + b"\x03\x00\x04" + bytes(4))
        )
        self.assertEqual(
            headerFor(CLIENT6, "v2"),
            checked(SIGNATURE + b"\x21\x21\x00\x2b" + ENDS6[:-1] + b"\x01\x03\x00\x04" + bytes(4)),
        )

    def test_local(self) -> None:
        """With a unix socket at either end it is LOCAL, and has only a checksum."""
        for client in (Client("unix:", local="unix:"), Client("192.0.2.7", 1, local="unix:")):
            expected = checked(SIGNATURE + b"\x20\x00\x00\x07\x03\x00\x04" + bytes(4))
            self.assertEqual(headerFor(client, "v2"), expected)

    def test_mixed(self) -> None:
        """If one address is IPv4 and the other IPv6, both become IPv6. If both can be IPv4, they become IPv4."""
        for client, _ in MIXED:
            header = headerFor(client, "v2")
            self.assertEqual(header[13], 0x21)
            self.assertIn(bytes(10) + b"\xff\xff\xc0\x00\x02", header)
        mapped = Client("::ffff:192.0.2.7", 40123, local="::ffff:198.51.100.1", localPort=993)
        self.assertEqual(headerFor(mapped, "v2"), headerFor(CLIENT, "v2"))

    def test_everything(self) -> None:
        """The TLVs are in nginx's order: host name, ALPN, SSL with its five TLVs, checksum."""
        details = TLSDetails("mail.example.com", "imap", "SUCCESS", 0, CERTIFICATE, "SHA256", "RSA2048")
        client = Client("192.0.2.7", 40123, TLS, local="198.51.100.1", localPort=993, details=details)
        ssl = (
            b"\x07\x00\x00\x00\x00"
            b"\x21\x00\x07TLSv1.3"
            b"\x22\x00\x03joe"
            b"\x23\x00\x16TLS_AES_256_GCM_SHA384"
            b"\x24\x00\x06SHA256"
            b"\x25\x00\x07RSA2048"
        )
        self.assertEqual(
            headerFor(client, "v2"),
            checked(
                SIGNATURE
                + b"\x21\x11\x00\x71"
                + ENDS4
                + b"\x02\x00\x10mail.example.com"
                + b"\x01\x00\x04imap"
                + b"\x20\x00\x41"
                + ssl
                + b"\x03\x00\x04"
                + bytes(4)
            ),
        )

    def test_noCertificate(self) -> None:
        """Without a client certificate, SSL says TLS and "not verified". Unknown values are left out."""
        client = Client("192.0.2.7", 1, TLS, local="192.0.2.1", localPort=2, details=TLSDetails())
        found = tlvs(client)
        self.assertEqual(found[0x20][:5], b"\x01\x00\x00\x00\x01")
        self.assertEqual(set(found), {0x20, 0x21, 0x23})

    def test_notVerified(self) -> None:
        """For a certificate that failed the verification, SSL has OpenSSL's code."""
        details = TLSDetails(verification="FAILED:self-signed certificate", verifyCode=18, certificate=CERTIFICATE)
        found = tlvs(Client("192.0.2.7", 1, TLS, local="192.0.2.1", localPort=2, details=details))
        self.assertEqual(found[0x20][:5], b"\x07\x00\x00\x00\x12")

    def test_withoutDetails(self) -> None:
        """If the details of TLS are not known, SSL has what is known."""
        found = tlvs(Client("192.0.2.7", 1, TLS, local="192.0.2.1", localPort=2))
        self.assertEqual(set(found), {0x20, 0x21, 0x23})

    def test_inClear(self) -> None:
        """Without TLS there are no TLVs about TLS, even if details are known."""
        client = Client("192.0.2.7", 1, local="192.0.2.1", localPort=2, details=TLSDetails("x", "y"))
        self.assertEqual(tlvs(client), {})

    def test_names(self) -> None:
        """A name in a certificate that is too long or has a line end is left out."""
        for name in ("x" * 256, "joe\r\n", "joe\0", ""):
            certificate = ClientCertificate("", "", "", "", name, b"")
            details = TLSDetails(certificate=certificate)
            found = tlvs(Client("192.0.2.7", 1, TLS, local="192.0.2.1", localPort=2, details=details))
            self.assertNotIn(0x22, found)
            self.assertEqual(found[0x20][0], 0x07)

    def test_understood(self) -> None:
        """mailgate's own parser and Twisted's read it correctly."""
        for client in (CLIENT, CLIENT6):
            header = headerFor(client, "v2")
            expected = ProxiedAddresses(client.host, client.port, client.local, client.localPort)
            self.assertEqual(parse(header + b"x"), Header(expected, b"x"))
            info: Any = V2Parser.parse(header)
            self.assertEqual(ip_address(info.source.host), ip_address(client.host))
            self.assertEqual((info.source.port, info.destination.port), (client.port, client.localPort))
