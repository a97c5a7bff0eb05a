"""
What an IMAP gateway announces of its backends' capabilities, and what it hides.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.caller import Caller
from mailgate.backend.offers import Announcement, Known, Offers
from mailgate.backend.place import Place
from mailgate.backend.settings import ProxySettings
from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendTLS, Denial, Envelope, Trouble
from mailgate.net.endpoints import beginning
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.capabilities import learnable, withoutHidden
from mailgate.protocols.imap4.client import IMAP4Client
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.testing import Attempt, Conversation, FakeTransport, requestFor, resultOf, settingsOf
from mailgate.tls.settings import TLSSettings
from mailgate.upstream.notices import Notices

DOVECOT = b"IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN"
EXCHANGE = b"IMAP4 IMAP4rev1 LOGINDISABLED STARTTLS UIDPLUS MOVE ID CHILDREN IDLE NAMESPACE LITERAL+"
GMAIL = b"IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 XYZZY SASL-IR AUTH=XOAUTH2 AUTH=PLAIN"
AFTER = b"* CAPABILITY IMAP4rev1 IDLE UNAUTHENTICATE UIDPLUS\r\n"


def learned(*offers: bytes) -> bytes:
    """What may be announced of backends that offer the words of C{offers}."""
    return b" ".join(learnable([tuple(each.split()) for each in offers]))


class LearnableTests(SynchronousTestCase):
    """What may be announced before the login."""

    def test_known(self) -> None:
        """Lists of known servers lose what the gateway decides, and what holds for one server."""
        self.assertEqual(learned(DOVECOT), b"IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+")
        self.assertEqual(learned(EXCHANGE), b"IMAP4 IMAP4rev1 UIDPLUS MOVE ID CHILDREN IDLE NAMESPACE LITERAL+ SASL-IR")
        self.assertEqual(learned(GMAIL), b"IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID CHILDREN SASL-IR")

    def test_all(self) -> None:
        """A word counts if all backends have it, in any case; the order and the spelling are the first one's."""
        self.assertEqual(
            learned(b"IMAP4rev1 MOVE QUOTA IDLE", b"idle imap4REV1 quota"), b"IMAP4rev1 QUOTA IDLE SASL-IR"
        )
        self.assertEqual(learned(b"IMAP4rev1 THREAD=REFS", b"IMAP4rev1 THREAD=REFERENCES"), b"IMAP4rev1 SASL-IR")

    def test_never(self) -> None:
        """No server makes the gateway announce what leads around it, or what it does not support."""
        never = b"UNAUTHENTICATE MAILBOX-REFERRALS LOGIN-REFERRALS COMPRESS=DEFLATE LANGUAGE URLAUTH URLAUTH=BINARY"
        never += b" JMAPACCESS XAPPLEPUSHSERVICE x-gm-ext-1 XCLIENT CLIENTID AUTH=PLAIN STARTTLS LOGINDISABLED MUPDATE"
        self.assertEqual(learned(b"IMAP4rev1 " + never + b" IDLE"), b"IMAP4rev1 IDLE SASL-IR")
        self.assertEqual(learned(b"IMAP4rev1 " + never.lower()), b"IMAP4rev1 SASL-IR")

    def test_rev2(self) -> None:
        """IMAP4rev2 needs all backends."""
        self.assertEqual(learned(b"IMAP4rev1 IMAP4rev2"), b"IMAP4rev1 IMAP4rev2 SASL-IR")
        self.assertEqual(learned(b"IMAP4rev1 IMAP4rev2", b"IMAP4rev1"), b"IMAP4rev1 SASL-IR")

    def test_literals(self) -> None:
        """A backend that reads literals of any size reads small ones."""
        self.assertEqual(learned(b"IMAP4rev1 LITERAL+", b"IMAP4rev1 LITERAL-"), b"IMAP4rev1 LITERAL- SASL-IR")
        self.assertEqual(learned(b"IMAP4rev1 LITERAL-", b"IMAP4rev1 LITERAL+"), b"IMAP4rev1 LITERAL- SASL-IR")
        self.assertEqual(learned(b"IMAP4rev1 LITERAL+", b"IMAP4rev1"), b"IMAP4rev1 SASL-IR")

    def test_limits(self) -> None:
        """The smallest limit holds; without a number, or if one backend has none, there is none."""
        self.assertEqual(
            learned(b"IMAP4rev1 APPENDLIMIT=900", b"APPENDLIMIT=70 IMAP4rev1"), b"IMAP4rev1 APPENDLIMIT=70 SASL-IR"
        )
        self.assertEqual(learned(b"IMAP4rev1 APPENDLIMIT=9", b"IMAP4rev1 APPENDLIMIT"), b"IMAP4rev1 SASL-IR")
        self.assertEqual(learned(b"IMAP4rev1 MESSAGELIMIT=9", b"IMAP4rev1"), b"IMAP4rev1 SASL-IR")

    def test_odd(self) -> None:
        """Repeated words count once. What would end the greeting's code, or is not from an IMAP server, does not."""
        self.assertEqual(learned(b"IMAP4rev1 IDLE idle IDLE X]Y QUOTA]"), b"IMAP4rev1 IDLE SASL-IR")
        self.assertEqual(learned(b"HTTP/1.1 400", b"IMAP4rev1 IDLE"), b"IMAP4rev1 IDLE SASL-IR")
        self.assertEqual(learned(b"HTTP/1.1 400"), b"IMAP4rev1 SASL-IR")


