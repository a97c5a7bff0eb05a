# -*- test-case-name: mailgate.test.auth.http.test_decisions -*-
"""
The headers by which an answer decides about the backend and the session of one login, in place of directives. nginx
does not know them, and no service sends them that was written for nginx.

Where security depends on a header, an invalid value is a failure of the service: the gateway must not connect without
TLS, or log in as another user, because of a misspelt word. The gateway ignores other invalid headers, with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import TypeAlias

from attrs import frozen

from mailgate.auth.http.headers import Values
from mailgate.auth.http.values import LONGEST_CREDENTIAL, SECONDS, Unusable, backendAt, isUnlimited, lastOf
from mailgate.backend.identity import LONGEST_FORWARDED, MOST_FORWARDED, isForwardable
from mailgate.backend.settings import METHODS, UNPROVEN, WITH_LOGIN
from mailgate.directives import isHostName
from mailgate.login import Backend, BackendGroup, BackendTLS, LoginRequest, Method, RouteOptions, TLSOptions
from mailgate.tls.backendsettings import parsePin
from mailgate.upstream.settings import isGroupName

__all__ = ["LONGEST_HOLD", "SSL_OFF", "SSL_VERIFY_OFF", "Decisions", "Doubt", "decides", "decisionsOf", "ignoreDoubt"]

SSL_OFF = "ssl_off"
"""The word of C{auth_http_may} that allows C{Auth-Proxy-SSL: off} where C{proxy_ssl} demands TLS."""

SSL_VERIFY_OFF = "ssl_verify_off"
"""The word of C{auth_http_may} that allows C{Auth-Proxy-SSL-Verify: off}."""

LONGEST_HOLD = 120
"""The longest C{Auth-Proxy-Hold} in seconds; a longer one counts as this. Mail clients give up after some minutes."""

LONGEST_LIFE = 366 * 24 * 3600
"""The longest C{Auth-Session-Timeout} in seconds; a longer one counts as this."""

_MOST_SERVERS = 16
"""The most servers in C{Auth-Server-Next}."""

_MOST_FORWARDED_BYTES = 3000
"""Bytes of all C{Auth-Proxy-Forward}, which an ID command with the gateway's own fields has room for."""

_MOST_PINS = 16
_LONGEST_NAME = 255
"""Bytes of a host name or address."""

_PREFIX = b"auth-proxy-"
_KNOWN = frozenset(
    (
        b"auth-upstream",
        b"auth-upstream-key",
        b"auth-server-next",
        b"auth-proxy-ssl",
        b"auth-proxy-ssl-verify",
        b"auth-proxy-ssl-name",
        b"auth-proxy-ssl-pin",
        b"auth-proxy-method",
        b"auth-proxy-authid",
        b"auth-proxy-authzid",
        b"auth-proxy-identity",
        b"auth-proxy-forward",
        b"auth-proxy-hold",
        b"auth-session-timeout",
        b"auth-limit",
    )
)
_MODES = {b"off": BackendTLS.OFF, b"on": BackendTLS.IMPLICIT, b"starttls": BackendTLS.STARTTLS}
_FLAGS = {b"on": True, b"off": False}
_METHODS = tuple(word for word in METHODS if word != "auto")

_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_BRACKETED = re.compile(rb"(\[[^]]*\])(?::(.*))?", re.DOTALL)

Doubt: TypeAlias = Callable[[str, bytes], object]
"""C{doubt(concern, value)} reports an ignored header: a phrase for the log that begins with a verb, and bytes."""


def ignoreDoubt(concern: str, value: bytes) -> None:
    """
    Report nothing.

    @param concern: what is wrong.
    @param value: the bytes of the header.
    """


@frozen
class Decisions:
    """
    What an answer decides.

    @ivar upstream: the group of C{Auth-Upstream}, which goes before C{Auth-Server}; L{None} without it.
    @ivar following: the backends of C{Auth-Server-Next}.
    @ivar options: all else; L{None} for nothing.
    """

    upstream: BackendGroup | None = None
    following: tuple[Backend, ...] = ()
    options: RouteOptions | None = None

    @property
    def provesNothing(self) -> bool:
        """Whether the gateway logs in at the backend without a password."""
        return self.options is not None and self.options.method in UNPROVEN


@lru_cache(64)
def decides(names: bytes) -> bool:
    """
    Check whether an answer has one of the headers of this module. Few answers do, and a service sends the same headers
    in nearly all answers.

    @param names: the names of the headers of the answer, in lower case, with line ends between them.
    """
    return _PREFIX in names or not _KNOWN.isdisjoint(names.split(b"\n"))


