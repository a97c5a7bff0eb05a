# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
What clients, backends and the authentication service say to a proxy, written down.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import field, frozen

from mailgate.test.integration.scripted import ACCEPT, Replies

__all__ = ["NOOP", "TLS", "Conversation", "Raw", "Step", "b64", "talk"]


@frozen
class Raw:
    """Bytes that a client sends, if any, and how many replies it then waits for."""

    data: str
    replies: int = 1


@frozen
class _TLS:
    """The client goes over to TLS."""


TLS = _TLS()

Step = str | Raw | _TLS
"""What a client does. A string is a line, to which the line end is added, and which one reply is awaited to."""


@frozen
class Conversation:
    """
    One connection of a client to the server called C{server}. First the greeting is read, then C{steps} are gone; at
    last NOOP shows whether anybody is there, and who. C{auth} are the answers of the authentication service, and
    C{backend} what the backend says otherwise than usual (L{mailgate.test.integration.scripted}).

    What is in C{first} the client says before all else, TLS and the greeting too; C{kind} is what kind of client it is
    there, one of L{mailgate.test.integration.scriptedclient.KINDS}.
    """

    name: str
    server: str
    steps: tuple[Step, ...]
    auth: tuple[str, ...] = (ACCEPT,)
    backend: Replies = field(factory=dict)
    first: str = ""
    kind: str = ""


NOOP = {"imap": "zz NOOP", "pop3": "NOOP", "smtp": "NOOP"}
"""The command that asks whether anybody is there."""


def talk(name: str, server: str, *steps: Step, auth: str | tuple[str, ...] = ACCEPT, **rest: Any) -> Conversation:
    """A L{Conversation}, shorter to write."""
    return Conversation(name, server, steps, (auth,) if isinstance(auth, str) else auth, **rest)


def b64(text: str) -> str:
    """C{text} in base64."""
    return base64.b64encode(text.encode("latin-1")).decode("ascii")