class HiddenTests(SynchronousTestCase):
    """UNAUTHENTICATE in the backend's reply to the login."""

    def test_hidden(self) -> None:
        """It is taken out of lists, wherever it stands, and out of nothing else."""
        for there, here in (
            (b"a OK [CAPABILITY IMAP4rev1 UNAUTHENTICATE IDLE] in\r\n", b"a OK [CAPABILITY IMAP4rev1 IDLE] in\r\n"),
            (b"a OK [CAPABILITY IMAP4rev1 unauthenticate] in\r\n", b"a OK [CAPABILITY IMAP4rev1] in\r\n"),
            (b"* CAPABILITY UNAUTHENTICATE IDLE\r\na OK in\r\n", b"* CAPABILITY IDLE\r\na OK in\r\n"),
            (b"* capability IDLE UNAUTHENTICATE\r\na OK in\r\n", b"* capability IDLE\r\na OK in\r\n"),
            (b"a OK [ALERT] no UNAUTHENTICATE here\r\n", b"a OK [ALERT] no UNAUTHENTICATE here\r\n"),
            (b"a OK [CAPABILITY XUNAUTHENTICATE UNAUTHENTICATED] in\r\n",) * 2,
            (b"a OK [CAPABILITY IDLE] no UNAUTHENTICATE\r\n", b"a OK [CAPABILITY IDLE] no UNAUTHENTICATE\r\n"),
        ):
            self.assertEqual(withoutHidden(there), here)


