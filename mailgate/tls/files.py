# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""
Certificates, keys and the other files of C{ssl_…} directives, on their way into a context.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from mailgate.directives import lines, path
from mailgate.system.regularfiles import openRegular, readRegular
from mailgate.tls.errors import openSSLReason

__all__ = [
    "PARAMETERS",
    "TLSError",
    "certificatesIn",
    "loadCRLs",
    "loadKey",
    "passPhrases",
    "shown",
    "sources",
    "unreadable",
    "useCertificate",
    "useFile",
    "useKey",
    "withoutWanted",
]

_INLINE = "data:"
_KEY = "a private key"
PARAMETERS = "Diffie-Hellman parameters"
"""What C{ssl_dhparam} names, as of L{withoutWanted}."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_KINDS = (
    ("PRIVATE KEY", "a private key"),
    ("CERTIFICATE REQUEST", "a request for a certificate"),
    ("CERTIFICATE", "a certificate"),
    ("X509 CRL", "a list of revoked certificates"),
    ("DH PARAMETERS", "Diffie-Hellman parameters"),
    ("EC PARAMETERS", "parameters of a curve"),
    ("PUBLIC KEY", "a public key"),
)
"""How PEM's labels end (RFC 7468), and what that is."""
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class TLSError(Exception):
    """A context cannot be made; C{option} and C{value} say what of."""

    def __init__(self, option: str, value: str, message: str) -> None:
        super().__init__(message)
        self.option = option
        self.value = value


def sources(value: str, folder: str) -> tuple[str, ...]:
    """
    Files, or nginx's C{data:} and PEM, one a line: the line ends of PEM are written C{\\n} there, as in its quoted
    strings.
    """
    return tuple(_source(item, folder) for item in lines(value, folder))


def _source(item: str, folder: str) -> str:
    if item.startswith(_INLINE):
        return item.replace("\\r", "").replace("\\n", "\n")
    for scheme, owner in (("engine:", "engines"), ("store:", "stores")):
        if item.startswith(scheme):
            message = f"{scheme} cannot be used: the TLS library's bindings load nothing from {owner}"
            raise ValueError(f"{message}; give a file, or data:PEM")
    return path(item, folder)


def shown(source: str) -> str:
    """C{source} for a message: there may be a key in it."""
    return f"{_INLINE}***" if source.startswith(_INLINE) else source


def unreadable(source: str) -> str | None:
    """Why the file C{source} cannot be read, in the system's words; L{None} if it can be, and for data."""
    if source.startswith(_INLINE):
        return None
    try:
        with openRegular(source):
            return None
    except OSError as error:
        return error.strerror


def passPhrases(passwordFile: str) -> list[bytes]:
    """The lines of C{passwordFile}, without those that are empty."""
    return [line.rstrip(b"\r") for line in readRegular(passwordFile).split(b"\n") if line.rstrip(b"\r")]


def withoutWanted(content: bytes, wanted: str) -> str | None:
    """
    What C{content}, that of a file, is in the place of something C{wanted} in PEM format, such as "a certificate", in
    words that follow "cannot be loaded: "; L{None} if something of the kind is there.
    """
    labels = [label.decode("ascii") for label in _LABEL.findall(content)]
    kinds = [next((kind for end, kind in _KINDS if label.endswith(end)), f"a {label}") for label in labels]
    if wanted in kinds:
        return None
    if kinds:
        return f"it holds {' and '.join(dict.fromkeys(kinds))}, and not {wanted}"
    if not content.strip():
        return "it is empty"
    if content[:1] == b"0" and b"\0" in content[:1024]:
        return "it is binary (DER), and has to be in PEM format: openssl converts it by -inform DER"
    return f"it holds nothing in PEM format, and not {wanted}"


def _fail(option: str, value: str, error: Exception, wanted: str = "") -> NoReturn:
    if isinstance(error, OSError):
        raise TLSError(option, shown(value), f"cannot be read: {error.strerror}") from None
    reason = None
    if wanted:
        with suppress(OSError):
            reason = withoutWanted(_read(value), wanted)
    raise TLSError(option, shown(value), f"cannot be loaded: {reason or openSSLReason(error)}") from None


