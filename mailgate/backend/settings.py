# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The directives for the backend's side of a session.
"""

from __future__ import annotations

from attrs import frozen

from mailgate.directives import bufferSize, directive, flag, hostPort, oneOf, text
from mailgate.directives.needs import Need, protocol
from mailgate.login import Backend

__all__ = ["ProxySettings"]


def _backend(value: str, folder: str) -> Backend:
    return Backend(*hostPort(text(value, folder)))


_COMMANDS = protocol("imap", "pop3")
_NO_HEADER = Need("proxy_protocol = off", lambda server: server[ProxySettings].proxyProtocol == "off")


@frozen
class ProxySettings:
    """
    nginx's C{proxy_…} directives for the login at a backend. C{proxy_pass} is the backend of accounts for which the
    authenticator names none. C{proxy} has no effect, as in nginx.
    """

    backend: Backend | None = directive("proxy_pass", _backend, None)
    passErrorMessage: bool = directive("proxy_pass_error_message", flag, False)
    buffer: int = directive("proxy_buffer", bufferSize, 4096)
    proxy: bool = directive("proxy", flag, False)
    proxyProtocol: str = directive("proxy_protocol", oneOf("off", "on", "v2"), "off")
    identity: str = directive("proxy_identity", oneOf("auto", "off"), "auto", needs=(_COMMANDS, _NO_HEADER))

    @property
    def tellsByCommand(self) -> bool:
        """
        Whether the gateway sends the client's address to IMAP and POP3 backends by ID or XCLIENT. Not with a PROXY
        header: the backend then checks the client's address, not the gateway's, before it trusts such a command.
        """
        return self.identity == "auto" and self.proxyProtocol == "off"
