# -*- test-case-name: mailgate.test.net.test_clients -*-
"""
Which clients are counted together where the gateway bounds what one client may take.
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
    C{limit_exempt}: the networks of webmail, monitoring and other gateways, whose one address stands for many clients.
    """

    needs: ClassVar[tuple[Need, ...]] = (given("auth_http", "auth_file"),)

    exempt: tuple[Network, ...] = directive("limit_exempt", parseNetworks, ())

    def clientOf(self, request: LoginRequest) -> str:
        """
        The client that C{request} is counted for, as a L{mailgate.auth.fairqueue.FairQueue} takes it: the address;
        where that is exempt, the user, or the recipient under C{smtp_auth none}.
        """
        host = request.client.host
        if self.exempt and isWithin(host, self.exempt):
            return f"user {(request.credentials.user or request.envelope.recipient).lower()!r}"
        return sourceOf(host)
