# -*- test-case-name: mailgate.test.frontend.test_capabilities -*-
"""
Which of the configured capabilities a client hears before the login. Operators copy their backend's list, and in it are
words that the gateway announces itself where they are true, and words that promise a command before the login: those
would be the gateway's to obey, and it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

__all__ = ["OWN", "UNKEPT", "announced", "each", "leftOut", "whyLeftOut"]

OWN: dict[str, tuple[str, ...]] = {
    "imap": ("AUTH", "LOGINDISABLED", "STARTTLS"),
    "pop3": ("SASL", "STLS"),
    "smtp": ("AUTH", "STARTTLS"),
}
"""Words that the gateway announces itself, by protocol; with parameters they are the same words."""

UNKEPT: dict[str, tuple[str, ...]] = {
    "imap": ("CLIENTID", "LANGUAGE"),
    "pop3": ("CLIENTID", "LANG", "UTF8", "XCLIENT"),
    "smtp": ("CLIENTID", "HELP", "X-ANONYMOUSTLS", "X-EXPS", "XCLIENT", "XFORWARD"),
}
"""
Words that promise a command before the login (RFC 5255, 6856, 5321; C{CLIENTID} of some clients; Exchange's and
Postfix's own), which the gateway would have to obey itself and does not.
"""


def each(protocol: str, configured: tuple[str, ...]) -> Iterator[str]:
    """The capabilities in what is C{configured}: IMAP's have no parameters, and several may stand in one item."""
    for item in configured:
        if protocol == "imap":
            yield from item.split(" ")
        else:
            yield item


def whyLeftOut(protocol: str, capability: str) -> str:
    """
    Why clients of C{protocol} do not hear C{capability}, one with its parameters: in words that can follow its name, or
    empty if they hear it.
    """
    word = capability.upper().partition(" ")[0].partition("=")[0]
    if word in OWN[protocol]:
        return "is left out: the gateway announces it itself where it is so"
    if word in UNKEPT[protocol]:
        return "is left out: it promises a command before the login, which the gateway does not obey"
    return ""


def leftOut(protocol: str, configured: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What of the C{configured} capabilities clients do not hear, each with the reason."""
    for capability in each(protocol, configured):
        if reason := whyLeftOut(protocol, capability):
            yield capability, reason


@cache
def announced(protocol: str, configured: tuple[str, ...]) -> tuple[bytes, ...]:
    """What of the C{configured} capabilities clients of C{protocol} hear before the login: nothing twice."""
    heard: dict[str, bytes] = {}
    for capability in each(protocol, configured):
        if not whyLeftOut(protocol, capability):
            heard.setdefault(capability.upper(), capability.encode())
    return tuple(heard.values())
