"""
IMAP's ID before the login (RFC 2971): a client may send more than is kept. It is answered all the same, and memory has
a limit.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.command import LONGEST_ID, CommandParser
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.session import Outcome
from mailgate.testing import Conversation, hearEverything

ANSWER = b"* ID NIL\r\ni OK completed\r\n"
BAD = b"i BAD invalid command\r\n"


def pair(number: int, length: int = 1024) -> bytes:
    """The field C{number} with a value of C{length} bytes."""
    return b'"%030d" "%b"' % (number, b"v" * length)


LONGEST = b"(" + b" ".join(pair(number) for number in range(30)) + b")"
"""The longest ID that RFC 2971 allows."""


def converse(**settings: Any) -> Conversation:
    """A conversation past its greeting."""
    conversation = Conversation(IMAP4, IMAP4Settings(**settings))
    conversation.hear()
    return conversation


def kept(conversation: Conversation) -> tuple[bytes, ...]:
    """The fields that a backend gets with a login."""
    conversation.says(b"a LOGIN joe sesame")
    return conversation.requests[0].envelope.fields


class LongTests(SynchronousTestCase):
    """ID with more than C{imap_client_buffer} bytes."""

    def test_line(self) -> None:
        """The longest ID of RFC 2971 is answered as usual, in one line. Complete pairs are kept while there is room."""
        conversation = converse()
        self.assertEqual(conversation.says(b"i ID " + LONGEST), ANSWER)
        self.assertEqual(conversation.says(b"i ID NIL"), ANSWER)
        self.assertEqual(kept(conversation), tuple(pair(number) for number in range(3)))

    def test_everyCut(self) -> None:
        """However it is cut, the text after it is parsed as a command."""
        sent = b"i ID " + LONGEST + b"\r\ni ID NIL\r\n"
        heard = b"* OK IMAP4 ready\r\n" + ANSWER * 2
        for size in (1000, 4096, 5000):
            chunks = [sent[start : start + size] for start in range(0, len(sent), size)]
            self.assertEqual(hearEverything(lambda: Conversation(IMAP4), *chunks), heard)

    def test_literals(self) -> None:
        """The same with literals; each synchronizing one gets a continuation request."""
        value = b"v" * 1024
        conversation = converse()
        self.assertEqual(conversation.send(b"i ID ("), b"")
        for number in range(30):
            end = b"{1024%b}\r\n" % (b"+" if number % 2 else b"")
            asked = conversation.send(b' "n%d" ' % number + end)
            self.assertEqual(asked, b"" if number % 2 else b"+ OK\r\n")
            self.assertEqual(conversation.send(value), b"")
        self.assertEqual(conversation.says(b")"), ANSWER)
        self.assertEqual(kept(conversation), tuple(b'"n%d" "%b"' % (number, value) for number in range(3)))

    def test_buffer(self) -> None:
        """The buffer's size decides how much is kept: more with a larger one, nothing with the smallest."""
        for size, count in ((16384, 15), (128, 0)):
            conversation = converse(clientBuffer=size)
            self.assertEqual(conversation.says(b"i ID " + LONGEST), ANSWER)
            self.assertEqual(kept(conversation), tuple(pair(number) for number in range(count)))

    def test_tooLong(self) -> None:
        """A line beyond the limit is refused with its tag and ends the connection."""
        conversation = converse()
        heard = conversation.says(b'i ID ("n" "' + b"v" * LONGEST_ID + b'")')
        self.assertTrue(heard.startswith(BAD))
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_tooLongLiteral(self) -> None:
        """So does a non-synchronizing literal; a synchronizing one gets no continuation request."""
        conversation = converse()
        self.assertEqual(conversation.says(b'i ID ("n" {%d}' % LONGEST_ID, b"i NOOP"), BAD + b"i OK completed\r\n")
        heard = conversation.says(b'i ID ("n" {%d+}' % LONGEST_ID)
        self.assertTrue(heard.startswith(BAD))
        self.assertTrue(conversation.closed)

    def test_severalTogether(self) -> None:
        """Lines and literals share one limit."""
        conversation = converse()
        conversation.send(b'i ID ("n" {40000+}\r\n' + b"v" * 40000)
        self.assertEqual(conversation.says(b' "m" {20000}'), b"+ OK\r\n")
        self.assertEqual(conversation.send(b"v" * 20000 + b' "o" {20000}\r\n'), BAD)
        self.assertFalse(conversation.closed)

    def test_memory(self) -> None:
        """No more than the limit is buffered, whatever is sent."""
        conversation = converse()
        conversation.send(b'i ID ("n" "')
        for _ in range(100):
            conversation.send(b"v" * 1000)
            self.assertLessEqual(len(conversation.server.buffer), LONGEST_ID)
        self.assertTrue(conversation.closed)

    def test_notOthers(self) -> None:
        """Other commands have only the buffer, whatever they contain."""
        for line in (b"i LOGIN ID ", b"i NOOP ID ", b"ID ", b"i IDLE ", b"i IDX "):
            conversation = converse()
            conversation.says(line + b"v" * 5000)
            self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)
        conversation = converse()
        conversation.says(b"i AUTHENTICATE PLAIN", b"i ID " + b"v" * 20000)
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_longTag(self) -> None:
        """Behind a tag as long as the buffer neither ID nor AUTHENTICATE is seen, however the line is cut."""
        for word in (b" ID ", b" AUTHENTICATE "):
            line = b"t" * (64 - len(word) + 1) + word
            for segments in ([line], [line[start : start + 1] for start in range(len(line))]):
                conversation = converse(clientBuffer=64)
                for segment in segments:
                    conversation.send(segment)
                self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)


class ParserTests(SynchronousTestCase):
    """L{CommandParser} with little room."""

    def arguments(self, line: bytes, room: int) -> list[bytes]:
        """The arguments that are kept of C{line}."""
        parser = CommandParser(room)
        parser.feed(b"i ID " + line)
        return parser.arguments

    def test_wholePairs(self) -> None:
        """A name without room for its value is dropped with it; the list stays valid."""
        line = b'("a" "b" "c" "d")'
        self.assertEqual(self.arguments(line, 100), [b"(", b"a", b"b", b"c", b"d", b")"])
        for room in range(6, 10):
            self.assertEqual(self.arguments(line, room), [b"(", b"a", b"b", b")"], room)
        self.assertEqual(self.arguments(line, 4), [b"(", b")"])

    def test_parentheses(self) -> None:
        """Parentheses count as well."""
        self.assertLess(len(self.arguments(b"(" * 5000, 100)), 60)

    def test_otherCommands(self) -> None:
        """All arguments of other commands are kept: the buffer limits them."""
        parser = CommandParser(4)
        parser.feed(b"i LOGIN joe sesame")
        self.assertEqual(parser.arguments, [b"joe", b"sesame"])
