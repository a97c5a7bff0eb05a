# -*- test-case-name: mailgate.test.config.test_config -*-
"""
Decides which values of gateway.ini are secrets, and hides secrets in messages.
"""

from __future__ import annotations

import re

from mailgate.directives import Directive

__all__ = ["isSecret", "shownValue"]

_IN_URL = re.compile(r"(?<=//)[^/@\s]+(?=@)|(?<=\?)\S+")
"""The parts of a URL that may be secret: user and password, and the query."""

_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")
"""A variable in a header of auth_http."""


def shownValue(declared: Directive, text: str) -> str:
    """
    A value for a message, with C{***} in place of secrets.

    @param declared: the directive.
    @param text: its value as written.
    """
    return "***" if declared.secret else _IN_URL.sub("***", text)


def isSecret(declared: Directive, text: str) -> bool:
    """
    Whether other users of the host must not read a value. Paths, certificates, and headers of variables only are not
    secret.

    @param declared: the directive.
    @param text: its value as written.
    """
    if not declared.secret:
        return bool(_IN_URL.search(text))
    if declared.name in ("ssl_certificate", "ssl_certificate_key"):
        return declared.name.endswith("key") and "data:" in text
    values = (line.split(None, 1)[1:] for line in text.splitlines())
    return any(_VARIABLE.sub("", value[0]).strip() for value in values if value)
