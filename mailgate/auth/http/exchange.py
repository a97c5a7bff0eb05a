# -*- test-case-name: mailgate.test.auth.http.test_exchange -*-
"""
The protocol of nginx's C{auth_http} without its transport: a login becomes the headers of a request, and the headers of
a response become an answer.

The request is that of nginx's C{ngx_mail_auth_http_module.c} to the byte, unless a L{Dialect} changes it. Responses are
read as nginx reads them, with these differences:

- A response without C{Auth-Status} is an error, unless the L{Dialect} accepts it. nginx logs the client in.
- C{Auth-Server} may also be a host name, an address in brackets, or C{unix:/path}. It may be missing if there is a
  default backend.
- Texts with control characters are not sent to the client.
- C{Auth-Error-SASL} is freenginx's.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterator
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from attrs import evolve, frozen

from mailgate.auth.http.decisions import Decisions, Doubt, decides, decisionsOf, ignoreDoubt
from mailgate.auth.http.dialect import NGINX, PLACEHOLDER, Dialect, Untellable, headerText, nginxEscape
from mailgate.auth.http.headers import PreparedHeaders, Values
from mailgate.auth.http.values import (
    LONGEST_CREDENTIAL,
    SECONDS,
    Unusable,
    backendAt,
    isUnknownUser,
    isUnlimited,
    lastOf,
)
from mailgate.log.journal import printable
from mailgate.login import (
    ClientCertificate,
    Credentials,
    Denial,
    Destination,
    LoginRequest,
    Method,
    Route,
    ScramSecret,
    Trouble,
    fitForWire,
    sieveCode,
)
from mailgate.scram.secrets import BadSecret, parseSecret

__all__ = ["Unusable", "Wait", "hasStatus", "question", "route", "verdict"]

LONGEST_WAIT = 3600
"""The longest C{Auth-Wait} in seconds; a longer one counts as this. Mail clients give up much earlier."""

LEAST_PAUSE = 1
"""
Seconds between two requests if C{WAIT} comes without C{Auth-Wait}. nginx repeats the request at once, without end.
"""

_RESPONSE_CODE = re.compile(rb"[A-Z][A-Z0-9-]{0,63}")
_ERR = b"-ERR "
_ACCEPTED = (b"OK",)

_PASSWORDS = (Method.PLAIN, Method.XOAUTH2, Method.OAUTHBEARER)
"""The methods whose secret can also be used to log in at the backend."""

_DIGESTS = tuple(method for method in Method if method.isDigest)
_WORDS = {method: method.value.encode("ascii") for method in Method}

_NO_DECISIONS = Decisions()

# The request.


_BASIC = b"Auth-Method: %b\r\nAuth-User: %b\r\nAuth-Pass: %b\r\n"
_AUTHZID = b"Auth-Authzid: %b\r\n"
_SALT = b"Auth-Salt: %b\r\n"
_CLIENT = b"Auth-Protocol: %b\r\nAuth-Login-Attempt: %d\r\nClient-IP: %b\r\n"
_NAME = b"Client-Host: %b\r\n"
_PROXIED = (
    b"Proxy-Protocol-Addr: %b\r\nProxy-Protocol-Port: %d\r\n"
    b"Proxy-Protocol-Server-Addr: %b\r\nProxy-Protocol-Server-Port: %d\r\n"
)
_MAIL = b"Auth-SMTP-Helo: %b\r\nAuth-SMTP-From: %b\r\nAuth-SMTP-To: %b\r\n"
_TLS = b"Auth-SSL: on\r\nAuth-SSL-Protocol: %b\r\nAuth-SSL-Cipher: %b\r\n"
_VERIFIED = b"Auth-SSL-Verify: %b\r\n"
_CERTIFICATE = b"Auth-SSL-Subject: %b\r\nAuth-SSL-Issuer: %b\r\nAuth-SSL-Serial: %b\r\nAuth-SSL-Fingerprint: %b\r\n"
_WHOLE_CERTIFICATE = b"Auth-SSL-Cert: %b\r\n"


def question(
    request: LoginRequest, dialect: Dialect = NGINX, passesCertificate: bool = False, verifiesClients: bool = True
) -> PreparedHeaders:
    """
    Return the headers of the request for a login, in the order of nginx's C{ngx_mail_auth_http_create_request}.

    @param request: the login.
    @param dialect: how the service expects requests.
    @param passesCertificate: whether to send the client's whole certificate (C{auth_http_pass_client_cert}).
    @param verifiesClients: whether to send the result of C{ssl_verify_client}.
    @raise Untellable: the user name or password is too long, or C{dialect} cannot express it.
    """
    credentials, client = request.credentials, request.client
    method = credentials.method
    # The form holds only texts of this module and of the configuration, and the values come from clients.
    form = _BASIC
    values: tuple[bytes | int, ...] = (_WORDS[method], _user(credentials.user, dialect), _secret(credentials, dialect))
    if credentials.authzid:
        form += _AUTHZID
        values += (_user(credentials.authzid, dialect),)
    if method in _DIGESTS:
        form += _SALT
        values += (headerText(credentials.salt),)
    form += _CLIENT
    values += (
        dialect.protocolName(request),
        request.attempt,
        headerText(client.host.encode("utf-8", "replace")),
    )
    if request.protocol == "smtp":
        form += _NAME
        values += (headerText(client.name.encode("utf-8", "replace")),)
    proxied = client.proxied
    if proxied is not None:
        form += _PROXIED
        values += (proxied.source.encode("ascii"), proxied.sourcePort)
        values += (proxied.destination.encode("ascii"), proxied.destinationPort)
    if method is Method.NONE:
        envelope = request.envelope
        form += _MAIL
        values += (headerText(envelope.helo), headerText(envelope.mail), headerText(envelope.recipient))
    if client.tls is not None:
        form += _TLS
        values += (client.tls.protocol.encode("ascii"), client.tls.cipher.encode("ascii"))
        # Reading the details takes time, and is done only if they may be sent.
        details = client.details if verifiesClients else None
        if details is not None and details.verification:
            form += _VERIFIED
            values += (details.verification.encode("ascii"),)
            if details.certificate is not None:
                form += _CERTIFICATE + (_WHOLE_CERTIFICATE if passesCertificate else b"")
                values += tuple(_described(details.certificate, passesCertificate))
    if dialect.headers:
        form += dialect.form[0]
        values += tuple(dialect.values(request))
    return PreparedHeaders(form, values)


def _user(name: bytes, dialect: Dialect) -> bytes:
    """Return C{Auth-User} or C{Auth-Authzid} for a user name."""
    escaped = dialect.escapeUser(name)
    if len(escaped) > LONGEST_CREDENTIAL:
        raise Untellable(f"the user name is longer than {LONGEST_CREDENTIAL} bytes")
    return escaped


def _secret(credentials: Credentials, dialect: Dialect) -> bytes:
    """Return C{Auth-Pass}."""
    secret = credentials.secret
    if not dialect.showsPassword and credentials.method in _PASSWORDS:
        secret = PLACEHOLDER
    escaped = dialect.escapePassword(secret)
    if len(escaped) > LONGEST_CREDENTIAL and not credentials.method.isOAuth:
        raise Untellable(f"the password is longer than {LONGEST_CREDENTIAL} bytes")
    return escaped


def _described(certificate: ClientCertificate, passesWhole: bool) -> Iterator[bytes]:
    """Yield the values of the headers about a client's certificate."""
    yield headerText(certificate.subject.encode("utf-8"))
    yield headerText(certificate.issuer.encode("utf-8"))
    yield headerText(certificate.serial.encode("ascii"))
    yield headerText(certificate.fingerprint.encode("ascii"))
    if passesWhole:
        yield nginxEscape(certificate.pem)


