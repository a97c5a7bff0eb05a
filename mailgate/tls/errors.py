# -*- test-case-name: mailgate.test.tls.test_backend,mailgate.test.tls.test_handshakes -*-
"""
Why TLS failed, for the log: OpenSSL's own words, by which others search, and what they mean here.

OpenSSL's reasons are constant texts (its C{sslerr.c}). Nothing in these sentences comes from the peer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.error import ConnectionClosed

__all__ = ["CertificateError", "clientTrouble", "hasReason", "openSSLReason", "serverTrouble"]

_ALERT = " alert "
_GENERAL = frozenset(("record layer failure", "internal error", "PEM lib", "ASN1 lib", "SSL lib", "BIO lib", "EVP lib"))
"""Reasons that only say where the one before them was noticed."""

_LEFT = "the client left in the middle of the handshake, as some do that do not trust the certificate"

_NOT_TRUSTED = "the client does not trust our certificate"
_NOT_ACCEPTED = "the client does not accept our certificate: for its name, its dates or who issued it"
_GARBLED = "the client does not keep to TLS, or something on the way changes its bytes"
_NOT_UNDERSTOOD = "the client did not understand us, or something on the way changes bytes"

_NO_TLS_HERE = "the client speaks no TLS"

_OF_CLIENTS = {
    # what they say, by alerts (RFC 8446, 6.2)
    "alert unknown ca": _NOT_TRUSTED,
    "alert bad certificate": _NOT_ACCEPTED,
    "alert certificate unknown": _NOT_ACCEPTED,
    "alert certificate expired": "the client finds our certificate expired; or its clock is wrong",
    "alert certificate revoked": "the client finds our certificate revoked",
    "alert unsupported certificate": "the client takes no certificate of our kind",
    "alert access denied": _NOT_ACCEPTED,
    "alert decrypt error": "the client finds our signature wrong",
    "alert handshake failure": "the client accepts none of our ciphers, or nothing that our certificate can do",
    "alert protocol version": "the client speaks none of our versions of TLS (ssl_protocols)",
    "alert insufficient security": "the client wants stronger ciphers or keys than ours",
    "alert user cancelled": "the client gave up",
    "alert internal error": "the client failed by itself",
    "alert decode error": _NOT_UNDERSTOOD,
    "alert unexpected message": _NOT_UNDERSTOOD,
    "alert illegal parameter": _NOT_UNDERSTOOD,
    "alert bad record mac": _NOT_UNDERSTOOD,
    # what we find
    "wrong version number": _NO_TLS_HERE,
    # So OpenSSL 3 says of most texts: the two letters where a length is expected are a large one.
    "packet length too long": _NO_TLS_HERE,
    "http request": "the client speaks HTTP, and no TLS",
    "https proxy request": "the client takes this port for an HTTP proxy",
    "no shared cipher": "the client offers no cipher that ssl_ciphers has and that fits our certificate's key",
    "no suitable signature algorithm": "the client takes no signature by our certificate's kind of key",
    "no suitable key share": "the client offers no curve that ssl_ecdh_curve has",
    "no suitable groups": "the client offers no curve that ssl_ecdh_curve has",
    "no shared groups": "the client offers no curve that ssl_ecdh_curve has",
    "inappropriate fallback": "the client tries an older version than both speak, as an attempt before had failed",
    "no protocols available": "ssl_protocols and ssl_ciphers leave no version of TLS that can be spoken",
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

_OLD = "it speaks no version of TLS that we do: TLS 1.2 is the least"
_OF_SERVERS = {
    "unsupported protocol": _OLD,
    "alert protocol version": _OLD,
    "alert handshake failure": "it accepts none of our ciphers, or asks for a certificate of ours",
    "alert certificate required": "it asks for a certificate of ours",
    "alert unrecognized name": "it does not know the name that it was called by",
    "alert internal error": "it failed by itself",
    "alert insufficient security": "it wants stronger ciphers than ours",
    "dh key too small": "its Diffie-Hellman parameters are too short",
    "unsafe legacy renegotiation disabled": "it lacks secure renegotiation (RFC 5746)",
}
_NO_TLS = frozenset(("wrong version number", "packet length too long", "http request", "unknown protocol"))
"""Reasons that bytes are found for which are no TLS."""


class CertificateError(SSL.Error):
    """A peer's certificate is not good. As a string it is a clause for a log, such as "its certificate has expired"."""

    def __init__(self, explanation: str) -> None:
        # In the form of pyOpenSSL's: a list of library, function and reason.
        super().__init__([("SSL routines", "", "certificate verify failed")])
        self._explanation = explanation

    def __str__(self) -> str:
        return self._explanation


