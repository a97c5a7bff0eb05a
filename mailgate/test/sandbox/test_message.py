"""
Tests for L{mailgate.sandbox.message} and L{mailgate.sandbox.structure}.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from twisted.mail.imap4 import IMessage, IMessageFile, IMessagePart, collapseNestedLists
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.message import Message, Part, canonical
from mailgate.sandbox.structure import bodyStructure, envelope

MIXED = canonical(
    b"""\
Subject: outer
Received: one
Received: two
 folded
Content-Type: multipart/mixed; boundary="a b;c";

preamble
--a b;c

first
--a b;c
Content-Type: message/rfc822

Subject: inner
From: joe

inner text
--a b;c
Content-Type: application/x; name="\xc3\xa9.bin"
Content-Disposition: attachment; filename=f.bin
Content-Transfer-Encoding: base64

AAAA
--a b;c--
epilogue
"""
)


class CanonicalTests(SynchronousTestCase):
    """Tests for L{canonical}."""

    def test_lineEnds(self):
        """Every bare LF becomes CRLF; CRLF and bare CR stay; the last line gets an end."""
        self.assertEqual(canonical(b"a\nb\r\nc\rd\n\n"), b"a\r\nb\r\nc\rd\r\n\r\n")
        self.assertEqual(canonical(b"a"), b"a\r\n")

    def test_twice(self):
        """Canonical text stays as it is."""
        self.assertEqual(canonical(MIXED), MIXED)


class PartTests(SynchronousTestCase):
    """Tests for L{Part}."""

    def test_interfaces(self):
        """Parts and messages implement twisted.mail's interfaces."""
        verifyObject(IMessagePart, Part(b"a: b\r\n\r\nc"))
        message = Message(b"a: b\r\n\r\nc", 1, frozenset(), datetime.now(timezone.utc))
        verifyObject(IMessage, message)
        verifyObject(IMessageFile, message)

    def test_divided(self):
        """The first empty line divides header and body; together they are the whole message."""
        for raw, header in (
            (b"a: b\r\n\r\nc\r\n\r\nd", b"a: b\r\n\r\n"),
            (b"\r\nbody", b"\r\n"),
            (b"a: b\r\n", b"a: b\r\n"),
            (b"", b""),
            (b"a: b\r\n\r\n", b"a: b\r\n\r\n"),
        ):
            part = Part(raw)
            self.assertEqual(part.header, header)
            self.assertEqual(part.header + part.body, raw)
            self.assertEqual(part.getBodyFile().read(), part.body)
            self.assertEqual(part.getSize(), len(raw))

    def test_headerBytes(self):
        """Selected fields are returned in order, with repetitions and folding, and with the empty line."""
        part = Part(MIXED)
        self.assertEqual(part.headerBytes(False, {"received"}), b"Received: one\r\nReceived: two\r\n folded\r\n\r\n")
        self.assertEqual(part.headerBytes(True, set()), part.header)
        self.assertEqual(part.headerBytes(False, {"x"}), b"\r\n")

    def test_getHeaders(self):
        """Values are unfolded; the first of a repeated field counts; names are text or bytes, in any case."""
        part = Part(MIXED)
        self.assertEqual(part.getHeaders(False, "SUBJECT", b"received"), {"subject": "outer", "received": "one"})
        self.assertEqual(set(part.getHeaders(True, "subject")), {"received", "content-type"})

    def test_notASCII(self):
        """A raw 8-bit value is encoded by RFC 2047 on one line."""
        value = Part(b"Subject: " + "é".encode() * 200 + b"\xff\r\n\r\n").getHeaders(True)["subject"]
        self.assertTrue(value.startswith("=?utf-8?"))
        self.assertNotIn("\n", value)
        value.encode("ascii")

    def test_parts(self):
        """The parts of a multipart are the bytes between the delimiters, without preamble and epilogue."""
        part = Part(MIXED)
        self.assertTrue(part.isMultipart())
        self.assertEqual(part.parts[0].body, b"first")
        self.assertEqual(part.getSubPart(1).body, b"Subject: inner\r\nFrom: joe\r\n\r\ninner text")
        self.assertEqual(part.getSubPart(2).body, b"AAAA")
        self.assertRaises(IndexError, part.getSubPart, 3)
        self.assertRaises(TypeError, part.getSubPart(0).getSubPart, 0)

    def test_enclosed(self):
        """An enclosed message is a part, although the part around it is not multipart."""
        part = Part(MIXED).getSubPart(1)
        self.assertFalse(part.isMultipart())
        self.assertEqual(part.getSubPart(0).getHeaders(True)["subject"], "inner")

    def test_oddMultipart(self):
        """An unfinished multipart, an empty part and one without a boundary are accepted."""
        start = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        self.assertEqual([part.raw for part in Part(start + b"--b\r\nopen").parts], [b"open"])
        self.assertEqual([part.raw for part in Part(start + b"--b\r\n--b\r\nx\r\n--b--").parts], [b"", b"x"])
        self.assertEqual(Part(start + b"text --b\r\n--bc\r\n").parts, [])
        self.assertFalse(Part(b"Content-Type: multipart/mixed\r\n\r\n--\r\n").isMultipart())

    def test_deep(self):
        """Deeply nested messages are parsed to a limit, and described."""
        raw = b"Content-Type: message/rfc822\r\n\r\n" * 5000
        depth, part = 0, Part(raw)
        while part.parts:
            depth, part = depth + 1, part.parts[0]
        self.assertLess(depth, 100)
        bodyStructure(Part(raw), True)

    def test_internalDate(self):
        """The internal date keeps its time zone."""
        date = datetime(2020, 2, 1, 10, 0, tzinfo=timezone(timedelta(hours=2)))
        self.assertEqual(Message(b"", 1, frozenset(), date).getInternalDate(), b"Sat, 01 Feb 2020 10:00:00 +0200")


