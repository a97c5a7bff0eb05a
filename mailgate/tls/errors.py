# -*- test-case-name: mailgate.test.tls.test_backend,mailgate.test.tls.test_handshakes -*-
"""
Why TLS failed, for the log: OpenSSL's reason, which operators search for, and what it means here.

OpenSSL's reasons are constant texts (its C{sslerr.c}). Only the hint of an error may quote the peer, and it quotes only
names of ALPN that L{mailgate.tls.context} has checked.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionClosed

from mailgate.login import Trouble

__all__ = ["CertificateError", "HandshakeBroken", "clientTrouble", "hasReason", "openSSLReason", "serverTrouble"]

_ALERT = " alert "
_GENERAL = frozenset(("record layer failure", "internal error", "PEM lib", "ASN1 lib", "SSL lib", "BIO lib", "EVP lib"))
"""Reasons that only say where OpenSSL noticed an earlier error."""

_LEFT = "the client closed the connection during the handshake; some clients do so if they reject the certificate"

_NOT_TRUSTED = "the client does not trust the issuer of the server certificate, or the chain is incomplete"
_NOT_ACCEPTED = "the client rejects the server certificate; check its host names, its dates and its issuer"
_GARBLED = "the client sends invalid TLS messages, or a device on the network path changes them"
_NOT_UNDERSTOOD = "the client received invalid TLS messages; a device on the network path may have changed them"

_NO_TLS_HERE = "the client does not speak TLS"

_OF_CLIENTS = {
    # Alerts that the client sends (RFC 8446, 6.2).
    "alert unknown ca": _NOT_TRUSTED,
    "alert bad certificate": _NOT_ACCEPTED,
    "alert certificate unknown": _NOT_ACCEPTED,
    "alert certificate expired": "the server certificate has expired, or the client's clock is wrong",
    "alert certificate revoked": "the client found that the server certificate is revoked",
    "alert unsupported certificate": "the client does not support the type of the server certificate",
    "alert access denied": _NOT_ACCEPTED,
    "alert decrypt error": "the client could not verify a signature of the handshake",
    "alert handshake failure": "no common cipher, or no common signature algorithm for the server certificate",
    "alert protocol version": "the client supports none of the versions in ssl_protocols",
    "alert insufficient security": "the client requires stronger ciphers or keys",
    "alert user cancelled": "the client cancelled the handshake",
    "alert internal error": "the client had an internal error",
    "alert decode error": _NOT_UNDERSTOOD,
    "alert unexpected message": _NOT_UNDERSTOOD,
    "alert illegal parameter": _NOT_UNDERSTOOD,
    "alert bad record mac": _NOT_UNDERSTOOD,
    # Errors that OpenSSL finds in what the client sends.
    "wrong version number": _NO_TLS_HERE,
    # OpenSSL 3 reports this for most texts: it takes two of the letters for a length, which is too large.
    "packet length too long": _NO_TLS_HERE,
    "http request": "the client sent a plain HTTP request",
    "https proxy request": "the client sent a plain HTTP request for a proxy (CONNECT)",
    "no shared cipher": "the client offers no cipher that ssl_ciphers allows and that fits the certificate's key",
    "no suitable signature algorithm": "the client supports no signature algorithm for the certificate's key type",
    "no suitable key share": "the client supports no curve of ssl_ecdh_curve",
    "no suitable groups": "the client supports no curve of ssl_ecdh_curve",
    "no shared groups": "the client supports no curve of ssl_ecdh_curve",
    "inappropriate fallback": "the client retried with an older version of TLS than both sides support",
    "no protocols available": "ssl_protocols and ssl_ciphers together allow no version of TLS",
    "unexpected message": _GARBLED,
    "length mismatch": _GARBLED,
    "length too short": _GARBLED,
    "length too long": _GARBLED,
    "data length too long": _GARBLED,
    "encrypted length too long": _GARBLED,
    "excessive message size": _GARBLED,
    "bad extension": _GARBLED,
    "bad packet": _GARBLED,
    "bad record type": _GARBLED,
    "unknown alert type": _GARBLED,
    "invalid alert": _GARBLED,
    "bad key share": _GARBLED,
    "bad ecpoint": _GARBLED,
    "decryption failed or bad record mac": _GARBLED,
    "digest check failed": _GARBLED,
    "bad signature": _GARBLED,
}

_OLD = "the peer supports no version of TLS that the gateway accepts, which are TLS 1.2 and later"
_OF_SERVERS = {
    "unsupported protocol": _OLD,
    "alert protocol version": _OLD,
    "alert handshake failure": "the peer supports none of the offered ciphers, or requires a client certificate",
    "alert certificate required": "the peer requires a client certificate",
    "alert unrecognized name": "the peer has no certificate for the requested host name (SNI)",
    "alert internal error": "the peer had an internal error",
    "alert insufficient security": "the peer requires stronger ciphers or keys",
    "dh key too small": "the Diffie-Hellman parameters of the peer are too small",
    "unsafe legacy renegotiation disabled": "the peer does not support secure renegotiation (RFC 5746)",
}
_NO_TLS = frozenset(("wrong version number", "packet length too long", "http request", "unknown protocol"))
"""Reasons that mean that the received bytes are not TLS."""


class CertificateError(SSL.Error):
    """A peer's certificate failed the verification."""

    def __init__(self, explanation: str) -> None:
        """
        @param explanation: the error as a clause for a log, such as "its certificate has expired"; C{str} returns it.
        """
        # The argument has the form of pyOpenSSL's own errors: a list of library, function and reason.
        super().__init__([("SSL routines", "", "certificate verify failed")])
        self._explanation = explanation

    def __str__(self) -> str:
        return self._explanation


