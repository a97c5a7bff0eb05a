# -*- test-case-name: mailgate.test.rules.test_rules -*-
"""
The variables that rules start from.
"""

from __future__ import annotations

import re

from attrs import frozen

from mailgate.login import LoginRequest

__all__ = ["VARIABLES", "Facts", "factsOf"]

_PATH = re.compile(rb"<([^<>]*)>")
"""The address in a RCPT command."""


@frozen
class Facts:
    """
    What is known of one login. Each field is the variable of its name in L{VARIABLES}.

    @ivar remoteAddress: the client's address, without brackets; C{unix:} for a unix socket.
    @ivar user: the name that is logged in with at the backend, or, without a login, the recipient's address.
    @ivar protocol: C{imap}, C{pop3}, C{smtp} or C{sieve}.
    @ivar serverName: the host name that the client asked for by SNI, in lower case; empty without one.
    """

    remoteAddress: str
    user: str
    protocol: str
    serverName: str

    @property
    def domain(self) -> str:
        """The part of C{user} behind the last C{@}, in lower case; empty without one."""
        _, at, domain = self.user.rpartition("@")
        return domain.lower() if at else ""


VARIABLES = {
    "remote_addr": "remoteAddress",
    "user": "user",
    "domain": "domain",
    "protocol": "protocol",
    "ssl_server_name": "serverName",
}
"""The field or property of L{Facts} that each variable stands for."""


def factsOf(request: LoginRequest, user: bytes) -> Facts:
    """
    The facts of C{request}.

    @param user: the name that the authenticator has accepted.
    """
    client = request.client
    details = client.details
    recipient = _PATH.search(request.envelope.recipient)
    name = user or (recipient[1] if recipient else b"")
    return Facts(
        client.host,
        name.decode("utf-8", "replace"),
        request.protocol,
        "" if details is None else details.serverName.lower(),
    )
