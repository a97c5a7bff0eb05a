# -*- test-case-name: mailgate.test.differential -*-
"""
Compares transcripts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from mailgate.test.differential.script import Script

__all__ = ["differences", "report"]

_MOMENTS = re.compile(r"seconds [0-9.]+|times [^,]+")


def _withoutMovedEnds(before: list[list[str]], after: list[list[str]]) -> None:
    """
    Remove lines C{connection ended} of proxied sessions that differ only by the step in which they are logged.

    That is an allowed difference: the gateway may close both connections at once when the backend has closed its own
    after LOGOUT or QUIT, without waiting for the client. It may not log that later than before.
    """
    for number, lines in enumerate(before):
        for line in list(lines):
            if "connection ended:" not in line or "outcome relayed" not in line:
                continue
            for earlier in after[:number]:
                same = [other for other in earlier if _MOMENTS.sub("", other) == _MOMENTS.sub("", line)]
                if same and line not in after[number]:
                    earlier.remove(same[0])
                    lines.remove(line)
                    break


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """
    Yield what differs and may not: the number of the step, the wire, and what it received before and after.

    @param before: a transcript.
    @param after: the transcript of the same conversation in another tree.
    """
    for key in ("error", "refused", "stopping", "descriptors left"):
        if before.get(key) != after.get(key):
            yield -1, key, [str(before.get(key))], [str(after.get(key))]
    logs = [[list(step.get("log", ())) for step in transcript.get("steps", ())] for transcript in (before, after)]
    _withoutMovedEnds(*logs)
    for number, (old, new) in enumerate(zip(before.get("steps", ()), after.get("steps", ()), strict=False)):
        old, new = {**old, "log": logs[0][number]}, {**new, "log": logs[1][number]}
        for wire in sorted({*old, *new}):
            if old.get(wire, []) != new.get(wire, []):
                yield number, wire, old.get(wire, []), new.get(wire, [])


def report(script: Script, found: list[tuple[int, str, list[str], list[str]]]) -> str:
    """
    Return a text about differences.

    @param script: the conversation.
    @param found: the result of L{differences}.
    """
    lines = [f"{script.name}: {script.protocol}, use = {script.use}, listen {script.listen or '-'}, {script.options}"]
    steps = [*script.steps, ["end"]]
    for number, wire, old, new in found:
        step = f"step {number} {steps[number]!r:.120}" if number >= 0 else "at the end"
        lines += [f"  {step}: {wire}", *(f"    - {line!r}" for line in old), *(f"    + {line!r}" for line in new)]
    return "\n".join(lines)
