# -*- test-case-name: mailgate.test.frontend.test_lifetime -*-
"""How long a session may last after its login."""

from __future__ import annotations

from mailgate.login import Denial, RouteOptions, Trouble

__all__ = ["OVER", "lifetimeOf"]

_ENDLESS = 1e9
"""Longer times, in seconds, are no limit: that is 30 years."""

OVER = Denial(Trouble.TEMPORARY, reason="the time of the session is over before it begins")
"""
The refusal of a login whose session may last no time at all: what it was accepted for, such as a token, has just
expired. It is a temporary failure, as the credentials are right: the client may try again with a new token.
"""


def lifetimeOf(options: RouteOptions | None, maxAge: float) -> float | Denial | None:
    """
    Return the seconds from now after which a session must end, the shorter of both limits.

    @param options: the authenticator's decisions about the login, or L{None}.
    @param maxAge: the seconds of C{session_max_age}; 0 is no limit.
    @return: L{None} if there is no limit; L{OVER} if there is no time left.
    """
    limit = maxAge or _ENDLESS
    if options is not None and options.lifetime is not None:
        # A value that is not a number is no time, too.
        if not options.lifetime > 0:
            return OVER
        limit = min(limit, options.lifetime)
    return limit if limit < _ENDLESS else None
