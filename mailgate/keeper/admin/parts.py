# -*- test-case-name: mailgate.test.keeper.admin.test_parts -*-
"""
What the live page sends that is the same for all callers: the files that browsers load. Browsers that accept it get it
compressed.

Nothing else is compressed. A document or an answer with data has names of users beside texts that clients choose, and
the length of the compressed answer would show an eavesdropper whether they are alike (BREACH).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from attrs import evolve

from mailgate.keeper.admin.asked import Asked
from mailgate.keeper.admin.replies import Reply

__all__ = ["Content", "Parts"]

_KINDS = {
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

_FOR_READERS = re.compile(rb"^\t+(//.*$)?|^//.*$", re.MULTILINE)
"""
What is in a script for its readers alone: lines that are only a comment, and tabs at the begin of others. The numbers
of lines in errors of browsers stay right.
"""

_COMMENT = re.compile(rb"/\*.*?\*/\n?|^\t+", re.MULTILINE | re.DOTALL)
"""The same in a style sheet."""

_REFUSED = re.compile(rb"\s*q\s*=\s*0(\.0*)?\s*", re.IGNORECASE)
"""The weight of a coding that the client does not accept (RFC 9110, section 12.4.2)."""

_VARY = (b"Vary", b"Accept-Encoding")


class Content:
    """
    A content that is the same for all callers, as it is and compressed.

    @param body: the content.
    @param kind: its media type.
    """

    def __init__(self, body: bytes, kind: bytes) -> None:
        self.body = body
        self.kind = kind
        self._plain = Reply(200, body, kind, (_VARY,)), _tag(body)
        packed = gzip.compress(body, 9, mtime=0)
        self._packed = self._plain
        if len(packed) < len(body):
            self._packed = Reply(200, packed, kind, (_VARY, (b"Content-Encoding", b"gzip"))), _tag(packed)

    def reply(self, asked: Asked, fields: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
        """
        Return the answer that has the content.

        @param asked: the request.
        @param fields: more header fields of the answer.
        """
        reply, _ = self._chosen(asked)
        return evolve(reply, headers=(*fields, *reply.headers))

    def cached(self, asked: Asked) -> Reply:
        """
        Return the answer that has the content, or, if the client has it already, the answer that says so.

        @param asked: the request.
        """
        reply, tag = self._chosen(asked)
        fields = ((b"ETag", tag), (b"Cache-Control", b"no-cache"))
        if tag in _known(asked):
            return Reply(304, b"", self.kind, (*fields, _VARY))
        return evolve(reply, headers=(*fields, *reply.headers))

    def _chosen(self, asked: Asked) -> tuple[Reply, bytes]:
        return self._packed if _acceptsGzip(asked) else self._plain


def _tag(body: bytes) -> bytes:
    """The ETag of one form of a content. Each form has its own (RFC 9110, section 8.8.3.3)."""
    return b'"%s"' % sha256(body).hexdigest()[:32].encode("ascii")


def _acceptsGzip(asked: Asked) -> bool:
    """Whether the client accepts this coding (RFC 9110, section 12.5.3)."""
    accepted = {}
    for each in _parts(asked, b"Accept-Encoding"):
        coding, _, weight = each.partition(b";")
        accepted[coding.strip().lower()] = not _REFUSED.fullmatch(weight)
    return accepted.get(b"gzip", accepted.get(b"*", False))


def _known(asked: Asked) -> Iterator[bytes]:
    """The tags of the contents that the client has. A proxy may have made them weak (RFC 9110, section 13.1.2)."""
    for each in _parts(asked, b"If-None-Match"):
        yield each.removeprefix(b"W/")


def _parts(asked: Asked, name: bytes) -> Iterator[bytes]:
    """The parts of a header field that is a list."""
    for each in asked.headers.getRawHeaders(name) or ():
        yield from (part.strip() for part in each.split(b","))


class Parts:
    """
    The parts of the page: the files of one folder. Each is read once. Scripts and style sheets are sent without the
    lines that are only comments, and without indentation.

    @param folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Content] = {}

    def find(self, name: str) -> Content | None:
        """
        Return the content of a file; L{None} if there is no such file.

        @param name: the name of the file.
        """
        kind = _KINDS.get(Path(name).suffix)
        if kind is None or not _NAME.fullmatch(name):
            return None
        known = self._read.get(name)
        if known is None:
            try:
                body = (self._folder / name).read_bytes()
            except OSError:
                return None
            if name.endswith(".js"):
                body = _FOR_READERS.sub(b"", body)
            elif name.endswith(".css"):
                body = _COMMENT.sub(b"", body)
            known = self._read[name] = Content(body, kind)
        return known
