# -*- test-case-name: mailgate.test.protocols.smtp.test_settings -*-
"""
The directives of SMTP servers, and warnings about risky values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen

from mailgate.backend.settings import ProxySettings
from mailgate.directives import (
    LEARN,
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

_FIRST_ALONE = "with none auth_http checks only the first recipient of a connection:"
_NO_RECIPIENT = "with none the gateway checks no recipient:"
_BACKEND_CHECKS = "the backend must check every recipient itself and should not offer AUTH to the gateway"
_OWN_ADDRESS = (
    "; the gateway sends it the client's address by XCLIENT: list only the gateway's own address in its"
    " smtpd_authorized_xclient_hosts, no networks"
)
_TAKEN_FOR_US = (
    "gives clients of smtp_auth = none all rights that the backend grants to the gateway's address; with auto the"
    " gateway sends it the client's address"
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
        words(
            "plain", "login", "cram-md5", "external", "none", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1"
        ),
        ("plain", "login"),
    )
    capabilities: tuple[str, ...] = directive(
        "smtp_capabilities",
        capabilities("8BITMIME", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES", "PIPELINING", "SMTPUTF8", "VRFY", "ETRN"),
        (LEARN,),
    )
    clientBuffer: int = directive("smtp_client_buffer", bufferSize, 4096)
    greetingDelay: float = directive("smtp_greeting_delay", seconds, 0.0)
    xclient: str = directive("xclient", oneOf("auto", "on", "off"), "auto")
    proxyAuth: bool = directive("proxy_smtp_auth", flag, False, needs=(_SMTP, _LEFT_OUT))

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield the errors about conflicting settings of C{server}."""
        if self.xclient == "on" and server[ProxySettings].proxyProtocol != "off":
            reason = "conflicts with proxy_protocol: the gateway sends no XCLIENT after a PROXY header; remove xclient"
            if "xclient" in server.inherited and "proxy_protocol" not in server.inherited:
                reason = (
                    f"conflicts with proxy_protocol of server {server.name}: the gateway sends no XCLIENT after a PROXY"
                    " header; set xclient = auto in that server"
                )
            yield server.problem("xclient", reason, self.xclient)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield the warnings about settings of C{server} that fail some clients or grant too many rights."""
        yield from super().warnings(server)
        if "none" in self.auth:
            judged = _FIRST_ALONE if "auth_http" in server.given else _NO_RECIPIENT
            isHeaderSent = server[ProxySettings].proxyProtocol != "off"
            advice = "" if isHeaderSent or self.xclient == "off" else _OWN_ADDRESS
            yield server.problem("smtp_auth", f"{judged} {_BACKEND_CHECKS}{advice}")
            if self.xclient == "off" and not isHeaderSent:
                yield server.problem("xclient", _TAKEN_FOR_US, self.xclient)
        words = [word.upper() for word in self.capabilities]
        if "BINARYMIME" in words and "CHUNKING" not in words:
            yield server.problem("smtp_capabilities", "BINARYMIME requires CHUNKING (RFC 3030)", "BINARYMIME")
