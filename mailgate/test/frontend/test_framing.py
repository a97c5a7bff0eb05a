"""
Cutting bytes into lines and literals.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.framing import LONG, Framing, Unit


def cut(framing: Framing, limit: int = 32) -> list[bytes]:
    """Return all units of C{framing}. C{lit N} expects a literal, C{drop N} discards bytes."""
    units = []
    while (taken := framing.take(limit)) is not None:
        unit, octets = taken
        units.append({Unit.LINE: octets, Unit.LITERAL: b"<" + octets + b">"}.get(unit, unit.value.encode()))
        if unit in (Unit.TOO_LONG, Unit.PART):
            break
        if unit is Unit.LINE and octets.startswith(b"lit "):
            framing.expectLiteral(int(octets[4:]))
        if unit is Unit.LINE and octets.startswith(b"drop "):
            framing.discard(int(octets[5:]))
    return units


def fed(*pieces: bytes) -> Framing:
    """A framing with C{pieces}."""
    framing = Framing()
    for piece in pieces:
        framing.feed(piece)
    return framing


class FramingTests(SynchronousTestCase):
    """Lines, literals and discarded bytes."""

    data = b"one\r\ntwo\n\r\nlit 5\r\na\r\nb\rrest\r\nlit 0\r\n\r\ndrop 6\r\ndrop\r\ndrop 0\r\n\r\n"
    units = (
        *(b"one", b"two", b"", b"lit 5", b"<a\r\nb\r>", b"rest", b"lit 0", b"<>", b""),
        *(b"drop 6", b"discarded", b"drop 0", b"discarded", b""),
    )

    def test_everyCut(self) -> None:
        """Lines and literals do not depend on where the stream is cut."""
        for place in range(len(self.data) + 1):
            framing = Framing()
            units = []
            for piece in (self.data[:place], self.data[place:]):
                framing.feed(piece)
                units += [unit for unit in cut(framing) if unit != b"part"]
            self.assertEqual(units, list(self.units), place)
            self.assertEqual(framing.buffer, b"")

    def test_longSegment(self) -> None:
        """The same in a long segment, whose rest is copied once and not for each unit."""
        times = LONG // len(self.data) + 1
        framing = fed(self.data * times)
        framing.take(32)
        rest = framing.buffer
        self.assertIsInstance(rest, bytearray)
        self.assertEqual(cut(framing), [*self.units[1:], *self.units * (times - 1)])
        self.assertLess(len(rest), len(self.data))

    def test_byByte(self) -> None:
        """The same byte by byte, and if all is fed before the first unit is taken."""
        framing = Framing()
        units = []
        for byte in self.data:
            framing.feed(bytes((byte,)))
            units += [unit for unit in cut(framing) if unit != b"part"]
        self.assertEqual(units, list(self.units))
        self.assertEqual(cut(fed(*(bytes((byte,)) for byte in self.data))), list(self.units))

    def test_limit(self) -> None:
        """A line may be as long as the limit, its end included, and no longer, in one piece or in parts."""
        self.assertEqual(cut(fed(b"123456\r\n1234567\n"), 8), [b"123456", b"1234567"])
        for pieces in ((b"1234567\r\n",), (b"12345678",), (b"1234567", b"\r\n")):
            framing = fed(*pieces)
            self.assertEqual(cut(framing, 8), [b"too long"])
            self.assertEqual(framing.takeAll(), b"".join(pieces))

    def test_limitOfLiterals(self) -> None:
        """A literal has the announced length, whatever the limit of lines."""
        self.assertEqual(cut(fed(b"lit 9\r\n", b"123456789", b"x\n"), 7), [b"lit 9", b"<123456789>", b"x"])

    def test_takeAll(self) -> None:
        """Bytes that were not taken can be taken once, unchanged."""
        for framing in (fed(b"one\r\nrest\r\nhal"), fed(b"one\r\nre", b"st\r\nhal")):
            self.assertEqual(framing.take(32), (Unit.LINE, b"one"))
            taken = framing.takeAll()
            self.assertEqual((taken, type(taken)), (b"rest\r\nhal", bytes))
            self.assertEqual(framing.takeAll(), b"")

    def test_units(self) -> None:
        """Units are bytes. They do not change with later input."""
        framing = fed(b"o", b"ne\r\ntw")
        taken = framing.take(32)
        assert taken is not None
        framing.feed(b"o\r\n")
        self.assertEqual((taken[1], type(taken[1])), (b"one", bytes))
        self.assertEqual(cut(framing), [b"two"])

    def test_foreign(self) -> None:
        """The fed objects are not changed."""
        first = b"on"
        framing = fed(first, b"e\r\n")
        self.assertEqual(cut(framing), [b"one"])
        self.assertEqual(first, b"on")

    def test_isMidway(self) -> None:
        """Incomplete lines, literals and discarded bytes count as midway."""
        for pieces, isMidway in (
            ((), False),
            ((b"one\r\n",), False),
            ((b"one\r\nt",), True),
            ((b"lit 1\r\n",), True),
            ((b"lit 1\r\nx",), False),
            ((b"drop 1\r\n",), True),
            ((b"drop 1\r\nx",), False),
        ):
            framing = fed(*pieces)
            cut(framing)
            self.assertIs(framing.isMidway, isMidway, pieces)

    def test_discarded(self) -> None:
        """Discarded bytes are not kept, whatever their number, and each part is reported."""
        framing = fed(b"drop %d\r\n" % 2**63)
        self.assertEqual(cut(framing), [b"drop %d" % 2**63])
        for _ in range(10):
            framing.feed(b"stop\r\n" * 65536)
            self.assertEqual((cut(framing), framing.buffer), ([b"part"], b""))
            self.assertEqual(cut(framing), [])
