# -*- test-case-name: mailgate.test.watch.test_watcher -*-
"""
Adds up how long connections were in each phase, for many of them at once: phase by phase, with few steps for each
connection.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain, compress, starmap
from operator import add, attrgetter, is_, itemgetter, sub

from mailgate.session import SETTLED, TIMED, Phase, Session
from mailgate.watch.metrics import word
from mailgate.watch.tally import Tally

__all__ = ["lengths", "settle"]

_readingsOf, _startedOf = attrgetter("readings"), attrgetter("started")
_phasesOf, _momentsOf = itemgetter(slice(1, None, 2)), itemgetter(slice(2, None, 2))
_isList = partial(is_, list)
_NO_TIMES = SETTLED.pack(*[0.0] * len(TIMED))

_EXPORTED = {phase: word(phase) for phase in TIMED if phase is not Phase.GREETING}


def settle(tally: Tally, protocol: str, sessions: Iterable[Session]) -> None:
    """
    Count the times of sessions in the phases, without their last one, which goes on, and settle them as
    L{Session.settleTimes} does.

    @param tally: counts them.
    @param protocol: the label.
    @param sessions: the records. Those that are settled, or are not measured, do not count.
    """
    # Most of them were in the same phases, one after the other.
    together: defaultdict[tuple[Phase, ...], list[Session]] = defaultdict(list)
    sessions = [*sessions]
    measured = [*compress(sessions, map(_isList, map(type, map(_readingsOf, sessions))))]
    for session, phases in zip(measured, map(tuple, map(_phasesOf, map(_readingsOf, measured))), strict=True):
        together[phases].append(session)
    for phases, alike in together.items():
        stays = _stays(phases, [*chain.from_iterable(map(_momentsOf, map(_readingsOf, alike)))])
        for phase, seconds in stays.items():
            spent = [*filter(None, seconds)]
            if spent and phase in _EXPORTED:
                tally.observeAll("mailgate_phase_seconds", (protocol, _EXPORTED[phase]), spent)
        none = [0.0] * len(alike)
        settled = starmap(SETTLED.pack, zip(*[stays.get(phase, none) for phase in TIMED], strict=True))
        for session, times in zip(alike, settled, strict=True):
            session.readings = times


def _stays(phases: tuple[Phase, ...], moments: Sequence[float]) -> dict[Phase, list[float]]:
    """Return the seconds in each phase, of sessions whose C{phases} began at C{moments}: first those of one session."""
    stays: dict[Phase, list[float]] = {}
    for place, phase in enumerate(phases[:-1]):
        seconds = [*map(sub, moments[place + 1 :: len(phases)], moments[place :: len(phases)])]
        timed = Phase.COMMAND if phase is Phase.CHALLENGE else phase
        # A connection may return to a phase.
        stays[timed] = [*map(add, stays[timed], seconds)] if timed in stays else seconds
    return stays


def lengths(sessions: Sequence[Session], ends: Iterable[float]) -> list[float]:
    """
    Return for how many seconds each of some sessions was relayed.

    @param sessions: the records, settled unless they are not measured.
    @param ends: the times of their ends.
    """
    times = [each if type(each) is bytes else _NO_TIMES for each in map(_readingsOf, sessions)]
    logins = map(sum, map(SETTLED.unpack, times))
    return [*map(sub, map(sub, ends, map(_startedOf, sessions)), logins)]
