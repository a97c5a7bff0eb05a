# -*- test-case-name: mailgate.test.sandbox.test_message -*-
"""
ENVELOPE and BODYSTRUCTURE of a message (RFC 3501, 7.4.2), as nested lists that twisted.mail sends.

twisted.mail's own functions raise, and so end the connection, if a Content-Type ends with a semicolon or an address has
no domain.
"""

from __future__ import annotations

from email.utils import getaddresses
from typing import Any

from mailgate.sandbox.message import Part

__all__ = ["bodyStructure", "envelope"]


def _addresses(value: str | None) -> list[list[str | None]] | None:
    if value is None:
        return None
    found: list[list[str | None]] = []
    for name, address in getaddresses([value]):
        mailbox, _, host = address.rpartition("@")
        if address:
            found.append([name or None, None, mailbox or host, host if mailbox else ""])
    return found or None


def envelope(message: Part) -> list[Any]:
    """
    The date, subject, from, sender, reply-to, to, cc, bcc, in-reply-to and message-id of C{message}; C{None} for
    missing fields.
    """
    headers = message.getHeaders(True)
    author = _addresses(headers.get("from"))
    return [
        headers.get("date"),
        headers.get("subject"),
        author,
        _addresses(headers.get("sender")) or author,
        _addresses(headers.get("reply-to")) or author,
        *(_addresses(headers.get(name)) for name in ("to", "cc", "bcc")),
        headers.get("in-reply-to"),
        headers.get("message-id"),
    ]


def bodyStructure(part: Part, extended: bool) -> list[Any]:
    """The structure of C{part} with all parts inside it, and with extension data if C{extended}."""
    if part.isMultipart():
        inner = [bodyStructure(contained, extended) for contained in part.parts]
        extension = [_parameters(part), _disposition(part), None, None] if extended else []
        return [*inner, part.mime.get_content_subtype(), *extension]
    headers = part.getHeaders(True)
    structure: list[Any] = [
        part.mime.get_content_maintype(),
        part.mime.get_content_subtype(),
        _parameters(part),
        headers.get("content-id"),
        headers.get("content-description"),
        headers.get("content-transfer-encoding", "7BIT"),
        len(part.body),
    ]
    if part.parts:
        structure += [envelope(part.parts[0]), bodyStructure(part.parts[0], extended)]
    if part.parts or part.mime.get_content_maintype() == "text":
        structure.append(part.body.count(b"\r\n"))
    if extended:
        structure += [headers.get("content-md5"), _disposition(part), None, headers.get("content-location")]
    return structure


def _ascii(value: str) -> str:
    return value.encode("ascii", "replace").decode("ascii").replace("\r", "").replace("\n", "")


def _flat(pairs: list[tuple[str, str]]) -> list[str] | None:
    return [_ascii(word) for pair in pairs for word in pair] or None


def _text(value: Any) -> str:
    # A parameter of RFC 2231 is a tuple of charset, language and value.
    return str(value[2] if isinstance(value, tuple) else value)


def _parameters(part: Part) -> list[str] | None:
    found = part.mime.get_params([], "content-type")
    pairs = [(name, _text(value)) for name, value in found[1:] if name]
    if not pairs and part.mime.get_content_maintype() == "text" and "content-type" not in part.mime:
        pairs = [("charset", "us-ascii")]
    return _flat(pairs)


def _disposition(part: Part) -> list[Any] | None:
    found = part.mime.get_params(None, "content-disposition")
    if not found:
        return None
    return [_ascii(found[0][0].lower()), _flat([(name, _text(value)) for name, value in found[1:] if name])]
