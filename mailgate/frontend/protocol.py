# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
What every dialogue before login has: its settings, its table of commands, and the record that makes a protocol of a
server's and a client's half.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Sequence, Set
from typing import TYPE_CHECKING, Any

from attrs import Factory, frozen

from mailgate.directives import (
    Problem,
    ServerSettings,
    deadline,
    directive,
    flag,
    isHostName,
    number,
    oneOf,
    seconds,
    word,
)
from mailgate.login import Method

if TYPE_CHECKING:
    from mailgate.backend.client import ProxyClient
    from mailgate.frontend.dialogue import ProxyServer

__all__ = [
    "BUDGET",
    "Command",
    "DialogueSettings",
    "MailProtocol",
    "tokenWarnings",
]

BUDGET = 10
"""How many times C{timeout} all that comes before the login may take together."""

_LITERAL = re.compile(r"\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
"""An address in the place of a name (RFC 5321, section 4.1.3)."""


@frozen
class DialogueSettings:
    """
    What is the same for the dialogues of all protocols. C{max_commands} is freenginx's; C{unlisted_auth} has passwords
    taken where nginx takes them: everywhere, whatever the C{*_auth} directives list.

    C{auth_delay} is nginx's, of its http module. L{None}, as for C{max_auth_failures}, stands for the default of the
    server's kind of authenticator (L{mailgate.interfaces.Refusals}).
    """

    serverName: str = directive("server_name", word, socket.gethostname().lower())
    timeout: float = directive("timeout", deadline, 60.0)
    maxErrors: int = directive("max_errors", number, 5)
    maxCommands: int = directive("max_commands", number, 1000)
    unlistedAuth: bool = directive("unlisted_auth", flag, False)
    authDelay: float | None = directive("auth_delay", seconds, None)
    maxAuthFailures: int | None = directive("max_auth_failures", number, None)
    authzid: str = directive("sasl_authzid", oneOf("refuse", "pass", "ignore"), "refuse")

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """A delay that is longer than any client may stay."""
        longest = BUDGET * self.timeout
        if self.authDelay is not None and self.authDelay >= longest:
            message = f"must be shorter than {longest:g}s, {BUDGET} times timeout, which ends all that is not logged in"
            yield server.problem("auth_delay", message, f"{self.authDelay:g}s")

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """A name that is none of a host: clients and backends are greeted with it."""
        if "server_name" in server.given and not (isHostName(self.serverName) or _LITERAL.fullmatch(self.serverName)):
            message = "is no host name, such as mail.example.com; backends may refuse the EHLO that has it"
            yield server.problem("server_name", message, self.serverName)


@frozen
class Command:
    """
    One word of a dialogue: C{act(server, arguments)} carries it out. Unless C{inClear} it is refused before TLS where
    C{starttls only} asks for that.
    """

    act: Callable[[Any, Any], None]
    inClear: bool = True


def _ownName(record: MailProtocol) -> str:
    return record.name


def _lacksNothing(configured: Sequence[str], methods: Set[Method]) -> str:
    return ""


@frozen(eq=False)
class MailProtocol:
    """
    A protocol that mailgate speaks, and all that others than its own modules have to know of it.

    @ivar name: what the directive C{protocol} and the log call it, and what its own directives begin with.
    @ivar ports: those that it is known by; the first is that of servers.
    @ivar server: the dialogue before login.
    @ivar client: the login at a backend.
    @ivar settings: the class of its directives, whose C{methods} are the login methods that are configured, and whose
        C{capabilities} the list that clients hear.
    @ivar implicitPorts: those of C{ports} where clients speak TLS from the first byte (RFC 8314, section 7.3).
    @ivar authName: what authentication services call it.
    @ivar alpn: what TLS calls it (RFC 7301).
    @ivar own: capabilities that the gateway announces itself where they are so; with parameters they are the same.
    @ivar unkept: capabilities that promise a command before the login which the gateway does not obey.
    @ivar parted: what parts capabilities that are configured as one item; L{None} where they have blanks in them.
    @ivar lacks: called with the configured capabilities and the login methods; returns in a phrase for the operator
        what clients miss there, empty where they miss nothing.
    @ivar wantsClientName: whether backends, or services, are told the name that DNS has for the client's address.
    """

    name: str
    ports: tuple[int, ...]
    server: type[ProxyServer]
    client: type[ProxyClient]
    settings: type
    implicitPorts: tuple[int, ...] = ()
    authName: str = Factory(_ownName, takes_self=True)
    alpn: str = Factory(_ownName, takes_self=True)
    own: tuple[str, ...] = ()
    unkept: tuple[str, ...] = ()
    parted: str | None = None
    lacks: Callable[[Sequence[str], Set[Method]], str] = _lacksNothing
    wantsClientName: bool = False

    @property
    def backendPorts(self) -> tuple[int, int]:
        """The ports of backends in the clear and with TLS from the first byte on, each 0 where none is known."""
        implicit = self.implicitPorts[0] if self.implicitPorts else 0
        return next((port for port in self.ports if port != implicit), 0), implicit

    def methods(self, server: ServerSettings) -> frozenset[Method]:
        """The login methods that C{server} is configured to take."""
        settings: Any = server[self.settings]
        offered: frozenset[Method] = settings.methods
        return offered | {Method.PLAIN} if server[DialogueSettings].unlistedAuth else offered


LONGEST_AUTH = 12288
"""Bytes that a line of AUTH may have (RFC 4954, section 4), base64 of a token in it."""


def tokenWarnings(server: ServerSettings, methods: frozenset[Method], buffer: int) -> Iterator[Problem]:
    """Say of a C{server} with OAuth among its C{methods} that its C{buffer} has no room for what clients may send."""
    if buffer < LONGEST_AUTH and any(method.isOAuth for method in methods):
        option = f"{server.protocol}_client_buffer"
        yield server.problem(option, "is too small for long tokens of OAuth, whose clients are then refused: try 16k")
