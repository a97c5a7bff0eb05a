"""
Tests for L{mailgate.tls.clienthello}: ClientHellos written by hand. Those of OpenSSL are in
L{mailgate.test.tls.test_tickets}.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from mailgate.tls.clienthello import LIMIT, ClientHello


def vector(content: bytes, width: int = 2) -> bytes:
    """C{content} behind its length."""
    return len(content).to_bytes(width, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    """One extension of a ClientHello."""
    return kind.to_bytes(2, "big") + vector(content)


def ticketExtension(ticket: bytes) -> bytes:
    """What TLS 1.2 offers C{ticket} by."""
    return extension(35, ticket)


def identitiesExtension(*identities: bytes) -> bytes:
    """What TLS 1.3 offers C{identities} by, with a binder for each."""
    offered = b"".join(vector(identity) + b"\0\0\0\1" for identity in identities)
    return extension(41, vector(offered) + vector(vector(bytes(32), 1) * len(identities)))


def message(*extensions: bytes) -> bytes:
    """A ClientHello, without extensions altogether where there are none."""
    body = b"\3\3" + bytes(32) + vector(b"s" * 32, 1) + vector(b"\x13\x01") + vector(b"\0", 1)
    if extensions:
        body += vector(b"".join(extensions))
    return b"\1" + vector(body, 3)


def records(content: bytes, size: int = 16384, kind: int = 22) -> bytes:
    """C{content} in records of C{size} bytes at the most."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(bytes((kind, 3, 1)) + vector(piece) for piece in pieces)


SERVER_NAME = extension(0, vector(b"\0" + vector(b"mail.example.com")))
OFFER = message(SERVER_NAME, ticketExtension(b"old" * 40), extension(43, b"\2\3\4"), identitiesExtension(b"new" * 50))
OFFERED = (b"old" * 40, b"new" * 50)


class ClientHelloTests(SynchronousTestCase):
    """L{ClientHello}."""

    def offered(self, data: bytes) -> tuple[bytes, ...]:
        """The tickets in C{data}, which is all that is needed."""
        hello = ClientHello()
        self.assertTrue(hello.feed(data))
        self.assertEqual(hello.received, data)
        return hello.tickets

    def test_none(self) -> None:
        """One without tickets offers none, whether it has extensions or not."""
        self.assertEqual(self.offered(records(message())), ())
        self.assertEqual(self.offered(records(message(SERVER_NAME))), ())

    def test_ticket(self) -> None:
        """TLS 1.2 offers a ticket in an extension; where that is empty a client only asks for one."""
        self.assertEqual(self.offered(records(message(SERVER_NAME, ticketExtension(b"t" * 176)))), (b"t" * 176,))
        self.assertEqual(self.offered(records(message(ticketExtension(b""), SERVER_NAME))), ())

    def test_identities(self) -> None:
        """TLS 1.3 offers one or several, as the identities of keys."""
        self.assertEqual(self.offered(records(message(SERVER_NAME, identitiesExtension(b"a" * 200)))), (b"a" * 200,))
        self.assertEqual(self.offered(records(message(identitiesExtension(b"a", b"b" * 300)))), (b"a", b"b" * 300))

    def test_both(self) -> None:
        """A client that does not know the server's version offers both."""
        self.assertEqual(self.offered(records(OFFER)), OFFERED)

    def test_cutAnywhere(self) -> None:
        """It is the same in two segments, wherever they meet, and is complete with its last byte, not before."""
        data = records(OFFER)
        for at in range(1, len(data)):
            hello = ClientHello()
            self.assertFalse(hello.feed(data[:at]), at)
            self.assertTrue(hello.feed(data[at:]), at)
            self.assertEqual((hello.tickets, hello.received), (OFFERED, data), at)

    def test_byteByByte(self) -> None:
        """It is the same a byte at a time."""
        hello = ClientHello()
        data = records(OFFER, 100)
        done = [hello.feed(bytes((byte,))) for byte in data]
        self.assertEqual(done, [False] * (len(data) - 1) + [True])
        self.assertEqual(hello.tickets, OFFERED)

    def test_records(self) -> None:
        """It is the same in several records, of any size."""
        for size in (1, 2, 3, 4, 5, 7, 100, len(OFFER) - 1):
            self.assertEqual(self.offered(records(OFFER, size)), OFFERED, size)

    def test_more(self) -> None:
        """What comes behind it, such as early data, is kept and not looked at."""
        self.assertEqual(self.offered(records(OFFER) + records(b"early", kind=23)), OFFERED)

    def test_noHandshake(self) -> None:
        """What is no ClientHello offers nothing, and is known by its first bytes."""
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
        """One that says that it is too long is not waited for."""
        self.assertEqual(self.offered(records(b"\1" + LIMIT.to_bytes(3, "big"))), ())

    def test_bounded(self) -> None:
        """One that hides its length in many small records is given up at the limit."""
        hello = ClientHello()
        data = records(message(extension(21, bytes(16000))), 1)
        fed = 0
        while not hello.feed(data[fed : fed + 100]):
            fed += 100
        self.assertEqual((len(hello.received), hello.tickets), (-(-LIMIT // 100) * 100, ()))

    def test_largest(self) -> None:
        """The largest that is looked at fits into one record."""
        padding = LIMIT - len(message(ticketExtension(b"t"), extension(21, b"")))
        self.assertEqual(self.offered(records(message(extension(21, bytes(padding)), ticketExtension(b"t")))), (b"t",))

    def test_odd(self) -> None:
        """Lengths that do not fit into each other offer nothing; nothing is raised."""
        short = ticketExtension(b"t" * 20)[:-1]
        self.assertEqual(self.offered(records(message(SERVER_NAME, short))), ())
        self.assertEqual(self.offered(records(message(extension(41, b"")))), ())
        self.assertEqual(self.offered(records(message(extension(41, b"\0\x09\0\5aa")))), ())
        self.assertEqual(self.offered(records(b"\1" + vector(bytes(10), 3))), ())
        self.assertEqual(self.offered(records(message(b"\0"))), ())

    def test_anything(self) -> None:
        """Whatever byte is another, nothing is raised, and no ticket is longer than what came."""
        noise = random.Random(35)
        data = records(OFFER)
        for _ in range(5000):
            changed = bytearray(data)
            for _ in range(noise.randrange(1, 4)):
                changed[noise.randrange(len(changed))] = noise.randrange(256)
            hello = ClientHello()
            hello.feed(bytes(changed))
            self.assertLessEqual(sum(map(len, hello.tickets)), len(data))
