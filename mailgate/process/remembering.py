# -*- test-case-name: mailgate.test.process.keeper.test_preserving -*-
"""
Which file the limits' tables of a process are kept in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime

from mailgate.config import GatewaySettings
from mailgate.limits.interfaces import IDefence
from mailgate.limits.settings import LimitSettings
from mailgate.limits.statefile import Remembering, StateFile, placeOf

__all__ = ["rememberingFor"]


def rememberingFor(
    defence: IDefence,
    settings: GatewaySettings,
    clock: IReactorTime,
    mayWrite: Callable[[], bool] = lambda: True,
    environ: Mapping[str, str] = os.environ,
) -> Remembering | None:
    """
    Return what keeps the limits' tables in C{state_file}; L{None} without such a file.

    @param defence: the tables.
    @param settings: the configuration.
    @param clock: the timer.
    @param mayWrite: see L{Remembering}.
    @param environ: the environment of the process.
    """
    path = placeOf(settings[LimitSettings].stateFile, environ)
    return None if path is None else Remembering(defence, StateFile(path), clock, mayWrite)
