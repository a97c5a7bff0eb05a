# -*- test-case-name: mailgate.test.test_session -*-
"""
The record of one connection (L{Session}): its phase, its times, its outcome, and what the log line at its end contains.
"""

from __future__ import annotations

from mailgate.session.ending import Ending, Outcome
from mailgate.session.phases import TRANSITIONS, Phase
from mailgate.session.record import FollowedSession, ICounted, IDelay, Session
from mailgate.session.times import SETTLED, TIMED

__all__ = [
    "SETTLED",
    "TIMED",
    "TRANSITIONS",
    "Ending",
    "FollowedSession",
    "ICounted",
    "IDelay",
    "Outcome",
    "Phase",
    "Session",
]
