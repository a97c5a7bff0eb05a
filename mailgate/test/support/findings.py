"""
Clients that record which of their lazily found attributes are used.
"""

from __future__ import annotations

from typing import Any

from attrs import astuple

from mailgate.login import Client, TLSDetails

DETAILS = TLSDetails("mail.example.com")


class NotingFindings:
    """
    Records look-ups.

    @ivar asked: C{local} or C{details} for each look-up.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def local(self) -> tuple[str, int]:
        """Return an address."""
        self.asked.append("local")
        return "198.51.100.1", 993

    def details(self) -> TLSDetails:
        """Return L{DETAILS}."""
        self.asked.append("details")
        return DETAILS


def lazyClient(findings: NotingFindings, client: Client) -> Client:
    """Return a copy of C{client} whose C{local}, C{localPort} and C{details} come from C{findings}."""
    lazy = Client(*astuple(client, recurse=False))
    lazy.lookUpLater(findings, local=True, details=True)
    return lazy


def askedOf(client: Client, use: Any) -> list[str]:
    """Return which of these attributes C{use(client)} looks up, in order."""
    findings = NotingFindings()
    use(lazyClient(findings, client))
    return findings.asked
