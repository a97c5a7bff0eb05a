# -*- test-case-name: mailgate.test.backend.test_credentials -*-
"""
The credentials for a login at a backend.
"""

from __future__ import annotations

import base64
from typing import TypeAlias

from attrs import define, evolve, field

from mailgate.backend.errors import BackendError
from mailgate.backend.settings import UNPROVEN, ProxySettings
from mailgate.login import Route, RouteOptions, ScramSecret

__all__ = ["BackendCredentials", "PasswordLogin", "credentialsFor"]


_NO_OPTIONS = RouteOptions()


@define(unsafe_hash=True)
class PasswordLogin:
    """
    A user name and a password. Nothing changes it: that is no C{frozen} class, as its constructor would take twice as
    long.

    @ivar user: the user name.
    @ivar password: L{None} if the gateway does not know it.
    @ivar authzid: the authorization identity (RFC 4616, section 2): the user whose mailbox to open. Empty or L{None}
        for C{user}'s own.
    @ivar judged: whether an authenticator has accepted the password. If not, the backend decides.
    @ivar method: how to log in, as in C{proxy_auth}. C{password} is a token for C{xoauth2} and C{oauthbearer}.
    @ivar mailbox: the user whose mailbox is opened, if C{user} contains more than that name, such as C{joe*master}.
    @ivar options: what the authenticator decided about this login in place of directives.
    @ivar scram: the user's secret with the client's key, if the client has logged in by SCRAM.
    """

    user: bytes
    password: bytes | None = field(repr=False)
    authzid: bytes | None = None
    judged: bool = True
    method: str = "auto"
    mailbox: bytes = b""
    options: RouteOptions = _NO_OPTIONS
    scram: ScramSecret | None = field(default=None, repr=False)

    @property
    def identifies(self) -> bool:
        """Whether the backend receives the client's address, as far as the authenticator decides that."""
        return self.options.identifies

    @property
    def forward(self) -> tuple[tuple[bytes, bytes], ...]:
        """Additional fields about the client for the backend, as pairs of key and value."""
        return self.options.forward

    @property
    def owner(self) -> bytes:
        """The name by which the backend opens the mailbox."""
        return self.authzid or self.user

    @property
    def person(self) -> bytes:
        """The user whose mailbox is opened, without the name of a master user."""
        return self.mailbox or self.owner

    @property
    def knownPassword(self) -> bytes:
        """
        The password.

        @raise BackendError: the gateway does not know it.
        """
        if self.password is None:
            raise BackendError("needs a password that the gateway does not know", counts=False, cause="")
        return self.password

    @property
    def plainMessage(self) -> bytes:
        """
        The message of SASL PLAIN (RFC 4616) in base64.

        @raise BackendError: the gateway does not know the password.
        """
        return base64.b64encode(b"\0".join((self.authzid or b"", self.user, self.knownPassword)))


BackendCredentials: TypeAlias = PasswordLogin
"""The types of credentials for L{mailgate.backend.client.ProxyClient.login}."""


def credentialsFor(proxy: ProxySettings, route: Route) -> PasswordLogin | None:
    """
    Return what to log in with; L{None} if nothing has checked the user's password, and the backend would not.

    @param proxy: the directives.
    @param route: the answer of the authenticator.
    """
    if route.scram is not None:
        return _byScram(proxy, route)
    if route.options is None and proxy.masterUser is None:
        # Most logins.
        if not route.judged and proxy.method in UNPROVEN:
            return None
        return PasswordLogin(route.user, route.password, route.authzid, route.judged, proxy.method)
    options = route.options or _NO_OPTIONS
    method = options.method or proxy.method
    isMaster = proxy.masterUser is not None and options.authid is None
    if not route.judged and (isMaster or method in UNPROVEN):
        return None
    named = route.authzid or route.user
    if not named:
        # There is no login (smtp_auth none): no name that is not the client's may reach the backend.
        return PasswordLogin(route.user, route.password, route.authzid, route.judged, method, options=options)
    owner = options.authzid or named
    if not (isMaster or options.authid):
        authzid = options.authzid or route.authzid
        return PasswordLogin(route.user, route.password, authzid, route.judged, method, options=options)
    if options.authid:
        return PasswordLogin(options.authid, route.password, owner, route.judged, method, options=options)
    master, password = (proxy.masterUser or "").encode(), (proxy.masterPassword or "").encode()
    if b"$user" in master:
        return PasswordLogin(master.replace(b"$user", owner), password, None, True, method, owner, options)
    return PasswordLogin(master, password, owner, True, method, options=options)


def _byScram(proxy: ProxySettings, route: Route) -> PasswordLogin | None:
    """
    Return what to log in with after a login by SCRAM. If no password is known, the client's key logs in: by the same
    method, unless the directives or the authenticator name another one.
    """
    login = credentialsFor(proxy, evolve(route, scram=None))
    if login is None or login.password is not None or login.user != route.user:
        # The key is that of the user, not of a master user.
        return login
    assert route.scram is not None
    method = route.scram.method.value if login.method == "auto" else login.method
    return evolve(login, method=method, scram=route.scram)
