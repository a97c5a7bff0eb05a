# -*- test-case-name: mailgate.test.tls.test_confcommand -*-
"""
C{ssl_conf_command}: OpenSSL's U{commands<https://docs.openssl.org/master/man3/SSL_CONF_cmd/>}, as far as pyOpenSSL has
public calls that do the same; and the words for curves and versions, which other directives have too.
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
"""Versions of the protocol, and the options that exclude them."""

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
"""The words of C{Options}: what pyOpenSSL calls them, and whether the word sets it or clears it."""

_NEVER = {
    ("compression", True): "TLS is never compressed here: what is secret could be guessed from lengths",
    ("norenegotiation", False): "TLS is never negotiated anew here: a certificate is looked at once",
}


@define
class Draft:
    """
    A context on its way, and what is given to it when all is known: C{options}, which pyOpenSSL can only add to.
    C{phrases} open encrypted keys.
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
    """nginx's C{ssl_ecdh_curve}, in lower case: C{auto}, or what pyOpenSSL can set, which is one of NIST's curves."""
    word = value.strip().lower()
    known = "auto, prime256v1, secp384r1 or secp521r1"
    if ":" in word or " " in word:
        raise ValueError(f"takes one curve, the TLS library's bindings can set no list; it must be {known}")
    if word != "auto" and word not in _CURVES:
        raise ValueError(
            f"cannot be set by the TLS library's bindings, unless it is {known};"
            " auto has all curves that the library knows, X25519 and hybrids as well"
        )
    return word


_FINITE_FIELDS = ":".join(f"-ffdhe{bits}" for bits in (2048, 3072, 4096, 6144, 8192))
_AUTO = (f"DEFAULT:{_FINITE_FIELDS}".encode(), b"X25519:P-256:X448:P-521:P-384")
"""Lists of the groups that the library knows: by OpenSSL 3.5 and later, and what earlier ones have."""


def useCurve(context: SSL.Context, word: str) -> None:
    """Have C{context} agree on keys by the curve C{word} alone, or by all but finite fields where it is C{auto}."""
    if word != "auto":
        context.set_tmp_ecdh(_CURVES[word]())
    else:
        leaveOutFiniteFields(context)


def leaveOutFiniteFields(context: SSL.Context, private: Callable[[], Any] = _private) -> bool:
    """
    Have C{context} agree on keys by curves alone: a client that asks for finite fields (RFC 7919) has us compute ten
    times as long as it needs to ask (the D(HE)at attack, CVE-2002-20001). That takes a call in what is C{private} in
    pyOpenSSL; where it is not there, everything stays as the library has it. Gives whether it was done.
    """
    try:
        lib, pointer = private(), context._context
        done = any(lib.SSL_CTX_set1_curves_list(pointer, groups) == 1 for groups in _AUTO)
        lib.ERR_clear_error()
    # Whatever goes wrong here, it is because something private is not what it was.
    except Exception:
        return False
    return done


# The commands: how a value is checked when the file is read, and how it is carried out.


def _plain(value: str, folder: str) -> str:
    return value


def _oneCurve(value: str, folder: str) -> str:
    if value.lower() == "auto":
        raise ValueError("auto is a word of ssl_ecdh_curve; leave the command out")
    return curve(value, folder)


def _bound(value: str, folder: str) -> str:
    if value.lower() not in _BOUNDS:
        raise ValueError("must be None, TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
    return value.lower()


def _signed(value: str, known: Mapping[str, object], names: str) -> list[tuple[str, bool]]:
    """The words in C{value}, split at commas, in lower case, and whether each is on: C{-} turns it off."""
    words = []
    for item in value.split(","):
        word = item.strip().lower()
        if word.lstrip("+-") not in known or word[1:2] in ("+", "-"):
            raise ValueError(f'"{item.strip()}" is unknown, the words are {names}{nearest(word, list(known))}')
        words.append((word.lstrip("+-"), not word.startswith("-")))
    return words


_PROTOCOLS = {"all": sum(VERSIONS.values()), **{version.lower(): bit for version, bit in VERSIONS.items()}}


def _protocols(value: str, folder: str) -> str:
    _signed(value, _PROTOCOLS, f"ALL, {', '.join(VERSIONS)}, split by commas, a - before those that are not spoken")
    return value


def _options(value: str, folder: str) -> str:
    names = (
        "SessionTicket, Compression, EmptyFragments, Bugs, DHSingle, ECDHSingle, ServerPreference, NoRenegotiation,"
        " UnsafeLegacyServerConnect, IgnoreUnexpectedEOF: for others the TLS library's bindings have no name"
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

_NO_CALL = "the TLS library's bindings have no call for it"
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
        "VerifyMode": "that is said by ssl_verify_client",
        "SignatureAlgorithms": _NO_CALL,
        "ClientSignatureAlgorithms": _NO_CALL,
        "ServerInfoFile": _NO_CALL,
        "RecordPadding": _NO_CALL,
        "NumTickets": _NO_CALL,
    }.items()
}
"""OpenSSL's commands that are not carried out, and why."""


def commands(value: str, folder: str) -> tuple[tuple[str, str], ...]:
    """nginx's C{ssl_conf_command NAME VALUE}, one a line, the names in any case; they come in their canonical case."""
    return tuple(_command(line, folder) for line in lines(value, folder))


def _command(line: str, folder: str) -> tuple[str, str]:
    name, value = [*line.split(None, 1), ""][:2]
    if name.lower() in _ELSEWHERE:
        canonical, reason = _ELSEWHERE[name.lower()]
        raise ValueError(f"{canonical} is not carried out: {reason}")
    if name.lower() not in _APPLIED:
        known = [canonical for canonical, *_ in _APPLIED.values()]
        close = nearest(name, known)
        raise ValueError(f'"{name}" is no command that is carried out here, they are {", ".join(known)}{close}')
    canonical, parse, _ = _APPLIED[name.lower()]
    if not value:
        raise ValueError(f"{canonical} needs a value")
    try:
        return canonical, parse(value, folder)
    except ValueError as error:
        raise ValueError(f"{canonical}: {error}") from None


def applyCommand(draft: Draft, name: str, value: str) -> None:
    """
    Carry out one command of those that L{commands} gave.

    @raise TLSError: OpenSSL does not take it.
    """
    _, _, apply = _APPLIED[name.lower()]
    try:
        apply(draft, value)
    except (SSL.Error, UnicodeError) as error:
        raise TLSError(OPTION, f"{name} {value}", openSSLReason(error)) from None
