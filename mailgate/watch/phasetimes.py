# -*- test-case-name: mailgate.test.watch.test_watcher -*-
"""
Adds up what sessions have measured, for many of them at once: how long they were in each phase, and how long backends
took for their logins. The loops over sessions are those of C: each step of Python is one for all that were in the same
phases.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from itertools import compress, groupby, starmap
from operator import add, attrgetter, is_, itemgetter, sub

from mailgate.session import SETTLED, TIMED, Phase, Session
from mailgate.watch.labels import FirstNames
from mailgate.watch.metrics import word
from mailgate.watch.tally import Tally

__all__ = ["accepted", "lengths", "settle"]

_readingsOf, _startedOf, _backendOf = attrgetter("readings"), attrgetter("started"), attrgetter("backend")
_phasesOf, _momentsOf = itemgetter(slice(1, None, 2)), itemgetter(slice(2, None, 2))
_first = itemgetter(0)
_isList = partial(is_, list)
_NO_TIMES = SETTLED.pack(*[0.0] * len(TIMED))

_EXPORTED = {phase: word(phase) for phase in TIMED if phase is not Phase.GREETING}


def settle(tally: Tally, backends: FirstNames, protocol: str, sessions: Collection[Session]) -> None:
    """
    Count the times of sessions in the phases, without their last one, which goes on, and settle them as
    L{Session.settleTimes} does. If the last one is the relay, count what the backend has taken for the login.

    @param tally: counts them.
    @param backends: the backends that have labels of their own.
    @param protocol: the label.
    @param sessions: the records. Those that are settled, or are not measured, do not count.
    """
    measured = [*compress(sessions, map(_isList, map(type, map(_readingsOf, sessions))))]
    readings = [*map(_readingsOf, measured)]
    each = [*map(tuple, map(_phasesOf, readings))]
    # Most of them were in the same phases, one after the other.
    for phases in dict.fromkeys(each):
        areAlike = [*map(phases.__eq__, each)]
        alike = [*compress(measured, areAlike)]
        moments = [*zip(*map(_momentsOf, compress(readings, areAlike)), strict=True)]
        if phases[-1] is Phase.RELAY:
            _countLogins(tally, backends, [*map(_backendOf, alike)], phases, moments)
        stays = _stays(phases, moments)
        for phase, seconds in stays.items():
            spent = [*filter(None, seconds)]
            if spent and phase in _EXPORTED:
                tally.observeAll("mailgate_phase_seconds", (protocol, _EXPORTED[phase]), spent)
        none = [0.0] * len(alike)
        settled = starmap(SETTLED.pack, zip(*[stays.get(phase, none) for phase in TIMED], strict=True))
        for session, times in zip(alike, settled, strict=True):
            session.readings = times


def _stays(phases: tuple[Phase, ...], moments: Sequence[Sequence[float]]) -> dict[Phase, list[float]]:
    """The seconds in each phase, of sessions whose C{phases} began at C{moments}: phase by phase those of all."""
    stays: dict[Phase, list[float]] = {}
    for phase, began, ended in zip(phases, moments, moments[1:], strict=False):
        seconds = [*map(sub, ended, began)]
        timed = Phase.COMMAND if phase is Phase.CHALLENGE else phase
        # A connection may return to a phase.
        stays[timed] = [*map(add, stays[timed], seconds)] if timed in stays else seconds
    return stays


def _countLogins(
    tally: Tally,
    backends: FirstNames,
    names: Iterable[str],
    phases: tuple[Phase, ...],
    moments: Sequence[Sequence[float]],
) -> None:
    """
    Count how long the backends C{names} took for logins that they have accepted. The last of C{phases} is the one that
    followed. Earlier attempts have failed, and were counted then.
    """
    if Phase.CONNECT not in phases:
        return
    place = len(phases) - phases[::-1].index(Phase.CONNECT)
    connected = map(sub, moments[place], moments[place - 1])
    loggedIn = map(sub, moments[-1], moments[place])
    for name, rows in groupby(sorted(zip(names, connected, loggedIn, strict=True)), _first):
        labels = (backends.of(name), "ok")
        _, connects, logins = zip(*rows, strict=True)
        tally.observeAll("mailgate_backend_connect_seconds", labels, connects)
        tally.observeAll("mailgate_backend_login_seconds", labels, logins)


def accepted(tally: Tally, backends: FirstNames, session: Session, now: float) -> None:
    """
    Count how long the backend took for a login that it has accepted, although no relay follows.

    @param tally: counts it.
    @param backends: as for L{settle}.
    @param session: the record, still in a phase of the login.
    @param now: the time, in seconds of the gateway's clock.
    """
    readings = session.readings
    if type(readings) is list:
        moments = [(each,) for each in (*_momentsOf(readings), now)]
        _countLogins(tally, backends, [session.backend], (*_phasesOf(readings), Phase.RELAY), moments)


def lengths(sessions: Sequence[Session], ends: Iterable[float]) -> list[float]:
    """
    Return for how many seconds each of some sessions was relayed.

    @param sessions: the records, settled unless they are not measured.
    @param ends: the times of their ends.
    """
    times = [*map(_readingsOf, sessions)]
    if not all(times):
        times = [each or _NO_TIMES for each in times]
    logins = map(sum, map(SETTLED.unpack, times))
    return [*map(sub, map(sub, ends, map(_startedOf, sessions)), logins)]
