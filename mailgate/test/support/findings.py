"""
Clients of which it is noted what somebody finds out.
"""

from __future__ import annotations

from typing import Any

from attrs import astuple

from mailgate.login import Client, TLSDetails

DETAILS = TLSDetails("mail.example.com")


class NotingFindings:
    """
    Finds out what a test says, and notes that it was C{asked}.

    @ivar asked: C{local} and C{details}, each as often as somebody has wanted to know.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []

    def local(self) -> tuple[str, int]:
        """An address."""
        self.asked.append("local")
        return "198.51.100.1", 993

    def details(self) -> TLSDetails:
        """L{DETAILS}."""
        self.asked.append("details")
        return DETAILS


def lazyClient(findings: NotingFindings, client: Client) -> Client:
    """C{client}, whose C{local}, C{localPort} and C{details} C{findings} finds out."""
    return Client.lazily(findings, ("local", "localPort", "details"), *astuple(client, recurse=False))


def askedOf(client: Client, use: Any) -> list[str]:
    """What C{use}, called with C{client}, finds out of it, in order."""
    findings = NotingFindings()
    use(lazyClient(findings, client))
    return findings.asked
