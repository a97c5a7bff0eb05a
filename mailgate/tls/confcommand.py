# -*- test-case-name: mailgate.test.tls.test_confcommand -*-
"""
C{ssl_conf_command}: those of OpenSSL's U{commands<https://docs.openssl.org/master/man3/SSL_CONF_cmd/>} for which
pyOpenSSL has a public call. Also the names of curves and versions, which other directives use too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from mailgate.directives import lines, nearest, path
from mailgate.tls.errors import openSSLReason
from mailgate.tls.files import PARAMETERS, TLSError, loadKey, useCertificate, useFile

__all__ = ["VERSIONS", "Draft", "applyCommand", "commands", "curve", "useCurve"]

OPTION = "ssl_conf_command"

VERSIONS = {
    "SSLv2": 0,
    "SSLv3": SSL.OP_NO_SSLv3,
    "TLSv1": SSL.OP_NO_TLSv1,
    "TLSv1.1": SSL.OP_NO_TLSv1_1,
    "TLSv1.2": SSL.OP_NO_TLSv1_2,
    "TLSv1.3": SSL.OP_NO_TLSv1_3,
}
"""The values of C{ssl_protocols}, and the OpenSSL option that disables each version."""

_BOUNDS = {
    "none": 0,
    "tlsv1": SSL.TLS1_VERSION,
    "tlsv1.1": SSL.TLS1_1_VERSION,
    "tlsv1.2": SSL.TLS1_2_VERSION,
    "tlsv1.3": SSL.TLS1_3_VERSION,
}

_OPTIONS = {
    "sessionticket": (SSL.OP_NO_TICKET, False),
    "compression": (SSL.OP_NO_COMPRESSION, False),
    "emptyfragments": (SSL.OP_DONT_INSERT_EMPTY_FRAGMENTS, False),
    "bugs": (SSL.OP_ALL, True),
    "dhsingle": (SSL.OP_SINGLE_DH_USE, True),
    "ecdhsingle": (SSL.OP_SINGLE_ECDH_USE, True),
    "serverpreference": (SSL.OP_CIPHER_SERVER_PREFERENCE, True),
    "norenegotiation": (SSL.OP_NO_RENEGOTIATION, True),
    "unsafelegacyserverconnect": (SSL.OP_LEGACY_SERVER_CONNECT, True),
    "ignoreunexpectedeof": (SSL.OP_IGNORE_UNEXPECTED_EOF, True),
}
"""The words of the command C{Options}: pyOpenSSL's constant, and whether the word sets or clears it."""

_NEVER = {
    ("compression", True): "TLS compression cannot be enabled: it reveals secrets by the length of records (CRIME)",
    ("norenegotiation", False): "TLS renegotiation cannot be enabled: certificates are verified only once",
}


@define
class Draft:
    """
    A context that is being configured.

    @ivar context: OpenSSL's context.
    @ivar options: the options to set at the end, because pyOpenSSL can set options and not clear them.
    @ivar phrases: the pass phrases for encrypted keys.
    """

    context: SSL.Context
    options: int
    phrases: list[bytes]


# Curves.


def _private() -> Any:
    """pyOpenSSL's bindings to OpenSSL."""
    from OpenSSL._util import lib

    return lib


_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "prime256v1": ec.SECP256R1,
    "secp256r1": ec.SECP256R1,
    "p-256": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "p-384": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
    "p-521": ec.SECP521R1,
}


def curve(value: str, folder: str) -> str:
    """
    Parse nginx's C{ssl_ecdh_curve}. pyOpenSSL can set one NIST curve only.

    @param value: the value of the option.
    @param folder: the folder of the configuration file; not used.
    @return: the name in lower case.
    @raise ValueError: it is a list, or another curve.
    """
    word = value.strip().lower()
    known = "auto, prime256v1, secp384r1 or secp521r1"
    if ":" in word or " " in word:
        raise ValueError(f"must be one curve, because pyOpenSSL cannot set a list: {known}")
    if word != "auto" and word not in _CURVES:
        raise ValueError(
            f"must be {known}: pyOpenSSL cannot set another curve;"
            " auto offers all curves of OpenSSL, X25519 and hybrids included"
        )
    return word


