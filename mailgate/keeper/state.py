# -*- test-case-name: mailgate.test.keeper.test_state -*-
"""
The state of a keeper as text: lines of JSON in ASCII. Each line can be read without the others, so that one that is not
valid does no harm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from mailgate.keeper.messages import NAME
from mailgate.keeper.moments import isMoment
from mailgate.keeper.past import Counted
from mailgate.keeper.sums import readValues, writeValues

__all__ = ["MOST_STATE", "VERSION", "State", "readState", "writeState"]

VERSION = 1
"""The version of the state. A keeper of another version begins anew."""

MOST_STATE = 6 * 1024 * 1024
"""Bytes of a state. Further stories are left out."""

_MOST_LINES = 20_000


@frozen
class State:
    """
    The state of a predecessor.

    @ivar header: its moments and the admitted labels, not checked.
    @ivar past: its sum of the past, not checked.
    @ivar counted: what single processes have counted.
    @ivar linked: the names of those that had a link.
    @ivar stories: its stories, not checked.
    @ivar limits: the parts of its tables of limits (L{mailgate.keeper.limitstate}), not checked.
    @ivar places: the parts of its places (L{mailgate.keeper.placestate}), not checked.
    """

    header: Mapping[str, Any]
    past: Any = None
    counted: list[Counted] = field(factory=list)
    linked: list[str] = field(factory=list)
    stories: list[Any] = field(factory=list)
    limits: list[Any] = field(factory=list)
    places: list[Any] = field(factory=list)

    def moment(self, name: str, default: float) -> float:
        """
        Return a time of the header, in seconds since 1970.

        @param name: its name.
        @param default: is returned if the header has no valid one.
        """
        value: Any = self.header.get(name)
        return float(value) if isMoment(value) else default


def _line(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def writeState(
    header: Mapping[str, Any], past: Any, counted: Iterable[Counted], expected: Collection[str], stories: Iterable[str]
) -> bytes:
    """
    Write the state of a keeper.

    @param header: values of JSON by name.
    @param past: its sum of the past.
    @param counted: what single processes have counted.
    @param expected: the names of processes that have no link yet, but soon.
    @param stories: its stories as JSON. Beyond L{MOST_STATE} the last ones are left out.
    """
    lines = [_line({"keeper": VERSION, **header}), _line({"past": past})]
    for each in counted:
        if each.values or each.member is not None:
            if not each.text:
                base = None if each.base is None else writeValues(each.base)
                each.text = _line({"values": writeValues(each.values), "base": base})
            isLinked = each.member is not None or each.name in expected
            head = _line({"member": each.name, "pid": each.pid, "isLinked": isLinked})
            lines.append(f"{head[:-1]},{each.text[1:]}")
    left = MOST_STATE - sum(map(len, lines)) - len(lines)
    for story in stories:
        left -= len(story) + 12
        if left < 0:
            break
        lines.append(f'{{"story":{story}}}')
    return "\n".join(lines).encode("ascii")


def _counted(content: Mapping[str, Any]) -> Counted | None:
    name, pid, base = content["member"], content.get("pid"), content.get("base")
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or type(pid) is not int:
        return None
    values = readValues(content.get("values"), areMicro=True)
    return Counted(name, pid, values=values, base=None if base is None else readValues(base, areMicro=True))


def readState(state: bytes) -> State | None:
    """
    Read a state. What is not valid is left out.

    @param state: what L{writeState} has returned, or anything else.
    @return: the state; L{None} if it is of another version, or no state at all.
    """
    if len(state) > 2 * MOST_STATE:
        return None
    found: State | None = None
    for line in state.split(b"\n", _MOST_LINES)[:_MOST_LINES]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(content, dict):
            continue
        if found is None:
            if content.get("keeper") != VERSION:
                return None
            found = State(content)
        elif "story" in content:
            found.stories.append(content["story"])
        elif "member" in content:
            counted = _counted(content)
            if counted is not None:
                found.counted.append(counted)
                if content.get("isLinked") is True:
                    found.linked.append(counted.name)
        elif "limits" in content:
            found.limits.append(content["limits"])
        elif "places" in content:
            found.places.append(content["places"])
        elif "past" in content:
            found = evolve(found, past=content["past"])
    return found
