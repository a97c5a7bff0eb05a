"""
What can be put into mailgate from outside: the interfaces of its extension points.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailgate.login import Denial, LoginRequest, Route

__all__ = ["IAuthenticator"]


class IAuthenticator(Interface):
    """Judges logins, and knows where accounts live."""

    def authenticate(request: LoginRequest) -> Deferred[Route | Denial]:  # type: ignore[empty-body]
        """
        Judge C{request}.

        The Deferred can be cancelled: the client has left, and whatever is under way for it is given up. An errback
        means "could not be decided": the client is told of a temporary failure, the reason is logged.
        """
