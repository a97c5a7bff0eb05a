# -*- test-case-name: mailgate.test.backend.test_retry -*-
"""
The directives for deadlines and further tries at backends: nginx's C{proxy_next_upstream…} and C{proxy_connect_timeout}
of its stream module.
"""

from __future__ import annotations

from attrs import frozen

from mailgate.directives import deadline, directive, number, seconds, words

__all__ = ["RetrySettings"]

CAUSES = ("error", "timeout", "tls", "invalid_response", "temporary")
"""The kinds of failures after which another backend may be tried."""


def _causes(value: str, folder: str) -> tuple[str, ...]:
    given = words(*CAUSES, "on", "off")(value, folder)
    if len(given) > 1 and not {"on", "off"}.isdisjoint(given):
        raise ValueError('"on" and "off" stand alone')
    return CAUSES if given == ("on",) else () if given == ("off",) else given


@frozen
class RetrySettings:
    """
    How long backends may take, and after which failures the next one is tried.

    C{loginTimeout} is L{None} where C{timeout} decides. A C{tries} of 0 is no limit.
    """

    connectTimeout: float = directive("proxy_connect_timeout", deadline, 10.0)
    loginTimeout: float | None = directive("proxy_login_timeout", deadline, None)
    causes: tuple[str, ...] = directive("proxy_next_upstream", _causes, CAUSES)
    tries: int = directive("proxy_next_upstream_tries", number, 3)
    timeout: float = directive("proxy_next_upstream_timeout", seconds, 0.0)
