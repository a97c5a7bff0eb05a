# -*- test-case-name: mailgate.test.net.test_clients -*-
"""
Which logins count as those of one client, for limits per client.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import frozen

from mailgate.directives import directive
from mailgate.directives.needs import Need, given
from mailgate.login import LoginRequest
from mailgate.net.networks import Network, isWithin, parseNetworks, sourceOf

__all__ = ["LimitSettings"]


@frozen
class LimitSettings:
    """
    C{limit_exempt}: the networks of webmail, monitoring and other gateways, where one address has many users.
    """

    needs: ClassVar[tuple[Need, ...]] = (given("auth_http", "auth_file"),)

    exempt: tuple[Network, ...] = directive("limit_exempt", parseNetworks, ())

    def clientOf(self, request: LoginRequest) -> str:
        """
        Return the key under which L{mailgate.auth.fairqueue.FairQueue} counts a login.

        @param request: the login.
        @return: the client's address or network (L{sourceOf}). If the address is exempt, the user, or the recipient
            with C{smtp_auth = none}.
        """
        host = request.client.host
        if self.exempt and isWithin(host, self.exempt):
            return f"user {(request.credentials.user or request.envelope.recipient).lower()!r}"
        return sourceOf(host)
