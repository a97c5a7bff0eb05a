# -*- test-case-name: mailgate.test.protocols.imap4.test_imap4 -*-
"""
What gateway.ini says of servers for IMAP.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen

from mailgate.directives import Problem, ServerSettings, bufferSize, capabilities, directive, words
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.mechanisms import loginMethods, mechanismNames
from mailgate.frontend.settings import tokenWarnings
from mailgate.login import Method

__all__ = ["IMAP4Settings"]

_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer")


@frozen
class IMAP4Settings:
    """nginx's C{imap_…} directives."""

    needs: ClassVar[tuple[Need, ...]] = (protocol("imap"),)

    auth: tuple[str, ...] = directive("imap_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive(
        "imap_capabilities",
        capabilities(),
        ("IMAP4", "IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "UIDPLUS"),
    )
    clientBuffer: int = directive("imap_client_buffer", bufferSize, 4096)

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """SASL mechanisms."""
        return mechanismNames(self.auth)

    @property
    def methods(self) -> frozenset[Method]:
        """The login methods that are offered."""
        return loginMethods(self.auth)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """What of these settings will not do for every client."""
        return tokenWarnings(server, self.methods, self.clientBuffer)
