"""
Tests for L{mailgate.tls.clienthello} with handwritten ClientHellos. L{mailgate.test.tls.test_tickets} uses OpenSSL's.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from mailgate.tls.clienthello import LIMIT, ClientHello


def vector(content: bytes, width: int = 2) -> bytes:
    """C{content} after its length."""
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    """One extension of a ClientHello."""
    return kind.to_bytes(2, "big") + vector(content)


def ticketExtension(ticket: bytes) -> bytes:
    """The extension by which TLS 1.2 offers C{ticket}."""
    return extension(35, ticket)


def identitiesExtension(*identities: bytes) -> bytes:
    """The extension by which TLS 1.3 offers C{identities}, with a binder for each."""
    offered = b"".join(vector(identity) + b"\0\0\0\1" for identity in identities)
    return extension(41, vector(offered) + vector(vector(bytes(32), 1) * len(identities)))


def message(*extensions: bytes) -> bytes:
    """A ClientHello. Without C{extensions} it has no vector of them."""
    body = b"\3\3" + bytes(32) + vector(b"s" * 32, 1) + vector(b"\x13\x01") + vector(b"\0", 1)
    if extensions:
        body += vector(b"".join(extensions))
    return b"\1" + vector(body, 3)


def records(content: bytes, size: int = 16384, kind: int = 22) -> bytes:
    """C{content} in records of at most C{size} bytes."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(bytes((kind, 3, 1)) + vector(piece) for piece in pieces)


SERVER_NAME = extension(0, vector(b"\0" + vector(b"mail.example.com")))
OFFER = message(SERVER_NAME, ticketExtension(b"old" * 40), extension(43, b"\2\3\4"), identitiesExtension(b"new" * 50))
OFFERED = (b"old" * 40, b"new" * 50)


class ClientHelloTests(SynchronousTestCase):
    """L{ClientHello}."""

    def offered(self, data: bytes) -> tuple[bytes, ...]:
        """The tickets in C{data}, which must be complete."""
        hello = ClientHello()
        self.assertTrue(hello.feed(data))
        self.assertEqual(hello.received, data)
        return hello.tickets

    def test_none(self) -> None:
        """A ClientHello without tickets offers none, with extensions or without."""
        self.assertEqual(self.offered(records(message())), ())
        self.assertEqual(self.offered(records(message(SERVER_NAME))), ())

    def test_ticket(self) -> None:
        """TLS 1.2 offers a ticket in an extension. An empty one only requests a ticket."""
        self.assertEqual(self.offered(records(message(SERVER_NAME, ticketExtension(b"t" * 176)))), (b"t" * 176,))
        self.assertEqual(self.offered(records(message(ticketExtension(b""), SERVER_NAME))), ())

    def test_identities(self) -> None:
        """TLS 1.3 offers one or more tickets, as the identities of keys."""
        self.assertEqual(self.offered(records(message(SERVER_NAME, identitiesExtension(b"a" * 200)))), (b"a" * 200,))
        self.assertEqual(self.offered(records(message(identitiesExtension(b"a", b"b" * 300)))), (b"a", b"b" * 300))

    def test_both(self) -> None:
        """A client may offer both."""
        self.assertEqual(self.offered(records(OFFER)), OFFERED)

    def test_cutAnywhere(self) -> None:
        """The result is the same for two segments, cut anywhere, and is complete with the last byte."""
        data = records(OFFER)
        for at in range(1, len(data)):
            hello = ClientHello()
            self.assertFalse(hello.feed(data[:at]), at)
            self.assertTrue(hello.feed(data[at:]), at)
            self.assertEqual((hello.tickets, hello.received), (OFFERED, data), at)

    def test_byteByByte(self) -> None:
        """The result is the same for single bytes."""
        hello = ClientHello()
        data = records(OFFER, 100)
        done = [hello.feed(bytes((byte,))) for byte in data]
        self.assertEqual(done, [False] * (len(data) - 1) + [True])
        self.assertEqual(hello.tickets, OFFERED)

    def test_records(self) -> None:
        """The result is the same for several records of any size."""
        for size in (1, 2, 3, 4, 5, 7, 100, len(OFFER) - 1):
            self.assertEqual(self.offered(records(OFFER, size)), OFFERED, size)

    def test_more(self) -> None:
        """Bytes after the ClientHello, such as early data, are kept and not parsed."""
        self.assertEqual(self.offered(records(OFFER) + records(b"early", kind=23)), OFFERED)

    def test_noHandshake(self) -> None:
        """Other bytes offer nothing, and are recognized at once."""
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"a001 LOGIN joe sesame\r\n",
            b"\x16\x02\x01\x40\x00",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\x40\x01",
            b"\x80\x2e\x01\x03\x01",
            records(b"\2" + bytes(3)),
            records(OFFER, kind=23),
        ):
            self.assertEqual(self.offered(data), ())

    def test_tooLong(self) -> None:
        """A ClientHello that announces too great a length is not awaited."""
        self.assertEqual(self.offered(records(b"\1" + LIMIT.to_bytes(3, "big"))), ())

    def test_bounded(self) -> None:
        """A ClientHello in many small records is given up at the limit."""
        hello = ClientHello()
        data = records(message(extension(21, bytes(16000))), 1)
        fed = 0
        while not hello.feed(data[fed : fed + 100]):
            fed += 100
        self.assertEqual((len(hello.received), hello.tickets), (-(-LIMIT // 100) * 100, ()))

    def test_largest(self) -> None:
        """The largest ClientHello that is parsed fits into one record."""
        padding = LIMIT - len(message(ticketExtension(b"t"), extension(21, b"")))
        self.assertEqual(self.offered(records(message(extension(21, bytes(padding)), ticketExtension(b"t")))), (b"t",))

    def test_odd(self) -> None:
        """Contradictory lengths offer nothing, and raise nothing."""
        short = ticketExtension(b"t" * 20)[:-1]
        self.assertEqual(self.offered(records(message(SERVER_NAME, short))), ())
        self.assertEqual(self.offered(records(message(extension(41, b"")))), ())
        self.assertEqual(self.offered(records(message(extension(41, b"\0\x09\0\5aa")))), ())
        self.assertEqual(self.offered(records(b"\1" + vector(bytes(10), 3))), ())
        self.assertEqual(self.offered(records(message(b"\0"))), ())

    def test_anything(self) -> None:
        """No changed byte raises an exception, or makes a ticket longer than the input."""
        noise = random.Random(35)
        data = records(OFFER)
        for _ in range(5000):
            changed = bytearray(data)
            for _ in range(noise.randrange(1, 4)):
                changed[noise.randrange(len(changed))] = noise.randrange(256)
            hello = ClientHello()
            hello.feed(bytes(changed))
            self.assertLessEqual(sum(map(len, hello.tickets)), len(data))
