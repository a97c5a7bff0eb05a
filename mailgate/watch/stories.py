# -*- test-case-name: mailgate.test.watch.test_stories -*-
"""
The stories of connections and logins that have ended, in JSON, for the keeper.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from functools import lru_cache
from itertools import compress
from operator import not_
from typing import Any

from mailgate.log.connection import peerOf
from mailgate.log.journal import printable
from mailgate.login import Denial, Refusal, TLSState, Trouble
from mailgate.session import TIMED, Outcome, Session
from mailgate.watch.metrics import word

__all__ = ["LONGEST", "MOST", "PIECE", "Stories", "moment", "outcomeOf"]

MOST = 2000
"""How many ends of connections are kept until the keeper takes them, and how many refused logins."""

MOST_ORDINARY = 20
"""
How many of the ends without trouble are kept, the latest ones. A story costs as much CPU as all counters of a login,
and a busy gateway has hundreds of them in a second.
"""

PIECE = 500
"""How many of each are taken in one go. That takes some milliseconds."""

LONGEST = 200
"""The most characters of a text."""

_TIMED = {phase: word(phase) for phase in TIMED}
_LIMITED = (Trouble.TOO_FAST, Trouble.SESSIONS, Trouble.TOO_MANY, Trouble.HELD)
_ORDINARY = frozenset((Outcome.RELAYED, Outcome.QUIT))


def moment(seconds: float) -> str:
    """
    Return a time in the form of RFC 3339, in UTC.

    @param seconds: the time in seconds since 1970.
    """
    whole = int(seconds)
    return f"{_second(whole)}.{int(1000 * (seconds - whole)):03d}Z"


@lru_cache(16)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19]


def outcomeOf(answer: Denial | Refusal | None) -> str:
    """
    Return the outcome of a login that did not lead to a relay, as the value of a label.

    @param answer: as for L{mailgate.interfaces.IWatch.denied}.
    """
    if answer is None:
        return "abandoned"
    if isinstance(answer, Refusal):
        return "temporary" if answer.temporary else "backend_refused"
    kind = answer.kind
    if kind in _LIMITED:
        return "limited"
    if kind is Trouble.BLOCKED:
        return "blocked"
    if kind in (Trouble.TEMPORARY, Trouble.INTERNAL):
        return "temporary"
    return "backend_refused" if answer.answer else "denied"


class Stories:
    """
    The latest ends, until they are taken.

    @param nameOf: returns the name of a server by its address.
    @ivar isKept: whether stories are kept at all.
    """

    def __init__(self, nameOf: Callable[[str], str]) -> None:
        self.isKept = True
        self._nameOf = nameOf
        self._ends: deque[tuple[Session, float]] = deque(maxlen=MOST)
        self._ordinary: deque[tuple[Session, float]] = deque(maxlen=MOST_ORDINARY)
        self._logins: deque[dict[str, Any]] = deque(maxlen=MOST)

    def ended(self, sessions: Sequence[Session], moments: Sequence[float], outcomes: Iterable[Outcome | None]) -> None:
        """
        Connections have ended.

        @param sessions: their records, which change no more.
        @param moments: the times in seconds since 1970.
        @param outcomes: how they ended.
        """
        # The stories are written when they are taken.
        ends = [*zip(sessions, moments, strict=True)]
        areOrdinary = [*map(_ORDINARY.__contains__, outcomes)]
        self._ordinary.extend(compress(ends, areOrdinary))
        for session, now in compress(ends, map(not_, areOrdinary)):
            (self._ends if session.attempts else self._ordinary).append((session, now))

    def denied(self, session: Session, answer: Denial | Refusal | None, now: float) -> None:
        """
        A login has ended without a relay.

        @param session: the record, which goes on.
        @param answer: as for L{mailgate.interfaces.IWatch.denied}.
        @param now: the time in seconds since 1970.
        """
        told, reason, trouble = b"", "", None
        if isinstance(answer, Denial):
            told, trouble = answer.answer or answer.text or b"", answer.kind._value_
            reason = answer.reason or answer.why
        elif answer is not None:
            told = answer.reply.strip()
        story = self._story(session, now, "login")
        # reached: a refusal makes the phase AUTH or COMMAND again.
        story.update(outcome=outcomeOf(answer), reason=_short(reason), trouble=trouble, text=_short(printable(told)))
        self._logins.append(story)

    def take(self) -> list[dict[str, Any]]:
        """
        Return the stories since the last call: the earliest L{PIECE} of logins, then of connections that ended with a
        trouble, and then of others.
        """
        logins = self._logins
        taken = [logins.popleft() for _ in range(min(PIECE, len(logins)))]
        for ends in (self._ends, self._ordinary):
            taken += [self._end(*ends.popleft()) for _ in range(min(PIECE, len(ends)))]
        return taken

    def _end(self, session: Session, now: float) -> dict[str, Any]:
        story = self._story(session, now, "connection")
        outcome = session.outcome
        story.update(outcome="" if outcome is None else outcome._value_, reason=_short(session.reason))
        return story

    def _story(self, session: Session, now: float, kind: str) -> dict[str, Any]:
        tls = session.tls
        address, port = peerOf(session.client)
        return {
            "kind": kind,
            "id": session.id,
            "protocol": session.protocol,
            "server": self._nameOf(session.server),
            "client": {"address": address, "port": port},
            "user": _short(session.user.decode("utf-8", "replace")),
            "backend": session.backend or None,
            "method": None if session.method is None else session.method._value_,
            "tls": None if tls is None else _shown(tls),
            "attempts": session.attempts,
            "reached": session.reached._value_,
            "outcome": "",
            "reason": "",
            "trouble": None,
            "at": moment(now),
            "seconds": round(now - session.started, 3),
            "received": session.received,
            "sent": session.sent,
            "times": {
                _TIMED[phase]: int(10_000 * seconds + 0.5) / 10
                for phase, seconds in session.stays().items()
                if seconds > 0 and phase in _TIMED
            },
            "text": "",
        }


def _shown(tls: TLSState) -> dict[str, str]:
    return {"version": tls.protocol, "cipher": tls.cipher, "name": getattr(tls, "name", "")}


def _short(text: str) -> str:
    return text[:LONGEST]