def decisionsOf(request: LoginRequest, values: Values, judged: bool, may: Collection[str], doubt: Doubt) -> Decisions:
    """
    Read what an acceptance decides.

    @param request: the login.
    @param values: the values of the response's headers.
    @param judged: whether the service has checked the credentials.
    @param may: the words of C{auth_http_may}.
    @param doubt: called with each header that is ignored.
    @raise Unusable: a header on which security depends has an invalid value.
    """
    _checkNames(values, doubt)
    upstream = _upstream(lastOf(values, b"auth-upstream"))
    following: tuple[Backend, ...] = ()
    servers = lastOf(values, b"auth-server-next")
    if servers is not None and upstream is None:
        following = tuple(_servers(servers, lastOf(values, b"auth-port") or b"", doubt))
    options = RouteOptions(
        key=_key(lastOf(values, b"auth-upstream-key"), doubt),
        tls=_tls(values, may),
        method=_method(lastOf(values, b"auth-proxy-method"), request, judged),
        authid=_identity(values, b"Auth-Proxy-Authid"),
        authzid=_identity(values, b"Auth-Proxy-Authzid"),
        identifies=_identifies(lastOf(values, b"auth-proxy-identity"), request, doubt),
        forward=_forward(values.get(b"auth-proxy-forward", ()), doubt),
        hold=_hold(lastOf(values, b"auth-proxy-hold"), doubt),
        lifetime=_lifetime(lastOf(values, b"auth-session-timeout")),
        isUnlimited=_isUnlimited(values, doubt),
    )
    if options.method == "login" and (options.authid or options.authzid):
        raise Unusable("sent Auth-Proxy-Method: login with a SASL identity, for which LOGIN has no place; use plain")
    return Decisions(upstream, following, None if options == RouteOptions() else options)


def _checkNames(values: Values, doubt: Doubt) -> None:
    """Report headers that this release does not know. One about TLS may be a misspelt demand for security."""
    for name in values:
        if not name.startswith(_PREFIX) or name in _KNOWN:
            continue
        if name.startswith(b"auth-proxy-ssl"):
            raise Unusable("sent a header about TLS that does not exist", name)
        doubt("sent a header Auth-Proxy-… that does not exist, and has no effect", name)


def _upstream(name: bytes | None) -> BackendGroup | None:
    if name is None:
        return None
    text = name.decode("utf-8", "replace")
    if len(name) > _LONGEST_NAME or not isGroupName(text):
        raise Unusable("sent an Auth-Upstream that is no name of an upstream", name)
    return BackendGroup(text, isName=True)


def _servers(given: bytes, port: bytes, doubt: Doubt) -> Iterator[Backend]:
    """Yield the backends of C{Auth-Server-Next}."""
    items = [item.strip(b" \t") for item in given.split(b",")]
    if len(items) > _MOST_SERVERS:
        doubt(
            f"sent an Auth-Server-Next of more than {_MOST_SERVERS} servers; the gateway ignores the others",
            given,
        )
    for item in items[:_MOST_SERVERS]:
        bracketed = _BRACKETED.fullmatch(item)
        if item.startswith(b"unix:"):
            host, itsPort = item, b""
        elif bracketed is not None:
            host, itsPort = bracketed[1], port if bracketed[2] is None else bracketed[2]
        else:
            host, colon, itsPort = item.partition(b":")
            itsPort = itsPort if colon else port
        try:
            yield backendAt(host, itsPort)
        except Unusable:
            doubt("sent an invalid server in Auth-Server-Next, which is not tried", item)


def _key(given: bytes | None, doubt: Doubt) -> bytes | None:
    if given is None or 0 < len(given) <= LONGEST_CREDENTIAL:
        return given
    doubt(f"sent an invalid Auth-Upstream-Key, which has no effect: must have 1 to {LONGEST_CREDENTIAL} bytes", given)
    return None


def _tls(values: Values, may: Collection[str]) -> TLSOptions | None:
    mode, verify, name, pins = (
        lastOf(values, b"auth-proxy-ssl" + part) for part in (b"", b"-verify", b"-name", b"-pin")
    )
    if mode is None and verify is None and name is None and pins is None:
        return None
    if mode is not None and mode not in _MODES:
        raise Unusable("sent an invalid Auth-Proxy-SSL: must be off, on or starttls", mode)
    if verify is not None and verify not in _FLAGS:
        raise Unusable("sent an invalid Auth-Proxy-SSL-Verify: must be on or off", verify)
    if verify == b"off" and SSL_VERIFY_OFF not in may:
        raise Unusable(f"sent Auth-Proxy-SSL-Verify: off, which needs auth_http_may = {SSL_VERIFY_OFF}")
    return TLSOptions(
        mode=None if mode is None else _MODES[mode],
        verify=None if verify is None else _FLAGS[verify],
        name="" if name is None else _name(name),
        pins=None if pins is None else _pins(pins),
        mayDisable=mode != b"off" or SSL_OFF in may,
    )


