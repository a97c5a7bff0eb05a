# -*- test-case-name: mailgate.test.protocols.smtp.test_capabilities -*-
"""
Which extensions of SMTP backends the gateway announces.

No client sends EHLO again after AUTH. So a backend must keep what the gateway has announced: from the login on the
gateway passes MAIL, RCPT and their parameters on unchanged. The gateway announces an extension if all backends have it.

The gateway never learns C{AUTH} and C{STARTTLS}, which are its own; C{XCLIENT} and C{XFORWARD}, which are rights of the
gateway; and C{VRFY}, C{EXPN}, C{ETRN} and C{HELP}, which promise commands that it refuses before the login.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from mailgate.frontend.intersection import Rule, intersection, plain, same

__all__ = ["BEHIND_LOGIN", "UNDER_TLS", "learnable", "without"]

BEHIND_LOGIN = frozenset((b"CHUNKING", b"BINARYMIME", b"BURL"))
"""
Extensions that replace DATA (RFC 3030, 4468). A backend without CHUNKING takes the chunks of a message for commands. So
the gateway announces these only if it knows all backends, and if clients have to log in: without a login it may have to
answer BDAT and BURL itself.
"""

UNDER_TLS = frozenset((b"REQUIRETLS",))
"""Extensions that clients use only over TLS (RFC 8689). The gateway announces them to no other clients."""

_NUMBER = re.compile(rb"[0-9]{1,18}")
_SHORTEST = re.compile(rb"([0-9]{1,9})(?:,|\Z)")
_LIMIT = re.compile(rb"([A-Z0-9]{1,40})=([0-9]{1,18})")
_DATE = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def _size(parameters: Sequence[bytes]) -> bytes:
    """
    The smallest maximum (RFC 1870, section 4). C{0} means that there is none. Without a number the maximum is unknown.
    """
    sizes = [int(each) if _NUMBER.fullmatch(each) else None for each in parameters]
    limits = [size for size in sizes if size]
    if limits:
        return b"%d" % min(limits)
    return b"" if None in sizes else b"0"


def _deliverBy(parameters: Sequence[bytes]) -> bytes:
    """The longest minimum time in seconds (RFC 2852, section 4). Without a number, or with 0, there is none."""
    matches = map(_SHORTEST.match, parameters)
    longest = max((int(match[1]) for match in matches if match), default=0)
    return b"%d" % longest if longest else b""


def _futureRelease(parameters: Sequence[bytes]) -> bytes | None:
    """The shortest interval in seconds, and the earliest date (RFC 4865, section 4)."""
    pairs = [each.split() for each in parameters]
    if not all(len(pair) == 2 and _NUMBER.fullmatch(pair[0]) and _DATE.fullmatch(pair[1]) for pair in pairs):
        return None
    return b"%d %b" % (min(int(pair[0]) for pair in pairs), min(pair[1] for pair in pairs))


def _limits(parameters: Sequence[bytes]) -> bytes | None:
    """The smallest value of each limit that a backend has (RFC 9422, section 3)."""
    smallest: dict[bytes, int] = {}
    for each in parameters:
        for limit in each.split():
            if match := _LIMIT.fullmatch(limit):
                name, value = match[1], int(match[2])
                smallest[name] = min(value, smallest.get(name, value))
    return b" ".join(b"%b=%d" % limit for limit in smallest.items()) or None


def _burl(parameters: Sequence[bytes]) -> bytes:
    """The servers that all backends read from (RFC 4468, section 3)."""
    others = [set(each.split()) for each in parameters[1:]]
    return b" ".join(word for word in parameters[0].split() if all(word in each for each in others))


_RULES: dict[bytes, Rule] = {
    **dict.fromkeys((b"8BITMIME", b"ENHANCEDSTATUSCODES", b"PIPELINING", b"SMTPUTF8", b"DSN", b"REQUIRETLS"), plain),
    b"CHUNKING": plain,
    b"BINARYMIME": plain,
    b"BURL": _burl,
    b"SIZE": _size,
    b"DELIVERBY": _deliverBy,
    b"FUTURERELEASE": _futureRelease,
    b"MT-PRIORITY": same,
    b"LIMITS": _limits,
}
"""
C{PIPELINING} is here because the gateway keeps commands that arrive together in order. C{MT-PRIORITY} has the name of a
policy (RFC 6710, section 4), so it must be the same everywhere.
"""


def learnable(offers: Sequence[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """
    Return the extensions that the gateway may announce, in the order of the first backend.

    A client uses C{BINARYMIME} with BDAT only (RFC 3030, section 3), so there is none without C{CHUNKING}.

    @param offers: for each backend the lines of its reply to EHLO, without the codes and the first line.
    """
    kept = intersection(offers, _RULES)
    return kept if b"CHUNKING" in kept else tuple(line for line in kept if line != b"BINARYMIME")


def without(words: Set[bytes], lines: Sequence[bytes]) -> list[bytes]:
    """
    Leave extensions out.

    @param words: their keywords, in capitals.
    @param lines: the extensions with their parameters.
    """
    return [line for line in lines if line.split(b" ", 1)[0] not in words]
