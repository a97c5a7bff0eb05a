# -*- test-case-name: mailgate.test.directives.test_needs -*-
"""
What an option needs beside it to have an effect. Settings classes say it of all their directives, by C{needs}, or of
one of them, by C{directive(…, needs=…)}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

__all__ = ["Need", "given", "protocol"]


@frozen
class Need:
    """C{what} is needed, in words that follow "without"; whether a server has it is for C{isMet(server)} to say."""

    what: str
    isMet: Callable[[Any], bool]


def protocol(*names: str) -> Need:
    """A server that speaks one of the protocols C{names}."""
    return Need(f"protocol = {' or '.join(names)}", lambda server: server.protocol in names)


def given(*options: str) -> Need:
    """One of C{options}, in the server's own section or in C{[mail]}."""
    return Need(" or ".join(options), lambda server: not server.given.isdisjoint(options))