class StructureTests(SynchronousTestCase):
    """Tests for L{envelope} and L{bodyStructure}."""

    def test_envelope(self):
        """Sender and Reply-To default to From (RFC 3501, 7.4.2)."""
        found = envelope(Part(b'From: "A, B" <a@b.c>\r\nTo: x@y, Z <z@w>\r\nMessage-ID: <m>\r\n\r\n'))
        author = [["A, B", None, "a", "b.c"]]
        self.assertEqual(found[2:5], [author, author, author])
        self.assertEqual(found[5], [[None, None, "x", "y"], ["Z", None, "z", "w"]])
        self.assertEqual((found[0], found[1], found[6], found[9]), (None, None, None, "<m>"))

    def test_oddAddresses(self):
        """Every address has four fields, whatever the header contains."""
        for value in (b"joe", b"a@b@c", b"undisclosed-recipients:;", b"<>", b", ,", b'"x"', b"@"):
            for address in envelope(Part(b"From: " + value + b"\r\n\r\n"))[2] or ():
                self.assertEqual(len(address), 4)

    def test_mixed(self):
        """Parts precede the subtype; a text and an enclosed message have their number of lines."""
        first, enclosed, binary, subtype = bodyStructure(Part(MIXED), False)
        self.assertEqual(subtype, "mixed")
        self.assertEqual(first, ["text", "plain", ["charset", "us-ascii"], None, None, "7BIT", 5, 0])
        self.assertEqual(enclosed[:2] + enclosed[6:7], ["message", "rfc822", 39])
        self.assertEqual(enclosed[7][1], "inner")
        self.assertEqual(enclosed[8][:2], ["text", "plain"])
        self.assertEqual(binary[:2] + binary[5:], ["application", "x", "base64", 4])

    def test_extended(self):
        """The extension data of a part contain its disposition."""
        *_, binary, subtype, parameters, _, _, _ = bodyStructure(Part(MIXED), True)
        self.assertEqual((subtype, parameters), ("mixed", ["boundary", "a b;c"]))
        self.assertEqual(binary[-3], ["attachment", ["filename", "f.bin"]])

    def test_wire(self):
        """The structure can always be sent as ASCII, whatever the header contains."""
        for field in (
            b"",
            b"Content-Type: text/plain;\r\n",
            b"Content-Type: text\r\n",
            b"Content-Type: ;;=;\r\n",
            b"Content-Type: text/plain; charset*=utf-8''%C3%A9; x\r\n",
            b"Content-Disposition: ;\r\n",
            b'Content-Type: text/plain; name="\xff\xfe"\r\n',
            b"Content-Disposition: attachment; filename=\xe9\r\n",
        ):
            for extended in (False, True):
                wire = collapseNestedLists([bodyStructure(Part(field + b"\r\nx\r\n"), extended)])
                self.assertNotIn(b"\n", wire)
                wire.decode("ascii")
