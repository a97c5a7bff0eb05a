# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
What gateway.ini says of every dialogue before login, whatever its protocol.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Set

from attrs import frozen

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

__all__ = ["BUDGET", "DialogueSettings", "tokenWarnings"]

BUDGET = 10
"""How many times C{timeout} all that comes before the login may take together."""

_LITERAL = re.compile(r"\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
"""An address in the place of a name (RFC 5321, section 4.1.3)."""

LONGEST_AUTH = 12288
"""Bytes that a line of AUTH may have (RFC 4954, section 4), base64 of a token in it."""


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
            message = (
                f"must be shorter than {longest:g}s ({BUDGET} times timeout): clients without a login are then cut off"
            )
            yield server.problem("auth_delay", message, f"{self.authDelay:g}s")

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """A name that is none of a host: clients and backends are greeted with it."""
        if "server_name" in server.given and not (isHostName(self.serverName) or _LITERAL.fullmatch(self.serverName)):
            message = "is not a host name such as mail.example.com; backends may refuse EHLO with it"
            yield server.problem("server_name", message, self.serverName)


def tokenWarnings(server: ServerSettings, methods: Set[Method], buffer: int) -> Iterator[Problem]:
    """Say of a C{server} with OAuth among its C{methods} that its C{buffer} has no room for what clients may send."""
    if buffer < LONGEST_AUTH and any(method.isOAuth for method in methods):
        option = f"{server.protocol}_client_buffer"
        yield server.problem(
            option, "is too small for long OAuth tokens: the gateway refuses them as too long; set 16k"
        )
