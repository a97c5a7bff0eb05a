# -*- test-case-name: mailgate.test.protocols.pop3.test_pop3 -*-
"""
The directives of POP3 servers.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from mailgate.directives import LEARN, bufferSize, capabilities, directive, words
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.loginsettings import LoginSettings
from mailgate.frontend.mechanisms import mechanismNames

__all__ = ["POP3Settings"]

_AUTH_WORDS = ("plain", "apop", "cram-md5", "external", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1")
_USUAL = ("TOP", "USER", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE")
"""What is announced while it is not known what the backend offers."""


@frozen
class POP3Settings(LoginSettings):
    """nginx's C{pop3_…} directives, and C{pop3_client_buffer}. In nginx that size is fixed at 128 bytes."""

    needs: ClassVar[tuple[Need, ...]] = (protocol("pop3"),)

    auth: tuple[str, ...] = directive("pop3_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive(
        "pop3_capabilities",
        capabilities("TOP", "USER", "UIDL", "STLS", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE", usual=_USUAL),
        (LEARN, *_USUAL),
    )
    clientBuffer: int = directive("pop3_client_buffer", bufferSize, 4096)

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The names of the SASL mechanisms, in capitals. C{plain} enables LOGIN as well."""
        implied = (*self.auth, "login") if "plain" in self.auth else self.auth
        return mechanismNames(implied)
