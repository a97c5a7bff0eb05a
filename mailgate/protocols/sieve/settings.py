# -*- test-case-name: mailgate.test.protocols.sieve.test_settings -*-
"""
The directives of ManageSieve servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from attrs import frozen

from mailgate.directives import LEARN, Problem, ServerSettings, bufferSize, capabilities, directive, text, words
from mailgate.directives.needs import Need, protocol
from mailgate.frontend.loginsettings import LoginSettings

__all__ = ["SieveSettings"]

_AUTH_WORDS = ("plain", "login", "cram-md5", "external", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1")
_EXTENSIONS = ("fileinto", "reject", "envelope", "vacation", "imap4flags", "copy", "include", "variables", "body")
_USUAL = (" ".join(("SIEVE", *_EXTENSIONS)), "NOTIFY mailto")
"""What is announced while it is not known what the backend offers."""

_LONGEST_NAME = 200


def _implementation(value: str, folder: str) -> str:
    name = text(value, folder)
    if not (name.isascii() and name.isprintable()) or len(name) > _LONGEST_NAME:
        raise ValueError(f"must be printable ASCII, at most {_LONGEST_NAME} characters")
    return name


@frozen
class SieveSettings(LoginSettings):
    """The C{sieve_…} directives."""

    needs: ClassVar[tuple[Need, ...]] = (protocol("sieve"),)

    auth: tuple[str, ...] = directive("sieve_auth", words(*_AUTH_WORDS), ("plain",))
    capabilities: tuple[str, ...] = directive(
        "sieve_capabilities",
        capabilities("RENAME", "NOOP", usual=_USUAL),
        (LEARN, *_USUAL),
    )
    clientBuffer: int = directive("sieve_client_buffer", bufferSize, 16384)
    implementation: str = directive("sieve_implementation", _implementation, "mailgate")

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield the warnings about these settings of C{server}."""
        yield from super().warnings(server)
        if self.implementation.lower().startswith("cyrus timsieved"):
            message = "makes Roundcube and sieve-connect expect the errors of old Cyrus servers; use another name"
            yield server.problem("sieve_implementation", message, self.implementation)
