# -*- test-case-name: mailgate.test.config.test_config -*-
"""
Which values of gateway.ini are secrets, and what a message shows of them.
"""

from __future__ import annotations

import re

from mailgate.directives import Directive

__all__ = ["isSecret", "shownValue"]

_IN_URL = re.compile(r"(?<=//)[^/@\s]+(?=@)|(?<=\?)\S+")
"""A password, or a query that may hold a key."""

_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")
"""What is filled in, in a header of auth_http."""


def shownValue(declared: Directive, text: str) -> str:
    """C{text}, the value of C{declared}, for a message."""
    return "***" if declared.secret else _IN_URL.sub("***", text)


def isSecret(declared: Directive, text: str) -> bool:
    """Whether nobody else is to read C{text}: paths and certificates may be read, and headers with variables alone."""
    if not declared.secret:
        return bool(_IN_URL.search(text))
    if declared.name in ("ssl_certificate", "ssl_certificate_key"):
        return declared.name.endswith("key") and "data:" in text
    values = (line.split(None, 1)[1:] for line in text.splitlines())
    return any(_VARIABLE.sub("", value[0]).strip() for value in values if value)
