# -*- test-case-name: mailgate.test.backend.test_outages -*-
"""
The lines about backends that fail and answer again. Each process logs those that its own logins find.
"""

from __future__ import annotations

from typing import Any

from mailgate.backend.place import Place
from mailgate.log.journal import Journal

__all__ = ["hasAnswered", "hasFailed"]


def hasFailed(place: Place, reason: str, now: float, journal: Journal) -> bool:
    """
    Count a failure that is the backend's own. Say in each log once that the backend is down.

    @param place: the backend.
    @param reason: why, with the backend as the subject.
    @param now: the time in seconds.
    @param journal: the log.
    @return: whether C{journal} mentions the outage already.
    """
    if place.peer is None:
        return False
    outage = place.peer.outage
    outage.failed(now)
    if not outage.isOn:
        return False
    if outage.isKnownTo(journal):
        return True
    if place.group is None:
        journal.error("backend {backend} is down: it {reason}", backend=place.name, reason=reason)
    else:
        journal.error(
            "upstream {group}: backend {backend} is down: it {reason}",
            group=place.group.name,
            backend=place.name,
            reason=reason,
        )
    return False


def hasAnswered(place: Place, now: float) -> None:
    """
    Log that an outage is over: a login has got an answer.

    @param place: the backend. An outage of it is on.
    @param now: the time in seconds.
    """
    assert place.peer is not None
    outage = place.peer.outage
    seconds, logins = outage.over(now)
    fields: dict[str, Any] = {"backend": place.name, "seconds": seconds, "logins": logins}
    for journal in outage.journals:
        if place.group is None:
            journal.notice("backend {backend} answers again, after {seconds} s and {logins} failed logins", **fields)
        else:
            journal.notice(
                "upstream {group}: backend {backend} answers again, after {seconds} s and {logins} failed logins",
                group=place.group.name,
                **fields,
            )
