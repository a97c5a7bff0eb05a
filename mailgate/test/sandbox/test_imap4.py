"""
Tests for L{mailgate.sandbox.imap4}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock, Cooperator
from twisted.internet.testing import StringTransport
from twisted.mail.imap4 import IMailboxListener
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.sandbox.account import Accounts
from mailgate.sandbox.imap4 import SandboxIMAP4, section, sectionBytes
from mailgate.sandbox.login import sandboxPortal
from mailgate.sandbox.mailbox import IExpungeListener
from mailgate.sandbox.message import LARGEST_MESSAGE, Part
from mailgate.sandbox.settings import SandboxSettings, SandboxUser

NESTED = Part(
    b"Subject: outer\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\none\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"
    b"--c\r\nX: y\r\n\r\ndeep\r\n--c--\r\n--b--\r\n"
)


class Connection:
    """A client that sends lines to a server, and collects the responses."""

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self.clock = clock
        cooperator = Cooperator(scheduler=lambda step: clock.callLater(0, step))
        server: Any = SandboxIMAP4(scheduler=cooperator.coiterate)
        server.portal = sandboxPortal(accounts)
        server.callLater = clock.callLater
        self.server = server
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.heard()

    def heard(self):
        """The lines since the last call. The transport accepts data as fast as the server writes."""
        for _ in range(50):
            if self.transport.producer is not None:
                self.transport.producer.resumeProducing()
            self.clock.advance(0)
        lines = self.transport.value().split(b"\r\n")[:-1]
        self.transport.clear()
        return lines

    def say(self, *lines: bytes):
        """The responses to C{lines}."""
        self.server.dataReceived(b"\r\n".join([*lines, b""]))
        return self.heard()


class IMAP4TestCase(SynchronousTestCase):
    """A connection that is logged in and has selected INBOX."""

    def setUp(self):
        self.clock = Clock()
        self.accounts = Accounts(SandboxSettings(), self.clock.seconds)
        self.account = self.accounts["alice"]
        self.client = self.connect()
        self.assertEqual(self.client.say(b"0 LOGIN alice wonderland"), [b"0 OK LOGIN succeeded"])
        self.client.say(b"1 SELECT INBOX")

    def connect(self) -> Connection:
        return Connection(self.accounts, self.clock)

    def another(self) -> Connection:
        client = self.connect()
        client.say(b'0 LOGIN "alice@example.com" "wonderland"', b"1 SELECT INBOX")
        return client


class LoginTests(IMAP4TestCase):
    """Logins."""

    def test_denied(self):
        """A wrong password is refused, and neither repeated nor logged."""
        client = self.connect()
        self.assertEqual(client.say(b"a LOGIN alice sesame"), [b"a NO LOGIN failed"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_escapes(self):
        """A quoted password may contain escaped quotes and backslashes."""
        accounts = Accounts(SandboxSettings(users=(SandboxUser("joe", 'a"b\\c d'),)), self.clock.seconds)
        client = Connection(accounts, self.clock)
        self.assertEqual(client.say(b'a LOGIN joe "a\\"b\\\\c d"'), [b"a OK LOGIN succeeded"])

    def test_literals(self):
        """User and password may be literals."""
        client = self.connect()
        self.assertEqual(client.say(b"a LOGIN {5}"), [b"+ Ready for 5 octets of text"])
        self.assertEqual(client.say(b"alice {10}"), [b"+ Ready for 10 octets of text"])
        self.assertEqual(client.say(b"wonderland"), [b"a OK LOGIN succeeded"])

    def test_badString(self):
        """A quoted string without an end is refused."""
        self.assertEqual(self.connect().say(b'a LOGIN joe "x'), [b"a BAD Illegal syntax: Malformed quoted string"])

    def test_capabilities(self):
        """The capabilities before the login are those that work, and no others."""
        (line, _) = self.connect().say(b"a CAPABILITY")
        self.assertEqual(line, b"* CAPABILITY IMAP4rev1 NAMESPACE IDLE UIDPLUS")

    def test_timeout(self):
        """A silent client gets a message before the login, and is disconnected."""
        client = self.connect()
        self.clock.advance(60)
        self.assertEqual(client.heard(), [b"* BYE Autologout; connection idle too long"])
        self.assertTrue(client.transport.disconnecting)


class CommandTests(IMAP4TestCase):
    """Commands after the login."""

    def test_interfaces(self):
        """The server listens to its mailbox."""
        verifyObject(IMailboxListener, self.client.server)
        verifyObject(IExpungeListener, self.client.server)

    def test_select(self):
        """SELECT returns all that a synchronizing client needs."""
        heard = self.client.say(b"a SELECT inbox")
        flags = b"\\Answered \\Flagged \\Deleted \\Seen \\Draft"
        self.assertEqual(
            heard,
            [
                b"* FLAGS (" + flags + b")", b"* 1 EXISTS", b"* 0 RECENT", b"* OK [UNSEEN 1] First unseen",
                b"* OK [PERMANENTFLAGS (" + flags + b" \\*)] Kept", b"* OK [UIDVALIDITY 1] UIDs valid",
                b"* OK [UIDNEXT 2] Predicted next UID", b"a OK [READ-WRITE] SELECT successful",
            ],
        )  # fmt: skip

    def test_examine(self):
        """EXAMINE selects read-only: nothing can be changed, and reading does not mark as seen."""
        self.assertEqual(self.client.say(b"a EXAMINE INBOX")[-1], b"a OK [READ-ONLY] EXAMINE successful")
        for command in (b"STORE 1 +FLAGS (\\Seen)", b"UID STORE 1 FLAGS ()", b"EXPUNGE", b"UID EXPUNGE 1"):
            self.assertTrue(self.client.say(b"a " + command)[-1].startswith(b"a NO "), command)
        self.client.say(b"a FETCH 1 BODY[]")
        self.assertEqual(self.account.inbox.messages[0].getFlags(), [])

    def test_noMailbox(self):
        """A missing mailbox is refused, with TRYCREATE for commands that write."""
        self.assertEqual(self.client.say(b"a SELECT x"), [b"a NO No such mailbox"])
        self.assertEqual(self.client.say(b"a STATUS x (MESSAGES)"), [b"a NO No such mailbox"])
        self.client.say(b"a SELECT INBOX")
        self.assertEqual(self.client.say(b"a COPY 1 x"), [b"a NO [TRYCREATE] No such mailbox"])
        self.client.say(b"a APPEND x {1}")
        self.assertEqual(self.client.say(b"y"), [b"a NO [TRYCREATE] No such mailbox"])

    def test_status(self):
        """STATUS quotes a name with a blank, and refuses unknown items."""
        self.client.say(b'a CREATE "Sent Items"')
        self.assertEqual(
            self.client.say(b'a STATUS "Sent Items" (MESSAGES UIDNEXT)')[0],
            b'* STATUS "Sent Items" (MESSAGES 0 UIDNEXT 1)',
        )
        self.assertEqual(self.client.say(b"a STATUS INBOX (FOO)"), [b"a BAD Unknown status item"])

    def append(self, *words: bytes, text: bytes = b"Subject: x\r\n\r\ny\r\n"):
        self.client.say(b" ".join([b"a APPEND", *words, b"{%d}" % len(text)]))
        return self.client.say(text)

    def test_append(self):
        """APPEND keeps flags and date, and returns the new UID."""
        heard = self.append(b"INBOX", b"(\\Seen kw)", b'" 1-Feb-2020 10:00:00 +0200"')
        self.assertEqual(heard, [b"* 2 EXISTS", b"a OK [APPENDUID 1 2] APPEND completed"])
        message = self.account.inbox.messages[1]
        self.assertEqual((message.getFlags(), message.raw), (["\\Seen", "kw"], b"Subject: x\r\n\r\ny\r\n"))
        self.assertEqual(message.getInternalDate(), b"Sat, 01 Feb 2020 10:00:00 +0200")

    def test_appendElsewhere(self):
        """APPEND to another mailbox does not send EXISTS for the selected one."""
        self.client.say(b"a CREATE Sent")
        self.assertEqual(self.append(b"Sent"), [b"a OK [APPENDUID 2 1] APPEND completed"])

    def test_appendRefused(self):
        """An invalid date, an empty message, a too large one, and one above the limit are refused."""
        self.assertEqual(self.append(b"INBOX", b'"yesterday"'), [b"a BAD Malformed date-time"])
        for size in (0, LARGEST_MESSAGE + 1):
            (line,) = self.client.say(b"a APPEND INBOX {%d}" % size)
            self.assertTrue(line.startswith(b"a BAD "))
        self.account.quota.mostMessages = 1
        self.assertEqual(self.append(b"INBOX"), [b"a NO [OVERQUOTA] The mailbox is full"])
        self.assertEqual(len(self.account.inbox.messages), 1)

    def test_copy(self):
        """COPY returns old and new UIDs; above the quota nothing is copied."""
        self.client.say(b"a CREATE b")
        self.assertEqual(self.client.say(b"a COPY 1 b"), [b"a OK [COPYUID 2 1 1] COPY completed"])
        self.assertEqual(self.client.say(b"a UID COPY 9 b"), [b"a OK COPY completed"])
        self.account.quota.mostMessages = 2
        self.assertEqual(self.client.say(b"a COPY 1 b"), [b"a NO [OVERQUOTA] The mailbox is full"])

    def test_store(self):
        """STORE returns the flags unless it is silent; an unknown data item is refused."""
        self.assertEqual(
            self.client.say(b"a STORE 1 +FLAGS (\\Seen work)"),
            [b"* 1 FETCH (FLAGS (\\Seen work))", b"a OK STORE completed"],
        )
        self.assertEqual(self.client.say(b"a UID STORE 1 -FLAGS.SILENT \\Seen"), [b"a OK STORE completed"])
        self.assertEqual(self.client.say(b"a STORE 1 FOO (\\Seen)"), [b"a BAD Unknown data item"])

    def test_expunge(self):
        """EXPUNGE returns each message by its number at that moment."""
        for _ in range(2):
            self.account.deliver(b"x")
        self.client.say(b"a STORE 1,3 +FLAGS (\\Deleted)")
        self.assertEqual(self.client.say(b"a EXPUNGE"), [b"* 3 EXPUNGE", b"* 1 EXPUNGE", b"a OK EXPUNGE completed"])

    def test_uidExpunge(self):
        """UID EXPUNGE removes only deleted messages of the set."""
        self.account.deliver(b"x")
        self.client.say(b"a STORE 1:2 +FLAGS (\\Deleted)")
        self.assertEqual(self.client.say(b"a UID EXPUNGE 2:9"), [b"* 2 EXPUNGE", b"a OK UID EXPUNGE completed"])
        self.assertTrue(self.client.say(b"a UID EXPUNGE x")[0].startswith(b"a BAD "))

    def test_search(self):
        """SEARCH returns numbers, UID SEARCH returns UIDs, also for an empty result."""
        self.account.deliver(b"Subject: x\r\n\r\n")
        self.account.inbox.remove(self.account.inbox.messages[:1])
        self.client.say(b"a NOOP")
        self.assertEqual(self.client.say(b"a SEARCH SUBJECT x")[0], b"* SEARCH 1")
        self.assertEqual(self.client.say(b"a UID SEARCH CHARSET UTF-8 ALL")[0], b"* SEARCH 2")
        self.assertEqual(self.client.say(b"a SEARCH SEEN"), [b"* SEARCH", b"a OK SEARCH completed"])

    def test_searchRefused(self):
        """An unknown charset, an unknown key and unbalanced parentheses are refused."""
        self.assertTrue(self.client.say(b"a SEARCH CHARSET KOI8-R ALL")[0].startswith(b"a NO [BADCHARSET "))
        for query in (b"FOO", b"((ALL)", b"", b"\xff"):
            self.assertTrue(self.client.say(b"a SEARCH " + query)[0].startswith(b"a BAD "))

    def test_garbage(self):
        """Invalid commands get BAD without control characters, and are not logged."""
        for line in (
            b"a \xff", b"a FETCH 1 NONSENSE", b"a FETCH x FLAGS", b"a STORE", b"a do_NOOP", b"a UID FOO 1", b"a UID",
            b"a FETCH 1 BODY[", b"a", b"a FETCH 1 FLAGS\x01\x02", b"a APPEND INBOX (( {1}", b"a STATUS INBOX ((A)",
            b"a UID EXPUNGE", b"a UID FETCH", b"a SELECT", b"a SEARCH", b"a LOGIN x y",
        ):  # fmt: skip
            for answer in self.client.say(line):
                self.assertTrue(answer.startswith(b"a BAD "), (line, answer))
                self.assertNotRegex(answer, rb"[\x00-\x1f\x7f-\xff]")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(self.client.say(b"a NOOP"), [b"a OK NOOP No operation performed"])


class FetchTests(IMAP4TestCase):
    """FETCH."""

    def setUp(self):
        super().setUp()
        self.account.inbox.remove(self.account.inbox.messages)
        self.account.deliver(b"Subject: s\r\nX-A: 1\r\nX-A: 2\r\n\r\nbody\r\n")
        self.client.say(b"a NOOP")

    def test_sections(self):
        """Sections have the original bytes of the message, with repeated fields in order."""
        for item, answer in (
            (b"BODY.PEEK[]", [b"* 1 FETCH (BODY[] {36}", b"Subject: s", b"X-A: 1", b"X-A: 2", b"", b"body", b")"]),
            (b"BODY.PEEK[HEADER.FIELDS (x-a)]",
             [b"* 1 FETCH (BODY[HEADER.FIELDS (X-A)] {18}", b"X-A: 1", b"X-A: 2", b"", b")"]),
            (b"BODY.PEEK[HEADER.FIELDS.NOT (X-A)]",
             [b"* 1 FETCH (BODY[HEADER.FIELDS.NOT (X-A)] {14}", b"Subject: s", b"", b")"]),
            (b"BODY.PEEK[TEXT]", [b"* 1 FETCH (BODY[TEXT] {6}", b"body", b")"]),
            (b"BODY.PEEK[1]<1.2>", [b"* 1 FETCH (BODY[1]<1> {2}", b"od)"]),
            (b"BODY.PEEK[]<999.5>", [b"* 1 FETCH (BODY[]<999> {0}", b")"]),
            (b"BODY.PEEK[2]", [b"* 1 FETCH (BODY[2] {0}", b")"]),
            (b"RFC822.SIZE", [b"* 1 FETCH (RFC822.SIZE 36)"]),
            (b"RFC822.HEADER", [b"* 1 FETCH (RFC822.HEADER {30}", b"Subject: s", b"X-A: 1", b"X-A: 2", b"", b")"]),
        ):  # fmt: skip
            self.assertEqual(self.client.say(b"a FETCH 1 " + item), [*answer, b"a OK FETCH completed"])
        self.assertEqual(self.account.inbox.messages[0].getFlags(), [])

    def test_structures(self):
        """ENVELOPE, BODY and BODYSTRUCTURE are returned."""
        heard = b" ".join(self.client.say(b"a FETCH 1 (UID ENVELOPE BODY BODYSTRUCTURE)"))
        self.assertIn(b'(UID 2 ENVELOPE (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL) BODY ("text" "plain"', heard)
        self.assertIn(b'BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL "7BIT" 6 1 NIL', heard)

    def test_seen(self):
        """Reading without PEEK marks as seen, and returns the flags."""
        for item in (b"BODY[]", b"BODY[TEXT]<0.1>", b"RFC822", b"RFC822.TEXT"):
            self.client.say(b"a STORE 1 FLAGS.SILENT ()")
            heard = self.client.say(b"a UID FETCH 2 " + item)
            self.assertIn(b"* 1 FETCH (FLAGS (\\Seen))", heard)
            self.assertEqual(heard[-1], b"a OK FETCH completed")
        self.client.say(b"a STORE 1 FLAGS.SILENT ()")
        self.client.say(b"a FETCH 1 (FLAGS BODY BODYSTRUCTURE RFC822.HEADER)")
        self.assertEqual(self.account.inbox.messages[0].getFlags(), [])

    def test_commandsWait(self):
        """The reply to a command after a FETCH follows the reply to the FETCH."""
        heard = self.client.say(b"a FETCH 1 BODY.PEEK[]", b"b NOOP")
        self.assertEqual([line[:4] for line in heard[-2:]], [b"a OK", b"b OK"])

    def test_nested(self):
        """Part numbers lead into multiparts and enclosed messages (RFC 3501, 6.4.5)."""
        self.assertEqual(section(NESTED, (0,)).body, b"one")
        self.assertEqual(section(NESTED, (1, 0)).body, b"deep")
        for numbers in ((2,), (0, 1), (1, 1)):
            self.assertRaises(IndexError, section, NESTED, numbers)

    def test_nestedSections(self):
        """HEADER and TEXT of a part are those of the enclosed message; MIME is that of the part."""
        wanted = {"header": None, "text": None, "mime": None, "empty": False}
        whole = SimpleNamespace(fields=(), negate=True)
        inner = NESTED.parts[1].parts[0]
        for numbers, kind, value, expected in (
            ((1,), "header", whole, inner.header), ((1,), "text", True, inner.body),
            ((1,), "mime", True, b"Content-Type: message/rfc822\r\n\r\n"), ((1, 0), "mime", True, b"X: y\r\n\r\n"),
            ((0,), "header", whole, b""), ((), "text", True, NESTED.body), ((), "empty", True, NESTED.raw),
        ):  # fmt: skip
            found = sectionBytes(NESTED, SimpleNamespace(part=numbers, **{**wanted, kind: value}))
            self.assertEqual(found, expected, (numbers, kind))


class OthersTests(IMAP4TestCase):
    """Changes by other sessions."""

    def test_arrival(self):
        """A new message is announced at once."""
        self.account.deliver(b"x")
        self.assertEqual(self.client.heard(), [b"* 2 EXISTS"])

    def test_expunged(self):
        """A message that another session expunges is announced at the next NOOP, and not before."""
        self.another().say(b"a STORE 1 +FLAGS.SILENT (\\Deleted)", b"b EXPUNGE")
        self.assertEqual(self.client.heard(), [b"* 1 FETCH (FLAGS (\\Deleted))"])
        self.assertEqual(self.client.say(b"a FETCH 1 (UID)")[0], b"* 1 FETCH (UID 1)")
        self.assertEqual(self.client.say(b"a NOOP"), [b"* 1 EXPUNGE", b"a OK NOOP No operation performed"])

    def test_idle(self):
        """IDLE announces both as they happen, until DONE."""
        self.assertEqual(self.client.say(b"a IDLE"), [b"+ idling"])
        self.account.deliver(b"x")
        self.account.inbox.remove(self.account.inbox.messages[:1])
        self.assertEqual(self.client.heard(), [b"* 2 EXISTS", b"* 1 EXPUNGE"])
        self.assertEqual(self.client.say(b"DONE"), [b"a OK IDLE terminated"])

    def test_left(self):
        """A closed session gets no more announcements, and the folder forgets it."""
        self.client.server.connectionLost()
        self.account.deliver(b"x")
        self.assertEqual((self.client.heard(), self.account.inbox.views), ([], []))

    def test_longLine(self):
        """A line without an end is not stored."""
        self.client.server.dataReceived(b"x" * (LineReceiver.MAX_LENGTH * 3))
        self.assertTrue(self.client.transport.disconnecting)
