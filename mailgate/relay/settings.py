# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""The directive for the idle time of a relay."""

from __future__ import annotations

from attrs import frozen

from mailgate.directives import deadline, directive

__all__ = ["RelaySettings"]


@frozen
class RelaySettings:
    """nginx's C{proxy_timeout}: a session ends after this many seconds without a byte in either direction."""

    timeout: float = directive("proxy_timeout", deadline, 86400.0)
