"""
Tests for L{mailgate.sandbox.account}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.mail.imap4 import IAccount, INamespacePresenter, MailboxException
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.account import Account, Accounts
from mailgate.sandbox.settings import SandboxSettings, SandboxUser


class AccountTests(SynchronousTestCase):
    """Tests for L{Account}."""

    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1700000000)
        self.account = Account(self.clock.seconds)

    def names(self, ref: str = "", wildcard: str = "*") -> list[str]:
        return [name for name, _ in self.account.listMailboxes(ref, wildcard)]

    def test_interfaces(self):
        """An account implements twisted.mail's interfaces."""
        verifyObject(IAccount, self.account)
        verifyObject(INamespacePresenter, self.account)

    def test_inbox(self):
        """INBOX always exists, by that name in any case, and is subscribed."""
        for name in ("INBOX", "inbox", "InBox"):
            self.assertIs(self.account.select(name).folder, self.account.inbox)
            self.assertTrue(self.account.isSubscribed(name))
        self.assertEqual(self.names(), ["INBOX"])

    def test_uidValidity(self):
        """UIDVALIDITY differs from earlier runs and from other folders."""
        self.account.create("a")
        first = {folder.uidValidity for folder in self.account.folders.values()}
        self.clock.advance(60)
        later = Account(self.clock.seconds)
        self.assertEqual(len(first), 2)
        self.assertNotIn(later.inbox.uidValidity, first)
        self.assertTrue(all(0 < value < 2**32 for value in first))

    def test_recreated(self):
        """A deleted folder that is created again has another UIDVALIDITY."""
        self.account.create("a")
        before = self.account.folders["a"].uidValidity
        self.account.delete("a")
        self.account.create("a")
        self.assertNotEqual(self.account.folders["a"].uidValidity, before)

    def test_create(self):
        """Parent folders are created too; names are case-sensitive, except INBOX."""
        self.account.create("Work/2024/")
        self.account.create("work")
        self.assertEqual(self.names(), ["INBOX", "Work", "Work/2024", "work"])

    def test_badNames(self):
        """A name that exists, is empty, very long or contains control characters is refused."""
        for name in ("inbox", "", "/", "x" * 1000, "a\r\nb", "a\0"):
            self.assertRaises(MailboxException, self.account.create, name)
            self.assertEqual(self.names(), ["INBOX"])

    def test_foldersBounded(self):
        """The number of folders is limited, also for nested names."""
        with self.assertRaises(MailboxException):
            for n in range(10000):
                self.account.create(f"f{n}")
        self.assertLess(len(self.account.folders), 1000)

    def test_delete(self):
        """A deleted folder loses its messages; INBOX, unknown folders and folders with children are not deleted."""
        self.account.create("a/b")
        self.account.folders["a/b"].add(b"x", (), self.account.now())
        for name in ("INBOX", "a", "c"):
            self.assertRaises(MailboxException, self.account.delete, name)
        self.account.delete("a/b")
        self.assertEqual((self.names(), self.account.quota.messages), (["INBOX", "a"], 0))

    def test_rename(self):
        """A folder is renamed with its children; folders with similar names are not."""
        for name in ("a/b", "ab"):
            self.account.create(name)
        self.account.rename("a", "c")
        self.assertEqual(self.names(), ["INBOX", "ab", "c", "c/b"])

    def test_renameRefused(self):
        """If one of the new names exists or is invalid, nothing is renamed."""
        for name in ("a/b", "c/b"):
            self.account.create(name)
        self.account.delete("c/b")
        self.account.create("d/b")
        before = self.names()
        for old, new in (("a", "c"), ("a", "inbox"), ("INBOX", "x"), ("x", "y"), ("a", "e\n"), ("a", "")):
            self.assertRaises(MailboxException, self.account.rename, old, new)
        self.assertEqual(self.names(), before)

    def test_subscriptions(self):
        """Existing folders can be subscribed; unsubscribing never fails."""
        self.account.create("a")
        self.account.subscribe("a")
        self.assertTrue(self.account.isSubscribed("a"))
        self.account.unsubscribe("a")
        self.account.unsubscribe("nothing")
        self.assertFalse(self.account.isSubscribed("a"))
        self.assertRaises(MailboxException, self.account.subscribe, "nothing")

    def test_list(self):
        """C{%} stops at the delimiter, C{*} does not; the reference precedes the pattern."""
        self.account.create("a/b")
        self.assertEqual(self.names("", "%"), ["INBOX", "a"])
        self.assertEqual(self.names("a/", "*"), ["a/b"])
        self.assertEqual(self.names("", "inbox"), ["INBOX"])
        self.assertEqual(self.names("", "b"), [])

    def test_attributes(self):
        """LIST returns whether a folder has children, not the flags of its messages."""
        self.account.create("a/b")
        found = {name: info.getFlags() for name, info in self.account.listMailboxes("", "*")}
        self.assertEqual(found, {"INBOX": ["\\HasNoChildren"], "a": ["\\HasChildren"], "a/b": ["\\HasNoChildren"]})

    def test_delimiter(self):
        """An empty pattern asks for the delimiter."""
        ((name, info),) = self.account.listMailboxes("", "")
        self.assertEqual((name, info.getFlags(), info.getHierarchicalDelimiter()), ("", ["\\Noselect"], "/"))

    def test_namespaces(self):
        """There is only a personal namespace."""
        self.assertEqual(self.account.getPersonalNamespaces(), [[b"", b"/"]])
        self.assertIsNone(self.account.getSharedNamespaces())
        self.assertIsNone(self.account.getUserNamespaces())

    def test_unknown(self):
        """A missing folder cannot be selected."""
        self.assertIsNone(self.account.select("x"))


class AccountsTests(SynchronousTestCase):
    """Tests for L{Accounts}."""

    def setUp(self):
        users = (SandboxUser("joe", "sésame"), SandboxUser("ann", "x"))
        self.accounts = Accounts(SandboxSettings(users=users), Clock().seconds)

    def test_welcome(self):
        """Every user has an unseen welcome message with the user's address."""
        for name in ("joe", "ann"):
            (message,) = self.accounts[name].inbox.messages
            headers = message.getHeaders(True)
            self.assertEqual(headers["subject"], "Welcome to mailgate")
            self.assertEqual(headers["to"], f"{name}@example.com")
            self.assertEqual(message.getFlags(), [])
            self.assertNotIn(b"sesame", message.raw)

    def test_resolve(self):
        """A login is a name, or a name at the domain, in any case; other logins are unknown."""
        for login in (b"joe", b"JOE", b"joe@example.com", b"Joe@EXAMPLE.com"):
            self.assertEqual(self.accounts.resolve(login), "joe")
        for login in (
            b"",
            b"@",
            b"jo",
            b"joe@",
            b"joe@example.org",
            b"@example.com",
            b"a@joe",
            b"\xff",
            b"joe@x@example.com",
        ):
            self.assertIsNone(self.accounts.resolve(login))

    def test_password(self):
        """Passwords are UTF-8."""
        self.assertEqual(self.accounts.password("joe"), "sésame".encode())