class HandshakeBroken(Exception):
    """
    The gateway ended a handshake with a client.

    @ivar trouble: why: C{TIMEOUT}, C{STOPPING}, C{NO_CERTIFICATE} or C{CERTIFICATE}.
    """

    def __init__(self, trouble: Trouble, reason: str) -> None:
        """
        @param trouble: why.
        @param reason: the same in words; may be empty.
        """
        super().__init__(reason)
        self.trouble = trouble


def openSSLReason(error: BaseException) -> str:
    """OpenSSL's reason for C{error}: the text of its innermost error that is not too general."""
    if isinstance(error, SSL.Error | crypto.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        queued = [str(reason or library) for library, _, reason in error.args[0]]
        return next((reason for reason in reversed(queued) if reason not in _GENERAL), queued[-1])
    return str(error) or type(error).__name__


def hasReason(error: object) -> bool:
    """
    Whether C{error} is a TLS error with a reason other than a lost connection. For a lost connection OpenSSL reports
    "unexpected eof" or nothing, and pyOpenSSL raises a C{SysCallError}.
    """
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
        return False
    return bool(error.args[0]) and not openSSLReason(error).startswith("unexpected eof")


def clientTrouble(error: BaseException, connection: Any = None, spoken: Collection[str] = ()) -> str:
    """
    Explain why the handshake with a client failed, or why its connection ended.

    @param error: the value of the failure that the protocol's C{connectionLost} received. Its C{hint}, if it has one,
        explains it.
    @param connection: OpenSSL's connection, if there is one. After C{unsupported protocol} its version is the highest
        that the client supports.
    @param spoken: the value of C{ssl_protocols}.
    @return: a reason for the log.
    """
    if not hasReason(error):
        return _LEFT if isinstance(error, ConnectionClosed | SSL.Error) else f"internal error: {type(error).__name__}"
    reason = openSSLReason(error)
    if reason == "unsupported protocol":
        return f"{reason}: {_versionHint(connection, spoken)}"
    hint = getattr(error, "hint", "") or _hint(reason, _OF_CLIENTS)
    return f"{reason}: {hint}" if hint else reason


def serverTrouble(error: BaseException, plain: str = "the peer does not speak TLS") -> str:
    """
    Explain why the handshake with a backend or an HTTP service failed.

    @param error: the value of the failure that the protocol's C{connectionLost} received.
    @param plain: the explanation to use if the other side does not speak TLS.
    @return: a clause for the log.
    """
    if hasReason(error) and not isinstance(error, CertificateError):
        reason = openSSLReason(error)
        hint = plain if reason in _NO_TLS else _hint(reason, _OF_SERVERS)
        return f"{reason}: {hint}" if hint else reason
    if isinstance(error, ConnectionClosed | SSL.Error) and not isinstance(error, CertificateError):
        return "the peer closed the connection"
    return str(error) or type(error).__name__


def _hint(reason: str, hints: dict[str, str]) -> str:
    # OpenSSL 3 reports "sslv3 alert …" where OpenSSL 4 reports "tls alert …".
    _, isAlert, said = reason.partition(_ALERT)
    return hints.get(f"alert {said}" if isAlert else reason, "")


def _versionHint(connection: Any, spoken: Collection[str]) -> str:
    """Explain which versions the client supports. OpenSSL keeps the client's highest version up to TLS 1.2."""
    ask = getattr(connection, "get_protocol_version_name", None)
    version = ask() if ask is not None else ""
    if not version.startswith(("TLSv", "SSLv")):
        return "the client supports none of the versions in ssl_protocols"
    if version not in spoken:
        return f"the client supports {_spelt(version)} at most"
    if version in ("TLSv1", "TLSv1.1"):
        return f"the client supports {_spelt(version)} at most, which needs @SECLEVEL=0 in ssl_ciphers"
    return f"the client does not support versions as old as {_spelt(version)}"


def _spelt(version: str) -> str:
    """C{version}, OpenSSL's name such as C{TLSv1}, as it is usually written: C{TLS 1.0}."""
    return "TLS 1.0" if version == "TLSv1" else version.replace("TLSv", "TLS ").replace("SSLv", "SSL ")
