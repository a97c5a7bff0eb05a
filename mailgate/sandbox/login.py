# -*- test-case-name: mailgate.test.sandbox.test_login -*-
"""
Logins at the servers of the sandbox, with twisted.cred.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail import imap4, pop3, smtp
from zope.interface import implementer

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.pop3 import Maildrop
from mailgate.sandbox.scripts import IScripts
from mailgate.sandbox.smtp import Delivery

__all__ = ["SandboxChecker", "SandboxRealm", "sandboxPortal"]


@implementer(ICredentialsChecker)
class SandboxChecker:
    """
    Checks passwords of the sandbox. User names may have the domain or not. The avatar id is the name without it.

    @param accounts: the accounts of the sandbox.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:
        name = self._accounts.resolve(credentials.username)
        if name is None or not hmac.compare_digest(self._accounts.password(name), credentials.password):
            return fail(UnauthorizedLogin())
        return succeed(name.encode("ascii"))


@implementer(IRealm)
class SandboxRealm:
    """
    Returns the mailbox of a user as each protocol needs it.

    @param accounts: the accounts of the sandbox.
    """

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> tuple[Any, Any, Callable[[], None]]:
        account = self._accounts[avatarId.decode("ascii")]
        if imap4.IAccount in interfaces:
            return imap4.IAccount, account, _nothingToDo
        if pop3.IMailbox in interfaces:
            return pop3.IMailbox, Maildrop(account), _nothingToDo
        if smtp.IMessageDelivery in interfaces:
            return smtp.IMessageDelivery, Delivery(self._accounts), _nothingToDo
        if IScripts in interfaces:
            return IScripts, account.scripts, _nothingToDo
        raise NotImplementedError(f"the sandbox has nothing for {interfaces}")


def _nothingToDo() -> None:
    """Log out. There is nothing to close: an account exists as long as the sandbox."""


def sandboxPortal(accounts: Accounts) -> Portal:
    """The portal for logins to C{accounts}."""
    return Portal(SandboxRealm(accounts), [SandboxChecker(accounts)])
