# -*- test-case-name: mailgate.test.test_authhttp -*-
"""
The protocol of nginx's C{auth_http}, without its transport: a login as a question in headers, and headers as an answer.

The question is that of nginx's C{ngx_mail_auth_http_module.c} to the byte. The answer is read as nginx reads it, with
these differences: an answer without C{Auth-Status} is none (nginx lets the client in); C{Auth-Server} may be a host
name, an address in brackets, or C{unix:/path}, and missing where there is a default backend; a text that could break a
line is not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from attrs import frozen
from twisted.internet.abstract import isIPv6Address
from twisted.web.http_headers import Headers

from mailgate.directives import LONGEST_SOCKET_PATH, isHostName
from mailgate.httpheaders import PreparedHeaders
from mailgate.journal import printable
from mailgate.login import Backend, Denial, LoginRequest, Method, Route, TLSDetails, Trouble, fitForWire

__all__ = ["Unusable", "Wait", "question", "route", "verdict"]

LONGEST_WAIT = 3600
"""Seconds: a longer C{Auth-Wait} counts as this. No mail client waits a tenth of it."""

LEAST_PAUSE = 1
"""Seconds between two questions where C{WAIT} comes without C{Auth-Wait}; nginx asks again at once, and for ever."""


_ESCAPED = re.compile(rb"[\x00-\x20%]")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_SECONDS = re.compile(rb"[0-9]{1,18}")
_PORT = re.compile(rb"0{0,9}[0-9]{1,5}")
_SOCKET = re.compile(rb"unix:(/[!-~]{1,%d})" % (LONGEST_SOCKET_PATH - 1))
_NUMBERS = re.compile(r"[0-9.]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")


# The question.


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def _escape(raw: bytes) -> bytes:
    """C{raw} as nginx escapes C{Auth-User}, C{Auth-Pass} and C{Auth-SSL-Cert}: 0x00 to 0x20 and C{%}, nothing else."""
    return _ESCAPED.sub(_percent, raw)


def _line(raw: bytes) -> bytes:
    """
    C{raw} for the headers that nginx writes as it has them. So do we, but for control characters other than TAB, which
    nginx lets through, and with them whole headers: they become C{%XX}.
    """
    return _CONTROL.sub(_percent, raw)


def question(
    request: LoginRequest, configured: Sequence[tuple[bytes, bytes]], passesCertificate: bool = False
) -> PreparedHeaders:
    """
    The headers that put C{request} to a service, in the order of nginx's C{ngx_mail_auth_http_create_request}; the
    client's certificate whole if C{passesCertificate}.
    """
    credentials, client, envelope = request.credentials, request.client, request.envelope
    fields = [
        (b"Auth-Method", credentials.method.value.encode("ascii")),
        (b"Auth-User", _escape(credentials.user)),
        (b"Auth-Pass", _escape(credentials.secret)),
    ]
    if credentials.method.isDigest:
        fields.append((b"Auth-Salt", _line(credentials.salt)))
    fields.append((b"Auth-Protocol", request.protocol.encode("ascii")))
    fields.append((b"Auth-Login-Attempt", b"%d" % request.attempt))
    fields.append((b"Client-IP", _line(client.host.encode("utf-8", "replace"))))
    if request.protocol == "smtp":
        fields.append((b"Client-Host", _line(client.name.encode("utf-8", "replace"))))
    if credentials.method is Method.NONE:
        fields.append((b"Auth-SMTP-Helo", _line(envelope.helo)))
        fields.append((b"Auth-SMTP-From", _line(envelope.mail)))
        fields.append((b"Auth-SMTP-To", _line(envelope.recipient)))
    if client.tls is not None:
        fields.append((b"Auth-SSL", b"on"))
        fields.append((b"Auth-SSL-Protocol", client.tls.protocol.encode("ascii")))
        fields.append((b"Auth-SSL-Cipher", client.tls.cipher.encode("ascii")))
        if client.details is not None and client.details.verification:
            fields.extend(_verified(client.details, passesCertificate))
    fields.extend(configured)
    return PreparedHeaders(fields)


def _verified(details: TLSDetails, passesCertificate: bool) -> Iterator[tuple[bytes, bytes]]:
    """What C{ssl_verify_client} has found out."""
    yield b"Auth-SSL-Verify", details.verification.encode("ascii")
    shown = details.certificate
    if shown is None:
        return
    yield b"Auth-SSL-Subject", _line(shown.subject.encode("utf-8"))
    yield b"Auth-SSL-Issuer", _line(shown.issuer.encode("utf-8"))
    yield b"Auth-SSL-Serial", _line(shown.serial.encode("ascii"))
    yield b"Auth-SSL-Fingerprint", _line(shown.fingerprint.encode("ascii"))
    if passesCertificate:
        yield b"Auth-SSL-Cert", _escape(shown.pem)


# The answer.


@frozen
class Wait:
    """The service has not made up its mind: ask again after C{seconds}."""

    seconds: int


class Unusable(Exception):
    """An answer that nobody can be let in with; its text says what the service did, and is fit for a log."""


def _last(headers: Headers, name: bytes) -> bytes | None:
    """The value of C{name}; of several the last."""
    values = headers.getRawHeaders(name)
    return values[-1].strip(b" ") if values else None


def verdict(headers: Headers) -> Denial | Wait | None:
    """What C{Auth-Status} says: L{None} is C{OK}. A refusal goes before C{WAIT}, and that before C{OK}."""
    given = headers.getRawHeaders(b"Auth-Status", ())
    if given == [b"OK"]:
        return None
    statuses = [status.strip(b" ") for status in given]
    texts = [status for status in statuses if status not in (b"OK", b"WAIT")]
    pause = _last(headers, b"Auth-Wait") or b""
    wait = min(int(pause), LONGEST_WAIT) if _SECONDS.fullmatch(pause) else 0
    if texts:
        text = _clean(texts[-1])
        code = _clean(_last(headers, b"Auth-Error-Code"))
        return Denial(Trouble.DENIED, text=text, code=code, wait=wait, close=not wait)
    if b"WAIT" in statuses:
        return Wait(wait or LEAST_PAUSE)
    return None


def _clean(text: bytes | None) -> bytes | None:
    """C{text}, unless it is empty or holds a control character: then the protocol has words of its own."""
    return text if text and not _CONTROL.search(text) else None


@lru_cache(1024)
def _backend(address: bytes | None, port: bytes | None) -> Backend:
    """
    Where the account lives. A site has some backends and many logins: what was found out once is known.

    @raise Unusable: the service did not say, or said nonsense.
    """
    socket = _SOCKET.fullmatch(address or b"")
    if socket is not None:
        return Backend(f"unix:{socket[1].decode('ascii')}", 0)
    if not address or not port:
        raise Unusable("did not send server or port")
    host = _host(address)
    if host is None:
        raise Unusable(f'sent invalid server address:"{printable(address)}"')
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise Unusable(f'sent invalid server port:"{printable(port)}"')
    return Backend(host, int(port))


def _host(raw: bytes) -> str | None:
    """C{raw} as the host of a L{Backend}: an address, in brackets or not, or a host name; L{None} where it is none."""
    text = raw.decode("ascii", "replace")
    if _NUMBERS.fullmatch(text):
        # inet_pton() refuses leading zeros, nginx does not.
        parts = [int(part) for part in text.split(".") if re.fullmatch("[0-9]{1,3}", part)]
        whole = len(parts) == 4 == text.count(".") + 1 and max(parts) < 256
        return ".".join(map(str, parts)) if whole else None
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if _IPV6.fullmatch(bare) and isIPv6Address(bare):
        return bare
    return text if isHostName(text) else None


def route(request: LoginRequest, headers: Headers, default: Backend | None) -> Route:
    """
    The acceptance of C{request}.

    @raise Unusable: something is missing from it, or wrong with it.
    """
    credentials = request.credentials
    givenUser, givenPassword = _last(headers, b"Auth-User"), _last(headers, b"Auth-Pass")
    user = credentials.user if givenUser is None else givenUser
    password = givenPassword
    if password is None and credentials.method is Method.PLAIN:
        password = credentials.secret
    address, port = _last(headers, b"Auth-Server"), _last(headers, b"Auth-Port")
    backend = default if default is not None and not (address or port) else _backend(address, port)
    if password is None and request.protocol != "smtp":
        raise Unusable("did not send password")
    if not fitForWire(givenUser, givenPassword):
        raise Unusable("sent a login or password with NUL in it")
    return Route((backend,), user, password)
