# -*- test-case-name: mailgate.test.tls.test_settings -*-
"""Loads certificates, keys and the other files of the C{ssl_…} directives into a context."""

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
    "TRUNCATED",
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
_REVOKED = "a certificate revocation list"
TRUNCATED = "it is truncated: the END line is missing"
PARAMETERS = "Diffie-Hellman parameters"
"""The contents of C{ssl_dhparam}, as L{withoutWanted} names them."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_KINDS = (
    ("PRIVATE KEY", "a private key"),
    ("CERTIFICATE REQUEST", "a certificate signing request"),
    ("CERTIFICATE", "a certificate"),
    ("X509 CRL", _REVOKED),
    ("DH PARAMETERS", "Diffie-Hellman parameters"),
    ("EC PARAMETERS", "EC parameters"),
    ("PUBLIC KEY", "a public key"),
)
"""The ends of PEM labels (RFC 7468), and what the data are."""
_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


class TLSError(Exception):
    """
    A file or value cannot be used for TLS. The message is the string of the error.

    @ivar option: the directive.
    @ivar value: its value, without a key in it.
    """

    def __init__(self, option: str, value: str, message: str) -> None:
        """@param message: why it cannot be used; its subject is the option."""
        super().__init__(message)
        self.option = option
        self.value = value


def sources(value: str, folder: str) -> tuple[str, ...]:
    """
    Parse file names, or nginx's C{data:} followed by PEM, one on each line. Line ends inside PEM are written C{\\n}, as
    in nginx's quoted strings.

    @param value: the value of the option.
    @param folder: the folder of the configuration file. File names are relative to it.
    """
    return tuple(_source(item, folder) for item in lines(value, folder))


def _source(item: str, folder: str) -> str:
    if item.startswith(_INLINE):
        return item.replace("\\r", "").replace("\\n", "\n")
    for scheme, owner in (("engine:", "engines"), ("store:", "stores")):
        if item.startswith(scheme):
            raise ValueError(
                f"{scheme} is not supported: pyOpenSSL cannot load from OpenSSL's {owner}; use a file, or data:PEM"
            )
    return path(item, folder)


def shown(source: str) -> str:
    """C{source} for a message, without the data of C{data:}, which may contain a key."""
    return f"{_INLINE}***" if source.startswith(_INLINE) else source


def unreadable(source: str) -> str | None:
    """
    Why the file C{source} cannot be opened, as the system's error text; L{None} if it can, or C{source} is C{data:}.
    """
    if source.startswith(_INLINE):
        return None
    try:
        with openRegular(source):
            return None
    except OSError as error:
        return error.strerror


def passPhrases(passwordFile: str) -> list[bytes]:
    """The pass phrases in C{passwordFile}: its lines, except for empty ones."""
    return [line.rstrip(b"\r") for line in readRegular(passwordFile).split(b"\n") if line.rstrip(b"\r")]


def withoutWanted(content: bytes, wanted: str) -> str | None:
    """
    Explain what a file contains in place of the expected PEM data.

    @param content: the contents of the file.
    @param wanted: what is expected, such as "a certificate".
    @return: a clause to follow "cannot be loaded: "; L{None} if the expected data are there.
    """
    labels = [label.decode("ascii") for label in _LABEL.findall(content)]
    kinds = [next((kind for end, kind in _KINDS if label.endswith(end)), f"a {label}") for label in labels]
    if wanted in kinds:
        return None
    if kinds:
        return f"it contains {' and '.join(dict.fromkeys(kinds))}, not {wanted}"
    if not content.strip():
        return "it is empty"
    if content[:1] == b"0" and b"\0" in content[:1024]:
        return "it is in DER format, not PEM; convert it with openssl and -inform DER"
    return f"it contains no PEM data; expected {wanted}"


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
    Load a private key.

    @param option: the directive that names it.
    @param source: a file name, or C{data:} with PEM.
    @param phrases: the pass phrases to try if the key is encrypted.
    @return: the key, as C{cryptography} has it.
    @raise TLSError: the key cannot be read, or no pass phrase fits.
    """
    try:
        pem = _read(source)
    except OSError as error:
        _fail(option, source, error)
    if b"ENCRYPTED" not in pem:
        return _parseKey(option, source, pem, [None])
    if not phrases:
        raise TLSError(option, shown(source), "is encrypted; set ssl_password_file")
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
    # These messages contain no part of the key.
    raise TLSError(option, shown(source), f"cannot be loaded: {withoutWanted(pem, _KEY) or failure}")


