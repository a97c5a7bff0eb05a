# -*- test-case-name: mailgate.test.protocols.imap4.test_imap4 -*-
"""
Parses IMAP commands (RFC 3501, section 9), as far as needed before the login.
"""

from __future__ import annotations

import re

from mailgate.backend.identity import Atom
from mailgate.frontend.text import Literal, literalAt, quotedAt

__all__ = [
    "LATER",
    "LONGEST_ID",
    "CommandParser",
    "IMAP4SyntaxError",
    "beginsExchange",
    "beginsID",
    "simpleCommand",
    "tagOf",
    "wordOf",
]

LONGEST_ID = 65536
"""The longest ID in bytes. RFC 2971 allows 30 pairs of 30 and 1,024 bytes, each of which may be escaped."""

LATER = frozenset(
    b"SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS APPEND REPLACE NAMESPACE IDLE"
    b" ENABLE CHECK CLOSE UNSELECT EXPUNGE SEARCH ESEARCH SORT THREAD FETCH STORE COPY MOVE UID NOTIFY COMPRESS CONVERT"
    b" GETQUOTA GETQUOTAROOT SETQUOTA GETACL SETACL DELETEACL LISTRIGHTS MYRIGHTS GETMETADATA SETMETADATA"
    b" GETANNOTATION SETANNOTATION RESETKEY GENURLAUTH URLFETCH CANCELUPDATE COMPARATOR UNAUTHENTICATE".split()
)
"""
Commands that are valid only after the login (RFC 3501, 9051 and extensions). Clients that pipeline send them behind a
login that then fails.
"""

_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
"""C{tag} of RFC 3501, section 9: ASTRING-CHARs without C{+}. nginx accepts only letters, digits and C{-._}."""
_LONGEST_TAG = 126
"""Dovecot answers longer tags without a tag, so a login with one would wait for its reply until the timeout."""
_ID = re.compile(_TAG.pattern + rb" +ID ", re.IGNORECASE)
_AUTHENTICATE = re.compile(_TAG.pattern + rb" +AUTHENTICATE ", re.IGNORECASE)
_WORD = re.compile(rb" +([A-Za-z]+)(?= |$)")
_ATOM = re.compile(rb"[^ ]+")
_MOST_ARGUMENTS = 3
_SIMPLE = re.compile(
    rb"(%b{1,%d}) +(?!(?i:ID)(?: |$))([A-Za-z]+)" % (_TAG.pattern[:-1], _LONGEST_TAG)
    + rb'((?: +(?:"[^"\\]*"|[^ "{][^ ]*)){0,%d}) *' % _MOST_ARGUMENTS
)
"""
Matches nearly all commands as a whole: the arguments are atoms and quoted strings without escapes, separated by blanks.
"""
_ARGUMENT = re.compile(rb' "?((?<=")[^"]*|[^ "][^ ]*)"?')
"""Finds the arguments of such a command one by one. The group leaves out the quotes."""
_MOST_ID_ARGUMENTS = 64
"""The most strings that are kept of ID. RFC 2971 allows 30 pairs of field and value."""


def tagOf(line: bytes) -> bytes:
    """Return the tag at the beginning of C{line}, even if the rest is invalid; empty without one."""
    tag = re.match(_TAG.pattern + b"(?= )", line)
    return tag[0] if tag else b""


def beginsID(start: bytes | bytearray) -> bool:
    """Return whether a command with this C{start} is ID."""
    return _ID.match(start) is not None


def beginsExchange(start: bytes | bytearray) -> bool:
    """Return whether a command with this C{start} is AUTHENTICATE."""
    return _AUTHENTICATE.match(start) is not None


def wordOf(line: bytes) -> bytes:
    """Return the word of the command C{line} in capitals; empty if it has no tag or no word."""
    tag = _TAG.match(line)
    word = tag and _WORD.match(line, tag.end())
    return word[1].upper() if word else b""


def simpleCommand(line: bytes) -> tuple[bytes, bytes, list[bytes]] | None:
    """
    Return the tag, the word in capitals and the arguments of a command whose arguments are atoms and quoted strings
    without escapes. Nearly all commands are like that. L{CommandParser} would find the same, in more time.

    @param line: the line without its end.
    @return: L{None} if only L{CommandParser} can tell what it is.
    """
    simple = _SIMPLE.fullmatch(line)
    if simple is None:
        return None
    tag, word, arguments = simple.groups()
    return tag, word.upper(), _ARGUMENT.findall(arguments)


