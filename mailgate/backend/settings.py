# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The directives for the backend's side of a session.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from mailgate.directives import (
    GatewaySettings,
    Problem,
    ServerSettings,
    bufferSize,
    directive,
    flag,
    hostPort,
    number,
    oneOf,
    text,
)
from mailgate.directives.needs import Need, protocol
from mailgate.login import Backend, BackendGroup, Destination, LoginRequest
from mailgate.upstream.settings import isGroupName
from mailgate.upstream.upstreams import groupProblems

__all__ = ["METHODS", "UNPROVEN", "WITH_LOGIN", "ProxySettings"]


def _backend(value: str, folder: str) -> Backend | BackendGroup:
    written = text(value, folder)
    if "$" in written or isGroupName(written):
        return BackendGroup(written)
    return Backend(*hostPort(written))


METHODS = ("auto", "plain", "login", "external", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1", "none")
"""How the gateway may log in at backends."""

UNPROVEN = ("external", "none")
"""Methods by which the gateway proves no password of the user's: the backend trusts it."""

WITH_LOGIN = {"pop3": "POP3", "sieve": "ManageSieve"}
"""Protocols in which each session begins with a login, with their names for people."""

_MOST_HOPS = 255


def _hops(value: str, folder: str) -> int:
    count = number(value, folder)
    if not 2 <= count <= _MOST_HOPS:
        raise ValueError(f"must be a whole number from 2 to {_MOST_HOPS}")
    return count


_COMMANDS = protocol("imap", "pop3", "sieve")
_NO_HEADER = Need("proxy_protocol = off", lambda server: server[ProxySettings].proxyProtocol == "off")


@frozen
class ProxySettings:
    """
    nginx's C{proxy_…} directives for the login at a backend. C{proxy_pass} is the backend of accounts for which the
    authenticator names none. C{proxy} has no effect, as in nginx.
    """

    backend: Destination | None = directive("proxy_pass", _backend, None)
    passErrorMessage: bool = directive("proxy_pass_error_message", flag, False)
    buffer: int = directive("proxy_buffer", bufferSize, 4096)
    proxy: bool = directive("proxy", flag, False)
    proxyProtocol: str = directive("proxy_protocol", oneOf("off", "on", "v2"), "off")
    method: str = directive("proxy_auth", oneOf(*METHODS), "auto")
    masterUser: str | None = directive("proxy_auth_user", text, None)
    masterPassword: str | None = directive("proxy_auth_pass", text, None, secret=True)
    identity: str = directive("proxy_identity", oneOf("auto", "off"), "auto", needs=(_COMMANDS, _NO_HEADER))

    hops: int = directive("proxy_hops", _hops, 7)

    def hopsOf(self, request: LoginRequest) -> int:
        """
        Through how many gateways, this one included, the login of C{request} may still go: as many as C{proxy_hops}
        has, or as the gateway has said that is the client. 1 or less is a loop.
        """
        return self.hops if request.hops is None else min(self.hops, request.hops)

    @property
    def trustsGateway(self) -> bool:
        """Whether the backend lets the gateway open any mailbox, so that it does not look at the user's password."""
        return self.masterUser is not None or self.method in UNPROVEN

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield ways to log in that the protocol of C{server} lacks, or that would accept every client."""
        if self.masterUser and not self.masterPassword and self.method not in UNPROVEN:
            yield server.problem("proxy_auth_pass", "is missing for proxy_auth_user")
        if self.masterPassword and not self.masterUser:
            yield server.problem("proxy_auth_user", "is missing for proxy_auth_pass")
        if self.method == "none" and server.protocol in WITH_LOGIN:
            name = WITH_LOGIN[server.protocol]
            message = f"cannot be none with {name}, which has no session without a login"
            yield server.problem("proxy_auth", message, "none")
        if self.method == "login" and self.masterUser and "$user" not in self.masterUser:
            message = (
                "has no place for the user beside proxy_auth_user: write proxy_auth_user = $user*NAME, or use plain"
            )
            yield server.problem("proxy_auth", message, "login")
        if self.trustsGateway and server.given.isdisjoint(("auth_http", "auth_file")):
            option = "proxy_auth_user" if self.masterUser else "proxy_auth"
            message = "lets every client in, as no password is checked: it needs auth_http or auth_file"
            yield server.problem(option, message, self.masterUser or self.method)

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """Yield the groups that C{settings} do not have, as far as it is known before a login."""
        for server in settings.servers:
            backend = server[cls].backend
            if isinstance(backend, BackendGroup):
                yield from groupProblems(settings, server, "proxy_pass", backend)

    @property
    def tellsByCommand(self) -> bool:
        """
        Whether the gateway sends the client's address to IMAP, POP3 and ManageSieve backends by ID or XCLIENT. Not with
        a PROXY header: the backend then checks the client's address, not the gateway's, before it trusts such a
        command.
        """
        return self.identity == "auto" and self.proxyProtocol == "off"
