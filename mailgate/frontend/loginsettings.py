# -*- test-case-name: mailgate.test.frontend.test_mechanisms -*-
"""
What the settings of all protocols have that offer logins.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.directives import Problem, ServerSettings
from mailgate.frontend.mechanisms import loginMethods, mechanismNames
from mailgate.frontend.settings import tokenWarnings
from mailgate.login import Method

__all__ = ["LoginSettings"]


class LoginSettings:
    """
    A base for a protocol's settings.

    @ivar auth: the words of its directive C{*_auth}.
    @ivar clientBuffer: how long a command may be, in bytes.
    """

    __slots__ = ()

    auth: tuple[str, ...]
    clientBuffer: int

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """SASL mechanisms."""
        return mechanismNames(self.auth)

    @property
    def methods(self) -> frozenset[Method]:
        """The login methods that are offered."""
        return loginMethods(self.auth)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """What of these settings will not do for every client."""
        return tokenWarnings(server, self.methods, self.clientBuffer)
