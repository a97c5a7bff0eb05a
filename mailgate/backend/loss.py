# -*- test-case-name: mailgate.test.backend.test_client mailgate.test.backend.test_backendtls -*-
"""
What the loss of a connection to a backend means.
"""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure

from mailgate.backend.errors import BackendError, Cause
from mailgate.log.journal import printable
from mailgate.login import BackendTLS
from mailgate.net.connectionerrors import inWords
from mailgate.tls.errors import hasReason, serverTrouble

__all__ = ["lossOf"]

_NO_TLS = {
    BackendTLS.IMPLICIT: "this port does not speak TLS from the first byte; try starttls",
    BackendTLS.STARTTLS: "it accepted STARTTLS and did not start TLS",
}
"""The probable cause if a backend answers the TLS handshake with something else."""


def lossOf(reason: Failure, tls: BackendTLS | None, isShakingHands: bool, isLoggingIn: bool) -> BackendError:
    """
    Return the error of a conversation whose connection is lost.

    @param reason: why, as the transport has it.
    @param tls: how TLS begins on the connection.
    @param isShakingHands: whether the TLS handshake is going on.
    @param isLoggingIn: whether the backend has greeted.
    """
    error: Any = reason.value
    if isShakingHands:
        trouble = serverTrouble(error, _NO_TLS[tls or BackendTLS.IMPLICIT])
        # TLS is a matter of configuration: a rest of the server would not help. A lost connection is not.
        isOfTLS = hasReason(error)
        cause: Cause = "tls" if isOfTLS else "error"
        return BackendError(f"failed the TLS handshake: {trouble}", counts=not isOfTLS, cause=cause)
    if hasReason(error):
        # In TLS 1.3 a server refuses a client certificate after the handshake.
        isOfTLS = not isLoggingIn
        message = f"lost the connection: {serverTrouble(error)}"
        return BackendError(message, counts=not isOfTLS, cause="tls" if isOfTLS else "error")
    message = printable(reason.getErrorMessage().encode("utf-8", "backslashreplace"))
    return BackendError(inWords(error) or f"lost the connection: {message}", cause="error")
