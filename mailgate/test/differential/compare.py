# -*- test-case-name: mailgate.test.differential -*-
"""
Compares transcripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mailgate.test.differential.script import Script

__all__ = ["differences", "report"]


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """
    Yield what differs: the number of the step, the wire, and what it received before and after.

    @param before: a transcript.
    @param after: the transcript of the same conversation in another tree.
    """
    for key in ("error", "stopping", "descriptors left"):
        if before.get(key) != after.get(key):
            yield -1, key, [str(before.get(key))], [str(after.get(key))]
    pairs = zip(before.get("steps", ()), after.get("steps", ()), strict=False)
    for number, (old, new) in enumerate(pairs):
        for wire in sorted({*old, *new}):
            if old.get(wire) != new.get(wire):
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