def openSSLReason(error: BaseException) -> str:
    """What OpenSSL says, in the words of its innermost complaint that says anything."""
    if isinstance(error, SSL.Error | crypto.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        queued = [str(reason or library) for library, _, reason in error.args[0]]
        return next((reason for reason in reversed(queued) if reason not in _GENERAL), queued[-1])
    return str(error) or type(error).__name__


def hasReason(error: object) -> bool:
    """
    Whether C{error} is one of TLS that says more than that the peer has gone: of that OpenSSL says so, or nothing, and
    pyOpenSSL makes it a C{SysCallError}.
    """
    if not isinstance(error, SSL.Error) or not error.args or not isinstance(error.args[0], list):
        return False
    return bool(error.args[0]) and not openSSLReason(error).startswith("unexpected eof")


def clientTrouble(error: BaseException, connection: Any = None, spoken: Collection[str] = ()) -> str:
    """
    Why the handshake with a client has come to nothing, or its connection to an end.

    @param error: what the protocol's C{connectionLost} was given. It may have a C{hint} of its own.
    @param connection: OpenSSL's, if there is one: after C{unsupported protocol} its version is the client's highest.
    @param spoken: the words of C{ssl_protocols}.
    """
    if not hasReason(error):
        return _LEFT if isinstance(error, ConnectionClosed | SSL.Error) else f"internal error: {type(error).__name__}"
    reason = openSSLReason(error)
    if reason == "unsupported protocol":
        return f"{reason}: {_versionHint(connection, spoken)}"
    hint = getattr(error, "hint", "") or _hint(reason, _OF_CLIENTS)
    return f"{reason}: {hint}" if hint else reason


def serverTrouble(error: BaseException, plain: str = "what it says is no TLS") -> str:
    """
    Why the handshake with a backend or a service has failed, as a clause of its own.

    @param plain: what it means, and what to do, if the other side speaks no TLS.
    """
    if hasReason(error) and not isinstance(error, CertificateError):
        reason = openSSLReason(error)
        hint = plain if reason in _NO_TLS else _hint(reason, _OF_SERVERS)
        return f"{reason}: {hint}" if hint else reason
    if isinstance(error, ConnectionClosed | SSL.Error) and not isinstance(error, CertificateError):
        return "it closed the connection"
    return str(error) or type(error).__name__


def _hint(reason: str, hints: dict[str, str]) -> str:
    # OpenSSL 3 says "sslv3 alert …" where OpenSSL 4 says "tls alert …".
    _, isAlert, said = reason.partition(_ALERT)
    return hints.get(f"alert {said}" if isAlert else reason, "")


def _versionHint(connection: Any, spoken: Collection[str]) -> str:
    """What versions a client speaks, if none is ours: OpenSSL takes its highest over, which stops at TLS 1.2 there."""
    ask = getattr(connection, "get_protocol_version_name", None)
    version = ask() if ask is not None else ""
    if not version.startswith(("TLSv", "SSLv")):
        return "the client speaks none of our versions of TLS (ssl_protocols)"
    if version not in spoken:
        return f"the client speaks {_spelt(version)} at most"
    if version in ("TLSv1", "TLSv1.1"):
        return f"the client speaks {_spelt(version)} at most, which needs @SECLEVEL=0 in ssl_ciphers"
    return f"the client speaks no version as old as {_spelt(version)}"


def _spelt(version: str) -> str:
    """C{TLSv1} as people write it."""
    return "TLS 1.0" if version == "TLSv1" else version.replace("TLSv", "TLS ").replace("SSLv", "SSL ")
