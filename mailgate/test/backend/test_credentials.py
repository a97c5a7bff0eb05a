"""
Tests for L{mailgate.backend.credentials}.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.credentials import PasswordLogin, credentialsFor
from mailgate.backend.settings import UNPROVEN, ProxySettings
from mailgate.login import RouteOptions
from mailgate.testing import routeTo

PLAIN = ProxySettings()
MASTER = ProxySettings(masterUser="gateway", masterPassword="of the directive")


class OptionsTests(SynchronousTestCase):
    """What an authenticator decides in place of proxy_auth and proxy_auth_user."""

    def login(self, proxy: ProxySettings = PLAIN, route: dict[str, Any] | None = None, **options: Any) -> PasswordLogin:
        decided = RouteOptions(**options)
        login = credentialsFor(proxy, routeTo(**(route or {}), options=decided))
        assert login is not None
        self.assertIs(login.options, decided)
        return login

    def test_method(self) -> None:
        """The method goes before proxy_auth; without one the directive counts."""
        proxy = ProxySettings(method="xoauth2")
        self.assertEqual(self.login(proxy, method="plain").method, "plain")
        self.assertEqual(self.login(proxy, hold=1.0).method, "xoauth2")

    def test_master(self) -> None:
        """The authentication identity is the master user, whose password the authenticator sent, for this mailbox."""
        for proxy in (PLAIN, MASTER):
            login = self.login(proxy, {"password": b"of the reply"}, authid=b"master")
            self.assertEqual((login.user, login.password, login.authzid), (b"master", b"of the reply", b"joe"))
            self.assertEqual((login.owner, login.person), (b"joe", b"joe"))

    def test_authzid(self) -> None:
        """The authorization identity goes before the name of the route, with each kind of master user and without."""
        self.assertEqual(self.login(authzid=b"ann").authzid, b"ann")
        self.assertEqual(self.login(authzid=b"ann").user, b"joe")
        self.assertEqual(self.login(authid=b"master", authzid=b"ann").authzid, b"ann")
        self.assertEqual(self.login(MASTER, authzid=b"ann").authzid, b"ann")
        spliced = self.login(ProxySettings(masterUser="$user*gateway", masterPassword="x"), authzid=b"ann")
        self.assertEqual((spliced.user, spliced.authzid, spliced.mailbox), (b"ann*gateway", None, b"ann"))

    def test_notJudged(self) -> None:
        """Where no password was checked, the gateway does not log in without proof, nor with its own password."""
        for word in UNPROVEN:
            for proxy in (PLAIN, MASTER):
                for authid in (None, b"master"):
                    options = RouteOptions(method=word, authid=authid)
                    self.assertIs(credentialsFor(proxy, routeTo(judged=False, options=options)), None)
        for decided in (None, RouteOptions(method="plain"), RouteOptions(authzid=b"ann")):
            self.assertIs(credentialsFor(MASTER, routeTo(judged=False, options=decided)), None)

    def test_judgedByBackend(self) -> None:
        """With the password of the client, or one that the authenticator sent, the backend decides."""
        for proxy in (PLAIN, MASTER, ProxySettings(method="none")):
            options = RouteOptions(method="plain", authid=b"joe@other")
            login = credentialsFor(proxy, routeTo(judged=False, options=options))
            assert login is not None
            self.assertEqual((login.user, login.password, login.judged), (b"joe@other", b"sesame", False))

    def test_nameless(self) -> None:
        """Without a login (smtp_auth none) no name of a master user reaches the backend."""
        for proxy in (PLAIN, MASTER):
            login = self.login(proxy, {"user": b"", "password": b""}, authid=b"master", authzid=b"ann")
            self.assertEqual((login.user, login.person), (b"", b""))