# The response.


@frozen
class Wait:
    """
    The service answered C{WAIT}: the request is to be repeated.

    @ivar seconds: how long to wait before, in seconds.
    """

    seconds: int


def hasStatus(values: Values) -> bool:
    """
    Check for an answer.

    @param values: the values of a response's headers.
    @return: whether they contain an C{Auth-Status} that is not empty.
    """
    return any(values.get(b"auth-status", ()))


def verdict(request: LoginRequest, values: Values, dialect: Dialect = NGINX) -> Denial | Wait | None:
    """
    Read C{Auth-Status}. Of several values a refusal takes precedence over C{WAIT}, and C{WAIT} over C{OK}.

    If C{dialect} accepts responses without C{Auth-Status}, a missing one means C{OK}. An empty one means C{OK} in SMTP,
    and a refusal without a text in IMAP and POP3.

    @param request: the login.
    @param values: the values of the response's headers.
    @param dialect: how the service words answers.
    @return: L{None} for C{OK}; the refusal; or how long to wait.
    """
    statuses = values.get(b"auth-status", ())
    if statuses == _ACCEPTED:
        return None
    if dialect.acceptsMissing and request.protocol == "smtp" and not any(statuses):
        return None
    texts = [status for status in statuses if status not in (b"OK", b"WAIT")]
    wait = _pause(values)
    if texts:
        text, code = _clean(texts[-1]), _clean(lastOf(values, b"auth-error-code"))
        if dialect.codesForAll and code is not None:
            text = _withCode(request.protocol, text, code)
        challenge = _challenge(values) if request.credentials.method.isOAuth else None
        # Clients get only the codes of their protocol. What another one means the service's operator knows.
        isForeign = request.protocol == "sieve" and code is not None and not sieveCode(code)
        reason = f"code {printable(code or b'')}" if isForeign else ""
        denial = Denial(
            Trouble.DENIED,
            text=text,
            code=code,
            wait=wait,
            close=not wait,
            challenge=challenge,
            reason=reason,
            isUnknownUser=isUnknownUser(values),
            isUnlimited=isUnlimited(values),
        )
        return evolve(denial, scram=_fake(request, values)) if request.credentials.method.isScram else denial
    if b"WAIT" in statuses:
        return Wait(wait or LEAST_PAUSE)
    return None


