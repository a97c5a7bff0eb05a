"""Commands out of bytes, and back-pressure before login."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.framing import READ_AHEAD, CommandReader
from mailgate.testing import FakeTransport


class Recorder(CommandReader):
    """
    Keeps what it is given; C{lit N} asks for a literal, C{drop N} for bytes to be thrown away, C{stop} stops listening.
    """

    def __init__(self, limit: int = 32) -> None:
        super().__init__()
        self.limit = limit
        self.units: list[bytes] = []
        self.open = True
        self.tooLong = 0
        self.begun = 0

    @property
    def listening(self) -> bool:
        return self.open

    def lineLimit(self) -> int:
        return self.limit

    def lineReceived(self, line: bytes) -> None:
        self.units.append(line)
        if line.startswith(b"lit "):
            self.expectLiteral(int(line[4:]))
        if line.startswith(b"drop "):
            self.discard(int(line[5:]))
        if line == b"stop":
            self.open = False
        if line == b"again":
            self.advance()

    def literalReceived(self, octets: bytes) -> None:
        self.units.append(b"<" + octets + b">")

    def discarded(self) -> None:
        self.units.append(b"dropped")

    def unitBegins(self) -> None:
        self.begun += 1

    def lineTooLong(self) -> None:
        self.tooLong += 1
        self.open = False


class FramingTests(SynchronousTestCase):
    """Lines and literals."""

    def connect(self, limit: int = 32) -> Recorder:
        """A recorder on a fake transport."""
        recorder = Recorder(limit)
        FakeTransport().connect(recorder)
        recorder.transport.registerProducer(recorder, True)
        return recorder

    def test_everyCut(self) -> None:
        """Lines and literals are the same wherever they are cut."""
        data = b"one\r\ntwo\n\r\nlit 5\r\na\r\nb\rrest\r\nlit 0\r\n\r\ndrop 6\r\ndrop\r\ndrop 0\r\n\r\n"
        units = [b"one", b"two", b"", b"lit 5", b"<a\r\nb\r>", b"rest", b"lit 0", b"<>", b""]
        units += [b"drop 6", b"dropped", b"drop 0", b"dropped", b""]
        for cut in range(len(data) + 1):
            recorder = self.connect()
            recorder.dataReceived(data[:cut])
            recorder.dataReceived(data[cut:])
            self.assertEqual(recorder.units, units)

    def test_limit(self) -> None:
        """A line may be as long as the limit, its end included, and no longer; whole or in parts."""
        recorder = self.connect(8)
        recorder.dataReceived(b"123456\r\n1234567\n")
        self.assertEqual(recorder.units, [b"123456", b"1234567"])
        for chunks in ((b"1234567\r\n",), (b"12345678",), (b"1234567", b"\r\n")):
            recorder = self.connect(8)
            for chunk in chunks:
                recorder.dataReceived(chunk)
            self.assertEqual((recorder.units, recorder.tooLong), ([], 1))

    def test_notListening(self) -> None:
        """What comes while nothing may be obeyed is kept, and obeyed afterwards."""
        recorder = self.connect()
        recorder.dataReceived(b"stop\r\none\r\nhal")
        recorder.dataReceived(b"f\r\n")
        self.assertEqual(recorder.units, [b"stop"])
        recorder.open = True
        recorder.advance()
        self.assertEqual(recorder.units, [b"stop", b"one", b"half"])

    def test_reentrance(self) -> None:
        """A command that asks for the next ones does not recurse."""
        recorder = self.connect()
        recorder.dataReceived(b"again\r\n" * 3000)
        self.assertEqual(len(recorder.units), 3000)

    def test_takeBuffer(self) -> None:
        """What has not been obeyed can be taken away, once."""
        recorder = self.connect()
        recorder.dataReceived(b"stop\r\nrest\r\n")
        self.assertEqual(recorder.takeBuffer(), b"rest\r\n")
        self.assertEqual(recorder.takeBuffer(), b"")


class PressureTests(FramingTests):
    """Nothing piles up."""

    def test_readAhead(self) -> None:
        """A client that sends too much while nothing is obeyed is not read from, until it is."""
        recorder = self.connect()
        recorder.dataReceived(b"stop\r\n" + b"x\r\n" * (READ_AHEAD // 3))
        self.assertEqual(recorder.transport.producerState, "producing")
        recorder.dataReceived(b"x\r\nx\r\n")
        self.assertEqual(recorder.transport.producerState, "paused")
        recorder.open = True
        recorder.advance()
        self.assertEqual(recorder.transport.producerState, "producing")

    def test_largeUnits(self) -> None:
        """A line or a literal may be longer than what is read ahead: as long as it is awaited, it is read."""
        for begin, end in ((b"", b"\r\n"), (b"lit 100000\r\n", b"")):
            recorder = self.connect(200000)
            recorder.dataReceived(begin)
            for _ in range(10):
                recorder.dataReceived(b"x" * 10000)
                self.assertEqual(recorder.transport.producerState, "producing")
            recorder.dataReceived(end)
            self.assertEqual(len(recorder.units[-1].strip(b"<>")), 100000)

    def test_discarded(self) -> None:
        """What is thrown away is not kept, however much it is, and each piece of it is a sign of life."""
        recorder = self.connect()
        recorder.dataReceived(b"drop %d\r\n" % 2**63)
        for number in range(10):
            recorder.dataReceived(b"stop\r\n" * READ_AHEAD)
            self.assertEqual((recorder.units[1:], recorder._buffer, recorder.begun), ([], b"", number + 2))
            self.assertEqual(recorder.transport.producerState, "producing")

    def test_discardedLater(self) -> None:
        """While nothing is obeyed nothing is thrown away either: the client is held back."""
        recorder = self.connect()
        recorder.dataReceived(b"drop 100000\r\n1")
        recorder.open = False
        recorder.dataReceived(b"x" * (READ_AHEAD + 1))
        self.assertEqual(recorder.transport.producerState, "paused")
        recorder.open = True
        recorder.advance()
        self.assertEqual(recorder.transport.producerState, "producing")
        recorder.dataReceived(b"x" * (100000 - READ_AHEAD - 2) + b"one\r\n")
        self.assertEqual(recorder.units[1:], [b"dropped", b"one"])

    def test_repliesNotTaken(self) -> None:
        """A client that does not take our replies is neither read from nor obeyed, until it does."""
        recorder = self.connect()
        recorder.pauseProducing()
        self.assertEqual(recorder.transport.producerState, "paused")
        recorder.dataReceived(b"one\r\n")
        self.assertEqual(recorder.units, [])
        recorder.resumeProducing()
        self.assertEqual(recorder.units, [b"one"])
        self.assertEqual(recorder.transport.producerState, "producing")

    def test_neverTaken(self) -> None:
        """When the consumer has gone, nothing more is obeyed."""
        recorder = self.connect()
        recorder.stopProducing()
        recorder.dataReceived(b"one\r\n")
        self.assertEqual(recorder.units, [])
