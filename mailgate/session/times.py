# -*- test-case-name: mailgate.test.test_session -*-
"""
The times that a connection spends in its phases: how they are added up, kept and logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

from mailgate.session.phases import Phase

__all__ = ["SETTLED", "TIMED", "inWords", "staysIn"]

_TIMES = "proxy=%.1f tls=%.1f greeting=%.1f command=%.1f auth=%.1f connect=%.1f backend-tls=%.1f backend-login=%.1f "
"""
The milliseconds in each phase from PROXY_HEADER to BACKEND_LOGIN. The log has them without C{.0} and the last blank.
COMMAND includes CHALLENGE.
"""

SETTLED = Struct("8f")
"""The same times in seconds, in the form that a session keeps during its relay. A text would need twice the memory."""

TIMED = (
    *(Phase.PROXY_HEADER, Phase.TLS, Phase.GREETING, Phase.COMMAND, Phase.AUTH, Phase.CONNECT),
    *(Phase.BACKEND_TLS, Phase.BACKEND_LOGIN),
)
"""The phases of L{Session.spent<mailgate.session.Session.spent>}. COMMAND includes CHALLENGE."""


def staysIn(readings: Sequence[Any]) -> dict[Phase, float]:
    """
    Return the seconds in each phase. COMMAND includes CHALLENGE, and the current phase does not count.

    @param readings: the list of L{Session.readings<mailgate.session.Session.readings>}.
    """
    stays: dict[Phase, float] = {}
    for phase, began, ended in zip(readings[1::2], readings[2::2], readings[4::2], strict=False):
        stays[phase] = ended - began + stays[phase] if phase in stays else ended - began
    if Phase.CHALLENGE in stays:
        stays[Phase.COMMAND] = stays.get(Phase.COMMAND, 0.0) + stays.pop(Phase.CHALLENGE)
    return stays


def inWords(spent: tuple[float, ...]) -> str:
    """
    Return times as text, such as C{proxy=0.1 tls=3.2 …}, in milliseconds.

    @param spent: the seconds in each phase of L{TIMED}.
    """
    return (_TIMES % tuple([1000 * seconds for seconds in spent])).replace(".0 ", " ")[:-1]