_FINITE_FIELDS = ":".join(f"-ffdhe{bits}" for bits in (2048, 3072, 4096, 6144, 8192))
_AUTO = (f"DEFAULT:{_FINITE_FIELDS}".encode(), b"X25519:P-256:X448:P-521:P-384")
"""All groups except finite fields: the list for OpenSSL 3.5 and later, and the list for earlier releases."""


def useCurve(context: SSL.Context, word: str) -> None:
    """
    Set the curve of key agreement.

    @param context: the context to change.
    @param word: what L{curve} returns; C{auto} is for all curves.
    """
    if word != "auto":
        context.set_tmp_ecdh(_CURVES[word]())
    else:
        leaveOutFiniteFields(context)


def leaveOutFiniteFields(context: SSL.Context, private: Callable[[], Any] = _private) -> bool:
    """
    Disable key agreement by finite fields (RFC 7919). It costs the server ten times the work of the client, which is
    the D(HE)at attack (CVE-2002-20001).

    This takes a private call of pyOpenSSL. Where that is missing, OpenSSL's defaults stay.

    @param context: the context to change.
    @param private: returns pyOpenSSL's bindings to OpenSSL.
    @return: whether finite fields are disabled.
    """
    try:
        lib, pointer = private(), context._context
        done = any(lib.SSL_CTX_set1_curves_list(pointer, groups) == 1 for groups in _AUTO)
        lib.ERR_clear_error()
    # pyOpenSSL's private parts have changed: any exception is possible.
    except Exception:
        return False
    return done


# The commands: how each value is parsed, and how it is applied to a context.


def _plain(value: str, folder: str) -> str:
    return value


def _oneCurve(value: str, folder: str) -> str:
    if value.lower() == "auto":
        raise ValueError("auto is a value of ssl_ecdh_curve only; remove the command")
    return curve(value, folder)