class IMAP4SyntaxError(Exception):
    """The input is not a valid command."""


class CommandParser:
    """
    Parses one command, C{tag SP word *(SP argument)}. An argument is an atom, a quoted string or a literal.

    ID's argument is a list. Its parentheses, and words in it that are not strings, are L{Atom}s among the C{arguments}.
    If the list is too long, it ends after the last complete pair that fits.

    @ivar tag: the tag; empty until known.
    @ivar word: the command's word in capitals; empty until known.
    @ivar arguments: the arguments so far.
    """

    _strings = 0
    _isCut = False

    def __init__(self, room: int = 4096) -> None:
        """
        @param room: how many bytes of ID's arguments are kept.
        """
        self._room = room
        self.tag = b""
        self.word = b""
        self.arguments: list[bytes] = []

    def feed(self, line: bytes) -> Literal | None:
        """
        Parse a line, or the rest of a line after a literal.

        @param line: the line without its end.
        @return: the literal that the line announces, to be passed to L{feedLiteral}; L{None} at the end of the command.
        @raise IMAP4SyntaxError: this is not a valid command.
        """
        if not self.word:
            return self._arguments(line, self._begin(line))
        if line and line[:1] not in self._blanks:
            raise IMAP4SyntaxError
        return self._arguments(line, 0)

    @property
    def _blanks(self) -> bytes:
        # fieldsOf checks later whether ID's parentheses form a list.
        return b" ()" if self.word == b"ID" else b" "

    def feedLiteral(self, octets: bytes) -> None:
        """Take the C{octets} of the literal that L{feed} has returned."""
        self._keep(octets)

    def _begin(self, line: bytes) -> int:
        tag = _TAG.match(line)
        if tag is None:
            raise IMAP4SyntaxError
        word = _WORD.match(line, tag.end())
        if line[tag.end() : tag.end() + 1] == b" ":
            self.tag = tag[0]
        if word is None or len(tag[0]) > _LONGEST_TAG:
            raise IMAP4SyntaxError
        self.word = word[1].upper()
        return word.end()

    def _arguments(self, line: bytes, position: int) -> Literal | None:
        isID, blanks = self.word == b"ID", self._blanks
        while True:
            while position < len(line) and line[position] in blanks:
                if isID:
                    self._parenthesis(line[position : position + 1])
                position += 1
            if position == len(line):
                return None
            if not isID and len(self.arguments) == _MOST_ARGUMENTS:
                raise IMAP4SyntaxError
            start = line[position : position + 1]
            if start == b"{":
                literal = literalAt(line, position)
                if literal is None:
                    raise IMAP4SyntaxError
                return literal
            if start == b'"':
                string = quotedAt(line, position)
                if string is None:
                    raise IMAP4SyntaxError
                argument, position = string
                self._keep(argument)
                continue
            atom = _ATOM.match(line, position)
            assert atom is not None
            position = atom.end()
            if isID:
                self._atom(atom[0])
            else:
                self.arguments.append(atom[0])

    def _atom(self, atom: bytes) -> None:
        """Take a word of ID that is not a string, and the closing parentheses at its end."""
        text = atom.rstrip(b")")
        self._keep(Atom(text))
        for _ in range(len(atom) - len(text)):
            self._parenthesis(b")")

    def _parenthesis(self, blank: bytes) -> None:
        if blank != b" ":
            self._keep(Atom(blank), 0)

    def _keep(self, argument: bytes, strings: int = 1) -> None:
        """
        Append an argument. ID's are dropped when there is no room.

        @param strings: 1 for a string, 0 for a parenthesis.
        """
        if self.word != b"ID":
            self.arguments.append(argument)
            return
        if self._isCut:
            return
        self._room -= len(argument) + 1
        if self._room >= 0 and self._strings + strings <= _MOST_ID_ARGUMENTS:
            self.arguments.append(argument)
            self._strings += strings
            return
        self._isCut = True
        if self._strings % 2:
            del self.arguments[-1]
        self.arguments.append(Atom(b")"))
