# -*- test-case-name: mailgate.test.frontend.test_disclosure -*-
"""
What the log shows at level debug of the commands of a client: the word, and arguments that cannot be secrets. C{***}
stands for everything else, whatever its length and number. A client that is out of step may send a password where a
command should be, so words are shown only if they are those of commands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from mailgate.frontend.framing import Unit
from mailgate.frontend.mechanisms import MECHANISMS
from mailgate.frontend.text import splitArguments
from mailgate.log.connection import COMMAND, LITERAL, RESPONSE, TLS_ESTABLISHED, tlsName
from mailgate.log.journal import printable
from mailgate.scram.names import BOUND, SCRAM
from mailgate.session import Phase
from mailgate.tls.server import isResumed

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["HIDDEN", "disclosed", "logTLS", "logUnit", "mechanismOf"]

HIDDEN = b"***"
"""Stands for what may be a secret."""

_EXCHANGES = (b"AUTH", b"AUTHENTICATE")
"""The commands whose first argument is the name of a SASL mechanism."""


def mechanismOf(name: bytes) -> bytes:
    """
    Return the name of a SASL mechanism in capitals; L{HIDDEN} if it is none that the gateway knows.

    @param name: what a client has sent in the place of a name.
    """
    name = name.upper()
    return name if name in MECHANISMS or name in SCRAM or name in BOUND else HIDDEN


def disclosed(line: bytes, known: Collection[bytes], harmless: Callable[[bytes, bytes], bool] | None = None) -> bytes:
    """
    Return a command as the log may show it.

    @param line: the command, from its word on.
    @param known: the words of commands, in capitals.
    @param harmless: called with the word in capitals and its first argument; returns whether the argument may be shown.
        L{None} if no argument may be shown.
    """
    word, *arguments = splitArguments(line) or [b""]
    word = word.upper()
    if word not in known:
        return HIDDEN
    shown = [word]
    if arguments and word in _EXCHANGES:
        shown.append(mechanismOf(arguments.pop(0)))
    elif arguments and harmless is not None and harmless(word, arguments[0]):
        shown.append(arguments.pop(0))
    if arguments and shown[-1] != HIDDEN:
        shown.append(HIDDEN)
    return b" ".join(shown)


def logUnit(server: ProxyServer, unit: Unit, octets: bytes) -> None:
    """
    Log what the client has sent.

    @param server: the dialogue.
    @param unit: the kind of unit.
    @param octets: its bytes.
    """
    session = server.session
    if unit is Unit.LITERAL:
        session.step(LITERAL)
    elif unit is Unit.LINE and session.phase is Phase.CHALLENGE:
        session.step(RESPONSE, mechanism=server.exchange.name if server.exchange is not None else "-")
    elif unit is Unit.LINE:
        isClean = b"\r" not in octets and b"\0" not in octets
        session.step(COMMAND, command=printable(server.disclosed(octets) if isClean else HIDDEN))


def logTLS(server: ProxyServer) -> None:
    """
    Log what a handshake with the client has negotiated.

    @param server: the dialogue.
    """
    session, connection = server.session, server.transport.getHandle()
    getName = getattr(connection, "get_servername", None)
    name = getName() if getName is not None else None
    session.step(
        TLS_ESTABLISHED,
        tls=tlsName(session.tls),
        resumed="yes" if isResumed(connection) else "no",
        name=printable(name or b""),
    )
