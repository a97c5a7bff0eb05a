# -*- test-case-name: mailgate.test.protocols.sieve.test_reply -*-
"""
Parses what ManageSieve backends send (RFC 5804, section 4), and interprets their refusals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from attrs import frozen

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.reply import isRepeated
from mailgate.login import Denial, Trouble, sieveCode
from mailgate.protocols.sieve.strings import quoted, unquoted

__all__ = ["Capabilities", "Response", "literalSize", "parseCapabilities", "parseResponse", "sieveDenial"]

_TOKEN = re.compile(
    rb' *(?:"((?:[^"\\\r\n]|\\[^\r\n])*)"|\{([0-9]{1,10})\+?\}\r?\n|([()])|([^ "(){}\r\n]+)|(\r?\n))', re.DOTALL
)
"""Matches a quoted string, the announcement of a literal, a parenthesis, an atom or the end of a line."""
_LITERAL = re.compile(rb"\{([0-9]{1,10})\+?\}\r?\n\Z")
_STATUSES = (b"OK", b"NO", b"BYE")

_OURS = (b"AUTH-TOO-WEAK", b"ENCRYPT-NEEDED")
"""Codes about the connection between gateway and backend, or about the way in which the gateway logs in."""


class _Invalid(Exception):
    """What a backend has sent is not ManageSieve."""


@frozen
class Response:
    """
    A line of a backend, with its literals.

    @ivar status: C{OK}, C{NO} or C{BYE}; empty for a line of strings, which is a capability or a challenge, and for an
        invalid line.
    @ivar code: the whole response code without its parentheses, with its word in capitals; may be empty.
    @ivar text: the text for people, or L{None}.
    @ivar strings: the strings of a line of strings.
    """

    status: bytes = b""
    code: bytes = b""
    text: bytes | None = None
    strings: tuple[bytes, ...] = ()

    @property
    def word(self) -> bytes:
        """The word of the response code without what follows a slash: C{LIMIT} of C{LIMIT/CONNECTIONS}."""
        return self.code.partition(b" ")[0].partition(b"/")[0]

    @property
    def data(self) -> bytes | None:
        """The last message of a SASL mechanism, in base64 (the code SASL); L{None} without one."""
        word, _, text = self.code.partition(b" ")
        return text[1:-1] if word == b"SASL" and text[:1] == b'"' else None

    @property
    def line(self) -> bytes:
        """The response as one line, line end included, which no literal continues. It fits on a line for a client."""
        code = b" (%b)" % self.code if self.code else b""
        return self.status + code + (b"" if self.text is None else b" " + quoted(self.text)) + b"\r\n"


@frozen
class Capabilities:
    """
    What a backend lists.

    @ivar values: the values by the names in capitals. A value may be empty.
    @ivar end: the response that ends the list.
    """

    values: dict[bytes, bytes]
    end: Response

    @property
    def mechanisms(self) -> list[bytes]:
        """The names of SASL mechanisms, in capitals."""
        return self.values.get(b"SASL", b"").upper().split()


def literalSize(line: bytes) -> int | None:
    """Return the size in bytes of the literal that the end of C{line} announces, or L{None}. C{line} has its end."""
    match = _LITERAL.search(line)
    return None if match is None else int(match[1])


def _tokens(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """
    Yield the tokens of a line with its literals, as pairs of kind and bytes. The kinds are C{string}, C{mark} and
    C{atom}. The line end is not yielded.

    @raise _Invalid: something else is there.
    """
    position = 0
    while position < len(raw):
        match = _TOKEN.match(raw, position)
        if match is None:
            raise _Invalid
        inside, octets, mark, atom, _ = match.groups()
        position = match.end()
        if inside is not None:
            yield "string", unquoted(inside)
        elif octets is not None:
            begin, position = position, position + int(octets)
            yield "string", raw[begin:position]
        elif mark is not None:
            yield "mark", mark
        elif atom is not None:
            yield "atom", atom


def parseResponse(raw: bytes) -> Response:
    """
    Parse a line of a backend.

    @param raw: the line with its literals and its end.
    @return: the response; an empty one if the line is invalid.
    """
    try:
        tokens = list(_tokens(raw))
    except _Invalid:
        return Response()
    if not tokens:
        return Response()
    kind, first = tokens.pop(0)
    if kind == "string":
        strings = (first, *(text for kind, text in tokens if kind == "string"))
        return Response(strings=strings) if len(strings) == len(tokens) + 1 else Response()
    status = first.upper()
    if kind != "atom" or status not in _STATUSES:
        return Response()
    code = b""
    if tokens and tokens[0] == ("mark", b"("):
        if ("mark", b")") not in tokens:
            return Response()
        end = tokens.index(("mark", b")"))
        code = _codeOf(tokens[1:end])
        del tokens[: end + 1]
    text = tokens[0][1] if tokens and tokens[0][0] == "string" else None
    return Response(status, code, text)


def _codeOf(tokens: list[tuple[str, bytes]]) -> bytes:
    """Return a response code as text: its word in capitals, its strings quoted."""
    parts = [quoted(text) if kind == "string" else text for kind, text in tokens]
    return b" ".join((parts[0].upper(), *parts[1:])) if parts else b""


@lru_cache(256)
def parseCapabilities(raw: bytes) -> Capabilities | None:
    """
    Parse a list of capabilities. A backend repeats the same one for each connection.

    @param raw: all its lines with their literals and ends, up to the response that ends it.
    @return: L{None} if it is invalid.
    """
    values: dict[bytes, bytes] = {}
    for line in linesOf(raw):
        response = parseResponse(line)
        if response.status:
            return Capabilities(values, response)
        if not 1 <= len(response.strings) <= 2:
            return None
        name, *value = response.strings
        values.setdefault(name.upper(), b"".join(value))
    return None


def linesOf(raw: bytes) -> Iterator[bytes]:
    """
    Yield the lines of C{raw}, each with its literals and its end.

    @param raw: what a backend has sent.
    """
    begin = position = 0
    while position < len(raw):
        end = raw.find(b"\n", position) + 1 or len(raw)
        octets = literalSize(raw[position:end])
        if octets is None:
            yield raw[begin:end]
            begin = position = end
        else:
            position = end + octets
    if begin < position:
        yield raw[begin:]


def sieveDenial(response: Response, login: PasswordLogin) -> Denial:
    """
    Interpret a refusal of a login (RFC 5804, section 1.3).

    @param response: the response, whose status is C{NO}.
    @param login: the refused login. Its password is never passed on.
    """
    word = response.word
    if word in _OURS:
        return Denial(Trouble.TEMPORARY)
    trouble = Trouble.DENIED
    if word in (b"TRYLATER", b"LIMIT"):
        trouble = Trouble.TEMPORARY
    elif word == b"REFERRAL":
        trouble = Trouble.PERMANENT
    code, text = sieveCode(response.code), response.text or b""
    if isRepeated(text, login) or isRepeated(code, login):
        return Denial(trouble)
    if not (code or text):
        return Denial(trouble)
    return Denial(trouble, answer=Response(b"NO", code, text or b"Authentication failed.").line[:-2])
