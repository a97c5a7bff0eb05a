"""
Tests for L{mailgate.protocols.sieve.command}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.sieve.command import (
    CommandParser,
    SieveSyntaxError,
    Word,
    literalOf,
    literalSize,
    quotedText,
)


def parse(*lines: bytes) -> CommandParser:
    """Parse a command whose literals are C{abc}."""
    parser = CommandParser()
    for line in lines:
        if parser.feed(line) is not None:
            parser.feedLiteral(b"abc")
    return parser


class CommandTests(SynchronousTestCase):
    """L{CommandParser}."""

    def test_strings(self) -> None:
        """Quoted strings and literals, with any number of blanks before them."""
        for lines, arguments in (
            ((b"NOOP",), []),
            ((b"noop ",), []),
            ((b'NOOP  "a b"',), [b"a b"]),
            ((b'NOOP "a\\"b\\\\" ""',), [b'a"b\\', b""]),
            ((b"NOOP {3+}", b""), [b"abc"]),
            ((b"NOOP {3}", b' "x"'), [b"abc", b"x"]),
            ((b'NOOP "x" {3+}', b" {3+}", b""), [b"x", b"abc", b"abc"]),
            ((b'NOOP "{3+}"',), [b"{3+}"]),
        ):
            parser = parse(*lines)
            self.assertEqual((parser.word, parser.arguments), (b"NOOP", arguments))

    def test_words(self) -> None:
        """What has no quotes is no string."""
        parser = parse(b'AUTHENTICATE PLAIN "x"')
        self.assertEqual([isinstance(each, Word) for each in parser.arguments], [True, False])

    def test_octets(self) -> None:
        """The announced size is returned, whatever it is."""
        self.assertEqual(CommandParser().feed(b"NOOP {4294967296+}"), 4294967296)
        self.assertEqual(CommandParser().feed(b"NOOP {0}"), 0)

    def test_invalid(self) -> None:
        """Everything else is refused."""
        for lines in (
            (b"",),
            (b" NOOP",),
            (b'"NOOP"',),
            (b"NOOP\tx",),
            (b'NOOP"x"',),
            (b'NOOP "x',),
            (b'NOOP "x\\"',),
            (b'NOOP "x""y"',),
            (b'NOOP x"y"',),
            (b"NOOP {x}",),
            (b"NOOP {3+} x",),
            (b"NOOP {-3}",),
            (b"NOOP {3+}", b"x"),
            (b"NOOP a b c d",),
            (b"NO1",),
        ):
            self.assertRaises(SieveSyntaxError, parse, *lines)


class PartTests(SynchronousTestCase):
    """The functions for parts of lines."""

    def test_literals(self) -> None:
        """A literal is announced at the end of a line."""
        for line, size, whole in (
            (b"{12+}", 12, 12),
            (b"{12}", 12, 12),
            (b"x {7}", 7, None),
            (b"{7} ", None, None),
            (b"{}", None, None),
            (b"{+7}", None, None),
        ):
            self.assertEqual((literalSize(line), literalOf(line)), (size, whole), line)

    def test_quoted(self) -> None:
        """A quoted string is all of the line."""
        self.assertEqual(quotedText(b'"a\\"b"'), b'a"b')
        for line in (b"", b"a", b'"a', b'"a" ', b'"a""b"', b'"a\\"'):
            self.assertIsNone(quotedText(line))
