# -*- test-case-name: mailgate.test.config.test_inifile -*-
"""
Finds characters that other configuration formats allow around a value: nginx's C{;} at the end, comments after the
value, quotes. In gateway.ini they are part of the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailgate.directives import Directive

__all__ = ["explained", "holdsOwnWords", "strays"]

_COMMENT = re.compile(r"\s+[#;]+(?:\s.*|\Z)|\s+#.*")
"""A comment follows a blank. A C{;} or C{#} inside a word may be intended."""
_END = re.compile(r"\s*;+\s*\Z")
_QUOTES = re.compile(r"""(?<!\S)(["'])([^"']*)\1(?!\S)""")

_SEMICOLON = 'the ";" at the end is part of the value: remove it'
_BEHIND = "a comment after a value is part of the value: put it on a line of its own"
_QUOTED = "the quotes are part of the value: remove them"


def holdsOwnWords(declared: Directive) -> bool:
    """Whether values of C{declared} may contain any character, as headers and passwords do."""
    return declared.secret and not declared.name.startswith("ssl_certificate")


def strays(text: str) -> Iterator[str]:
    """Yield a message for each kind of stray character in the value C{text}, with what to do about it."""
    _, found = _mended(text)
    yield from found


def _mended(text: str) -> tuple[str, list[str]]:
    """C{text} without stray characters, and the messages about them."""
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
    Explain why a value is not valid: by its stray characters, if it is valid without them, else by the reason of its
    parser.

    @param declared: the directive.
    @param text: the value.
    @param folder: the folder where relative paths start.
    @param reason: the message of the parser of C{declared}.
    """
    mended, found = _mended(text)
    if not found:
        return reason
    try:
        declared.parse(mended, folder)
    except ValueError as error:
        return "; ".join([str(error), *found])
    return "; ".join(found)
