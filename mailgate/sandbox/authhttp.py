# -*- test-case-name: mailgate.test.sandbox.test_authhttp -*-
"""
The authentication service of the sandbox: the server side of nginx's C{auth_http}
(U{https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html}), over HTTP without TLS on a loopback address.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from urllib.parse import unquote_to_bytes

from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from mailgate.directives import ListenAddress
from mailgate.login import Method
from mailgate.sandbox.account import Accounts

__all__ = ["AuthResource", "authSite"]

Reply = list[tuple[str, bytes]]

_DENIED: Reply = [("Auth-Status", b"Invalid login or password"), ("Auth-Wait", b"3")]
_NO_RECIPIENT: Reply = [("Auth-Status", b"No such user here"), ("Auth-Error-Code", b"550 5.1.1")]
_UNKNOWN_PROTOCOL: Reply = [("Auth-Status", b"Unknown protocol")]
_RECIPIENT = re.compile(rb"RCPT +TO: *<(?:@[^:<>]*:)?([^<>@\s]+)@([^<>@\s]+)>(?: .*)?", re.IGNORECASE)


class AuthResource(Resource):
    """
    Judges one login per request. The response contains the password only if the client sent a digest in place of it.

    @param accounts: the accounts of the sandbox.
    @param address: returns the real address of the sandbox's server of a protocol.
    """

    isLeaf = True

    def __init__(self, accounts: Accounts, address: Callable[[str], ListenAddress]) -> None:
        super().__init__()
        self._accounts = accounts
        self._address = address

    def render_GET(self, request: Request) -> bytes:
        # This response is for one login only.
        request.setHeader("Cache-Control", "no-store")
        for name, value in self._judge(request):
            request.setHeader(name.encode("ascii"), value)
        return b""

    def _judge(self, request: Request) -> Reply:
        protocol = _header(request, "Auth-Protocol").decode("latin-1")
        if protocol not in ("imap", "pop3", "smtp", "sieve"):
            return _UNKNOWN_PROTOCOL
        method = _header(request, "Auth-Method")
        if method == Method.NONE.value.encode("ascii"):
            recipient = _header(request, "Auth-SMTP-To")
            return self._route(protocol) if protocol == "smtp" and self._receives(recipient) else _NO_RECIPIENT
        name = self._accounts.resolve(unquote_to_bytes(_header(request, "Auth-User")))
        if name is None:
            return _DENIED
        password = self._accounts.password(name)
        given = unquote_to_bytes(_header(request, "Auth-Pass"))
        expected = _expected(method, password, unquote_to_bytes(_header(request, "Auth-Salt")))
        if expected is None or not hmac.compare_digest(expected, given):
            return _DENIED
        extra: Reply = [("Auth-User", name.encode("ascii"))]
        if expected is not password:
            extra.append(("Auth-Pass", password))
        return self._route(protocol, extra)

    def _route(self, protocol: str, extra: Iterable[tuple[str, bytes]] = ()) -> Reply:
        address = self._address(protocol)
        return [
            ("Auth-Status", b"OK"),
            ("Auth-Server", address.host.encode("ascii")),
            ("Auth-Port", b"%d" % address.port),
            *extra,
        ]

    def _receives(self, command: bytes) -> bool:
        match = _RECIPIENT.fullmatch(command.strip())
        if match is None or match[2].lower() != self._accounts.domain.encode("ascii"):
            return False
        return self._accounts.resolve(match[1]) is not None


def _header(request: Request, name: str) -> bytes:
    found: bytes | None = request.getHeader(name.encode("ascii"))
    return found or b""


def _expected(method: bytes, password: bytes, salt: bytes) -> bytes | None:
    """What a client with the right C{password} sends with C{method}; C{None} for methods without a password."""
    if method == b"plain":
        return password
    if method == b"apop" and salt:
        return hashlib.md5(salt + password).hexdigest().encode("ascii")
    if method == b"cram-md5" and salt:
        return hmac.new(password, salt, hashlib.md5).hexdigest().encode("ascii")
    return None


class _QuietSite(Site):
    """A site without an access log: the gateway logs every login."""

    noisy = False

    def log(self, request: object) -> None:
        """Log nothing."""


def authSite(accounts: Accounts, address: Callable[[str], ListenAddress], reactor: object) -> Site:
    """
    Make the authentication service. Its path is C{/auth}.

    @param accounts: the accounts of the sandbox.
    @param address: returns the real address of the sandbox's server of a protocol.
    @param reactor: the reactor, for timeouts.
    """
    root = Resource()
    root.putChild(b"auth", AuthResource(accounts, address))
    return _QuietSite(root, reactor=reactor, timeout=30)