def loadKey(option: str, source: str, phrases: Sequence[bytes]) -> Any:
    """
    The private key in C{source}, each of C{phrases} tried in turn where it is encrypted.

    @raise TLSError: it cannot be read, or no pass-phrase fits.
    """
    try:
        pem = _read(source)
    except OSError as error:
        _fail(option, source, error)
    if b"ENCRYPTED" not in pem:
        return _parseKey(option, source, pem, [None])
    if not phrases:
        raise TLSError(option, shown(source), "is encrypted, and no ssl_password_file is given")
    return _parseKey(option, source, pem, phrases)


def _read(source: str) -> bytes:
    if source.startswith(_INLINE):
        return source.removeprefix(_INLINE).encode("utf-8", "surrogateescape")
    return readRegular(source)


def _parseKey(option: str, source: str, pem: bytes, phrases: Sequence[bytes | None]) -> Any:
    failure: Exception | None = None
    for phrase in phrases:
        try:
            return load_pem_private_key(pem, phrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            failure = error
    # Nothing of the key is in these messages, which name what was looked for.
    raise TLSError(option, shown(source), f"cannot be loaded: {withoutWanted(pem, _KEY) or failure}")


def useCertificate(context: SSL.Context, option: str, source: str) -> None:
    """
    Have C{context} show the first certificate in C{source}, and the rest as its chain.

    @raise TLSError: there is none, or it cannot be read.
    """
    try:
        if not source.startswith(_INLINE):
            # OpenSSL opens it itself, and would wait for the writer of a FIFO.
            with openRegular(source):
                context.use_certificate_chain_file(source)
            return
        # pyOpenSSL gives a certificate a chain of its own from a file alone. What else stands there, a key perhaps,
        # does not go into that.
        with NamedTemporaryFile("w", encoding="ascii", suffix=".pem") as chain:
            chain.write("\n".join(_CERTIFICATE.findall(source)) + "\n")
            chain.flush()
            context.use_certificate_chain_file(chain.name)
    except (OSError, SSL.Error, UnicodeError) as error:
        _fail(option, source, error, "a certificate")


def certificatesIn(source: str) -> list[x509.Certificate]:
    """
    The certificates in C{source}, a file or C{data:}: a server's own, and then its chain.

    @raise OSError: it cannot be read.
    @raise ValueError: one of them cannot, or not its dates or whose it is.
    """
    blocks = _CERTIFICATE.findall(_read(source).decode("ascii", "replace"))
    found = [x509.load_pem_x509_certificate(block.encode("ascii", "replace")) for block in blocks]
    for each in found:
        # Otherwise cryptography raises wherever they are asked for: it takes less than OpenSSL does.
        _ = each.subject, each.issuer, each.not_valid_before_utc, each.not_valid_after_utc
    return found


def useKey(context: SSL.Context, option: str, source: str, key: Any, certificate: str) -> None:
    """
    Have C{context} sign with C{key}, which is from C{source}.

    @raise TLSError: it does not belong to C{certificate}, which is the one that C{context} was given last.
    """
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        reason = openSSLReason(error)
        # OpenSSL keeps certificates by kind, and looks for that of the key's kind.
        if reason == "no certificate assigned":
            reason = "it is a key of another kind"
        message = f'does not belong to certificate "{shown(certificate)}": {reason}'
        raise TLSError(option, shown(source), message) from None


def useFile(use: Callable[..., Any], option: str, filename: str, wanted: str = "a certificate") -> None:
    """
    Give the name of a file to C{use}, which is pyOpenSSL's, and reads what is C{wanted} from it, a phrase of
    L{withoutWanted}.

    @raise TLSError: it does not take it.
    """
    try:
        with openRegular(filename):
            use(os.fsencode(filename))
    except (OSError, SSL.Error) as error:
        _fail(option, filename, error, wanted)


def loadCRLs(option: str, filename: str) -> list[x509.CertificateRevocationList]:
    """
    The revocation lists in PEM file C{filename}.

    @raise TLSError: there is none, or it cannot be read.
    """
    try:
        found = [x509.load_pem_x509_crl(block) for block in _CRL.findall(_read(filename))]
    except (OSError, ValueError) as error:
        _fail(option, filename, error)
    if not found:
        reason = withoutWanted(_read(filename), "a list of revoked certificates")
        raise TLSError(option, filename, f"cannot be loaded: {reason}")
    return found
