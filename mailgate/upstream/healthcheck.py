# -*- test-case-name: mailgate.test.upstream.test_healthcheck -*-
"""
The value of C{health_check}: how the servers of a group are checked. The grammar is that of nginx Plus.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from mailgate.directives import deadline, nearest, number, seconds, text, word

__all__ = ["HealthCheck", "healthCheck"]

_MOST = 1000
"""The most checks that C{fails} and C{passes} may ask for."""


@frozen
class HealthCheck:
    """
    How the servers of a group are checked.

    @ivar interval: seconds from the end of one check of a server to the next.
    @ivar jitter: the most seconds, chosen at random, that are added to C{interval}.
    @ivar fails: after so many failed checks in a row a server is down.
    @ivar passes: after so many successful checks in a row a server that was down is up again.
    @ivar mandatory: whether a server is used only after its first successful check.
    @ivar port: the port that is checked; 0 for the server's own.
    @ivar greeting: whether the check stops after the greeting.
    @ivar protocol: the protocol that the servers speak; empty for that of the C{[server]} that uses the group.
    """

    interval: float = 5.0
    jitter: float = 1.0
    fails: int = 3
    passes: int = 2
    mandatory: bool = False
    port: int = 0
    greeting: bool = False
    protocol: str = ""


def _count(value: str) -> int:
    count = number(value, "")
    if not 1 <= count <= _MOST:
        raise ValueError(f"must be a whole number from 1 to {_MOST}")
    return count


def _port(value: str) -> int:
    port = number(value, "")
    if not 1 <= port <= 65535:
        raise ValueError("must be a port from 1 to 65535")
    return port


_PARAMETERS: dict[str, Any] = {
    "interval": lambda value: deadline(value, ""),
    "jitter": lambda value: seconds(value, ""),
    "fails": _count,
    "passes": _count,
    "port": _port,
    "protocol": lambda value: word(value, "").lower(),
}
_FLAGS = ("mandatory", "greeting")
_PERSISTENT = "persistent"
"""nginx's word: a reload keeps what C{mandatory} has found. Here it always does."""


def healthCheck(value: str, folder: str) -> HealthCheck | None:
    """
    Parse C{off}, C{on} for a check with all defaults, or the parameters of a check.

    @param value: the text of the option.
    @param folder: not used.
    @return: L{None} for C{off}.
    @raise ValueError: C{value} is something else.
    """
    words = text(value, folder).split()
    if len(words) == 1 and words[0].lower() in ("on", "off"):
        return HealthCheck() if words[0].lower() == "on" else None
    given: dict[str, Any] = {}
    for each in words:
        name, assigned, parameter = each.partition("=")
        if name in given:
            raise ValueError(f'"{name}" is given twice')
        try:
            if assigned and name in _PARAMETERS:
                given[name] = _PARAMETERS[name](parameter)
            elif not assigned and name in (*_FLAGS, _PERSISTENT):
                given[name] = True
            elif each in ("on", "off"):
                raise ValueError("stands alone")
            else:
                known = (*(f"{parameter}=" for parameter in _PARAMETERS), *_FLAGS)
                raise ValueError(f"is no known parameter{nearest(f'{name}{assigned}', known)}")
        except ValueError as error:
            raise ValueError(f'"{each}": {error}') from None
    if given.pop(_PERSISTENT, False) and "mandatory" not in given:
        raise ValueError('"persistent" needs "mandatory"')
    return HealthCheck(**given)
