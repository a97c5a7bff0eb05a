# -*- test-case-name: mailgate.test.config.test_inifile -*-
"""
What other grammars have around a value and this one has not: nginx's C{;} at the end, comments behind, quotes. Here
they are part of the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailgate.directives import Directive

__all__ = ["explained", "holdsOwnWords", "strays"]

_COMMENT = re.compile(r"\s+[#;]+(?:\s.*|\Z)|\s+#.*")
"""Behind blanks; a C{;} or C{#} within a word may be meant so."""
_END = re.compile(r"\s*;+\s*\Z")
_QUOTES = re.compile(r"""(?<!\S)(["'])([^"']*)\1(?!\S)""")

_SEMICOLON = 'the ";" at the end is part of the value: take it away'
_BEHIND = "what stands behind the value is part of it: a comment needs a line of its own"
_QUOTED = "the quotes are part of the value: take them away"


def holdsOwnWords(declared: Directive) -> bool:
    """Whether any character may be meant in values of C{declared}: in headers and passwords."""
    return declared.secret and not declared.name.startswith("ssl_certificate")


def strays(text: str) -> Iterator[str]:
    """What the value C{text} has in it that may not be meant, each with what to do."""
    _, found = _mended(text)
    yield from found


def _mended(text: str) -> tuple[str, list[str]]:
    """C{text} without what was hardly meant, and what that was."""
    found: dict[str, None] = {}
    kept = []
    for line in text.split("\n"):
        for pattern, replacement, reason in (
            (_END, "", _SEMICOLON),
            (_COMMENT, "", _BEHIND),
            (_END, "", _SEMICOLON),
            (_QUOTES, r"\2", _QUOTED),
        ):
            line, times = pattern.subn(replacement, line)
            if times:
                found[reason] = None
        kept.append(line)
    return "\n".join(kept), list(found)


def explained(declared: Directive, text: str, folder: str, reason: str) -> str:
    """
    Why C{text} is no value of C{declared}: the C{reason} that its parser gave, or what has strayed into it, where it
    would be good without.
    """
    mended, found = _mended(text)
    if not found:
        return reason
    try:
        declared.parse(mended, folder)
    except ValueError as error:
        return "; ".join([str(error), *found])
    return "; ".join(found)
