# -*- test-case-name: mailgate.test.protocols.imap4.test_capabilities -*-
"""
What an IMAP gateway may announce of its backends' capabilities before the login, and what it hides after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["learnable", "withoutHidden"]

_REVISIONS = (b"IMAP4REV1", b"IMAP4REV2")
_OWN = (b"AUTH", b"LOGINDISABLED", b"STARTTLS")
"""The gateway announces them by its own state. So it does with SASL-IR, which it always supports."""

_HIDDEN = b"UNAUTHENTICATE"
"""
It is never announced (RFC 8437): it would bring a proxied session back to a login that the gateway does not see.
"""

_NEVER = (
    _HIDDEN,
    # Commands before the login that the gateway does not have.
    *(b"CLIENTID", b"LANGUAGE"),
    # They send clients to servers around the gateway (RFC 2221, RFC 2193).
    *(b"LOGIN-REFERRALS", b"MAILBOX-REFERRALS"),
    # It begins only after the login (RFC 4978).
    b"COMPRESS",
    # They name one server, or resources of it (RFC 4467, RFC 9698, Cyrus).
    *(b"URLAUTH", b"JMAPACCESS", b"MUPDATE"),
)
_LIMITS = (b"APPENDLIMIT", b"MESSAGELIMIT", b"SAVELIMIT")
"""Words with a number that holds for one server (RFC 7889, RFC 9738). The smallest holds for all."""

_LITERALS = (b"LITERAL+", b"LITERAL-")
_SASL_IR = b"SASL-IR"

_LISTS = re.compile(rb"^(?:\* CAPABILITY|[^ \r\n]+ OK \[CAPABILITY) [^]\r\n]*", re.IGNORECASE | re.MULTILINE)
"""Matches each list of capabilities in replies."""
_HIDDEN_WORD = re.compile(rb" +" + _HIDDEN + rb"(?![^ ])", re.IGNORECASE)


def learnable(offers: Sequence[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """
    Return what the gateway may announce before the login of what its backends offer: the words that all of them have
    and that the gateway keeps, in the order of the first. SASL-IR is always among them.

    @param offers: for each backend its capabilities before the login. Those without a revision of IMAP do not count.
    """
    lists = [each for each in map(_byName, offers) if not each.keys().isdisjoint(_REVISIONS)]
    first, *others = lists or [{b"IMAP4REV1": b"IMAP4rev1"}]
    words = [word for name, word in first.items() if _mayBeSaid(name) and all(name in each for each in others)]
    for limit in _LIMITS:
        least = _least(limit, lists)
        if least:
            words.append(least)
    names = {word.upper() for word in words}
    if names.isdisjoint(_LITERALS) and all(not each.keys().isdisjoint(_LITERALS) for each in (first, *others)):
        # A server that reads literals of any size reads small ones (RFC 7888, section 5).
        words.append(b"LITERAL-")
    if _SASL_IR not in names:
        words.append(_SASL_IR)
    return tuple(words)


def _byName(words: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """The words by themselves in capitals, each once."""
    named: dict[bytes, bytes] = {}
    for word in words:
        # A bracket would end the response code of the greeting.
        if b"]" not in word:
            named.setdefault(word.upper(), word)
    return named


def _mayBeSaid(name: bytes) -> bool:
    word = name.partition(b"=")[0]
    return not (word in _OWN or word in _NEVER or word in _LIMITS or word.startswith(b"X"))


def _least(limit: bytes, lists: Sequence[dict[bytes, bytes]]) -> bytes:
    """The word for the smallest C{limit} of all C{lists}; empty if one of them has none, or none with a number."""
    least: int | None = None
    for words in lists:
        numbers = [int(name[len(limit) + 1 :]) for name in words if re.fullmatch(limit + rb"=[0-9]{1,18}", name)]
        if not numbers:
            return b""
        least = min(numbers) if least is None else min(least, *numbers)
    return b"" if least is None else limit + b"=%d" % least


def withoutHidden(reply: bytes) -> bytes:
    """
    Return the backend's reply to a login without the capabilities that clients may not use.

    @param reply: untagged responses and the tagged one, line ends included.
    """
    if _HIDDEN not in reply.upper():
        return reply
    return _LISTS.sub(lambda listed: _HIDDEN_WORD.sub(b"", listed[0]), reply)
