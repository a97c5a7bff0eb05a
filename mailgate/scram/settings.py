# -*- test-case-name: mailgate.test.scram.test_settings -*-
"""
The directives for logins of clients by SCRAM.
"""

from __future__ import annotations

import hmac
from typing import Any, ClassVar

from attrs import field, frozen

from mailgate.directives import directive, number, text
from mailgate.directives.needs import Need
from mailgate.scram.secrets import LEAST_ITERATIONS, MOST_ITERATIONS

__all__ = ["ScramKey", "ScramSettings"]

_MOST = 100_000
"""With more iterations each login with a plain password of C{auth_file} would keep a processor busy."""


def _hasScram(server: Any) -> bool:
    offered = (word for group in server.groups.values() for word in getattr(group, "auth", ()))
    return any(word.startswith("scram-") for word in offered)


_OFFERED = Need("scram-sha-256 or scram-sha-1 in the methods of the protocol, such as imap_auth", _hasScram)


def _iterations(value: str, folder: str) -> int:
    count = number(value, folder)
    if not LEAST_ITERATIONS <= count <= min(_MOST, MOST_ITERATIONS):
        raise ValueError(f"must be a whole number from {LEAST_ITERATIONS} to {_MOST}")
    return count


def _secret(value: str, folder: str) -> str:
    given = text(value, folder)
    if len(given) < 16:
        raise ValueError('must have 16 characters or more; create it with "openssl rand -base64 24"')
    return given


@frozen
class ScramKey:
    """
    The secret of a server from which it makes salts and secrets for users who have none. All processes and generations
    of a gateway have the same.

    @ivar value: the secret, as bytes.
    """

    value: bytes = field(default=b"", repr=False)


@frozen
class ScramSettings:
    """
    The directives for logins by SCRAM: the secret from which salts are made, which lasts longer than a run of the
    gateway, and the iterations of secrets that the gateway makes.
    """

    needs: ClassVar[tuple[Need, ...]] = (_OFFERED,)

    secret: str | None = directive("scram_secret", _secret, None, secret=True)
    iterations: int = directive("scram_iterations", _iterations, LEAST_ITERATIONS)

    def keyOf(self, runKey: bytes) -> ScramKey:
        """
        Return the key of a server.

        @param runKey: the secret without C{scram_secret}: all processes of a run have the same.
        """
        secret = runKey if self.secret is None else self.secret.encode("utf-8")
        return ScramKey(hmac.digest(secret, b"mailgate scram", "sha256"))