class LoginTests(SynchronousTestCase):
    """Capabilities after the login."""

    listed = Envelope(listed=True)

    def login(self, *replies: bytes, **request: Any) -> tuple[bytes, bytes]:
        """The client's reply after the backend's C{replies}, and what the backend hears after LOGIN."""
        attempt = Attempt(IMAP4, **{"envelope": self.listed, **request})
        attempt.accept()
        attempt.says(b"* OK ready\r\n")
        heard = b"".join(attempt.says(each) for each in replies)
        return self.successResultOf(attempt.result).reply, heard

    def test_passed(self) -> None:
        """A list in the OK, or before it, reaches the client as it is; nothing is asked."""
        for reply in (
            b"a1 OK [CAPABILITY IMAP4rev1 IDLE] in\r\n",
            b"* CAPABILITY IMAP4rev1 IDLE\r\na1 OK in\r\n",
            b"* OK still here\r\n* CAPABILITY IMAP4rev1 IDLE\r\n* OK [ALERT] x\r\na1 OK in\r\n",
        ):
            self.assertEqual(self.login(reply), (reply, b""))

    def test_asked(self) -> None:
        """Without one the gateway asks, and puts the answer before the OK."""
        reply, heard = self.login(b"* 1 EXISTS\r\na1 OK in\r\n", AFTER + b"mailgate OK done\r\n")
        self.assertEqual(heard, b"mailgate CAPABILITY\r\n")
        self.assertEqual(reply, b"* 1 EXISTS\r\n" + AFTER.replace(b" UNAUTHENTICATE", b"") + b"a1 OK in\r\n")

    def test_bracket(self) -> None:
        """A bracket in the text is no code."""
        _, heard = self.login(b"a1 OK in [CAPABILITY X]\r\n", AFTER + b"mailgate OK done\r\n")
        self.assertEqual(heard, b"mailgate CAPABILITY\r\n")

    def test_refused(self) -> None:
        """A backend that refuses to say is used all the same."""
        self.assertEqual(self.login(b"a1 OK in\r\n", b"mailgate BAD what\r\n")[0], b"a1 OK in\r\n")

    def test_between(self) -> None:
        """What the backend sends between its OK and its answer stays in order, and what it sends later is kept."""
        attempt = Attempt(IMAP4, envelope=self.listed)
        attempt.accept()
        attempt.says(b"* OK ready\r\n", b"a1 OK [ALERT] in\r\n* 1 EXISTS\r\n")
        attempt.says(b"* OK [ALERT] full\r\n* CAPABILITY A\r\n* CAPABILITY B\r\nmailgate OK\r\n* 2 EXISTS\r\n* BYE\r\n")
        client = self.successResultOf(attempt.result)
        answer = b"* 1 EXISTS\r\n* OK [ALERT] full\r\n* CAPABILITY A\r\n* CAPABILITY B\r\na1 OK [ALERT] in\r\n"
        self.assertEqual((client.reply, leftOver(client)), (answer, b"* 2 EXISTS\r\n* BYE\r\n"))

    def test_trouble(self) -> None:
        """
        A backend that leaves, talks nonsense or stays silent instead of the answer has failed: its late answer must not
        reach the client. The client gets one refusal, after the time for the login at the latest.
        """
        for reply in (b"* BYE stopping\r\n", b"+ what\r\n", b"a1 OK again\r\n", b"nonsense\r\n", b"mailgate", b""):
            attempt = Attempt(IMAP4, envelope=self.listed)
            attempt.accept()
            attempt.says(b"* OK ready\r\n", b"a1 OK in\r\n")
            if reply:
                attempt.says(reply)
            if b"\r\n" not in reply:
                attempt.reactor.advance(29)
                self.assertNoResult(attempt.result)
                attempt.reactor.advance(1)
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY), reply)
            self.assertTrue(attempt.transport.disconnecting)

    def test_tag(self) -> None:
        """The question has another tag than the login."""
        reply, heard = self.login(b"mailgate OK in\r\n", AFTER + b"mailgate2 OK done\r\n", tag=b"mailgate")
        self.assertEqual(heard, b"mailgate2 CAPABILITY\r\n")
        self.assertTrue(reply.endswith(b"UIDPLUS\r\nmailgate OK in\r\n"))

    def test_unlisted(self) -> None:
        """A client that has got no list of the backends gets nothing that it has not asked for."""
        self.assertEqual(self.login(b"a1 OK in\r\n", envelope=Envelope()), (b"a1 OK in\r\n", b""))


class AskedTests(SynchronousTestCase):
    """How a backend is asked."""

    def ask(self, greeting: bytes, *replies: bytes, tls: BackendTLS | None = None, known: Known | None = None) -> Any:
        self.heard = b""
        nowhere: Any = Nowhere()
        backend = Backend("192.0.2.1", 143, tls, False)
        place = Place(str(backend), backend, beginning(nowhere), None)
        client = IMAP4Client(Caller(settingsOf("imap"), "mx.test"), place)
        if known is not None:
            client.known = known

        async def ask() -> tuple[bytes, ...]:
            await client.open(None, None)
            return await client.offered()

        result = resultOf(ask())
        transport = FakeTransport()
        transport.connect(client)
        for reply in (greeting, *replies):
            client.dataReceived(reply)
            self.heard += transport.value()
            transport.clear()
            if transport.tls and client._isShakingHands:
                transport.shakeHands()
                self.heard += transport.value()
                transport.clear()
        return result

    def test_greeting(self) -> None:
        """The code of the greeting is enough."""
        offered = self.successResultOf(self.ask(b"* OK [CAPABILITY IMAP4rev1 ID] ready\r\n"))
        self.assertEqual((offered, self.heard), ((b"IMAP4rev1", b"ID"), b""))

    def test_asked(self) -> None:
        """Without one it is asked. A bracket in the text is no code."""
        greeting = b"* OK The Microsoft Exchange IMAP4 service is ready. [RgBSADIAUAAyADgA]\r\n"
        reply = b"* OK x\r\n* capability IMAP4rev1\r\n* CAPABILITY ID\r\nmailgate OK done\r\n"
        self.assertEqual(self.successResultOf(self.ask(greeting, reply)), (b"IMAP4rev1", b"ID"))
        self.assertEqual(self.heard, b"mailgate CAPABILITY\r\n")

    def test_overTLS(self) -> None:
        """After STARTTLS it is asked again."""
        answer = b"* CAPABILITY IMAP4rev1 ID\r\nmailgate OK done\r\n"
        asking = self.ask(
            b"* OK [CAPABILITY IMAP4rev1 EVIL] x\r\n", b"mailgate OK go\r\n", answer, tls=BackendTLS.STARTTLS
        )
        self.assertEqual(self.successResultOf(asking), (b"IMAP4rev1", b"ID"))
        self.assertEqual(self.heard, b"mailgate STARTTLS\r\nmailgate CAPABILITY\r\n")

    def test_nothing(self) -> None:
        """A backend that lists nothing is an error."""
        self.failureResultOf(self.ask(b"* OK x\r\n", b"mailgate OK done\r\n"))


