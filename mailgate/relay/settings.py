# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""
How long a relay may be silent.
"""

from __future__ import annotations

from attrs import frozen

from mailgate.directives import deadline, directive

__all__ = ["RelaySettings"]


@frozen
class RelaySettings:
    """nginx's C{proxy_timeout}: the seconds without a byte in either direction after which a session ends."""

    timeout: float = directive("proxy_timeout", deadline, 86400.0)
