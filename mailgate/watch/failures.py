# -*- test-case-name: mailgate.test.watch.test_failures -*-
"""
Sorts failures into the few values that a label may have.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.error import ConnectionClosed, ConnectionRefusedError

from mailgate.backend.errors import Cause, LoginRefused, causeOf
from mailgate.login import Trouble
from mailgate.tls.context import NoApplicationProtocol
from mailgate.tls.errors import HandshakeBroken, hasReason, openSSLReason

__all__ = ["HANDSHAKE_FAILURES", "backendLoginOutcome", "connectOutcome", "handshakeFailure"]

_REASONS = {
    "no_common_version": (
        "unsupported protocol",
        "protocol version",
        "no protocols available",
        "inappropriate fallback",
    ),
    "no_common_cipher": (
        *("no shared cipher", "handshake failure", "insufficient security", "no suitable signature algorithm"),
        *("no suitable key share", "no suitable groups", "no shared groups"),
    ),
    "no_certificate": ("peer did not return a certificate",),
    "bad_certificate": (
        *("unknown ca", "bad certificate", "certificate unknown", "certificate expired", "certificate revoked"),
        *("unsupported certificate", "access denied"),
    ),
    "alpn": ("no application protocol",),
}
_REASON = {text: reason for reason, texts in _REASONS.items() for text in texts}

_OURS = {
    Trouble.TIMEOUT: "timeout",
    Trouble.NO_CERTIFICATE: "no_certificate",
    Trouble.CERTIFICATE: "bad_certificate",
}

HANDSHAKE_FAILURES = (*_REASONS, "timeout", "closed", "other")
"""The values of C{reason} of C{mailgate_tls_failures}. C{bad_certificate} is that of either side."""


def handshakeFailure(failure: BaseException) -> str:
    """
    Return why a handshake with a client failed: one of L{HANDSHAKE_FAILURES}.

    @param failure: as for L{mailgate.interfaces.IWatch.encrypted}.
    """
    if isinstance(failure, HandshakeBroken):
        return _OURS.get(failure.trouble, "other")
    if isinstance(failure, NoApplicationProtocol):
        return "alpn"
    if not hasReason(failure):
        return "closed" if isinstance(failure, ConnectionClosed | SSL.Error) else "other"
    # Alerts of the client: "sslv3 alert bad certificate", with OpenSSL 4 "tls alert …".
    reason = openSSLReason(failure)
    return _REASON.get(reason.rpartition(" alert ")[2], "other")


def connectOutcome(error: Exception) -> str:
    """
    Return why a backend could not be connected: C{refused}, C{timeout} or C{unreachable}.

    @param error: the error of the attempt.
    """
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    return "timeout" if causeOf(error) == "timeout" else "unreachable"


def backendLoginOutcome(error: Exception, cause: Cause) -> str:
    """
    Return why a login at a connected backend failed: C{refused}, C{temporary}, C{tls}, C{timeout} or C{lost}.

    @param error: the error of the attempt.
    @param cause: its kind.
    """
    if isinstance(error, LoginRefused):
        return "temporary" if error.temporary else "refused"
    return cause if cause in ("temporary", "tls", "timeout") else "lost"
