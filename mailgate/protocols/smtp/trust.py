# -*- test-case-name: mailgate.test.protocols.smtp.test_trust -*-
"""
Which rights a client gets at an SMTP backend with a connection of the gateway's, as far as the backend's EHLO shows.

A backend that offers XCLIENT (Postfix's C{smtpd_authorized_xclient_hosts}) or XFORWARD
(C{smtpd_authorized_xforward_hosts}) trusts the address that it sees to name any other client. After the hand-over the
connection is the client's, and that trust with it, unless the backend has been given another address to judge by: by
a PROXY header, or by our own XCLIENT, after which Postfix judges the address that it has been told.
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

XCLIENT_REFUSED = f"list the gateway's address in its {_XCLIENT}, or set proxy_protocol"
"""What an operator can do about a backend that refuses XCLIENT, or does not offer it."""


class Introduction(Enum):
    """How a backend learns who the client is."""

    HEADER = "by a PROXY header"
    UNASKED = "by XCLIENT, whatever its EHLO offers"
    IF_OFFERED = "by XCLIENT, where its EHLO offers that"
    REQUIRED = "by XCLIENT, and a backend whose EHLO does not offer that is not used"
    NONE = "not at all"

    def isDone(self, offers: Collection[bytes]) -> bool:
        """Whether a backend whose EHLO C{offers} these keywords is told who the client is."""
        if self in (Introduction.HEADER, Introduction.UNASKED):
            return True
        return self in (Introduction.IF_OFFERED, Introduction.REQUIRED) and b"XCLIENT" in offers


_BY_XCLIENT = {"on": Introduction.UNASKED, "auto": Introduction.IF_OFFERED, "off": Introduction.NONE}


def introductionOf(xclient: str, proxy: ProxySettings, client: Client, method: Method) -> Introduction:
    """
    How a backend learns of C{client}, who logs in by C{method}, with that C{xclient} directive.

    Under C{smtp_auth none} the client's address is all that the backend has to judge recipients by: C{auto} is not
    content without XCLIENT there.
    """
    if proxy.proxyProtocol != "off" and namesClient(client):
        return Introduction.HEADER
    introduction = _BY_XCLIENT[xclient]
    if method is Method.NONE and introduction is Introduction.IF_OFFERED:
        return Introduction.REQUIRED
    return introduction


def whyNotHandedOver(introduction: Introduction, offers: Collection[bytes]) -> str:
    """
    Why a client cannot have the connection to a backend that does not know the client's address and whose EHLO
    C{offers} these keywords: in words for the log, with what to do, or nothing if it can.
    """
    if introduction is Introduction.REQUIRED:
        return f"offers no XCLIENT and would grant every client the rights of the gateway: {XCLIENT_REFUSED}"
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
    What an operator should know of a backend whose EHLO C{offers} these keywords to a client. C{announced} are our
    C{smtp_capabilities}, which the client has heard if it said EHLO (C{extended}).
    """
    for keyword, setting in ((b"XCLIENT", _XCLIENT), (b"XFORWARD", _XFORWARD)):
        if keyword in offers:
            yield (
                f"offers {keyword.decode()} to the client, which can then claim any address:"
                f" list only the gateway's own address in its {setting}, no networks"
            )
    if extended and offers and b"CHUNKING" not in offers and any(word.upper() == "CHUNKING" for word in announced):
        yield (
            "offers no CHUNKING although smtp_capabilities announces it, and may execute parts of messages as commands:"
            " remove CHUNKING from smtp_capabilities"
        )


def xtext(value: bytes) -> bytes:
    """RFC 3461's xtext, with the bytes from 0x7F up encoded too, as nginx and Postfix do."""
    return re.sub(rb"[\x00-\x20+=\x7f-\xff]", lambda match: b"+%02X" % match[0][0], value)
