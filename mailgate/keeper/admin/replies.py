# -*- test-case-name: mailgate.test.keeper.admin.test_replies -*-
"""
The answers of the admin server: JSON, the text of the metrics, and problems (RFC 9457).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import evolve, frozen

__all__ = ["SECURITY", "Refused", "Reply", "jsonReply", "problemReply"]

SECURITY: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Cross-Origin-Opener-Policy", b"same-origin"),
    (b"Cache-Control", b"no-store"),
)
"""Header fields of all answers. None of them allows another origin anything."""

_TITLES = {
    400: "bad request",
    401: "no access",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "timeout",
    409: "refused",
    411: "length required",
    413: "too large",
    414: "path too long",
    415: "not JSON",
    417: "expectation failed",
    421: "wrong host",
    431: "header too large",
    500: "internal error",
    501: "not supported",
    503: "not available",
    504: "timeout",
}


@frozen
class Reply:
    """
    An answer.

    @ivar status: the HTTP status.
    @ivar body: the body.
    @ivar kind: its media type.
    @ivar headers: more header fields. They replace those of L{SECURITY}.
    @ivar closes: whether the connection ends with it.
    @ivar delay: seconds until it is sent.
    @ivar stream: sends the body from now on, if it goes on; L{None} if C{body} is all. It is called with the
        L{mailgate.keeper.admin.events.IStream}, and returns a L{mailgate.keeper.admin.events.IViewer}.
    """

    status: int
    body: bytes
    kind: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    closes: bool = False
    delay: float = 0.0
    stream: Callable[[Any], Any] | None = None

    def closing(self) -> Reply:
        """This answer as the last one of its connection."""
        return evolve(self, closes=True)


class Refused(Exception):
    """
    A request is not carried out.

    @param status: the HTTP status.
    @param detail: why, in one sentence. It may quote the client.
    @param title: a few words; the default is that of the status.
    @param headers: more header fields of the answer.
    @param closes: whether the connection ends.
    @param delay: seconds until the answer.
    @param members: more members of the JSON object.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        title: str = "",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        closes: bool = False,
        delay: float = 0.0,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.title = title or _TITLES[status]
        self.headers = headers
        self.closes = closes
        self.delay = delay
        self.members = members


def _encoded(value: Any) -> bytes:
    # ASCII alone: no text from the network can end a script or change the direction of a line.
    return json.dumps(value, ensure_ascii=True, allow_nan=False).encode("ascii") + b"\n"


def jsonReply(value: Any, status: int = 200) -> Reply:
    """
    Make an answer of a value.

    @param value: a value of JSON.
    @param status: the HTTP status.
    @raise ValueError: the value has a number that JSON lacks.
    """
    return Reply(status, _encoded(value))


def problemReply(refused: Refused) -> Reply:
    """
    Make the answer to a request that is not carried out.

    @param refused: why.
    """
    value = {
        "type": "about:blank",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
        **refused.members,
    }
    return Reply(
        refused.status, _encoded(value), b"application/problem+json", refused.headers, refused.closes, refused.delay
    )