def _name(given: bytes) -> str:
    text = given.decode("ascii", "replace")
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if len(text) <= _LONGEST_NAME and (isHostName(bare) or _isAddress(bare)):
        return bare
    raise Unusable("sent an invalid Auth-Proxy-SSL-Name: must be a host name or an address", given)


def _isAddress(text: str) -> bool:
    try:
        return ip_address(text).compressed != "" and "%" not in text
    except ValueError:
        return False


def _pins(given: bytes) -> tuple[str, ...]:
    items = given.decode("ascii", "replace").replace(",", " ").split()
    try:
        pins = tuple(dict.fromkeys(map(parsePin, items)))
    except ValueError:
        pins = ()
    if not 0 < len(pins) <= _MOST_PINS:
        raise Unusable(
            f"sent an invalid Auth-Proxy-SSL-Pin: must have 1 to {_MOST_PINS} digests, each sha256//BASE64 of a public"
            " key, or 64 hexadecimal digits of a certificate",
            given,
        )
    return pins


def _method(given: bytes | None, request: LoginRequest, judged: bool) -> str:
    if given is None:
        return ""
    word = given.decode("ascii", "replace")
    if word not in _METHODS:
        raise Unusable(f"sent an invalid Auth-Proxy-Method: must be one of {', '.join(_METHODS)}", given)
    if word == "none" and request.protocol in WITH_LOGIN:
        name = WITH_LOGIN[request.protocol]
        raise Unusable(f"sent Auth-Proxy-Method: none for {name}, which has no session without a login")
    if word in UNPROVEN and not judged:
        # Knowing a user name would be enough to log in.
        raise Unusable(f"sent Auth-Proxy-Method: {word} although it did not receive the client's password")
    return word


def _identity(values: Values, name: bytes) -> bytes | None:
    """Return an identity of SASL. An empty one is invalid: it could stand for the master user's own mailbox."""
    given = lastOf(values, name.lower())
    if given is None:
        return None
    if not 0 < len(given) <= LONGEST_CREDENTIAL or _CONTROL.search(given):
        raise Unusable(
            f"sent an invalid {name.decode('ascii')}: must have 1 to {LONGEST_CREDENTIAL} bytes, and no control"
            " characters",
            given,
        )
    return given


def _identifies(given: bytes | None, request: LoginRequest, doubt: Doubt) -> bool:
    if given in (None, b"auto"):
        return True
    if given != b"off":
        doubt("sent an invalid Auth-Proxy-Identity, which has no effect: must be auto or off", given or b"")
        return True
    if request.credentials.method is Method.NONE:
        # The backend can check mail without a login only by the client's address.
        doubt("sent Auth-Proxy-Identity: off for mail without a login, where it has no effect", given)
        return True
    return False


def _forward(given: Collection[bytes], doubt: Doubt) -> tuple[tuple[bytes, bytes], ...]:
    fields: dict[bytes, tuple[bytes, bytes]] = {}
    size = 0
    for item in given:
        key, equals, value = item.strip(b" ").partition(b"=")
        if not equals or not isForwardable(key, value):
            doubt(
                "sent an invalid Auth-Proxy-Forward, which is not passed on: must be KEY=VALUE, a key of up to 20 ASCII"
                f" letters, digits, - and _ and a value of up to {LONGEST_FORWARDED} printable ASCII characters",
                key,
            )
        elif (key.lower() not in fields and len(fields) >= MOST_FORWARDED) or size + len(item) > _MOST_FORWARDED_BYTES:
            doubt(
                f"sent more than {MOST_FORWARDED} Auth-Proxy-Forward, or more than {_MOST_FORWARDED_BYTES} bytes of"
                " them; the gateway ignores the others",
                key,
            )
        else:
            fields[key.lower()] = (key, value)
            size += len(item)
    return tuple(fields.values())


def _hold(given: bytes | None, doubt: Doubt) -> float:
    if given is None:
        return 0.0
    if not SECONDS.fullmatch(given):
        doubt("sent an invalid Auth-Proxy-Hold, which has no effect: must be a number of seconds", given)
        return 0.0
    return float(min(int(given), LONGEST_HOLD))


def _lifetime(given: bytes | None) -> float | None:
    if given is None:
        return None
    if not SECONDS.fullmatch(given):
        # The session would have no limit.
        raise Unusable("sent an invalid Auth-Session-Timeout: must be a number of seconds", given)
    return float(min(int(given), LONGEST_LIFE))


def _isUnlimited(values: Values, doubt: Doubt) -> bool:
    given = lastOf(values, b"auth-limit")
    if given not in (None, b"none"):
        doubt("sent an invalid Auth-Limit, which has no effect: must be none", given or b"")
    return isUnlimited(values)
