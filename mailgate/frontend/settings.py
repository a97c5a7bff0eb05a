# -*- test-case-name: mailgate.test.frontend.test_protocol -*-
"""
The directives for dialogues before login that are the same for every protocol.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

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
    size,
    word,
)

__all__ = ["BUDGET", "DialogueSettings"]

BUDGET = 10
"""The total time that a client has before its login, in multiples of C{timeout}."""

_LITERAL = re.compile(r"\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
"""An address literal instead of a host name (RFC 5321, section 4.1.3)."""

LONGEST_RESPONSE = 12288
"""
The longest response in bytes, decoded. RFC 4954, section 4, demands that its base64 may have as many. The longest
tokens of identity providers have about 10,000.
"""

_LEAST_RESPONSE = 1024
"""SASL PLAIN has up to 767 bytes (RFC 4616, section 2)."""


def _responseSize(value: str, folder: str) -> int:
    """
    Parse the size of a response.

    @param value: the text of the option.
    @param folder: not used.
    @return: the size in bytes.
    @raise ValueError: C{value} is not a size from 1k to 1m.
    """
    given = size(value, folder)
    if not _LEAST_RESPONSE <= given <= 1024 * 1024:
        raise ValueError("must be from 1k to 1m")
    return given


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
    maxResponse: int = directive("sasl_max_response", _responseSize, LONGEST_RESPONSE)
    oauthError: str = directive("oauth_error_status", oneOf("400", "401", "off"), "400")

    @property
    def longestResponse(self) -> int:
        """The longest response in bytes as a line: in base64, with its end."""
        return (self.maxResponse + 2) // 3 * 4 + 2

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
