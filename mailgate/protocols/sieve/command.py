# -*- test-case-name: mailgate.test.protocols.sieve.test_command -*-
"""
Parses ManageSieve commands of clients (RFC 5804, section 4), as far as needed before the login.
"""

from __future__ import annotations

import re

from mailgate.protocols.sieve.strings import unquoted

__all__ = ["CommandParser", "SieveSyntaxError", "Word", "literalOf", "literalSize", "quotedText"]

_WORD = re.compile(rb"([A-Za-z]+)(?= |$)")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"(?= |$)')
_ATOM = re.compile(rb'[^ "{}]+(?= |$)')
_LITERAL = re.compile(rb"\{([0-9]{1,20})\+?\}$")
"""
The announcement of a literal. Clients write C{{N+}}. As Dovecot does, the gateway takes C{{N}}, the form of servers,
for the same: there is no continuation request in ManageSieve.
"""
_MOST_ARGUMENTS = 3


class SieveSyntaxError(Exception):
    """The input is not a valid command."""


class Word(bytes):
    """An argument that is no string."""


def literalSize(line: bytes) -> int | None:
    """Return the size in bytes of the literal that the end of C{line} announces, or L{None}."""
    match = _LITERAL.search(line)
    return None if match is None else int(match[1])


def literalOf(line: bytes) -> int | None:
    """Return the size in bytes of the literal that C{line} announces and that is all of it, or L{None}."""
    match = _LITERAL.match(line)
    return None if match is None else int(match[1])


def quotedText(line: bytes) -> bytes | None:
    """Return the text of the quoted string that is all of C{line}, or L{None}."""
    match = _QUOTED.fullmatch(line)
    return None if match is None else unquoted(match[1])


class CommandParser:
    """
    Parses one command, C{word *(SP argument)}. An argument is a quoted string, a literal or a L{Word}.

    @ivar word: the command's word in capitals; empty until known.
    @ivar arguments: the arguments so far.
    """

    __slots__ = ("arguments", "word")

    def __init__(self) -> None:
        self.word = b""
        self.arguments: list[bytes] = []

    def feed(self, line: bytes) -> int | None:
        """
        Parse a line, or the rest of a line after a literal.

        @param line: the line without its end.
        @return: the size in bytes of the literal that the line announces, to be passed to L{feedLiteral}; L{None} at
            the end of the command.
        @raise SieveSyntaxError: this is not a valid command.
        """
        position = 0
        if not self.word:
            word = _WORD.match(line)
            if word is None:
                raise SieveSyntaxError
            self.word = word[1].upper()
            position = word.end()
        elif line and line[:1] != b" ":
            raise SieveSyntaxError
        while True:
            while line[position : position + 1] == b" ":
                position += 1
            if position == len(line):
                return None
            if len(self.arguments) == _MOST_ARGUMENTS:
                raise SieveSyntaxError
            literal = _LITERAL.match(line, position)
            if literal is not None:
                return int(literal[1])
            string = _QUOTED.match(line, position)
            if string is not None:
                self.arguments.append(unquoted(string[1]))
                position = string.end()
                continue
            atom = _ATOM.match(line, position)
            if atom is None:
                raise SieveSyntaxError
            self.arguments.append(Word(atom[0]))
            position = atom.end()

    def feedLiteral(self, octets: bytes) -> None:
        """Take the C{octets} of the literal that L{feed} has announced."""
        self.arguments.append(octets)