def _pause(values: Values) -> int:
    """Return the seconds of C{Auth-Wait}; 0 if it is missing or no number."""
    numbers = [value for value in values.get(b"auth-wait", ()) if SECONDS.fullmatch(value)]
    return min(int(numbers[-1]), LONGEST_WAIT) if numbers else 0


def _challenge(values: Values) -> bytes | None:
    """Return C{Auth-Error-SASL} if it is base64 and not empty."""
    given = lastOf(values, b"auth-error-sasl") or b""
    try:
        return given if b64decode(given, validate=True) else None
    except ValueError:
        return None


def _withCode(protocol: str, text: bytes | None, code: bytes) -> bytes | None:
    """
    Add the C{Auth-Error-Code} to a text. For IMAP the code is a response code without brackets (RFC 5530). For POP3 it
    is the whole line to send.

    @param protocol: the protocol that C{code} is meant for.
    """
    if protocol == "imap" and _RESPONSE_CODE.fullmatch(code) and not (text or b"").startswith(b"["):
        return b"[%b] %b" % (code, text or b"Authentication failed")
    if protocol == "pop3" and code.startswith(_ERR):
        return code[len(_ERR) :].strip(b" ") or text
    return text


def _clean(text: bytes | None) -> bytes | None:
    """Return C{text}, or L{None} if it is empty or contains a control character: then the gateway uses its own text."""
    return text if text and headerText(text) == text else None


