# -*- test-case-name: mailgate.test.sandbox.test_account -*-
"""
The accounts of the sandbox: one for each user of C{[sandbox]}, with its password, and with folders and
Sieve scripts in memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone
from email.utils import format_datetime

from twisted.mail.imap4 import (
    IAccount,
    INamespacePresenter,
    MailboxException,
    wildcardToRegexp,
)
from zope.interface import implementer

from mailgate.sandbox.mailbox import DELIMITER, Folder, FolderInfo, FolderView, Quota
from mailgate.sandbox.scripts import Scripts
from mailgate.sandbox.settings import SandboxSettings

__all__ = ["Account", "Accounts"]

_INBOX = "INBOX"
_MOST_FOLDERS = 100
_LONGEST_NAME = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _canonicalName(name: str) -> str:
    """C{name}, but C{INBOX} for INBOX in any case (RFC 3501, 5.1)."""
    return _INBOX if name.upper() == _INBOX else name


@implementer(IAccount, INamespacePresenter)
class Account:
    """
    The folders of one user, and the Sieve scripts. INBOX always exists.

    UIDVALIDITY is the time of the start: after a restart UIDs begin at 1 again, and clients must not mistake them for
    the previous ones.

    @param seconds: the clock.
    @param quota: the limits of the account; L{None} for the default.
    """

    def __init__(self, seconds: Callable[[], float], quota: Quota | None = None) -> None:
        self._seconds = seconds
        self.quota = quota or Quota()
        self.scripts = Scripts()
        self._uidValidity = max(1, int(seconds())) % 2**32
        self.folders: dict[str, Folder] = {}
        self.subscriptions = {_INBOX}
        self.addMailbox(_INBOX)

    @property
    def inbox(self) -> Folder:
        """The folder that receives mail, and that POP3 serves."""
        return self.folders[_INBOX]

    def now(self) -> datetime:
        """The current time, in UTC."""
        return datetime.fromtimestamp(self._seconds(), timezone.utc)

    def deliver(self, raw: bytes) -> None:
        """
        Put the message C{raw} into the inbox.

        @raise OverQuota: the account is full.
        """
        self.inbox.add(raw, (), self.now())

    # IAccount.

    def addMailbox(self, name: str, mbox: Folder | None = None) -> bool:
        name = _canonicalName(name)
        if name in self.folders:
            raise MailboxException("The mailbox exists already")
        if not name or len(name) > _LONGEST_NAME or _CONTROL.search(name):
            raise MailboxException("No mailbox can have this name")
        if len(self.folders) >= _MOST_FOLDERS:
            raise MailboxException("There are too many mailboxes")
        self.folders[name] = mbox or Folder(self._uidValidity, self.quota)
        self._uidValidity += 1
        return True

    def create(self, pathspec: str) -> bool:
        parts = [part for part in pathspec.split(DELIMITER) if part]
        if not parts:
            raise MailboxException("No mailbox can have this name")
        paths = [DELIMITER.join(parts[:length]) for length in range(1, len(parts) + 1)]
        for path in paths[:-1]:
            if _canonicalName(path) not in self.folders:
                self.addMailbox(path)
        return self.addMailbox(paths[-1])

    def select(self, name: str, rw: bool = True) -> FolderView | None:
        folder = self.folders.get(_canonicalName(name))
        return None if folder is None else FolderView(folder, bool(rw), self.now())

    def delete(self, name: str) -> bool:
        folder = self._existing(name)
        if self._inferior(name):
            raise MailboxException("The mailbox has inferior ones")
        if folder is self.inbox:
            raise MailboxException("The inbox stays")
        folder.remove(list(folder.messages))
        del self.folders[name]
        return True

    def rename(self, oldname: str, newname: str) -> bool:
        if self._existing(oldname) is self.inbox:
            raise MailboxException("The inbox stays")
        moved = {old: newname + old[len(oldname) :] for old in [oldname, *self._inferior(oldname)]}
        for new in moved.values():
            if _canonicalName(new) in self.folders or len(new) > _LONGEST_NAME or _CONTROL.search(new) or not new:
                raise MailboxException("The mailbox cannot have this name")
        for old, new in moved.items():
            self.folders[new] = self.folders.pop(old)
        return True

    def isSubscribed(self, name: str) -> bool:
        return _canonicalName(name) in self.subscriptions

    def subscribe(self, name: str) -> bool:
        self._existing(name)
        self.subscriptions.add(_canonicalName(name))
        return True

    def unsubscribe(self, name: str) -> bool:
        self.subscriptions.discard(_canonicalName(name))
        return True

    def listMailboxes(self, ref: str, wildcard: str) -> list[tuple[str, FolderInfo]]:
        if not wildcard:  # the client asks for the delimiter (RFC 3501, 6.3.8)
            return [("", FolderInfo(("\\Noselect",)))]
        pattern = wildcardToRegexp(ref + wildcard, DELIMITER)
        return [
            (name, FolderInfo(("\\HasChildren" if self._inferior(name) else "\\HasNoChildren",)))
            for name in sorted(self.folders, key=lambda name: (name != _INBOX, name))
            if pattern.fullmatch(name)
        ]

    def _existing(self, name: str) -> Folder:
        folder = self.folders.get(_canonicalName(name))
        if folder is None:
            raise MailboxException("There is no such mailbox")
        return folder

    def _inferior(self, name: str) -> list[str]:
        return [other for other in self.folders if other.startswith(name + DELIMITER)]

    # INamespacePresenter.

    def getPersonalNamespaces(self) -> list[list[bytes]]:
        return [[b"", DELIMITER.encode("ascii")]]

    def getSharedNamespaces(self) -> None:
        return None

    def getUserNamespaces(self) -> None:
        return None


_WELCOME = """\
From: mailgate <postmaster@{domain}>
To: {user}@{domain}
Subject: Welcome to mailgate
Date: {date}
Message-ID: <welcome.{stamp}.{user}@{domain}>
MIME-Version: 1.0
Content-Type: text/plain; charset=us-ascii

Hello, {user}.

You are reading this through mailgate. It asked an HTTP service to check your
name and password and to say which server has your mailbox. It logged in to
that server for you. Since then it relays the connection.

All mailboxes are in memory. You can write to any user of {domain}.
"""

_SCRIPT = b"# The demo stores Sieve scripts. It does not run them.\r\nkeep;\r\n"


class Accounts:
    """
    All accounts by user. Each account starts with a welcome message, and a script.

    @param settings: the settings of the sandbox.
    @param seconds: the clock.
    """

    def __init__(self, settings: SandboxSettings, seconds: Callable[[], float]) -> None:
        self.domain = settings.domain
        self._passwords = {user.name: user.password.encode("utf-8") for user in settings.users}
        self._accounts = {user.name: Account(seconds) for user in settings.users}
        for name, account in self._accounts.items():
            now = account.now()
            text = _WELCOME.format(domain=self.domain, user=name, date=format_datetime(now), stamp=int(now.timestamp()))
            account.deliver(text.encode("ascii"))
            account.scripts.put("welcome", _SCRIPT)

    def __getitem__(self, name: str) -> Account:
        return self._accounts[name]

    def resolve(self, login: bytes) -> str | None:
        """
        The name of a user.

        @param login: the name from the client, with or without the domain, in any case.
        @return: the name; C{None} if there is no such user.
        """
        local, at, domain = login.decode("utf-8", "replace").lower().rpartition("@")
        name = local if at else domain
        return name if name in self._accounts and (not at or domain == self.domain) else None

    def password(self, name: str) -> bytes:
        """The password of the user C{name}."""
        return self._passwords[name]
