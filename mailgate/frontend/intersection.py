# -*- test-case-name: mailgate.test.frontend.test_intersection -*-
"""
Selects the capabilities that all backends have, for protocols whose capabilities are lines: a word, blanks, parameters
(SMTP, POP3).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

__all__ = ["Rule", "intersection", "plain", "same"]

_LINE = re.compile(rb"[\t -~]{1,500}")
"""What the gateway reads from a backend: it must fit on a line for a client (RFC 5321, section 4.5.3.1.5)."""

Rule: TypeAlias = Callable[[Sequence[bytes]], bytes | None]
"""
Called with the parameters of one capability at each backend, in capitals. It returns the parameters to announce, which
may be empty, or L{None} if the gateway does not announce the capability.
"""


def plain(parameters: Sequence[bytes]) -> bytes | None:
    """
    The L{Rule} of capabilities without parameters. Parameters of a backend are left out.

    @param parameters: those of each backend.
    """
    return b""


def same(parameters: Sequence[bytes]) -> bytes | None:
    """
    The L{Rule} of capabilities that mean something else with other parameters: all backends must have the same.

    @param parameters: those of each backend.
    """
    return parameters[0] if len(set(parameters)) == 1 else None


def intersection(offers: Sequence[Sequence[bytes]], rules: Mapping[bytes, Rule]) -> tuple[bytes, ...]:
    """
    Return the capabilities that every backend has and that have a rule, in the order of the first backend.

    @param offers: the capabilities of each backend, as the protocol writes them.
    @param rules: the known capabilities, in capitals. The gateway never announces others.
    """
    tables = [_table(lines) for lines in offers]
    announced = []
    for word in tables[0] if tables else ():
        if word in rules and all(word in table for table in tables):
            parameters = rules[word]([table[word] for table in tables])
            if parameters is not None:
                announced.append(word + b" " + parameters if parameters else word)
    return tuple(announced)


def _table(lines: Sequence[bytes]) -> dict[bytes, bytes]:
    """The parameters of each capability by its word, in capitals. The first of repeated words counts."""
    table: dict[bytes, bytes] = {}
    for line in lines:
        if _LINE.fullmatch(line):
            word, *parameters = line.upper().split() or [b""]
            table.setdefault(word, b" ".join(parameters))
    return table