def route(
    request: LoginRequest,
    values: Values,
    default: Destination | None,
    dialect: Dialect = NGINX,
    may: Collection[str] = (),
    doubt: Doubt = ignoreDoubt,
) -> Route:
    """
    Read the acceptance of a login.

    @param request: the login.
    @param values: the values of the response's headers.
    @param default: the backend for responses that name none. It is not used for a response without C{Auth-Status}.
    @param dialect: how the service words answers.
    @param may: the words of C{auth_http_may}.
    @param doubt: called with each header that is ignored.
    @return: the route to the backend.
    @raise Unusable: something is missing or invalid.
    """
    credentials = request.credentials
    givenUser, givenPassword = lastOf(values, b"auth-user"), lastOf(values, b"auth-pass")
    if givenUser is not None and dialect.escapesAnswer:
        givenUser = unquote_to_bytes(givenUser)
    password, judged = _password(credentials, givenPassword, dialect)
    decisions = decisionsOf(request, values, judged, may, doubt) if decides(b"\n".join(values)) else _NO_DECISIONS
    backend: Destination | None = decisions.upstream
    named = None
    if backend is None:
        named = _address(values.get(b"auth-server"), values.get(b"auth-port"))
        if named is None:
            backend = default if not dialect.acceptsMissing or hasStatus(values) else None
            if backend is None:
                raise Unusable("did not send server or port")
    scram = _scramSecret(credentials.method, values) if credentials.method.isScram else None
    if password is None and scram is None and request.protocol != "smtp" and not decisions.provesNothing:
        raise Unusable("did not send password")
    if named is not None:
        backend = backendAt(*named)
    assert backend is not None
    if (givenUser or givenPassword) and not fitForWire(givenUser, givenPassword):
        raise Unusable("sent a login or password that contains CR, LF or NUL")
    backends = (backend, *decisions.following) if decisions.following else (backend,)
    user = credentials.user if givenUser is None else givenUser
    authzid = _authzid(credentials, givenUser, values, dialect) if credentials.authzid else None
    return Route(backends, user, password, judged, authzid, decisions.options, scram)


def _scramSecret(method: Method, values: Values) -> ScramSecret:
    """Return C{Auth-Scram-Secret}. Without it nothing would check the client's password."""
    given = lastOf(values, b"auth-scram-secret")
    if given is None:
        raise Unusable(f"accepted a login by {method.value} without Auth-Scram-Secret")
    try:
        return parseSecret(method, given)
    except BadSecret as error:
        raise Unusable(f"sent an invalid Auth-Scram-Secret: {error}") from None


def _fake(request: LoginRequest, values: Values) -> ScramSecret | None:
    """Return the secret that a refusal has for the challenge, if it has one."""
    try:
        return parseSecret(request.credentials.method, lastOf(values, b"auth-scram-secret") or b"")
    except BadSecret:
        return None


def _authzid(credentials: Credentials, givenUser: bytes | None, values: Values, dialect: Dialect) -> bytes | None:
    """
    Return C{authzid} of the L{Route}. A service that ignores the authorization identity accepts the user, and may
    repeat the user's name; that is no permission to act as another user.
    """
    asked = credentials.authzid
    if givenUser != asked and lastOf(values, b"auth-authzid") in (asked, dialect.escapeUser(asked)):
        return asked
    return None if givenUser in (None, credentials.user) else b""


def _password(credentials: Credentials, given: bytes | None, dialect: Dialect) -> tuple[bytes | None, bool]:
    """Return the password for the login at the backend, and whether the service has checked it."""
    if credentials.method not in _PASSWORDS:
        return given, True
    if given is None:
        return credentials.secret, dialect.showsPassword
    if not dialect.showsPassword:
        # Otherwise knowing a user name would be enough to log in.
        raise Unusable("sent Auth-Pass although it did not receive the client's password")
    return given, True


@lru_cache(64)
def _address(servers: tuple[bytes, ...] | None, ports: tuple[bytes, ...] | None) -> tuple[bytes, bytes] | None:
    """
    Return C{Auth-Server} and C{Auth-Port}, or L{None} if both are missing. A unix socket needs no port. The results are
    cached: a site has few backends and many logins.

    @param servers: the values of C{Auth-Server}.
    @param ports: the values of C{Auth-Port}.
    """
    address, port = (given[-1] if given else b"" for given in (servers, ports))
    if not address and not port:
        return None
    if not address or not (port or address.startswith(b"unix:")):
        raise Unusable("did not send server or port")
    return address, port
