"""
The order of commands, and back-pressure before login.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.framing import Unit
from mailgate.frontend.intake import READ_AHEAD, Intake
from mailgate.session import Phase
from mailgate.testing import FakeTransport
from mailgate.testing.fakes import makeSession


class Recorder(Intake):
    """Records its calls. C{lit N} expects a literal, C{drop N} discards bytes, C{stop} stops listening."""

    def __init__(self, limit: int = 32) -> None:
        self.transport = FakeTransport()
        self.transport.registerProducer(self, True)
        self.limit = limit
        self.units: list[bytes] = []
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.1:4242", 0.0, phase=Phase.COMMAND)
        self.tooLong = 0
        self.begun = 0
        self.exhaustions = 0

    def dialogueReceived(self, data: bytes) -> None:
        self.feed(data)
        self.advance()

    def lineLimit(self) -> int:
        return self.limit

    def exhausted(self) -> None:
        self.exhaustions += 1

    def obey(self, unit: Unit, octets: bytes) -> bool:
        if unit is Unit.TOO_LONG:
            self.tooLong += 1
            self.session.enter(Phase.AUTH)
            return False
        self.begun += 1
        if unit is Unit.LINE:
            self._lineReceived(octets)
        elif unit is Unit.LITERAL:
            self.units.append(b"<" + octets + b">")
        elif unit is Unit.DISCARDED:
            self.units.append(b"dropped")
        return self.session.phase.listens

    def _lineReceived(self, line: bytes) -> None:
        self.units.append(line)
        if line.startswith(b"lit "):
            self.expectLiteral(int(line[4:]))
        if line.startswith(b"drop "):
            self.discard(int(line[5:]))
        if line == b"stop":
            self.session.enter(Phase.AUTH)
        if line == b"again":
            self.advance()


class IntakeTests(SynchronousTestCase):
    """The moments at which commands are obeyed."""

    def state(self, recorder: Recorder) -> Any:
        """Whether the client is read from."""
        return recorder.transport.producerState

    def test_everyCut(self) -> None:
        """Lines and literals do not depend on where the stream is cut."""
        data = b"one\r\ntwo\n\r\nlit 5\r\na\r\nb\rrest\r\nlit 0\r\n\r\ndrop 6\r\ndrop\r\ndrop 0\r\n\r\n"
        units = [b"one", b"two", b"", b"lit 5", b"<a\r\nb\r>", b"rest", b"lit 0", b"<>", b""]
        units += [b"drop 6", b"dropped", b"drop 0", b"dropped", b""]
        for cut in range(len(data) + 1):
            recorder = Recorder()
            recorder.dataReceived(data[:cut])
            recorder.dataReceived(data[cut:])
            self.assertEqual(recorder.units, units)

    def test_limit(self) -> None:
        """A line may be as long as the limit, its end included, and no longer, in one piece or in parts."""
        recorder = Recorder(8)
        recorder.dataReceived(b"123456\r\n1234567\n")
        self.assertEqual(recorder.units, [b"123456", b"1234567"])
        for chunks in ((b"1234567\r\n",), (b"12345678",), (b"1234567", b"\r\n")):
            recorder = Recorder(8)
            for chunk in chunks:
                recorder.dataReceived(chunk)
            self.assertEqual((recorder.units, recorder.tooLong), ([], 1))

    def test_notListening(self) -> None:
        """Input that arrives while no command may be obeyed is kept and obeyed afterwards."""
        recorder = Recorder()
        recorder.dataReceived(b"stop\r\none\r\nhal")
        recorder.dataReceived(b"f\r\n")
        self.assertEqual(recorder.units, [b"stop"])
        recorder.session.enter(Phase.COMMAND)
        recorder.advance()
        self.assertEqual(recorder.units, [b"stop", b"one", b"half"])

    def test_reentrance(self) -> None:
        """A command that asks for the next ones does not recurse."""
        recorder = Recorder()
        recorder.dataReceived(b"again\r\n" * 3000)
        self.assertEqual(len(recorder.units), 3000)

    def test_takeAll(self) -> None:
        """Bytes that were not obeyed can be taken once."""
        recorder = Recorder()
        recorder.dataReceived(b"stop\r\nrest\r\n")
        self.assertEqual(recorder.takeAll(), b"rest\r\n")
        self.assertEqual(recorder.takeAll(), b"")

    def test_exhausted(self) -> None:
        """After the last command the owner learns that no more will arrive, if it listens."""
        recorder = Recorder()
        recorder.inputEnded = True
        recorder.dataReceived(b"one\r\nstop\r\ntwo\r\nhal")
        self.assertEqual((recorder.units, recorder.exhaustions), ([b"one", b"stop"], 0))
        recorder.session.enter(Phase.COMMAND)
        recorder.pauseProducing()
        recorder.advance()
        self.assertEqual((recorder.units, recorder.exhaustions), ([b"one", b"stop"], 0))
        recorder.resumeProducing()
        self.assertEqual((recorder.units, recorder.exhaustions), ([b"one", b"stop", b"two"], 1))

    def test_failure(self) -> None:
        """An exception in a command does not block later ones."""
        recorder = Recorder()
        self.assertRaises(ValueError, recorder.dataReceived, b"lit x\r\none\r\n")
        recorder.advance()
        self.assertEqual(recorder.units, [b"lit x", b"one"])

    def test_readAhead(self) -> None:
        """The gateway does not read from a client that sends too much while no command is obeyed."""
        recorder = Recorder()
        recorder.dataReceived(b"stop\r\n" + b"x\r\n" * (READ_AHEAD // 3))
        self.assertEqual(self.state(recorder), "producing")
        recorder.dataReceived(b"x\r\nx\r\n")
        self.assertEqual(self.state(recorder), "paused")
        recorder.session.enter(Phase.COMMAND)
        recorder.advance()
        self.assertEqual(self.state(recorder), "producing")

    def test_relayed(self) -> None:
        """After the hand-over the intake does not pause or resume the client."""
        recorder = Recorder()
        recorder.handOverTo(Recorder())  # type: ignore[arg-type]
        recorder.dialogueReceived(b"stop\r\n" + b"x\r\n" * READ_AHEAD)
        self.assertEqual(self.state(recorder), "producing")

    def test_largeUnits(self) -> None:
        """A line or a literal may be longer than the read-ahead limit: it is read while it is expected."""
        for begin, end in ((b"", b"\r\n"), (b"lit 100000\r\n", b"")):
            recorder = Recorder(200000)
            recorder.dataReceived(begin)
            for _ in range(10):
                recorder.dataReceived(b"x" * 10000)
                self.assertEqual(self.state(recorder), "producing")
            recorder.dataReceived(end)
            self.assertEqual(len(recorder.units[-1].strip(b"<>")), 100000)

    def test_discarded(self) -> None:
        """Discarded bytes are not kept, whatever their number, and each part is a sign of life."""
        recorder = Recorder()
        recorder.dataReceived(b"drop %d\r\n" % 2**63)
        for number in range(10):
            recorder.dataReceived(b"stop\r\n" * READ_AHEAD)
            self.assertEqual((recorder.units[1:], recorder.buffer, recorder.begun), ([], b"", number + 2))
            self.assertEqual(self.state(recorder), "producing")

    def test_discardedLater(self) -> None:
        """While no command is obeyed nothing is discarded: reading is paused."""
        recorder = Recorder()
        recorder.dataReceived(b"drop 100000\r\n1")
        recorder.session.enter(Phase.AUTH)
        recorder.dataReceived(b"x" * (READ_AHEAD + 1))
        self.assertEqual(self.state(recorder), "paused")
        recorder.session.enter(Phase.COMMAND)
        recorder.advance()
        self.assertEqual(self.state(recorder), "producing")
        recorder.dataReceived(b"x" * (100000 - READ_AHEAD - 2) + b"one\r\n")
        self.assertEqual(recorder.units[1:], [b"dropped", b"one"])

    def test_repliesNotTaken(self) -> None:
        """A client that does not read replies is neither read from nor obeyed until it does."""
        recorder = Recorder()
        recorder.pauseProducing()
        self.assertEqual(self.state(recorder), "paused")
        recorder.dataReceived(b"one\r\n")
        self.assertEqual(recorder.units, [])
        recorder.resumeProducing()
        self.assertEqual(recorder.units, [b"one"])
        self.assertEqual(self.state(recorder), "producing")

    def test_neverTaken(self) -> None:
        """When the consumer has stopped, no more commands are obeyed."""
        recorder = Recorder()
        recorder.stopProducing()
        recorder.dataReceived(b"one\r\n")
        self.assertEqual(recorder.units, [])
