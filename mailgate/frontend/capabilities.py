# -*- test-case-name: mailgate.test.frontend.test_capabilities -*-
"""
Selects the configured capabilities that a client receives before the login.

Operators copy their backend's list. It contains capabilities that the gateway announces itself, such as STARTTLS, and
capabilities that promise a command before the login. The gateway does not have these commands, so it leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from mailgate.directives import LEARN, ServerSettings
from mailgate.frontend.protocol import MailProtocol

__all__ = ["announced", "configured", "each", "leftOut", "whyLeftOut"]


def each(protocol: MailProtocol, configured: tuple[str, ...]) -> Iterator[str]:
    """
    Yield the single capabilities of a configured list. The word C{backend} at its beginning is none.

    @param protocol: its C{parted} separates capabilities within one item.
    @param configured: the items of the C{*_capabilities} directive.
    """
    for item in configured[1:] if configured[:1] == (LEARN,) else configured:
        if protocol.parted is None:
            yield item
        else:
            yield from item.split(protocol.parted)


def whyLeftOut(protocol: MailProtocol, capability: str) -> str:
    """
    Return why the gateway does not announce a capability: a phrase that follows its name, or an empty string if the
    gateway announces it.

    @param protocol: the protocol of the clients.
    @param capability: one capability with its parameters.
    """
    word = capability.upper().partition(" ")[0].partition("=")[0]
    if word in protocol.own:
        return "is left out: the gateway announces it whenever it applies"
    if word in protocol.unkept:
        return "is left out: it promises a command that the gateway does not support before the login"
    return ""


def leftOut(protocol: MailProtocol, configured: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """
    Yield each configured capability that the gateway does not announce, with the reason.

    @param protocol: the protocol of the clients.
    @param configured: the items of the C{*_capabilities} directive.
    """
    for capability in each(protocol, configured):
        if reason := whyLeftOut(protocol, capability):
            yield capability, reason


@cache
def announced(protocol: MailProtocol, configured: tuple[str, ...]) -> tuple[bytes, ...]:
    """
    Return the configured capabilities that the gateway announces before the login, without duplicates.

    @param protocol: the protocol of the clients.
    @param configured: the items of the C{*_capabilities} directive.
    """
    kept: dict[str, bytes] = {}
    for capability in each(protocol, configured):
        if not whyLeftOut(protocol, capability):
            kept.setdefault(capability.upper(), capability.encode())
    return tuple(kept.values())


def configured(protocol: MailProtocol, server: ServerSettings) -> tuple[bytes, ...]:
    """
    Return what C{server} announces before the login while nothing is known of its backends.

    @param protocol: the protocol of the clients.
    @param server: its directives.
    """
    return announced(protocol, getattr(server[protocol.settings], "capabilities", ()))
