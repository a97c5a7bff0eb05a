# -*- test-case-name: mailgate.test.protocols.smtp.test_trust -*-
"""
Checks which rights a client gets at an SMTP backend over the gateway's connection, as far as the backend's EHLO shows.

A backend that offers XCLIENT (Postfix's C{smtpd_authorized_xclient_hosts}) or XFORWARD
(C{smtpd_authorized_xforward_hosts}) allows its peer to claim any client address. After the hand-over the client uses
the connection, and with it this right. The gateway prevents that by a PROXY header or by its own XCLIENT: then Postfix
checks the client's address instead of the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from enum import Enum

from mailgate.backend.settings import ProxySettings
from mailgate.login import Client, Method
from mailgate.net.proxyprotocol import namesClient

__all__ = ["XCLIENT_REFUSED", "Introduction", "concerns", "introductionOf", "whyNotHandedOver", "xtext"]

_XCLIENT, _XFORWARD = "smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts"

_ENCODED = re.compile(rb"[\x00-\x20+=\x7f-\xff]")
"""Matches a byte that is not itself in xtext."""

XCLIENT_REFUSED = f"list the gateway's address in its {_XCLIENT}, or set proxy_protocol"
"""What to do about a backend that refuses XCLIENT or does not offer it."""


class Introduction(Enum):
    """How a backend learns the client's address."""

    HEADER = "header"
    """By a PROXY header."""
    UNASKED = "unasked"
    """By XCLIENT, even if the backend's EHLO does not offer it."""
    IF_OFFERED = "offered"
    """By XCLIENT if the backend's EHLO offers it."""
    REQUIRED = "required"
    """By XCLIENT. A backend whose EHLO does not offer it is not used."""
    NONE = "none"
    """Not at all."""
    WITHHELD = "withheld"
    """Not at all, because the authenticator decided so for this login (C{Auth-Proxy-Identity})."""

    def isDone(self, offers: Collection[bytes]) -> bool:
        """Return whether the gateway sends the client's address to a backend whose EHLO C{offers} these keywords."""
        if self in (Introduction.HEADER, Introduction.UNASKED):
            return True
        return self in (Introduction.IF_OFFERED, Introduction.REQUIRED) and b"XCLIENT" in offers


_BY_XCLIENT = {"on": Introduction.UNASKED, "auto": Introduction.IF_OFFERED, "off": Introduction.NONE}


def introductionOf(
    xclient: str, proxy: ProxySettings, client: Client, method: Method, identifies: bool = True
) -> Introduction:
    """
    Return how a backend learns the client's address.

    Under C{smtp_auth = none} the backend can check recipients only by the client's address, so C{auto} requires
    XCLIENT.

    @param xclient: the directive C{xclient}.
    @param proxy: the C{proxy_…} directives.
    @param client: the client.
    @param method: the method of its login; C{NONE} for mail without one.
    @param identifies: whether the authenticator lets the backend receive the client's address. It cannot forbid that
        for C{NONE}.
    """
    if proxy.proxyProtocol != "off" and namesClient(client):
        return Introduction.HEADER
    if not identifies and method is not Method.NONE:
        return Introduction.WITHHELD
    introduction = _BY_XCLIENT[xclient]
    if method is Method.NONE and introduction is Introduction.IF_OFFERED:
        return Introduction.REQUIRED
    return introduction


def whyNotHandedOver(introduction: Introduction, offers: Collection[bytes]) -> str:
    """
    Return why a client must not get the connection to a backend that does not know the client's address: a phrase for
    the log with a remedy, or an empty string if it may.

    @param introduction: how the backend should learn the client's address.
    @param offers: the keywords that the backend's EHLO offers to the gateway.
    """
    if introduction is Introduction.REQUIRED:
        return f"offers no XCLIENT and would grant every client the rights of the gateway: {XCLIENT_REFUSED}"
    if b"XCLIENT" in offers and introduction is Introduction.WITHHELD:
        return (
            "offers XCLIENT, with which clients could claim any address under Auth-Proxy-Identity: off:"
            f" remove the gateway's address from its {_XCLIENT}, or leave this header out"
        )
    if b"XCLIENT" in offers:
        return (
            "offers XCLIENT, with which clients could claim any address under xclient = off:"
            f" remove the gateway's address from its {_XCLIENT}, or set xclient = auto"
        )
    if b"XFORWARD" in offers:
        return (
            "offers XFORWARD, with which clients could claim any address in its logs and filters:"
            f" remove the gateway's address from its {_XFORWARD}, or set xclient = auto and list the gateway's address"
            f" in its {_XCLIENT}"
        )
    return ""


def concerns(offers: Collection[bytes], announced: Collection[str], extended: bool) -> Iterator[str]:
    """
    Yield warnings about a backend: phrases for the log.

    @param offers: the keywords that the backend's EHLO offers to the client.
    @param announced: the gateway's C{smtp_capabilities}.
    @param extended: whether the client has said EHLO and so has received them.
    """
    for keyword, setting in (("XCLIENT", _XCLIENT), ("XFORWARD", _XFORWARD)):
        if keyword.encode() in offers:
            yield (
                f"offers {keyword} to the client, which can then claim any address:"
                f" list only the gateway's own address in its {setting}, no networks"
            )
    if extended and offers and b"CHUNKING" not in offers and any(word.upper() == "CHUNKING" for word in announced):
        yield (
            "offers no CHUNKING although smtp_capabilities announces it, and may execute parts of messages as commands:"
            " remove CHUNKING from smtp_capabilities"
        )


def xtext(value: bytes) -> bytes:
    """Encode C{value} as xtext (RFC 3461, section 4), bytes from 0x7F up included, as nginx and Postfix do."""
    return _ENCODED.sub(lambda match: b"+%02X" % match[0][0], value)
