# -*- test-case-name: mailgate.test.sandbox.test_mailbox -*-
"""
Folders in memory, and what one IMAP session sees of a folder.

A folder is shared; a session's sequence numbers must not move before the session has been told (RFC 3501, 7.4.1). So
each SELECT gives a L{FolderView} of its own, which keeps what others have expunged until L{FolderView.takeExpunged}.
No message is C{\\Recent} here: whether a session is the first to see it would have to be kept, and no client minds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.mail.imap4 import (
    IMailbox,
    IMailboxInfo,
    IMailboxListener,
    IMessageCopier,
    ISearchableMailbox,
    MailboxException,
    MessageSet,
    ReadOnlyMailbox,
    statusRequestHelper,
)
from zope.interface import implementer

from mailgate.sandbox.message import Message, canonical
from mailgate.sandbox.search import search

__all__ = ["DELIMITER", "Folder", "FolderInfo", "FolderView", "IExpungeListener", "OverQuota", "Quota"]

DELIMITER = "/"
_SYSTEM = {flag.lower(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}
_MOST_KEYWORDS = 32
_LONGEST_KEYWORD = 64


class OverQuota(MailboxException):
    """The account holds as much as it may: nothing of what was to be added has been."""


@define
class Quota:
    """What an account may hold over all its folders, and holds."""

    mostMessages: int = 1000
    mostBytes: int = 50 * 1024 * 1024
    messages: int = 0
    bytes: int = 0

    def charge(self, sizes: Sequence[int]) -> None:
        """
        Count messages of C{sizes} in, all or none.

        @raise OverQuota: there is no room for them.
        """
        if self.messages + len(sizes) > self.mostMessages or self.bytes + sum(sizes) > self.mostBytes:
            raise OverQuota("The mailbox is full")
        self.messages += len(sizes)
        self.bytes += sum(sizes)

    def release(self, sizes: Sequence[int]) -> None:
        """Count messages of C{sizes} out."""
        self.messages -= len(sizes)
        self.bytes -= sum(sizes)


def _knownFlags(flags: Iterable[str]) -> frozenset[str]:
    """C{flags} as they are kept: system flags as RFC 3501 writes them, as many keywords as there is room for."""
    given = set(flags)
    system = {_SYSTEM[flag.lower()] for flag in given if flag.lower() in _SYSTEM}
    keywords = sorted(flag for flag in given if not flag.startswith("\\") and len(flag) <= _LONGEST_KEYWORD)
    return frozenset(system.union(keywords[:_MOST_KEYWORDS]))


class IExpungeListener(IMailboxListener):
    """A listener that can be told of messages that others have removed."""

    def messagesGone() -> None:
        """Some have: L{FolderView.takeExpunged} may be called as soon as the protocol allows it."""


@define(eq=False)
class Folder:
    """One mailbox of an account; UIDs count up from 1 and are never used again (RFC 3501, 2.3.1.1)."""

    uidValidity: int
    quota: Quota = field(factory=Quota)
    uidNext: int = 1
    messages: list[Message] = field(factory=list)
    views: list[FolderView] = field(factory=list)

    def add(self, raw: bytes, flags: Iterable[str], date: datetime) -> Message:
        """
        Put a message in; who looks at the folder is told.

        @raise OverQuota: there is no room for it.
        """
        raw = canonical(raw)
        self.quota.charge([len(raw)])
        return self._append(raw, _knownFlags(flags), date)

    def copy(self, messages: Sequence[Message]) -> list[Message]:
        """
        Put copies of C{messages} in, flags and dates as they are, all or none (RFC 3501, 6.4.7).

        @raise OverQuota: there is no room for all of them.
        """
        self.quota.charge([len(message.raw) for message in messages])
        return [self._append(message.raw, message.flags, message.date) for message in messages]

    def _append(self, raw: bytes, flags: frozenset[str], date: datetime) -> Message:
        message = Message(raw, self.uidNext, flags, date)
        self.uidNext += 1
        self.messages.append(message)
        for view in list(self.views):
            view.arrived(message)
        return message

    def remove(self, messages: Iterable[Message]) -> None:
        """Take those of C{messages} out that are still in; who looks at the folder is told."""
        gone = {message.uid for message in messages}
        removed = [message for message in self.messages if message.uid in gone]
        if removed:
            self.messages = [message for message in self.messages if message.uid not in gone]
            self.quota.release([len(message.raw) for message in removed])
            for view in list(self.views):
                view.removed({message.uid for message in removed})

    def setFlags(self, message: Message, flags: Iterable[str], teller: FolderView | None = None) -> None:
        """Give C{message} these flags; every view but C{teller} tells of it."""
        known = _knownFlags(flags)
        if known != message.flags:
            message.flags = known
            for view in list(self.views):
                if view is not teller:
                    view.flagged(message)


@implementer(IMailboxInfo)
@define
class FolderInfo:
    """What LIST says of a folder: its attributes, which are not the flags of its messages."""

    attributes: tuple[str, ...] = ()

    def getFlags(self) -> list[str]:
        return list(self.attributes)

    def getHierarchicalDelimiter(self) -> str:
        return DELIMITER


@implementer(IMailbox, ISearchableMailbox, IMessageCopier)
class FolderView:
    """A folder as one session has selected it, or as one command looks at it; C{now} gives the time."""

    def __init__(self, folder: Folder, writeable: bool, now: datetime) -> None:
        self.folder = folder
        self._writeable = writeable
        self._now = now
        self.messages = list(folder.messages)
        self._gone: set[int] = set()
        self._listeners: list[Any] = []

    # Told by the folder.

    def arrived(self, message: Message) -> None:
        """C{message} has been added."""
        self.messages.append(message)
        for listener in self._listeners:
            listener.newMessages(len(self.messages), None)

    def removed(self, uids: set[int]) -> None:
        """The messages C{uids} are no longer in the folder."""
        self._gone |= uids
        for listener in self._listeners:
            if IExpungeListener.providedBy(listener):
                listener.messagesGone()

    def flagged(self, message: Message) -> None:
        """The flags of C{message} have changed."""
        for number, mine in enumerate(self.messages, 1):
            if mine.uid == message.uid:
                for listener in self._listeners:
                    listener.flagsChanged({number: tuple(message.getFlags())})

    def takeExpunged(self) -> list[int]:
        """
        The sequence numbers of what has been removed and not yet been told of, in the order to tell them: each
        counts without those before it. From now on the session does without these messages.
        """
        told = [n for n, message in enumerate(self.messages, 1) if message.uid in self._gone]
        self.messages = [message for message in self.messages if message.uid not in self._gone]
        self._gone.clear()
        return told[::-1]

    def see(self, message: Message) -> None:
        """C{message} has been read, which makes it C{\\Seen} where the folder may be changed."""
        if self._writeable:
            self.folder.setFlags(message, message.flags | {"\\Seen"})

    # IMailboxInfo and IMailbox.

    def getFlags(self) -> list[str]:
        return list(_SYSTEM.values())

    def getHierarchicalDelimiter(self) -> str:
        return DELIMITER

    def getUIDValidity(self) -> int:
        return self.folder.uidValidity

    def getUIDNext(self) -> int:
        return self.folder.uidNext

    def getUID(self, message: int) -> int:
        return self.messages[message - 1].uid

    def getMessageCount(self) -> int:
        return len(self.messages)

    def getRecentCount(self) -> int:
        return 0

    def getUnseenCount(self) -> int:
        return sum("\\Seen" not in message.flags for message in self.messages)

    def isWriteable(self) -> bool:
        return self._writeable

    def destroy(self) -> None:
        self.folder.remove(list(self.folder.messages))

    def requestStatus(self, names: Iterable[str]) -> dict[str, int]:
        found: dict[str, int] = statusRequestHelper(self, names)
        return found

    def addListener(self, listener: Any) -> None:
        self._listeners.append(listener)
        if self not in self.folder.views:
            self.folder.views.append(self)

    def removeListener(self, listener: Any) -> None:
        self._listeners.remove(listener)
        if not self._listeners and self in self.folder.views:
            self.folder.views.remove(self)

    def addMessage(self, message: BytesIO, flags: Iterable[str] = (), date: datetime | None = None) -> Deferred[int]:
        """Add what C{message} holds; C{date} is a moment with its zone, where twisted.mail has none to give: now."""
        return maybeDeferred(self._add, message.read(), flags, date)

    def _add(self, raw: bytes, flags: Iterable[str], date: datetime | None) -> int:
        self._demandWriteable()
        return self.folder.add(raw, flags, date or self._now).uid

    def expunge(self, uids: MessageSet | None = None) -> list[int]:
        """Remove what is C{\\Deleted}: all, or of C{uids} (RFC 4315, 2.1). The numbers are in telling order."""
        self._demandWriteable()
        chosen = self.messages if uids is None else [message for _, message in self.fetch(uids, True)]
        self.folder.remove([message for message in chosen if "\\Deleted" in message.flags])
        return self.takeExpunged()

    def fetch(self, messages: MessageSet, uid: bool) -> list[tuple[int, Message]]:
        messages.last = (self.messages[-1].uid if self.messages else 0) if uid else len(self.messages)
        numbered = enumerate(self.messages, 1)
        return [(number, message) for number, message in numbered if (message.uid if uid else number) in messages]

    def store(self, messages: MessageSet, flags: Sequence[str], mode: int, uid: bool) -> dict[int, list[str]]:
        self._demandWriteable()
        changed = {}
        for number, message in self.fetch(messages, uid):
            wanted = message.flags.union(_knownFlags(flags)) if mode > 0 else _knownFlags(flags)
            if mode < 0:
                wanted = message.flags - _knownFlags(flags)
            self.folder.setFlags(message, wanted, self)
            changed[number] = message.getFlags()
        return changed

    # ISearchableMailbox and IMessageCopier.

    def search(self, query: list[Any], uid: bool) -> list[int]:
        return search(query, self.messages)

    def copy(self, messageObject: Message) -> int:
        self._demandWriteable()
        return self.folder.copy([messageObject])[0].uid

    def _demandWriteable(self) -> None:
        if not self._writeable:
            raise ReadOnlyMailbox("The mailbox was opened to be read only")
