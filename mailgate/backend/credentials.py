# -*- test-case-name: mailgate.test.backend.test_credentials -*-
"""
What to log in with at a backend.
"""

from __future__ import annotations

import base64
from typing import TypeAlias

from attrs import field, frozen

from mailgate.backend.errors import BackendError

__all__ = ["BackendCredentials", "PasswordLogin"]


@frozen
class PasswordLogin:
    """
    A name and a password.

    @ivar password: L{None} if no password is known.
    @ivar authzid: the authorization identity, whose mailbox is to be opened; empty or L{None} if that is C{user}'s.
    @ivar judged: whether an authenticator has accepted the password; if not, the backend's answer decides.
    """

    user: bytes
    password: bytes | None = field(repr=False)
    authzid: bytes | None = None
    judged: bool = True

    @property
    def knownPassword(self) -> bytes:
        """
        The password.

        @raise BackendError: none is known.
        """
        if self.password is None:
            raise BackendError("needs a password that the gateway does not know")
        return self.password

    @property
    def plainMessage(self) -> bytes:
        """
        The message of SASL PLAIN (RFC 4616) in base64.

        @raise BackendError: no password is known.
        """
        return base64.b64encode(b"\0".join((self.authzid or b"", self.user, self.knownPassword)))


BackendCredentials: TypeAlias = PasswordLogin
"""All that L{mailgate.backend.client.ProxyClient.login} takes."""
