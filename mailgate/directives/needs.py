# -*- test-case-name: mailgate.test.directives.test_needs -*-
"""
Declares what an option needs to have an effect. A settings class declares it for all its options with an attribute
C{needs}, or for one option with C{directive(…, needs=…)}.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

__all__ = ["Need", "given", "protocol"]


@frozen
class Need:
    """
    Something that an option needs.

    @ivar what: the words for it after "has no effect without".
    @ivar isMet: returns whether a server has it.
    """

    what: str
    isMet: Callable[[Any], bool]


def protocol(*names: str) -> Need:
    """The option needs a server that speaks one of the protocols C{names}."""
    return Need(f"protocol = {' or '.join(names)}", lambda server: server.protocol in names)


def given(*options: str) -> Need:
    """The option needs one of C{options} in the server's own section or in C{[mail]}."""
    return Need(" or ".join(options), lambda server: not server.given.isdisjoint(options))
