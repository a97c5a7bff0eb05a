# -*- test-case-name: mailgate.test.frontend.test_debugging -*-
"""
Chooses the connections whose lines are logged at level debug, whatever the level of C{error_log}: nginx's
C{debug_connection}, and C{debug_user}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import translate

from attrs import frozen

from mailgate.directives import Problem, SectionSettings, directive
from mailgate.frontend.realip import Senders, sendersOf

__all__ = ["DebugSettings", "Debugged"]


@frozen
class Debugged:
    """
    The connections that are debugged.

    @ivar clients: their addresses.
    @ivar users: matches the names of their users, as text in which bytes that are not UTF-8 are surrogates (PEP 383);
        L{None} if no user is chosen.
    """

    clients: Senders
    users: re.Pattern[str] | None = None

    def hasUser(self, user: bytes) -> bool:
        """
        Return whether a user is chosen.

        @param user: the name.
        """
        return self.users is not None and self.users.match(user.decode("utf-8", "surrogateescape")) is not None


def _clients(value: str, folder: str) -> Senders:
    return sendersOf(_given(value))


def _masks(value: str, folder: str) -> tuple[str, ...]:
    return _given(value)


def _given(value: str) -> tuple[str, ...]:
    items = tuple(value.split())
    if not items:
        raise ValueError("a value is missing")
    return items


@frozen
class DebugSettings:
    """
    nginx's C{debug_connection}: addresses, networks, host names, which are looked up when the file is read, and
    C{unix:}; and C{debug_user}: masks with C{*}, C{?} and C{[...]} for the names of users, in any case.
    """

    clients: Senders | None = directive("debug_connection", _clients, None)
    users: Sequence[str] = directive("debug_user", _masks, ())

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a warning of C{section} for each network with host bits, as nginx does."""
        for item in () if self.clients is None else self.clients.careless:
            yield section.problem("debug_connection", f"low address bits of {item} are meaningless")

    @property
    def debugged(self) -> Debugged | None:
        """The connections that are debugged; L{None} without both directives."""
        if self == DebugSettings():
            return None
        masks = "|".join(map(translate, self.users))
        return Debugged(self.clients or Senders(), re.compile(masks, re.IGNORECASE) if masks else None)
