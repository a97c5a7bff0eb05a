# -*- test-case-name: mailgate.test.auth.http.test_exchange -*-
"""
The protocol of nginx's C{auth_http}, without its transport: a login as a question in headers, and headers as an answer.

The question is that of nginx's C{ngx_mail_auth_http_module.c} to the byte, unless a L{Dialect} wants another. The
answer is read as nginx reads it, with these differences: one without C{Auth-Status} is none, unless the L{Dialect} says
otherwise (nginx lets the client in); C{Auth-Server} may be a host name, an address in brackets, or C{unix:/path}, and
missing where there is a default backend; a text that could break a line is not passed on. C{Auth-Error-SASL} is
freenginx's.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from attrs import frozen
from twisted.internet.abstract import isIPv6Address
from twisted.web.http_headers import Headers

from mailgate.auth.http.dialect import NGINX, PLACEHOLDER, Dialect, Untellable, headerText, nginxEscape
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.directives import LONGEST_SOCKET_PATH, isHostName
from mailgate.login import (
    Backend,
    Credentials,
    Denial,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Route,
    TLSDetails,
    Trouble,
    fitForWire,
)

__all__ = ["Unusable", "Wait", "hasStatus", "question", "route", "verdict"]

LONGEST_WAIT = 3600
"""Seconds: a longer C{Auth-Wait} counts as this. No mail client waits a tenth of it."""

LEAST_PAUSE = 1
"""Seconds between two questions where C{WAIT} comes without C{Auth-Wait}; nginx asks again at once, and for ever."""

LONGEST_CREDENTIAL = 1024
"""
Bytes that a name or a password may have as they are sent. Services bound the head of a request, most of them at 8 KiB,
and say 400 or 431 to what is longer; no password is. A token of OAuth is bounded by the client's buffer alone.
"""

_SECONDS = re.compile(rb"[0-9]{1,18}")
_PORT = re.compile(rb"0{0,9}[0-9]{1,5}")
_SOCKET = re.compile(rb"unix:(/[!-~]{1,%d})" % (LONGEST_SOCKET_PATH - 1))
_NUMBERS = re.compile(r"[0-9.]+")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+")
_RESPONSE_CODE = re.compile(rb"[A-Z][A-Z0-9-]{0,63}")
_ERR = b"-ERR "

_PASSWORDS = (Method.PLAIN, Method.XOAUTH2, Method.OAUTHBEARER)
"""The methods whose secret is as good at the backend as it is here."""

# The question.


def _proxied(told: ProxiedAddresses) -> Iterator[tuple[bytes, bytes]]:
    """What a PROXY header has C{told}."""
    yield b"Proxy-Protocol-Addr", told.source.encode("ascii")
    yield b"Proxy-Protocol-Port", b"%d" % told.sourcePort
    yield b"Proxy-Protocol-Server-Addr", told.destination.encode("ascii")
    yield b"Proxy-Protocol-Server-Port", b"%d" % told.destinationPort


def question(
    request: LoginRequest, dialect: Dialect = NGINX, passesCertificate: bool = False, verifiesClients: bool = True
) -> PreparedHeaders:
    """
    The headers that put C{request} to a service, in the order of nginx's C{ngx_mail_auth_http_create_request}.

    If the server C{verifiesClients} the client's certificate is told, and whole if C{passesCertificate}.

    @raise Untellable: C{dialect} has no way to say the login's name or password, or it is too long.
    """
    credentials, client, envelope = request.credentials, request.client, request.envelope
    secret = PLACEHOLDER if not dialect.showsPassword and credentials.method in _PASSWORDS else credentials.secret
    user, password = dialect.escapeUser(credentials.user), dialect.escapePassword(secret)
    authzid = dialect.escapeUser(credentials.authzid) if credentials.authzid else b""
    if len(user) > LONGEST_CREDENTIAL or len(authzid) > LONGEST_CREDENTIAL:
        raise Untellable(f"the user name is longer than {LONGEST_CREDENTIAL} bytes")
    if len(password) > LONGEST_CREDENTIAL and not credentials.method.isOAuth:
        raise Untellable(f"the password is longer than {LONGEST_CREDENTIAL} bytes")
    fields = [
        (b"Auth-Method", credentials.method.value.encode("ascii")),
        (b"Auth-User", user),
        (b"Auth-Pass", password),
    ]
    if authzid:
        fields.append((b"Auth-Authzid", authzid))
    if credentials.method.isDigest:
        fields.append((b"Auth-Salt", headerText(credentials.salt)))
    fields.append((b"Auth-Protocol", dialect.protocolName(request)))
    fields.append((b"Auth-Login-Attempt", b"%d" % request.attempt))
    fields.append((b"Client-IP", headerText(client.host.encode("utf-8", "replace"))))
    if request.protocol == "smtp":
        fields.append((b"Client-Host", headerText(client.name.encode("utf-8", "replace"))))
    if client.proxied is not None:
        fields.extend(_proxied(client.proxied))
    if credentials.method is Method.NONE:
        fields.append((b"Auth-SMTP-Helo", headerText(envelope.helo)))
        fields.append((b"Auth-SMTP-From", headerText(envelope.mail)))
        fields.append((b"Auth-SMTP-To", headerText(envelope.recipient)))
    if client.tls is not None:
        fields.append((b"Auth-SSL", b"on"))
        fields.append((b"Auth-SSL-Protocol", client.tls.protocol.encode("ascii")))
        fields.append((b"Auth-SSL-Cipher", client.tls.cipher.encode("ascii")))
        # Finding the details out takes time: only where there is something to tell.
        details = client.details if verifiesClients else None
        if details is not None and details.verification:
            fields.extend(_verified(details, passesCertificate))
    fields.extend(dialect.fields(request))
    return PreparedHeaders(fields)


def _verified(details: TLSDetails, passesCertificate: bool) -> Iterator[tuple[bytes, bytes]]:
    """What C{ssl_verify_client} has found out."""
    yield b"Auth-SSL-Verify", details.verification.encode("ascii")
    shown = details.certificate
    if shown is None:
        return
    yield b"Auth-SSL-Subject", headerText(shown.subject.encode("utf-8"))
    yield b"Auth-SSL-Issuer", headerText(shown.issuer.encode("utf-8"))
    yield b"Auth-SSL-Serial", headerText(shown.serial.encode("ascii"))
    yield b"Auth-SSL-Fingerprint", headerText(shown.fingerprint.encode("ascii"))
    if passesCertificate:
        yield b"Auth-SSL-Cert", nginxEscape(shown.pem)


# The answer.


@frozen
class Wait:
    """The service has not made up its mind: ask again after C{seconds}."""

    seconds: int


class Unusable(Exception):
    """
    An answer that nobody can be let in with; its text says what the service did, and is fit for a log. C{quoted} is
    what it sent, where that is of use.
    """

    def __init__(self, message: str, quoted: bytes = b"") -> None:
        super().__init__(message)
        self.quoted = quoted


def _last(headers: Headers, name: bytes) -> bytes | None:
    """The value of C{name}; of several the last."""
    values = headers.getRawHeaders(name)
    return values[-1].strip(b" ") if values else None


def hasStatus(headers: Headers) -> bool:
    """Whether there is an C{Auth-Status} that says anything."""
    return any(headers.getRawHeaders(b"Auth-Status", ()))


def verdict(request: LoginRequest, headers: Headers, dialect: Dialect = NGINX) -> Denial | Wait | None:
    """
    What C{Auth-Status} says to C{request}: L{None} is C{OK}. A refusal goes before C{WAIT}, and that before C{OK}.

    It says nothing only where C{dialect} accepts that: then it is C{OK} if it is absent, or empty in SMTP, and a
    refusal without words if it is empty in IMAP or POP3.
    """
    given = headers.getRawHeaders(b"Auth-Status", ())
    if given == [b"OK"]:
        return None
    statuses = [status.strip(b" ") for status in given]
    if dialect.acceptsMissing and request.protocol == "smtp" and not any(statuses):
        return None
    texts = [status for status in statuses if status not in (b"OK", b"WAIT")]
    wait = _pause(headers)
    if texts:
        text, code = _clean(texts[-1]), _clean(_last(headers, b"Auth-Error-Code"))
        if dialect.codesForAll and code is not None:
            text = _withCode(request.protocol, text, code)
        challenge = _challenge(headers) if request.credentials.method.isOAuth else None
        return Denial(Trouble.DENIED, text=text, code=code, wait=wait, close=not wait, challenge=challenge)
    if b"WAIT" in statuses:
        return Wait(wait or LEAST_PAUSE)
    return None


def _pause(headers: Headers) -> int:
    """The seconds of C{Auth-Wait}, 0 without; what is no number might as well not be there."""
    given = [value.strip(b" ") for value in headers.getRawHeaders(b"Auth-Wait", ())]
    numbers = [value for value in given if _SECONDS.fullmatch(value)]
    return min(int(numbers[-1]), LONGEST_WAIT) if numbers else 0


def _challenge(headers: Headers) -> bytes | None:
    """C{Auth-Error-SASL}, if it is base64, and not empty."""
    given = _last(headers, b"Auth-Error-SASL") or b""
    try:
        return given if b64decode(given, validate=True) else None
    except ValueError:
        return None


def _withCode(protocol: str, text: bytes | None, code: bytes) -> bytes | None:
    """
    C{text} with a C{code} that is meant for C{protocol}: for IMAP the response code without its brackets (RFC 5530),
    for POP3 the whole line that is to be sent.
    """
    if protocol == "imap" and _RESPONSE_CODE.fullmatch(code) and not (text or b"").startswith(b"["):
        return b"[%b] %b" % (code, text or b"Authentication failed")
    if protocol == "pop3" and code.startswith(_ERR):
        return code[len(_ERR) :].strip(b" ") or text
    return text


def _clean(text: bytes | None) -> bytes | None:
    """C{text}, unless it is empty or holds a control character: then the protocol has words of its own."""
    return text if text and headerText(text) == text else None


@lru_cache(1024)
def _backend(address: bytes, port: bytes) -> Backend:
    """
    Where the account lives. A site has some backends and many logins: what was found out once is known.

    @raise Unusable: the service said nonsense.
    """
    socket = _SOCKET.fullmatch(address)
    if socket is not None:
        return Backend(f"unix:{socket[1].decode('ascii')}", 0)
    host = _host(address)
    if host is None:
        raise Unusable("sent an invalid server address", address)
    if not _PORT.fullmatch(port) or not 0 < int(port) < 65536:
        raise Unusable("sent an invalid server port", port)
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


def route(request: LoginRequest, headers: Headers, default: Backend | None, dialect: Dialect = NGINX) -> Route:
    """
    The acceptance of C{request}. Where it names no backend C{default} is meant, if the service has said C{OK} at all.

    @raise Unusable: something is missing from it, or wrong with it.
    """
    givenUser, givenPassword = _last(headers, b"Auth-User"), _last(headers, b"Auth-Pass")
    if givenUser is not None and dialect.escapesAnswer:
        givenUser = unquote_to_bytes(givenUser)
    user = request.credentials.user if givenUser is None else givenUser
    password, judged = _password(request.credentials, givenPassword, dialect)
    backend = default if not dialect.acceptsMissing or hasStatus(headers) else None
    named = _address(headers)
    if named is None and backend is None:
        raise Unusable("did not send server or port")
    if password is None and request.protocol != "smtp":
        raise Unusable("did not send password")
    if named is not None:
        backend = _backend(*named)
    assert backend is not None
    if not fitForWire(givenUser, givenPassword):
        raise Unusable("sent a login or password that contains CR, LF or NUL")
    return Route((backend,), user, password, judged, _authzid(request.credentials, givenUser, headers, dialect))


def _authzid(credentials: Credentials, givenUser: bytes | None, headers: Headers, dialect: Dialect) -> bytes | None:
    """
    What the service answers for of the authorization identity, as L{Route} has it. A service that has not heard of any
    lets the user in as itself, which it may well name, and not as another one.
    """
    asked = credentials.authzid
    if not asked:
        return None
    if givenUser != asked and _last(headers, b"Auth-Authzid") in (asked, dialect.escapeUser(asked)):
        return asked
    return None if givenUser in (None, credentials.user) else b""


def _password(credentials: Credentials, given: bytes | None, dialect: Dialect) -> tuple[bytes | None, bool]:
    """What to log in with at the backend, and whether the service has judged it."""
    if credentials.method not in _PASSWORDS:
        return given, True
    if given is None:
        return credentials.secret, dialect.showsPassword
    if not dialect.showsPassword:
        # Whoever knows a name would be let in.
        raise Unusable("sent Auth-Pass although it did not receive the client's password")
    return given, True


def _address(headers: Headers) -> tuple[bytes, bytes] | None:
    """C{Auth-Server} and C{Auth-Port}, which a unix socket does not need, or L{None} without both."""
    address, port = _last(headers, b"Auth-Server") or b"", _last(headers, b"Auth-Port") or b""
    if not address and not port:
        return None
    if not address or not (port or address.startswith(b"unix:")):
        raise Unusable("did not send server or port")
    return address, port
