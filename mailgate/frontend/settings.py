# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
The directives for dialogues before login that are the same for every protocol.
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
"""The total time that a client has before its login, in multiples of C{timeout}."""

_LITERAL = re.compile(r"\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
"""An address literal instead of a host name (RFC 5321, section 4.1.3)."""

LONGEST_AUTH = 12288
"""The longest AUTH line in bytes (RFC 4954, section 4), which contains a token in base64."""


@frozen
class DialogueSettings:
    """
    Directives for the dialogues of all protocols.

    C{max_commands} is freenginx's. C{unlisted_auth} accepts passwords even if C{*_auth} does not list them, as nginx
    does. C{auth_delay} is from nginx's http module. L{None} in C{auth_delay} and C{max_auth_failures} stands for the
    default of the authenticator (L{mailgate.interfaces.Refusals}).
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
        """Yield an error if C{auth_delay} of C{server} is longer than a client may stay."""
        longest = BUDGET * self.timeout
        if self.authDelay is not None and self.authDelay >= longest:
            message = f"must be shorter than {longest:g}s, {BUDGET} times timeout: the connection times out then"
            yield server.problem("auth_delay", message, f"{self.authDelay:g}s")

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield a warning if the C{server_name} of C{server} is not a host name."""
        if "server_name" in server.given and not (isHostName(self.serverName) or _LITERAL.fullmatch(self.serverName)):
            message = "is not a host name such as mail.example.com; backends may refuse EHLO with it"
            yield server.problem("server_name", message, self.serverName)


def tokenWarnings(server: ServerSettings, methods: Set[Method], buffer: int) -> Iterator[Problem]:
    """
    Yield a warning if a server offers OAuth and its buffer is too small for long tokens.

    @param server: the server.
    @param methods: its login methods.
    @param buffer: its C{*_client_buffer} in bytes.
    """
    if buffer < LONGEST_AUTH and any(method.isOAuth for method in methods):
        option = f"{server.protocol}_client_buffer"
        message = "is too small for long OAuth tokens: the gateway refuses them as too long; set 16k"
        yield server.problem(option, message)
