# -*- test-case-name: mailgate.test.frontend.test_mechanisms -*-
"""
Settings that all protocols with a login share.
"""

from __future__ import annotations

from collections.abc import Iterator

from mailgate.directives import LEARN, Problem, ServerSettings
from mailgate.frontend.mechanisms import loginMethods, mechanismNames
from mailgate.login import Method

__all__ = ["LoginSettings"]


class LoginSettings:
    """
    A base class for a protocol's settings.

    @ivar auth: the words of the directive C{*_auth}.
    @ivar capabilities: the items of the directive C{*_capabilities}. The first may be C{backend}.
    @ivar clientBuffer: the longest command in bytes (C{*_client_buffer}).
    """

    __slots__ = ()

    auth: tuple[str, ...]
    capabilities: tuple[str, ...]
    clientBuffer: int

    @property
    def learns(self) -> bool:
        """Whether the gateway announces what the backend offers, as far as it knows that."""
        return self.capabilities[:1] == (LEARN,)

    @property
    def fallback(self) -> tuple[str, ...]:
        """The configured capabilities; with L{learns} those that are announced while nothing is known."""
        return self.capabilities[1:] if self.learns else self.capabilities

    @property
    def mechanisms(self) -> tuple[bytes, ...]:
        """The names of the SASL mechanisms, in capitals."""
        return mechanismNames(self.auth)

    @property
    def methods(self) -> frozenset[Method]:
        """The login methods that the gateway offers."""
        return loginMethods(self.auth)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield the warnings about these settings of C{server}. A protocol adds its own."""
        yield from ()
