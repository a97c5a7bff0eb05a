# -*- test-case-name: mailgate.test.differential -*-
"""
Descriptions of conversations, which can be written as JSON. Texts stand for bytes, in Latin-1.

In texts, C{<backend1>} stands for the port of the first backend, C{<client1>} for that of the client's first
connection, C{<service>} for that of the authentication service, and C{<gateway>} for that of the gateway.
"""

from __future__ import annotations

from typing import Any

from attrs import asdict, field, frozen

__all__ = ["CLOSE", "RESET", "SILENCE", "Backend", "Script"]

CLOSE = "<close>"
"""A piece of a reply: the connection is closed."""

RESET = "<reset>"
"""A piece of a reply: the connection is reset."""

SILENCE = "<silence>"
"""A piece of a reply: the peer sends nothing more by itself, and ignores what it receives."""


@frozen
class Backend:
    """
    A backend.

    @ivar replies: the replies, each a list of pieces that are sent one by one, by the command that they answer; the
        empty name is for all other commands. C{GREETING} is the reply to a connection, C{LITERAL} that to a command
        that ends with a literal. C{TAG} in them becomes the tag of the command.
    @ivar tls: C{on} for TLS from the first byte, C{starttls} for TLS after a STARTTLS that is accepted, or empty.
    @ivar isDown: whether connections are refused.
    """

    replies: dict[str, list[str]] = field(factory=dict)
    tls: str = ""
    isDown: bool = False


@frozen
class Script:
    """
    A conversation, with a gateway of its own.

    @ivar name: the name, unique among the conversations that are played together.
    @ivar protocol: the protocol of the client and the backends.
    @ivar steps: what happens, one after the other, each as soon as the one before has no more effects. A step is a verb
        with arguments: L{mailgate.test.differential.player} lists them.
    @ivar service: the answers of the authentication service, each a list of pieces. The last one is repeated.
    @ivar backends: the backends.
    @ivar options: lines of the gateway's server section.
    @ivar listen: the parameters of C{listen}.
    @ivar use: the gateway's C{use}.
    @ivar level: the level of the gateway's log.
    """

    name: str
    protocol: str
    steps: list[list[Any]]
    service: list[list[str]] = field(factory=list)
    backends: list[Backend] = field(factory=list)
    options: list[str] = field(factory=list)
    listen: str = ""
    use: str = "epoll"
    level: str = "info"

    def toJSON(self) -> dict[str, Any]:
        """Return what L{fromJSON} reads, without what is usual."""
        usual = asdict(Script(self.name, self.protocol, []))
        short = Backend()
        written = {name: value for name, value in asdict(self).items() if value != usual.get(name) or name == "name"}
        written["protocol"] = self.protocol
        if self.backends:
            written["backends"] = [
                {name: value for name, value in asdict(backend).items() if value != getattr(short, name)}
                for backend in self.backends
            ]
        return written

    @classmethod
    def fromJSON(cls, written: dict[str, Any]) -> Script:
        """
        Make a script.

        @param written: the result of L{toJSON}.
        """
        return cls(**{**written, "backends": [Backend(**each) for each in written.get("backends", ())]})
