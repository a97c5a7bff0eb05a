"""
Tests for L{mailgate.sandbox.mailbox}.
"""

from __future__ import annotations

from datetime import datetime, timezone
from io import BytesIO

from attrs import define, field
from twisted.mail.imap4 import (
    IMailbox,
    IMailboxInfo,
    IMessageCopier,
    ISearchableMailbox,
    ReadOnlyMailbox,
    parseIdList,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.sandbox.mailbox import Folder, FolderInfo, FolderView, IExpungeListener, OverQuota, Quota

NOW = datetime(2024, 1, 1, tzinfo=timezone.utc)


@implementer(IExpungeListener)
@define(eq=False)
class Listener:
    """Records the calls."""

    told: list[object] = field(factory=list)

    def newMessages(self, exists, recent):
        self.told.append(("exists", exists, recent))

    def flagsChanged(self, newFlags):
        self.told.append(("flags", newFlags))

    def modeChanged(self, writeable):
        self.told.append(("mode", writeable))

    def messagesGone(self):
        self.told.append("gone")


class MailboxTestCase(SynchronousTestCase):
    """A folder with three messages and two sessions."""

    def setUp(self):
        self.folder = Folder(7)
        for text in (b"one", b"two", b"three"):
            self.folder.add(b"a: b\n\n" + text, (), NOW)
        self.view, self.listener = self.look()
        self.other, self.otherListener = self.look()

    def look(self, writeable: bool = True) -> tuple[FolderView, Listener]:
        view, listener = FolderView(self.folder, writeable, NOW), Listener()
        view.addListener(listener)
        return view, listener


class FolderTests(MailboxTestCase):
    """Tests for L{Folder}."""

    def test_uids(self):
        """UIDs count up and are not used again after a removal."""
        self.folder.remove(self.folder.messages[-1:])
        self.assertEqual(self.folder.add(b"x", (), NOW).uid, 4)
        self.assertEqual([message.uid for message in self.folder.messages], [1, 2, 4])

    def test_flags(self):
        """System flags are stored as RFC 3501 writes them; C{\\Recent} and unknown system flags cannot be set."""
        message = self.folder.add(b"x", ("\\SEEN", "\\Recent", "\\Foo", "Work", "k" * 65), NOW)
        self.assertEqual(message.getFlags(), ["Work", "\\Seen"])

    def test_keywordsBounded(self):
        """A message stores a limited number of keywords."""
        message = self.folder.add(b"x", [f"k{n}" for n in range(1000)], NOW)
        self.assertLess(len(message.flags), 100)

    def test_quota(self):
        """Messages above the quota are refused without any change; removing messages makes room."""
        folder = Folder(1, Quota(mostMessages=2, mostBytes=100))
        first = folder.add(b"x" * 50, (), NOW)
        self.assertRaises(OverQuota, folder.add, b"x" * 50, (), NOW)
        folder.add(b"x", (), NOW)
        self.assertRaises(OverQuota, folder.add, b"", (), NOW)
        self.assertEqual((len(folder.messages), folder.quota.messages), (2, 2))
        folder.remove([first, first])
        folder.remove([first])
        self.assertEqual((folder.quota.messages, folder.quota.bytes), (1, 3))

    def test_copyAllOrNone(self):
        """Copies keep flags and dates and get new UIDs; if not all fit, none is made."""
        self.folder.setFlags(self.folder.messages[0], ["\\Seen"])
        target = Folder(8, Quota(mostMessages=3))
        self.assertEqual([copy.uid for copy in target.copy(self.folder.messages[:2])], [1, 2])
        self.assertEqual(target.messages[0].getFlags(), ["\\Seen"])
        self.assertEqual(target.messages[0].date, NOW)
        self.assertRaises(OverQuota, target.copy, self.folder.messages[:2])
        self.assertEqual(len(target.messages), 2)


class FolderViewTests(MailboxTestCase):
    """Tests for L{FolderView}."""

    def test_interfaces(self):
        """A view implements twisted.mail's interfaces for a mailbox, for search and for copies."""
        for interface in (IMailboxInfo, IMailbox, ISearchableMailbox, IMessageCopier):
            verifyObject(interface, self.view)
        verifyObject(IMailboxInfo, FolderInfo())
        verifyObject(IExpungeListener, self.listener)

    def test_status(self):
        """The counts are those of the session's view."""
        self.view.store(parseIdList(b"1"), ["\\Seen"], 1, False)
        self.assertEqual(
            self.view.requestStatus(["MESSAGES", "RECENT", "UNSEEN", "UIDNEXT", "UIDVALIDITY"]),
            {"MESSAGES": 3, "RECENT": 0, "UNSEEN": 2, "UIDNEXT": 4, "UIDVALIDITY": 7},
        )
        self.assertRaises(KeyError, self.view.requestStatus, ["FOO"])

    def test_arrival(self):
        """A new message is announced to every listening session, without delay."""
        self.folder.add(b"x", (), NOW)
        for listener in (self.listener, self.otherListener):
            self.assertEqual(listener.told, [("exists", 4, None)])

    def test_numbersStay(self):
        """A message that another session expunges keeps its number until this session announces that."""
        self.other.store(parseIdList(b"1:2"), ["\\Deleted"], 1, False)
        self.listener.told.clear()
        self.assertEqual(self.other.expunge(), [2, 1])
        self.assertEqual(self.listener.told, ["gone"])
        self.assertEqual((self.view.getMessageCount(), self.view.getUID(3)), (3, 3))
        self.assertEqual(self.view.takeExpunged(), [2, 1])
        self.assertEqual((self.view.getMessageCount(), self.view.getUID(1)), (1, 3))
        self.assertEqual(self.view.takeExpunged(), [])

    def test_arrivalBehindGone(self):
        """A message that arrives before a removal is announced is counted after the removed one."""
        self.folder.remove(self.folder.messages[:1])
        self.folder.add(b"x", (), NOW)
        self.assertEqual(self.listener.told, ["gone", ("exists", 4, None)])
        self.assertEqual(self.view.takeExpunged(), [1])
        self.assertEqual(self.view.getUID(3), 4)

    def test_expungeOfUIDs(self):
        """Of the given UIDs only deleted messages are removed."""
        self.view.store(parseIdList(b"1:2"), ["\\Deleted"], 1, False)
        self.assertEqual(self.view.expunge(parseIdList(b"2:3")), [2])
        self.assertEqual([message.uid for message in self.folder.messages], [1, 3])

    def test_storeModes(self):
        """Flags are replaced, added and removed."""
        both = ["\\Flagged", "\\Seen"]
        self.assertEqual(self.view.store(parseIdList(b"2"), both, 0, False), {2: both})
        self.assertEqual(self.view.store(parseIdList(b"2"), ["\\seen"], -1, False), {2: ["\\Flagged"]})
        self.assertEqual(self.view.store(parseIdList(b"3:*"), ["kw"], 1, True), {3: ["kw"]})
        self.assertEqual(self.view.store(parseIdList(b"2"), [], 0, False), {2: []})

    def test_flagsTold(self):
        """Other sessions learn of changed flags, with their own numbers; the session that changes them does not."""
        self.view.store(parseIdList(b"2"), ["\\Seen"], 1, False)
        self.view.store(parseIdList(b"2"), ["\\Seen"], 1, False)
        self.assertEqual(self.listener.told, [])
        self.assertEqual(self.otherListener.told, [("flags", {2: ("\\Seen",)})])

    def test_see(self):
        """Reading marks as seen, except in a read-only folder."""
        self.view.see(self.folder.messages[0])
        self.assertEqual(self.folder.messages[0].getFlags(), ["\\Seen"])
        self.look(writeable=False)[0].see(self.folder.messages[1])
        self.assertEqual(self.folder.messages[1].getFlags(), [])

    def test_fetch(self):
        """Numbers and UIDs select messages; C{*} is the last one, and numbers out of range select none."""
        self.folder.remove(self.folder.messages[:1])
        self.view.takeExpunged()
        for query, uid, expected in (
            (b"1:*", False, [(1, 2), (2, 3)]),
            (b"*", True, [(2, 3)]),
            (b"3", True, [(2, 3)]),
            (b"3", False, []),
            (b"9:*", True, [(2, 3)]),
            (b"4294967295", True, []),
            (b"1:4294967295", True, [(1, 2), (2, 3)]),
        ):
            found = self.view.fetch(parseIdList(query), uid)
            self.assertEqual([(number, message.uid) for number, message in found], expected)

    def test_fetchEmpty(self):
        """An empty folder has no messages, also for C{*}."""
        view = FolderView(Folder(1), True, NOW)
        for uid in (False, True):
            self.assertEqual(view.fetch(parseIdList(b"1:*"), uid), [])

    def test_readOnly(self):
        """A read-only view changes nothing."""
        view, _ = self.look(writeable=False)
        self.failureResultOf(view.addMessage(BytesIO(b"x")), ReadOnlyMailbox)
        self.assertRaises(ReadOnlyMailbox, view.expunge)
        self.assertRaises(ReadOnlyMailbox, view.store, parseIdList(b"1"), ["\\Seen"], 1, False)
        self.assertRaises(ReadOnlyMailbox, view.copy, self.folder.messages[0])
        self.assertEqual(len(self.folder.messages), 3)

    def test_addMessage(self):
        """A message is added with its flags, at its date or now; the UID is returned."""
        self.assertEqual(self.successResultOf(self.view.addMessage(BytesIO(b"x"), ["\\Seen"])), 4)
        self.assertEqual((self.folder.messages[3].raw, self.folder.messages[3].date), (b"x\r\n", NOW))
        self.folder.quota.mostMessages = 4
        self.failureResultOf(self.view.addMessage(BytesIO(b"x")), OverQuota)

    def test_unseenViews(self):
        """A view without listeners costs the folder nothing."""
        self.view.removeListener(self.listener)
        self.other.removeListener(self.otherListener)
        self.folder.add(b"x", (), NOW)
        self.assertEqual((self.folder.views, self.listener.told), ([], []))
        self.assertRaises(ValueError, self.view.removeListener, self.listener)

    def test_destroy(self):
        """A destroyed folder is empty."""
        self.view.destroy()
        self.assertEqual((self.folder.messages, self.folder.quota.messages), ([], 0))