class Nowhere:
    """An endpoint that does not connect: the test does."""

    def connect(self, factory: Any) -> Any:
        return Deferred()


class KnownTests(SynchronousTestCase):
    """What is known of a backend, at a login there."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.offers = Offers(Notices(self.clock), Journal(LogLevel.info, LogPublisher()), self.clock.seconds)
        self.known = self.offers.known("imap 192.0.2.99:110 off")
        self.announcement = Announcement((b"IMAP4",))
        self.offers.follow("imap", self.announcement, learnable, lambda: ["imap 192.0.2.99:110 off"])
        self.offers.refresh()

    def attempt(self, greeting: bytes, *groups: Any, **request: Any) -> bytes:
        def made(*arguments: Any) -> IMAP4Client:
            client = IMAP4Client(*arguments)
            client.known = self.known
            return client

        attempt = Attempt(evolve(IMAP4, client=cast(Any, made)), *groups, **request)
        attempt.accept()
        return attempt.says(greeting)

    def test_greeting(self) -> None:
        """A greeting with other words than those that are known costs nothing to learn."""
        self.offers.learn("imap 192.0.2.99:110 off", (b"IMAP4rev1", b"ID"))
        self.attempt(b"* OK [CAPABILITY IMAP4rev1 MOVE] hello\r\n")
        self.assertEqual(self.known.items, (b"IMAP4rev1", b"MOVE"))
        self.assertEqual(self.announcement.words, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))

    def test_header(self) -> None:
        """After a PROXY header the greeting may be for this client alone."""
        self.offers.learn("imap 192.0.2.99:110 off", (b"IMAP4rev1", b"ID"))
        self.attempt(b"* OK [CAPABILITY IMAP4rev1 MOVE] hello\r\n", ProxySettings(proxyProtocol="on"))
        self.assertEqual(self.known.items, (b"IMAP4rev1", b"ID"))

    def test_changing(self) -> None:
        """One address may stand for servers that differ: their greetings change what is known only now and then."""
        self.offers.learn("imap 192.0.2.99:110 off", (b"IMAP4rev1", b"ID"))
        for _ in range(3):
            self.attempt(b"* OK [CAPABILITY IMAP4rev1 MOVE] hello\r\n")
            self.attempt(b"* OK [CAPABILITY IMAP4rev1 ID] hello\r\n")
            self.assertEqual(self.known.items, (b"IMAP4rev1", b"MOVE"))
        self.clock.advance(600)
        self.attempt(b"* OK [CAPABILITY IMAP4rev1 MOVE] hello\r\n")
        self.attempt(b"* OK [CAPABILITY IMAP4rev1 ID] hello\r\n")
        self.assertEqual(self.known.items, (b"IMAP4rev1", b"ID"))

    def test_sameMeaning(self) -> None:
        """A greeting that differs in what the gateway decides changes nothing."""
        self.offers.learn("imap 192.0.2.99:110 off", (b"IMAP4rev1", b"ID", b"AUTH=PLAIN"))
        self.attempt(b"* OK [CAPABILITY ID IMAP4rev1 LOGINDISABLED] hello\r\n")
        self.assertEqual(self.known.items, (b"IMAP4rev1", b"ID", b"AUTH=PLAIN"))

    def test_silent(self) -> None:
        """If the greeting lists nothing, what is known counts: the backend gets ID."""
        self.assertNotIn(b"mailgate ID", self.attempt(b"* OK hello\r\n"))
        self.offers.learn("imap 192.0.2.99:110 off", (b"IMAP4rev1", b"ID"))
        self.assertIn(b"mailgate ID", self.attempt(b"* OK hello\r\n"))
        self.assertEqual(self.known.items, (b"IMAP4rev1", b"ID"))


class DialogueTests(SynchronousTestCase):
    """What clients see before the login."""

    words = (b"IMAP4rev1", b"SASL-IR", b"ID")

    def conversation(self, *words: bytes, **more: Any) -> Conversation:
        conversation = Conversation(IMAP4, IMAP4Settings(), **more)
        conversation.factory.announcement.change(words or self.words, True)
        # Another client, which comes after something was learned.
        conversation.transport = FakeTransport()
        conversation.transport.connect(conversation.factory.buildProtocol(conversation.transport.getPeer()))
        return conversation

    def test_greeting(self) -> None:
        """The greeting carries what is learned, and CAPABILITY the same."""
        conversation = self.conversation()
        self.assertEqual(conversation.hear(), b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] IMAP4 ready\r\n")
        listed = b"* CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN\r\na OK completed\r\n"
        self.assertEqual(conversation.says(b"a CAPABILITY"), listed)

    def test_change(self) -> None:
        """What is learned later is announced from then on, also to clients that are connected."""
        conversation = self.conversation()
        conversation.factory.announcement.change((b"IMAP4rev1", b"MOVE"), True)
        self.assertIn(b"* CAPABILITY IMAP4rev1 MOVE AUTH=PLAIN\r\n", conversation.says(b"a CAPABILITY"))

    def test_unlearned(self) -> None:
        """While nothing is known, the greeting is nginx's, and the configured list holds."""
        conversation = Conversation(IMAP4, IMAP4Settings())
        self.assertEqual(conversation.hear(), b"* OK IMAP4 ready\r\n")
        self.assertIn(b"* CAPABILITY IMAP4 IMAP4rev1 SASL-IR LITERAL+", conversation.says(b"a CAPABILITY"))
        conversation.says(b"b LOGIN joe sesame")
        self.assertFalse(conversation.requests[0].envelope.listed)

    def test_starttls(self) -> None:
        """The greeting shows the state of this connection."""
        conversation = Conversation(IMAP4, IMAP4Settings(), TLSSettings(starttls="only"))
        conversation.factory.announcement.change(self.words, True)
        transport = FakeTransport()
        transport.connect(conversation.factory.buildProtocol(transport.getPeer()))
        expected = b"IMAP4rev1 SASL-IR ID STARTTLS LOGINDISABLED"
        self.assertEqual(transport.value(), b"* OK [CAPABILITY " + expected + b"] IMAP4 ready\r\n")

    def test_login(self) -> None:
        """The login says that the client has got a list. Its ID goes along; a second one does not replace the first."""
        conversation = self.conversation()
        conversation.says(b'a ID ("name" "x")', b'b ID ("name" "y")', b"c ID NIL", b"d LOGIN joe sesame")
        self.assertEqual(conversation.requests[0].envelope, Envelope(fields=(b'"name" "x"',), listed=True))

    def test_idNIL(self) -> None:
        """An ID of NIL says nothing; a later one counts."""
        conversation = self.conversation()
        conversation.says(b"a ID NIL", b'b ID ("name" "y")', b"d LOGIN joe sesame")
        self.assertEqual(conversation.requests[0].envelope.fields, (b'"name" "y"',))

    def test_literals(self) -> None:
        """Literals of 4,096 bytes that are sent without waiting are read: LITERAL- and IMAP4rev2 promise that."""
        conversation = self.conversation()
        conversation.hear()
        user, secret = b"u" * 4096, b"s" * 4096
        conversation.send(b"a LOGIN {4096+}\r\n" + user + b" {4096+}\r\n" + secret + b"\r\n")
        credentials = conversation.requests[0].credentials
        self.assertEqual((credentials.user, credentials.secret), (user, secret))
        self.assertFalse(conversation.closed)

    def test_largeLiterals(self) -> None:
        """Larger ones end the connection, with BYE."""
        conversation = self.conversation()
        conversation.hear()
        heard = conversation.send(b"a LOGIN {4097+}\r\n")
        self.assertIn(b"* BYE", heard)
        self.assertTrue(conversation.closed)
        self.assertEqual(requestFor("imap").envelope, Envelope())