def useCertificate(context: SSL.Context, option: str, source: str) -> None:
    """
    Load the server's certificate, the first in C{source}, and its chain, which follows it.

    @param context: the context to change.
    @param option: the directive that names the certificate.
    @param source: a file name, or C{data:} with PEM.
    @raise TLSError: there is no certificate, or it cannot be read.
    """
    try:
        if not source.startswith(_INLINE):
            # OpenSSL opens the file itself, and would block on a FIFO.
            with openRegular(source):
                context.use_certificate_chain_file(source)
            return
        # pyOpenSSL loads a certificate with its chain from a file only. Write the certificates to a file, and nothing
        # else: the data may contain a key.
        with NamedTemporaryFile("w", encoding="ascii", suffix=".pem") as chain:
            chain.write("\n".join(_CERTIFICATE.findall(source)) + "\n")
            chain.flush()
            context.use_certificate_chain_file(chain.name)
    except (OSError, SSL.Error, UnicodeError) as error:
        _fail(option, source, error, "a certificate")


def certificatesIn(source: str) -> list[x509.Certificate]:
    """
    Parse the certificates in C{source}: the server's own first, then its chain.

    @param source: a file name, or C{data:} with PEM.
    @raise OSError: the file cannot be read.
    @raise ValueError: a certificate cannot be parsed, or its dates or names cannot.
    """
    blocks = _CERTIFICATE.findall(_read(source).decode("ascii", "replace"))
    found = [x509.load_pem_x509_certificate(block.encode("ascii", "replace")) for block in blocks]
    for each in found:
        # cryptography parses these late, and accepts less than OpenSSL: raise here, not where they are used.
        _ = each.subject, each.issuer, each.not_valid_before_utc, each.not_valid_after_utc
    return found


def useKey(context: SSL.Context, option: str, source: str, key: Any, certificate: str) -> None:
    """
    Load a private key for the certificate that was loaded last.

    @param context: the context to change.
    @param option: the directive that names the key.
    @param source: the source of the key, for messages.
    @param key: the key, as L{loadKey} returns it.
    @param certificate: the source of the certificate, for messages.
    @raise TLSError: the key does not match the certificate.
    """
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except (SSL.Error, TypeError) as error:
        reason = openSSLReason(error)
        # OpenSSL keeps one certificate for each type of key, and finds none for the type of this key.
        if reason == "no certificate assigned":
            reason = "key type mismatch"
        message = f'does not match certificate "{shown(certificate)}": {reason}'
        raise TLSError(option, shown(source), message) from None


def useFile(use: Callable[..., Any], option: str, filename: str, wanted: str = "a certificate") -> None:
    """
    Pass a file to one of pyOpenSSL's methods.

    @param use: the method. It takes the file name as bytes.
    @param option: the directive that names the file.
    @param filename: the file.
    @param wanted: what the file must contain, as L{withoutWanted} names it.
    @raise TLSError: the method refuses the file.
    """
    try:
        with openRegular(filename):
            use(os.fsencode(filename))
    except (OSError, SSL.Error) as error:
        _fail(option, filename, error, wanted)


def loadCRLs(option: str, filename: str) -> list[x509.CertificateRevocationList]:
    """
    Load certificate revocation lists.

    @param option: the directive that names the file.
    @param filename: a file in PEM format.
    @raise TLSError: there is no list in it, or it cannot be read.
    """
    try:
        found = [x509.load_pem_x509_crl(block) for block in _CRL.findall(_read(filename))]
    except (OSError, ValueError) as error:
        _fail(option, filename, error)
    if not found:
        reason = withoutWanted(_read(filename), _REVOKED) or TRUNCATED
        raise TLSError(option, filename, f"cannot be loaded: {reason}")
    return found
