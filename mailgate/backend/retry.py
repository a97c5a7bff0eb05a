# -*- test-case-name: mailgate.test.backend.test_retry mailgate.test.backend.test_tries -*-
"""
The directives for deadlines and further tries at backends: nginx's C{proxy_next_upstream…} and C{proxy_connect_timeout}
of its stream module.
"""

from __future__ import annotations

from attrs import evolve, frozen

from mailgate.directives import deadline, directive, number, seconds, words

__all__ = ["DEFAULT_LOGIN_TIMEOUT", "RetrySettings"]

DEFAULT_LOGIN_TIMEOUT = 30.0
"""Seconds for a login at backends, where neither C{proxy_login_timeout} nor C{timeout} is written. Dovecot's, too."""

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

    C{loginTimeout} is L{None} where C{timeout} decides, if that is written, or else L{DEFAULT_LOGIN_TIMEOUT}. C{tries}
    counts servers; 0 is no limit. So is 0 in C{timeout}.
    """

    connectTimeout: float = directive("proxy_connect_timeout", deadline, 10.0)
    loginTimeout: float | None = directive("proxy_login_timeout", deadline, None)
    causes: tuple[str, ...] = directive("proxy_next_upstream", _causes, CAUSES)
    tries: int = directive("proxy_next_upstream_tries", number, 3)
    timeout: float = directive("proxy_next_upstream_timeout", seconds, 0.0)

    @property
    def wholeLogin(self) -> float:
        """The seconds from the first connect to the login's answer, with all attempts."""
        return DEFAULT_LOGIN_TIMEOUT if self.loginTimeout is None else self.loginTimeout

    @property
    def attempt(self) -> float:
        """The seconds for the connect, TLS and the greeting of one attempt."""
        return min(self.connectTimeout, self.wholeLogin)

    def within(self, timeout: float | None) -> RetrySettings:
        """
        Return these settings for a server.

        @param timeout: the server's C{timeout} in seconds if it is written; L{None} otherwise.
        """
        return self if timeout is None or self.loginTimeout is not None else evolve(self, loginTimeout=timeout)
