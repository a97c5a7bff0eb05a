"""Words, quoted strings and literals on lines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.text import Literal, acceptableText, literalAt, literalAtEnd, quotedAt, splitArguments
from mailgate.login import Denial, Trouble


class WordsTests(SynchronousTestCase):
    """L{splitArguments}."""

    def test_words(self) -> None:
        """Only blanks separate words, however many."""
        for rest, words in ((b"", []), (b"  ", []), (b" a  b\tc ", [b"a", b"b\tc"]), (b"a\xa0b", [b"a\xa0b"])):
            self.assertEqual(splitArguments(rest), words)


class QuotedTests(SynchronousTestCase):
    """L{quotedAt}."""

    def test_quoted(self) -> None:
        """The text without quotes and escapes, and its end."""
        for line, position, found in (
            (b'"joe"', 0, (b"joe", 5)),
            (b'LOGIN "joe" "x y"', 12, (b"x y", 17)),
            (b'""rest', 0, (b"", 2)),
            (rb'"a\"b\\" c', 0, (b'a"b\\', 8)),
            (rb'"\a"', 0, (b"a", 4)),
            (b'"{3}"', 0, (b"{3}", 5)),
        ):
            self.assertEqual(quotedAt(line, position), found)

    def test_none(self) -> None:
        """A string that is incomplete or begins elsewhere is not found."""
        for line, position in ((b"joe", 0), (b'"joe', 0), (rb'"joe\"', 0), (b' "joe"', 0), (b'"joe"', 5), (b"", 0)):
            self.assertIsNone(quotedAt(line, position), line)


class LiteralTests(SynchronousTestCase):
    """L{literalAt}, L{literalAtEnd}."""

    def test_at(self) -> None:
        """A literal ends its line and is synchronizing or not."""
        for line, position, literal in (
            (b"{3}", 0, Literal(3, True)),
            (b"LOGIN {12+}", 6, Literal(12, False)),
            (b"{}", 0, Literal(0, True)),
            (b"{9999999999}", 0, Literal(9999999999, True)),
        ):
            self.assertEqual(literalAt(line, position), literal)

    def test_notAt(self) -> None:
        """Anything else is not a literal, for example more than ten digits."""
        for line in (b"{3} ", b"{3}x", b"{-1}", b"{x}", b"{3", b"3}", b" {3}", b"{3++}", b"{99999999999}", b""):
            self.assertIsNone(literalAt(line, 0), line)

    def test_atEnd(self) -> None:
        """At the end of a line it counts, whatever stands before it and however large it is."""
        for line, literal in (
            (b"NO {3}", Literal(3, True)),
            (b'"{3}"{4+}', Literal(4, False)),
            (b"{99999999999}", Literal(99999999999, True)),
        ):
            self.assertEqual(literalAtEnd(line), literal)
        endless = literalAtEnd(b"{%b}" % (b"9" * 5000))
        assert endless is not None
        self.assertGreater(endless.octets, 2**64)
        for line in (b"", b"{}", b"{3} ", b"{3}x"):
            self.assertIsNone(literalAtEnd(line), line)


class TextTests(SynchronousTestCase):
    """L{acceptableText}."""

    def test_acceptable(self) -> None:
        """A refusal's own text is used, if it has one that fits; other troubles have our texts."""
        for denial, text in (
            (Denial(Trouble.DENIED, b"no"), b"no"),
            (Denial(Trouble.DENIED), None),
            (Denial(Trouble.DENIED, b"no\r\n* OK"), None),
            (Denial(Trouble.TEMPORARY, b"no"), None),
        ):
            self.assertEqual(acceptableText(denial), text)
