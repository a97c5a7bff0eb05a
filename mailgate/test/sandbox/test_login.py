"""
Tests for L{mailgate.sandbox.login}.
"""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm
from twisted.internet.task import Clock
from twisted.mail import imap4, pop3, smtp
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.login import SandboxChecker, SandboxRealm, sandboxPortal
from mailgate.sandbox.settings import SandboxSettings


class SandboxPortalTests(SynchronousTestCase):
    """Tests for L{sandboxPortal}."""

    def setUp(self):
        self.accounts = Accounts(SandboxSettings(), Clock().seconds)
        self.portal = sandboxPortal(self.accounts)

    def test_interfaces(self):
        """Checker and realm implement twisted.cred's interfaces."""
        verifyObject(ICredentialsChecker, SandboxChecker(self.accounts))
        verifyObject(IRealm, SandboxRealm(self.accounts))

    def test_avatars(self):
        """The right password opens the user's mailbox in the form of each protocol."""
        for interface in (imap4.IAccount, pop3.IMailbox, smtp.IMessageDelivery):
            login = self.portal.login(UsernamePassword(b"alice@example.com", b"wonderland"), None, interface)
            found, avatar, logout = self.successResultOf(login)
            self.assertIs(found, interface)
            verifyObject(interface, avatar)
            logout()
        login = self.portal.login(UsernamePassword(b"alice", b"wonderland"), None, imap4.IAccount)
        self.assertIs(self.successResultOf(login)[1], self.accounts["alice"])

    def test_denied(self):
        """A wrong password, another user's, an empty one and an unknown user get the same refusal."""
        for user, password in ((b"alice", b"builder"), (b"alice", b""), (b"nobody", b"x"), (b"", b"")):
            login = self.portal.login(UsernamePassword(user, password), None, imap4.IAccount)
            self.failureResultOf(login, UnauthorizedLogin)

    def test_otherInterface(self):
        """Another protocol is refused."""
        login = self.portal.login(UsernamePassword(b"alice", b"wonderland"), None, IRealm)
        self.failureResultOf(login, NotImplementedError)