def _bound(value: str, folder: str) -> str:
    if value.lower() not in _BOUNDS:
        raise ValueError("must be None, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
    return value.lower()


def _signed(value: str, known: Mapping[str, object], names: str) -> list[tuple[str, bool]]:
    """The words of C{value}, separated by commas, in lower case, each with false where a C{-} turns it off."""
    words = []
    for item in value.split(","):
        word = item.strip().lower()
        if word.lstrip("+-") not in known or word[1:2] in ("+", "-"):
            raise ValueError(f'"{item.strip()}" is unknown; use some of {names}{nearest(word, list(known))}')
        words.append((word.lstrip("+-"), not word.startswith("-")))
    return words


_PROTOCOLS = {"all": sum(VERSIONS.values()), **{version.lower(): bit for version, bit in VERSIONS.items()}}


def _protocols(value: str, folder: str) -> str:
    _signed(value, _PROTOCOLS, f"ALL, {', '.join(VERSIONS)}, separated by commas; a - disables a version")
    return value


def _options(value: str, folder: str) -> str:
    names = (
        "SessionTicket, Compression, EmptyFragments, Bugs, DHSingle, ECDHSingle, ServerPreference, NoRenegotiation,"
        " UnsafeLegacyServerConnect, IgnoreUnexpectedEOF (pyOpenSSL has no other options)"
    )
    for word in _signed(value, _OPTIONS, names):
        if word in _NEVER:
            raise ValueError(_NEVER[word])
    return value


def _applyOptions(draft: Draft, value: str) -> None:
    for word, isOn in _signed(value, _OPTIONS, ""):
        bit, sets = _OPTIONS[word]
        draft.options = draft.options | bit if isOn is sets else draft.options & ~bit


def _applyProtocols(draft: Draft, value: str) -> None:
    for word, isOn in _signed(value, _PROTOCOLS, ""):
        bit = _PROTOCOLS[word]
        draft.options = draft.options & ~bit if isOn else draft.options | bit


def _applyKey(draft: Draft, value: str) -> None:
    draft.context.use_privatekey(loadKey(OPTION, value, draft.phrases))


_APPLIED: dict[str, tuple[str, Callable[[str, str], str], Callable[[Draft, str], object]]] = {
    name.lower(): (name, parse, apply)
    for name, parse, apply in (
        ("CipherString", _plain, lambda draft, value: draft.context.set_cipher_list(value.encode())),
        ("Ciphersuites", _plain, lambda draft, value: draft.context.set_tls13_ciphersuites(value.encode())),
        ("MinProtocol", _bound, lambda draft, value: draft.context.set_min_proto_version(_BOUNDS[value])),
        ("MaxProtocol", _bound, lambda draft, value: draft.context.set_max_proto_version(_BOUNDS[value])),
        ("Protocol", _protocols, _applyProtocols),
        ("Options", _options, _applyOptions),
        ("DHParameters", path, lambda draft, value: useFile(draft.context.load_tmp_dh, OPTION, value, PARAMETERS)),
        ("Groups", _oneCurve, lambda draft, value: useCurve(draft.context, value)),
        ("Curves", _oneCurve, lambda draft, value: useCurve(draft.context, value)),
        ("ECDHParameters", _oneCurve, lambda draft, value: useCurve(draft.context, value)),
        ("Certificate", path, lambda draft, value: useCertificate(draft.context, OPTION, value)),
        ("PrivateKey", path, _applyKey),
    )
}

_NO_CALL = "pyOpenSSL has no call for it"
_ELSEWHERE = {
    name.lower(): (name, reason)
    for name, reason in {
        "VerifyCAFile": "write the certificates into the file of ssl_trusted_certificate",
        "VerifyCAPath": "write the certificates into the file of ssl_trusted_certificate",
        "VerifyCAStore": "write the certificates into the file of ssl_trusted_certificate",
        "RequestCAFile": "write the certificates into the file of ssl_client_certificate",
        "RequestCAPath": "write the certificates into the file of ssl_client_certificate",
        "RequestCAStore": "write the certificates into the file of ssl_client_certificate",
        "ClientCAFile": "write the certificates into the file of ssl_client_certificate",
        "ClientCAPath": "write the certificates into the file of ssl_client_certificate",
        "ClientCAStore": "write the certificates into the file of ssl_client_certificate",
        "ChainCAFile": "write the chain into the file of ssl_certificate",
        "ChainCAPath": "write the chain into the file of ssl_certificate",
        "ChainCAStore": "write the chain into the file of ssl_certificate",
        "VerifyMode": "set ssl_verify_client instead",
        "SignatureAlgorithms": _NO_CALL,
        "ClientSignatureAlgorithms": _NO_CALL,
        "ServerInfoFile": _NO_CALL,
        "RecordPadding": _NO_CALL,
        "NumTickets": _NO_CALL,
    }.items()
}
"""The commands of OpenSSL that are not supported, and why, or what to set instead."""


def commands(value: str, folder: str) -> tuple[tuple[str, str], ...]:
    """
    Parse nginx's C{ssl_conf_command NAME VALUE}, one on each line. Names are case-insensitive.

    @param value: the value of the option.
    @param folder: the folder of the configuration file. File names are relative to it.
    @return: the commands, each a canonical name and a value.
    """
    return tuple(_command(line, folder) for line in lines(value, folder))


def _command(line: str, folder: str) -> tuple[str, str]:
    name, value = [*line.split(None, 1), ""][:2]
    if name.lower() in _ELSEWHERE:
        canonical, reason = _ELSEWHERE[name.lower()]
        raise ValueError(f"{canonical} is not supported: {reason}")
    if name.lower() not in _APPLIED:
        known = [canonical for canonical, *_ in _APPLIED.values()]
        close = nearest(name, known)
        raise ValueError(f'"{name}" is not a supported command; use {", ".join(known)}{close}')
    canonical, parse, _ = _APPLIED[name.lower()]
    if not value:
        raise ValueError(f"{canonical} needs a value")
    try:
        return canonical, parse(value, folder)
    except ValueError as error:
        raise ValueError(f"{canonical}: {error}") from None


def applyCommand(draft: Draft, name: str, value: str) -> None:
    """
    Apply one of the commands that L{commands} returns.

    @param draft: the context to change.
    @param name: the name of the command.
    @param value: its value.
    @raise TLSError: OpenSSL refuses the value.
    """
    _, _, apply = _APPLIED[name.lower()]
    try:
        apply(draft, value)
    except (SSL.Error, UnicodeError) as error:
        raise TLSError(OPTION, f"{name} {value}", openSSLReason(error)) from None
