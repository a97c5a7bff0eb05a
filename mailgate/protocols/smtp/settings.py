# -*- test-case-name: mailgate.test.protocols.smtp.test_settings -*-
"""
What gateway.ini says of servers for SMTP, and what of it an operator should think over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen

from mailgate.backend.settings import ProxySettings
from mailgate.directives import (
    Problem,
    ServerSettings,
    bufferSize,
    capabilities,
    directive,
    flag,
    oneOf,
    seconds,
    words,
)
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.loginsettings import LoginSettings

__all__ = ["SMTPSettings"]

_FIRST_ALONE = "with none auth_http judges only the first recipient of a connection, from then on"
_NO_RECIPIENT = "with none no recipient is judged by the gateway:"
_BACKEND_JUDGES = "the backend has to judge every recipient itself, and should offer no AUTH there"
_OWN_ADDRESS = (
    "; it learns by XCLIENT who the client is: have the gateway's own address alone in its"
    " smtpd_authorized_xclient_hosts, and no networks"
)
_TAKEN_FOR_US = (
    "gives every client of smtp_auth none the rights of the gateway's address at the backend; auto tells it the"
    " client's address"
)


_SMTP = protocol("smtp")
_LEFT_OUT = Need(
    "auth_http or auth_file: with proxy_pass alone the gateway always logs in",
    lambda server: server[SMTPSettings].proxyAuth or not server.given.isdisjoint(("auth_http", "auth_file")),
)


@frozen
class SMTPSettings(LoginSettings):
    """nginx's C{smtp_…} directives, C{xclient} and C{proxy_smtp_auth}."""

    needs: ClassVar[tuple[Need, ...]] = (_SMTP,)

    auth: tuple[str, ...] = directive(
        "smtp_auth",
        words("plain", "login", "cram-md5", "external", "none", "xoauth2", "oauthbearer"),
        ("plain", "login"),
    )
    capabilities: tuple[str, ...] = directive(
        "smtp_capabilities",
        capabilities("8BITMIME", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SMTPUTF8", "VRFY", "ETRN"),
        (),
    )
    clientBuffer: int = directive("smtp_client_buffer", bufferSize, 4096)
    greetingDelay: float = directive("smtp_greeting_delay", seconds, 0.0)
    xclient: str = directive("xclient", oneOf("auto", "on", "off"), "auto")
    proxyAuth: bool = directive("proxy_smtp_auth", flag, False, needs=(_SMTP, _LEFT_OUT))

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """What of these settings cannot stand together."""
        if self.xclient == "on" and server[ProxySettings].proxyProtocol != "off":
            reason = "cannot stand together with proxy_protocol, behind which no XCLIENT is sent: leave it out"
            if "xclient" in server.inherited and "proxy_protocol" not in server.inherited:
                reason = (
                    f"cannot stand together with proxy_protocol of server {server.name}, behind which no XCLIENT is"
                    " sent: set xclient = auto there"
                )
            yield server.problem("xclient", reason, self.xclient)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """What of these settings will not do for every client, or may let in more than is meant."""
        yield from super().warnings(server)
        if "none" in self.auth:
            judged = _FIRST_ALONE if "auth_http" in server.given else _NO_RECIPIENT
            isHeaderSent = server[ProxySettings].proxyProtocol != "off"
            advice = "" if isHeaderSent or self.xclient == "off" else _OWN_ADDRESS
            yield server.problem("smtp_auth", f"{judged} {_BACKEND_JUDGES}{advice}")
            if self.xclient == "off" and not isHeaderSent:
                yield server.problem("xclient", _TAKEN_FOR_US, self.xclient)
        words = [word.upper() for word in self.capabilities]
        if "BINARYMIME" in words and "CHUNKING" not in words:
            yield server.problem("smtp_capabilities", "BINARYMIME needs CHUNKING beside it (RFC 3030)", "BINARYMIME")
