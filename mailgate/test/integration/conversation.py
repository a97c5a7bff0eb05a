# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
Descriptions of what clients, backends and the authentication service send to a proxy.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import field, frozen

from mailgate.test.integration.scripted import ACCEPT, Replies

__all__ = ["NOOP", "TLS", "Conversation", "Raw", "Step", "b64", "talk"]


@frozen
class Raw:
    """Bytes that a client sends, if any, and the number of replies that it then waits for."""

    data: str
    replies: int = 1


@frozen
class _TLS:
    """The client starts TLS."""


TLS = _TLS()

Step = str | Raw | _TLS
"""A step of a client. A string is a line: the line end is added, and the client waits for one reply."""


@frozen
class Conversation:
    """
    One connection of a client to the server C{server}. The client reads the greeting, does the C{steps}, and sends
    NOOP, which shows whether a server replies, and which one.

    @ivar auth: the replies of the authentication service.
    @ivar backend: replies of the backend that differ from the usual ones (L{mailgate.test.integration.scripted}).
    @ivar first: bytes that the client sends before TLS and the greeting.
    @ivar kind: the kind of client, one of L{mailgate.test.integration.scriptedclient.KINDS}.
    """

    name: str
    server: str
    steps: tuple[Step, ...]
    auth: tuple[str, ...] = (ACCEPT,)
    backend: Replies = field(factory=dict)
    first: str = ""
    kind: str = ""


NOOP = {"imap": "zz NOOP", "pop3": "NOOP", "smtp": "NOOP"}
"""The command that asks for a reply from the current server."""


def talk(name: str, server: str, *steps: Step, auth: str | tuple[str, ...] = ACCEPT, **rest: Any) -> Conversation:
    """Make a L{Conversation} with fewer words."""
    return Conversation(name, server, steps, (auth,) if isinstance(auth, str) else auth, **rest)


def b64(text: str) -> str:
    """C{text} in base64."""
    return base64.b64encode(text.encode("latin-1")).decode("ascii")
