# -*- test-case-name: mailgate.test.protocols.pop3.test_capabilities -*-
"""
Which capabilities of POP3 backends the gateway announces: those that all backends have.

C{USER}, C{SASL} and C{STLS} are the gateway's own. It never learns C{UTF8} and C{LANG} (RFC 6856), whose commands it
does not have before the login, C{XCLIENT}, which is a right of the gateway, and C{IMPLEMENTATION}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mailgate.frontend.intersection import Rule, intersection, plain

__all__ = ["learnable"]

_DAYS = re.compile(rb"([0-9]{1,18}|NEVER)(?: USER)?")
_SECONDS = re.compile(rb"([0-9]{1,18})(?: USER)?")
_ENDLESS = 10**18


def _expire(parameters: Sequence[bytes]) -> bytes | None:
    """The shortest time in days for which messages are kept (RFC 2449, section 6.7)."""
    return _extreme(parameters, _DAYS, min)


def _loginDelay(parameters: Sequence[bytes]) -> bytes | None:
    """The longest time in seconds between two logins (RFC 2449, section 6.5)."""
    return _extreme(parameters, _SECONDS, max)


def _extreme(
    parameters: Sequence[bytes], form: re.Pattern[bytes], choose: Callable[[Sequence[int]], int]
) -> bytes | None:
    """
    Choose one of the numbers of the backends. C{USER} behind it says that the number after the login may differ. It is
    needed if the backends differ.
    """
    matches = [form.fullmatch(each) for each in parameters]
    numbers = [_ENDLESS if match[1] == b"NEVER" else int(match[1]) for match in matches if match]
    if len(numbers) < len(matches):
        return None
    chosen = choose(numbers)
    differs = len(set(numbers)) > 1 or any(each.endswith(b" USER") for each in parameters)
    return (b"NEVER" if chosen == _ENDLESS else b"%d" % chosen) + (b" USER" if differs else b"")


_RULES: dict[bytes, Rule] = {
    **dict.fromkeys((b"CAPA", b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"USER"), plain),
    b"EXPIRE": _expire,
    b"LOGIN-DELAY": _loginDelay,
}
"""
C{CAPA} and C{PIPELINING} are here because the gateway has the command, and keeps commands that arrive together in
order.
"""


def learnable(offers: Sequence[tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """
    Return the capabilities that the gateway may announce, in the order of the first backend. C{USER} is always among
    them: the gateway takes USER and PASS even if it logs in at the backends in another way. The dialogue leaves it out
    if C{pop3_auth} has no passwords.

    @param offers: for each backend the lines of its reply to CAPA, without the first and the last.
    """
    kept = intersection(offers, _RULES)
    return kept if b"USER" in kept else (*kept, b"USER")
