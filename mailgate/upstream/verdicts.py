# -*- test-case-name: mailgate.test.upstream.test_verdicts -*-
"""
What processes tell each other about the health of backends: the bodies of notices of the topics C{verdict} and C{rest}.
Another process may be of another release, so a body is checked before it is used.
"""

from __future__ import annotations

import sys
from typing import Any

from attrs import asdict, frozen

from mailgate.log.journal import oneLine
from mailgate.login import Backend

__all__ = ["Rest", "Verdict", "keyOf", "partsOf"]

_LONGEST = 300
"""The most characters of a reason."""

_MOST_FAILS = 1_000_000_000


def keyOf(group: str, backend: Backend) -> str:
    """
    Return the key of notices about a server.

    @param group: the name of its group; empty outside of groups.
    @param backend: its address.
    """
    return f"{group}/{backend}"


def partsOf(key: str) -> tuple[str, str]:
    """
    Return the name of the group and the address in the key of a notice.

    @param key: as L{keyOf} has made it. A group's name has no slash.
    """
    group, _, address = key.partition("/")
    return group, address


def _text(value: Any) -> str:
    return oneLine(value[:_LONGEST]) if isinstance(value, str) else ""


def _isNumber(value: Any) -> bool:
    # Not every whole number of JSON can become a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


@frozen
class Verdict:
    """
    What health checks have found.

    @ivar failing: whether the server is down.
    @ivar reason: why, a phrase with the server as its subject; empty if it is not down.
    @ivar check: identifies how the server is checked: L{mailgate.backend.probing.Use.fingerprint}.
    """

    failing: bool
    reason: str = ""
    check: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """The body of the notice."""
        return asdict(self)

    @classmethod
    def of(cls, body: Any) -> Verdict | None:
        """
        Return the verdict in a notice, or L{None} if there is none.

        @param body: the body of the notice.
        """
        if not isinstance(body, dict) or not isinstance(body.get("failing"), bool):
            return None
        return cls(body["failing"], _text(body.get("reason")), _text(body.get("check")))


@frozen
class Rest:
    """
    A server rests after failures.

    @ivar fails: its failures since the last success.
    @ivar seconds: how long it rests, from the moment of the notice.
    @ivar reason: the last failure, a phrase with the server as its subject; may be empty.
    """

    fails: int
    seconds: float
    reason: str = ""

    @property
    def body(self) -> dict[str, Any]:
        """The body of the notice."""
        return asdict(self)

    @classmethod
    def of(cls, body: Any) -> Rest | None:
        """
        Return the rest in a notice, or L{None} if there is none.

        @param body: the body of the notice.
        """
        if not isinstance(body, dict) or not _isNumber(body.get("seconds")) or not _isNumber(body.get("fails")):
            return None
        fails, seconds = int(max(1, min(body["fails"], _MOST_FAILS))), float(body["seconds"])
        return cls(fails, seconds, _text(body.get("reason"))) if seconds >= 0 else None
