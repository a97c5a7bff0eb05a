# -*- test-case-name: mailgate.test.protocols.imap4.test_imap4 -*-
"""
The directives of IMAP servers.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from mailgate.directives import LEARN, bufferSize, capabilities, directive, words
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.loginsettings import LoginSettings

__all__ = ["IMAP4Settings"]

_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1")
_USUAL = ("IMAP4", "IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "UIDPLUS")
"""What is announced while it is not known what the backend offers."""


@frozen
class IMAP4Settings(LoginSettings):
    """nginx's C{imap_…} directives."""

    needs: ClassVar[tuple[Need, ...]] = (protocol("imap"),)

    auth: tuple[str, ...] = directive("imap_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive(
        "imap_capabilities",
        capabilities(usual=_USUAL),
        (LEARN, *_USUAL),
    )
    clientBuffer: int = directive("imap_client_buffer", bufferSize, 4096)
