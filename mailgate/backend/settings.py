# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
nginx's directives for the backend's side of a session.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from mailgate.directives import GatewaySettings, Problem, bufferSize, directive, flag, hostPort, oneOf, text
from mailgate.directives.needs import Need, protocol
from mailgate.login import Backend, BackendGroup, Destination
from mailgate.upstream.settings import isGroupName
from mailgate.upstream.upstreams import groupProblems

__all__ = ["ProxySettings"]


def _backend(value: str, folder: str) -> Backend | BackendGroup:
    written = text(value, folder)
    if "$" in written or isGroupName(written):
        return BackendGroup(written)
    return Backend(*hostPort(written))


_COMMANDS = protocol("imap", "pop3")
_NO_HEADER = Need("proxy_protocol = off", lambda server: server[ProxySettings].proxyProtocol == "off")


@frozen
class ProxySettings:
    """
    nginx's C{proxy_…} directives, for the time until the relay begins; C{proxy_pass} is the backend of accounts whose
    own nobody knows. C{proxy} has no effect, as it has none in nginx.
    """

    backend: Destination | None = directive("proxy_pass", _backend, None)
    passErrorMessage: bool = directive("proxy_pass_error_message", flag, False)
    buffer: int = directive("proxy_buffer", bufferSize, 4096)
    proxy: bool = directive("proxy", flag, False)
    proxyProtocol: str = directive("proxy_protocol", oneOf("off", "on", "v2"), "off")
    identity: str = directive("proxy_identity", oneOf("auto", "off"), "auto", needs=(_COMMANDS, _NO_HEADER))

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """Groups that do not exist, as far as that is known before any login."""
        for server in settings.servers:
            backend = server[cls].backend
            if isinstance(backend, BackendGroup):
                yield from groupProblems(settings, server, "proxy_pass", backend)

    @property
    def tellsByCommand(self) -> bool:
        """
        Whether ID or XCLIENT tells IMAP and POP3 backends who the client is. Never beside a PROXY header: then they
        judge by the client's address whether to believe such a command.
        """
        return self.identity == "auto" and self.proxyProtocol == "off"
