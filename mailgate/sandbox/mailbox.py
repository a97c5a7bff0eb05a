# -*- test-case-name: mailgate.test.sandbox.test_mailbox -*-
"""
Folders in memory, and each IMAP session's view of a folder.

Sessions share a folder, but the sequence numbers of a session must not change before the server announces it (RFC 3501,
7.4.1). So each SELECT makes a L{FolderView}, which keeps messages that other sessions expunged until
L{FolderView.takeExpunged}. No message is C{\\Recent}: clients do not need this flag.
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
    """The account is full. Nothing was added."""


@define
class Quota:
    """
    The limits of an account over all its folders, and its current contents.

    @ivar mostMessages: the limit of messages.
    @ivar mostBytes: the limit of bytes.
    @ivar messages: the number of messages.
    @ivar bytes: the sum of their sizes, in bytes.
    """

    mostMessages: int = 1000
    mostBytes: int = 50 * 1024 * 1024
    messages: int = 0
    bytes: int = 0

    def charge(self, sizes: Sequence[int]) -> None:
        """
        Add messages to the count, all or none.

        @param sizes: their sizes, in bytes.
        @raise OverQuota: the account is too full for them.
        """
        if self.messages + len(sizes) > self.mostMessages or self.bytes + sum(sizes) > self.mostBytes:
            raise OverQuota("The mailbox is full")
        self.messages += len(sizes)
        self.bytes += sum(sizes)

    def release(self, sizes: Sequence[int]) -> None:
        """Subtract messages of C{sizes} bytes from the count."""
        self.messages -= len(sizes)
        self.bytes -= sum(sizes)


def _knownFlags(flags: Iterable[str]) -> frozenset[str]:
    """The flags to store: system flags as RFC 3501 writes them, and a limited number of keywords."""
    given = set(flags)
    system = {_SYSTEM[flag.lower()] for flag in given if flag.lower() in _SYSTEM}
    keywords = sorted(flag for flag in given if not flag.startswith("\\") and len(flag) <= _LONGEST_KEYWORD)
    return frozenset(system.union(keywords[:_MOST_KEYWORDS]))


class IExpungeListener(IMailboxListener):
    """A listener that learns of messages that other sessions removed."""

    def messagesGone() -> None:
        """
        Other sessions removed messages. Call L{FolderView.takeExpunged} as soon as the protocol allows to announce it.
        """


@define(eq=False)
class Folder:
    """
    One mailbox of an account. UIDs count up from 1 and are never used again (RFC 3501, 2.3.1.1).

    @ivar uidValidity: its UIDVALIDITY.
    @ivar quota: the limits of its account.
    @ivar uidNext: the UID of the next message.
    @ivar messages: its messages, in the order of UIDs.
    @ivar views: the views that learn of changes.
    """

    uidValidity: int
    quota: Quota = field(factory=Quota)
    uidNext: int = 1
    messages: list[Message] = field(factory=list)
    views: list[FolderView] = field(factory=list)

    def add(self, raw: bytes, flags: Iterable[str], date: datetime) -> Message:
        """
        Add a message, and inform the views.

        @param raw: the bytes of the message.
        @param flags: its flags, as IMAP writes them.
        @param date: when it arrived, with a time zone.
        @raise OverQuota: the account is full.
        """
        raw = canonical(raw)
        self.quota.charge([len(raw)])
        return self._append(raw, _knownFlags(flags), date)

    def copy(self, messages: Sequence[Message]) -> list[Message]:
        """
        Add copies of C{messages} with the same flags and dates, all or none (RFC 3501, 6.4.7).

        @raise OverQuota: the account is too full for all of them.
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
        """Remove those of C{messages} that are still in the folder, and inform the views."""
        gone = {message.uid for message in messages}
        removed = [message for message in self.messages if message.uid in gone]
        if removed:
            self.messages = [message for message in self.messages if message.uid not in gone]
            self.quota.release([len(message.raw) for message in removed])
            for view in list(self.views):
                view.removed({message.uid for message in removed})

    def setFlags(self, message: Message, flags: Iterable[str], teller: FolderView | None = None) -> None:
        """
        Replace the flags of a message.

        @param message: the message.
        @param flags: the new flags, as IMAP writes them.
        @param teller: the view whose session already announces the change. All other views are informed.
        """
        known = _knownFlags(flags)
        if known != message.flags:
            message.flags = known
            for view in list(self.views):
                if view is not teller:
                    view.flagged(message)


@implementer(IMailboxInfo)
@define
class FolderInfo:
    """
    A folder in a response to LIST.

    @ivar attributes: its attributes, which are not the flags of its messages.
    """

    attributes: tuple[str, ...] = ()

    def getFlags(self) -> list[str]:
        return list(self.attributes)

    def getHierarchicalDelimiter(self) -> str:
        return DELIMITER


@implementer(IMailbox, ISearchableMailbox, IMessageCopier)
class FolderView:
    """
    A folder as one session or one command sees it.

    @ivar folder: the folder.
    @ivar messages: its messages, in the order of the session's sequence numbers.
    @param writeable: whether the session may change the folder.
    @param now: the time for messages that are added without a date.
    """

    def __init__(self, folder: Folder, writeable: bool, now: datetime) -> None:
        self.folder = folder
        self._writeable = writeable
        self._now = now
        self.messages = list(folder.messages)
        self._gone: set[int] = set()
        self._listeners: list[Any] = []

    # Called by the folder.

    def arrived(self, message: Message) -> None:
        """C{message} was added."""
        self.messages.append(message)
        for listener in self._listeners:
            listener.newMessages(len(self.messages), None)

    def removed(self, uids: set[int]) -> None:
        """The messages with these C{uids} were removed."""
        self._gone |= uids
        for listener in self._listeners:
            if IExpungeListener.providedBy(listener):
                listener.messagesGone()

    def flagged(self, message: Message) -> None:
        """The flags of C{message} changed."""
        for number, mine in enumerate(self.messages, 1):
            if mine.uid == message.uid:
                for listener in self._listeners:
                    listener.flagsChanged({number: tuple(message.getFlags())})

    def takeExpunged(self) -> list[int]:
        """
        Remove expunged messages from this view. The caller announces them to its client.

        @return: their sequence numbers, the highest first, so that each number is still right when it is announced.
        """
        expunged = [n for n, message in enumerate(self.messages, 1) if message.uid in self._gone]
        self.messages = [message for message in self.messages if message.uid not in self._gone]
        self._gone.clear()
        return expunged[::-1]

    def see(self, message: Message) -> None:
        """Mark C{message} as C{\\Seen}, unless the folder is read-only."""
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
        """
        Add a message.

        @param message: a file with its bytes.
        @param flags: its flags.
        @param date: when it arrived, with a time zone; L{None} for now.
        @return: fires with its UID.
        """
        return maybeDeferred(self._add, message.read(), flags, date)

    def _add(self, raw: bytes, flags: Iterable[str], date: datetime | None) -> int:
        self._demandWriteable()
        return self.folder.add(raw, flags, date or self._now).uid

    def expunge(self, uids: MessageSet | None = None) -> list[int]:
        """
        Remove messages with the flag C{\\Deleted}.

        @param uids: remove only these (RFC 4315, 2.1); L{None} for all.
        @return: as of L{takeExpunged}.
        """
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
