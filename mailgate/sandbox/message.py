# -*- test-case-name: mailgate.test.sandbox.test_message -*-
"""
Messages in memory, as a whole (RFC 5322) and in parts (RFC 2045, RFC 2046). Their bytes never change, so that the
sizes, sections and literals of IMAP are consistent.
"""

from __future__ import annotations

import re
from datetime import datetime
from email.header import Header
from email.message import Message as ParsedHeader
from email.parser import BytesHeaderParser
from email.policy import compat32
from email.utils import format_datetime
from functools import cached_property
from io import BytesIO

from twisted.mail.imap4 import IMessage, IMessageFile, IMessagePart
from zope.interface import implementer

__all__ = ["LARGEST_MESSAGE", "Message", "Part", "canonical"]

LARGEST_MESSAGE = 10 * 1024 * 1024
"""The limit for a message from IMAP's APPEND or from SMTP, in bytes."""

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:((?:[^\r]|\r(?!\n))*\r\n(?:[ \t](?:[^\r]|\r(?!\n))*\r\n)*)")
_DEEPEST = 32
"""The limit for nested parts. Deeper parts are not parsed."""


def canonical(raw: bytes) -> bytes:
    """C{raw} with CRLF at the end of all lines, the last one included. RFC 5322 forbids bare LF, which becomes CRLF."""
    raw = re.sub(rb"(?<!\r)\n", b"\r\n", raw)
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"


def _value(raw: bytes) -> str:
    """The value of a mail's header field as one line of ASCII. Other characters are encoded by RFC 2047."""
    value = re.sub(rb"[\r\n]+", b"", raw).strip()
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        return Header(value.decode("utf-8", "replace"), "utf-8", maxlinelen=10**6).encode()


@implementer(IMessagePart)
class Part:
    """
    A message, or a part of a message.

    @ivar raw: all its bytes.
    @ivar header: its header, with the empty line at the end.
    @ivar body: its body.
    @param depth: the number of parts around it.
    """

    def __init__(self, raw: bytes, depth: int = 0) -> None:
        self.raw = raw
        self._depth = depth
        end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n") + 2
        divided = end != 1
        self.header = raw[: end + 2] if divided else raw
        self.body = raw[end + 2 :] if divided else b""

    @cached_property
    def fields(self) -> list[tuple[str, bytes, str]]:
        """The header fields in order: the name in lower case, the bytes of the field, and the value as text."""
        return [
            (match[1].decode("ascii").lower(), match[0], _value(match[2])) for match in _FIELD.finditer(self.header)
        ]

    @cached_property
    def mime(self) -> ParsedHeader:
        """The header as the standard library reads it, for Content-Type and similar fields."""
        return BytesHeaderParser(policy=compat32).parsebytes(self.header)

    @cached_property
    def parts(self) -> list[Part]:
        """The parts of a multipart, or the message inside a message/rfc822; empty for other types."""
        if self._depth >= _DEEPEST:
            return []
        if self.mime.get_content_type() == "message/rfc822":
            return [Part(self.body, self._depth + 1)]
        boundary = self.mime.get_boundary()
        if self.mime.get_content_maintype() != "multipart" or not boundary:
            return []
        return [Part(raw, self._depth + 1) for raw in _divide(self.body, boundary.encode("utf-8", "surrogateescape"))]

    def headerBytes(self, negate: bool, names: set[str]) -> bytes:
        """
        The bytes of some header fields, in order.

        @param negate: whether to return all fields except those of C{names}.
        @param names: names of fields, in lower case.
        """
        return b"".join(raw for name, raw, _ in self.fields if (name in names) != negate) + b"\r\n"

    def getHeaders(self, negate: bool, *names: str | bytes) -> dict[str, str]:
        """
        Values of header fields by name in lower case. Of a repeated field the first value counts.

        @param negate: whether to return all fields except those of C{names}.
        @param names: names of fields, in any case.
        """
        wanted = {(name if isinstance(name, str) else name.decode("ascii", "replace")).lower() for name in names}
        found: dict[str, str] = {}
        for name, _, value in self.fields:
            if (name in wanted) != negate:
                found.setdefault(name, value)
        return found

    def getBodyFile(self) -> BytesIO:
        return BytesIO(self.body)

    def getSize(self) -> int:
        return len(self.raw)

    def isMultipart(self) -> bool:
        return bool(self.parts) and self.mime.get_content_maintype() == "multipart"

    def getSubPart(self, part: int) -> Part:
        if not self.parts:
            raise TypeError("not multipart")
        return self.parts[part]


def _divide(body: bytes, boundary: bytes) -> list[bytes]:
    delimiter = re.compile(rb"(?:\A|(?<=\r\n))--" + re.escape(boundary) + rb"(--)?[ \t]*(?:\r\n|\Z)")
    pieces = []
    start = -1
    for match in delimiter.finditer(body):
        if start >= 0:
            # The line end before a delimiter belongs to the delimiter (RFC 2046, 5.1.1).
            pieces.append(body[start : max(start, match.start() - 2)])
        start = match.end()
        if match[1]:
            return pieces
    if start >= 0:
        pieces.append(body[start:])
    return pieces


@implementer(IMessage, IMessageFile)
class Message(Part):
    """
    A message of a folder.

    @param raw: its bytes.
    @ivar uid: its UID.
    @ivar flags: its flags, as IMAP writes them.
    @ivar date: when it arrived, with a time zone.
    """

    def __init__(self, raw: bytes, uid: int, flags: frozenset[str], date: datetime) -> None:
        super().__init__(raw)
        self.uid = uid
        self.flags = flags
        self.date = date

    def getUID(self) -> int:
        return self.uid

    def getFlags(self) -> list[str]:
        return sorted(self.flags)

    def getInternalDate(self) -> bytes:
        return format_datetime(self.date).encode("ascii")

    def open(self) -> BytesIO:
        return BytesIO(self.raw)
