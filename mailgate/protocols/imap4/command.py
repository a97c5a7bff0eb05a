# -*- test-case-name: mailgate.test.protocols.imap4.test_imap4 -*-
"""
The grammar of IMAP's commands (RFC 3501, section 9), as far as it is needed before the login.
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
    "beginsID",
    "tagOf",
]

LONGEST_ID = 65536
"""Bytes that ID may have. RFC 2971 lets a client send 30 pairs of 30 and 1,024, each of which may be escaped."""

LATER = frozenset(
    b"SELECT EXAMINE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB XLIST STATUS APPEND REPLACE NAMESPACE IDLE"
    b" ENABLE CHECK CLOSE UNSELECT EXPUNGE SEARCH ESEARCH SORT THREAD FETCH STORE COPY MOVE UID NOTIFY COMPRESS CONVERT"
    b" GETQUOTA GETQUOTAROOT SETQUOTA GETACL SETACL DELETEACL LISTRIGHTS MYRIGHTS GETMETADATA SETMETADATA"
    b" GETANNOTATION SETANNOTATION RESETKEY GENURLAUTH URLFETCH CANCELUPDATE COMPARATOR UNAUTHENTICATE".split()
)
"""
Commands of the states behind the login, of RFC 3501, 9051 and their extensions. Clients that do not wait for the answer
to their login send them before it.
"""

_TAG = re.compile(rb"[!#$&',\-./0-9:;<=>?@A-Z\[\]^_`a-z|}~]+")
"""RFC 3501's C{tag}: ASTRING-CHARs without C{+}. nginx takes letters, digits and C{-._} alone."""
_LONGEST_TAG = 126
"""Dovecot takes no longer ones, and answers them without a tag, for which a login would have to wait."""
_ID = re.compile(_TAG.pattern + rb" +ID ", re.IGNORECASE)
_WORD = re.compile(rb" +([A-Za-z]+)(?= |$)")
_ATOM = re.compile(rb"[^ ]+")
_MOST_ARGUMENTS = 3
_MOST_ID_ARGUMENTS = 64
"""RFC 2971 allows 30 pairs of field and value. Of more, and of what there is no room for, nothing is kept."""


def tagOf(line: bytes) -> bytes:
    """The tag that C{line} begins with, whatever is wrong behind it; empty if it has none."""
    tag = re.match(_TAG.pattern + b"(?= )", line)
    return tag[0] if tag else b""


def beginsID(start: bytes | bytearray) -> bool:
    """Whether a command with this C{start} is ID."""
    return _ID.match(start) is not None


class IMAP4SyntaxError(Exception):
    """What came is no command."""


class CommandParser:
    """
    Takes one command apart, C{tag SP word *(SP argument)}, where an argument may be an atom, a quoted string or a
    literal. C{tag} and C{word} (in capitals) are empty until known.

    ID's argument is a list. Its parentheses are L{Atom}s among the C{arguments}, wherever they stand, and so is what
    is no string between them. Its first C{room} bytes are kept; behind them the list ends with the last whole pair.
    """

    _strings = 0
    _isCut = False

    def __init__(self, room: int = 4096) -> None:
        self._room = room
        self.tag = b""
        self.word = b""
        self.arguments: list[bytes] = []

    def feed(self, line: bytes) -> Literal | None:
        """
        Take a line, or what follows a literal. Gives the literal that it ends in, to be fed to L{feedLiteral}, or
        L{None} at the end of the command.

        @raise IMAP4SyntaxError: this is no command.
        """
        if not self.word:
            return self._arguments(line, self._begin(line))
        if line and line[:1] not in self._blanks:
            raise IMAP4SyntaxError
        return self._arguments(line, 0)

    @property
    def _blanks(self) -> bytes:
        # Whether ID's parentheses make a list is found out where that matters.
        return b" ()" if self.word == b"ID" else b" "

    def feedLiteral(self, octets: bytes) -> None:
        """Take the literal that L{feed} told of."""
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
        """Take an argument of ID that is no string, and the parentheses that close behind it."""
        text = atom.rstrip(b")")
        self._keep(Atom(text))
        for _ in range(len(atom) - len(text)):
            self._parenthesis(b")")

    def _parenthesis(self, blank: bytes) -> None:
        if blank != b" ":
            self._keep(Atom(blank), 0)

    def _keep(self, argument: bytes, strings: int = 1) -> None:
        """Take C{argument}, which is as many C{strings}; of ID only while there is room."""
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
