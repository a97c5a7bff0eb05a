# -*- test-case-name: mailgate.test.frontend.test_capabilities -*-
"""
Which of the configured capabilities a client hears before the login. Operators copy their backend's list, and in it are
words that the gateway announces itself where they are true, and words that promise a command before the login: those
would be the gateway's to obey, and it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from mailgate.frontend.protocol import MailProtocol

__all__ = ["announced", "each", "leftOut", "whyLeftOut"]


def each(protocol: MailProtocol, configured: tuple[str, ...]) -> Iterator[str]:
    """The capabilities in what is C{configured}: where they have no parameters several may stand in one item."""
    for item in configured:
        if protocol.parted is None:
            yield item
        else:
            yield from item.split(protocol.parted)


def whyLeftOut(protocol: MailProtocol, capability: str) -> str:
    """
    Why clients of C{protocol} do not hear C{capability}, one with its parameters: in words that can follow its name, or
    empty if they hear it.
    """
    word = capability.upper().partition(" ")[0].partition("=")[0]
    if word in protocol.own:
        return "is left out: the gateway announces it whenever it applies"
    if word in protocol.unkept:
        return "is left out: it promises a command that the gateway does not support before the login"
    return ""


def leftOut(protocol: MailProtocol, configured: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What of the C{configured} capabilities clients do not hear, each with the reason."""
    for capability in each(protocol, configured):
        if reason := whyLeftOut(protocol, capability):
            yield capability, reason


@cache
def announced(protocol: MailProtocol, configured: tuple[str, ...]) -> tuple[bytes, ...]:
    """What of the C{configured} capabilities clients of C{protocol} hear before the login: nothing twice."""
    heard: dict[str, bytes] = {}
    for capability in each(protocol, configured):
        if not whyLeftOut(protocol, capability):
            heard.setdefault(capability.upper(), capability.encode())
    return tuple(heard.values())
