# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""The directives for how long a proxied session may last."""

from __future__ import annotations

from attrs import frozen

from mailgate.directives import deadline, directive, seconds

__all__ = ["RelaySettings"]


@frozen
class RelaySettings:
    """
    When proxied sessions end.

    C{proxy_timeout} is nginx's: a session ends after this many seconds without a byte in either direction.
    C{session_max_age}: a session ends this many seconds after its login; 0 is no limit.
    """

    timeout: float = directive("proxy_timeout", deadline, 86400.0)
    maxAge: float = directive("session_max_age", seconds, 0.0)
