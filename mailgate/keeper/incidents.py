# -*- test-case-name: mailgate.test.keeper.test_incidents -*-
"""
What has happened to the gateway that operators must know, and since when: the last reload, the workers that were
started anew, the users whose passwords are guessed, and when each alarm began. A successor of the keeper continues with
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from mailgate.keeper.moments import isMoment

__all__ = ["MOST_ALARMS", "Incidents", "Reload", "shortened"]

MOST_ALARMS = 100
"""Alarms whose beginnings are remembered."""

_MOST_RESTARTS = 20
_MOST_ATTACKS = 50
_MOST_REASONS = 10
_LONGEST = 300


@frozen
class Reload:
    """
    The last reload.

    @ivar at: when it was, in seconds since 1970.
    @ivar isDone: whether the configuration was loaded.
    @ivar reasons: why not.
    """

    at: float
    isDone: bool
    reasons: tuple[str, ...] = ()


class Incidents:
    """
    Remembers them.

    @ivar reload: the last reload; L{None} if there was none.
    @ivar restarts: when workers were started anew, in seconds since 1970; the latest are last.
    @ivar attacks: the users whose passwords are guessed, and since when, in seconds since 1970; the latest are last.
    """

    def __init__(self) -> None:
        self.reload: Reload | None = None
        self.restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self.attacks: dict[str, float] = {}
        self._since: dict[str, float] = {}

    def happened(self, now: float, name: str, labels: Sequence[str], reasons: Iterable[str]) -> None:
        """
        An event has been counted.

        @param now: the time in seconds since 1970.
        @param name: the name of the counter.
        @param labels: the values of its labels.
        @param reasons: why it has happened.
        """
        if name == "mailgate_reloads":
            self.reload = Reload(now, tuple(labels) == ("ok",), shortened(reasons))
        elif name == "mailgate_worker_restarts":
            self.restarts.append(now)

    def attacked(self, now: float, user: str) -> None:
        """
        Passwords of a user are guessed. The earliest attacks are forgotten if there are too many.

        @param now: the time in seconds since 1970.
        @param user: the user name.
        """
        self.attacks.setdefault(user[:_LONGEST], now)
        while len(self.attacks) > _MOST_ATTACKS:
            del self.attacks[next(iter(self.attacks))]

    def keepAttacks(self, isOn: Callable[[str], bool]) -> None:
        """
        Forget the attacks that are over.

        @param isOn: returns whether the attack on a user goes on.
        """
        self.attacks = {user: since for user, since in self.attacks.items() if isOn(user)}

    def since(self, id: str, moment: float) -> float:
        """
        Return when an alarm began.

        @param id: its id.
        @param moment: when it began if it is new, in seconds since 1970.
        """
        if id not in self._since and len(self._since) >= MOST_ALARMS:
            return moment
        return self._since.setdefault(id, moment)

    def over(self, ids: Iterable[str]) -> None:
        """
        Forget the beginnings of alarms that are over.

        @param ids: the ids of those that last.
        """
        kept = set(ids)
        self._since = {id: moment for id, moment in self._since.items() if id in kept}

    def write(self) -> dict[str, Any]:
        """Return it as a value of JSON."""
        reload = self.reload
        return {
            "reload": None if reload is None else [reload.at, reload.isDone, list(reload.reasons)],
            "restarts": list(self.restarts),
            "attacks": self.attacks,
            "since": self._since,
        }

    def restore(self, written: Any) -> None:
        """
        Continue with what a predecessor knew. What is later here stays.

        @param written: what its C{write} has returned, not checked.
        """
        if not isinstance(written, dict):
            return
        reload = _reloadIn(written.get("reload"))
        if reload is not None and (self.reload is None or self.reload.at < reload.at):
            self.reload = reload
        restarts = written.get("restarts")
        if isinstance(restarts, list):
            known = {*self.restarts, *filter(isMoment, restarts)}
            self.restarts = deque(sorted(known), maxlen=_MOST_RESTARTS)
        attacks = written.get("attacks")
        for user, began in attacks.items() if isinstance(attacks, Mapping) else ():
            if isinstance(user, str) and isMoment(began):
                self.attacked(began, user)
        since = written.get("since")
        if isinstance(since, Mapping):
            for id, moment in since.items():
                if isinstance(id, str) and len(id) <= _LONGEST and isMoment(moment):
                    self._since[id] = min(moment, self.since(id, moment))
                    if len(self._since) > MOST_ALARMS:
                        del self._since[id]


def shortened(reasons: Iterable[str]) -> tuple[str, ...]:
    """
    Return the first reasons, and the beginnings of those that are long.

    @param reasons: the reasons.
    """
    return tuple(str(each)[:_LONGEST] for each in list(reasons)[:_MOST_REASONS])


def _reloadIn(written: Any) -> Reload | None:
    if not isinstance(written, list) or len(written) != 3:
        return None
    at, isDone, reasons = written
    if not isMoment(at) or not isinstance(isDone, bool) or not isinstance(reasons, list):
        return None
    return Reload(at, isDone, shortened(each for each in reasons if isinstance(each, str)))
