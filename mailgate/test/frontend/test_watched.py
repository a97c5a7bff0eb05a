"""
Tests of what dialogues report to a watch: each connection that began ends exactly once, through every kind of end, and
each login has exactly one result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IWatch
from mailgate.login import Denial, Refusal, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.relay.portable import Relay
from mailgate.session import Outcome
from mailgate.test.support.proxyheaders import TEXT4
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeConnector, FakeTransport
from mailgate.tls.errors import HandshakeBroken

LOGIN = b"a LOGIN joe sesame"


class WatchedCase(SynchronousTestCase):
    """A conversation with a watch."""

    def setUp(self) -> None:
        self.watch = RecordingWatch()

    def converse(self, *groups: Any, record: Any = IMAP4, **others: Any) -> Conversation:
        watched = type("Watched", (Conversation,), {"watch": self.watch})
        talk: Conversation = watched(record, *groups, **others)
        self.talk = talk
        return talk

    def lose(self, reason: Exception | None = None) -> None:
        self.talk.transport.lose(reason)

    def assertEnded(self, outcome: Outcome, *between: str) -> None:
        """The connection has begun and ended once, with the events C{between}."""
        self.assertEqual(self.watch.names, ["began", *between, "ended"])
        self.assertEqual(self.watch.valuesOf("ended"), [(outcome,)])
        self.assertEqual(len({session.id for session in self.watch.sessions}), 1)


class EndTests(WatchedCase):
    """Every kind of end."""

    def test_interface(self) -> None:
        """The fake is a watch."""
        verifyObject(IWatch, self.watch)

    def test_silent(self) -> None:
        """The client leaves without a word."""
        self.converse()
        self.lose()
        self.assertEnded(Outcome.SILENT)

    def test_left(self) -> None:
        """The client leaves after a command."""
        self.converse().says(b"a NOOP")
        self.lose()
        self.assertEnded(Outcome.CLIENT_LEFT)

    def test_quit(self) -> None:
        """The client says goodbye."""
        self.converse().says(b"a LOGOUT")
        self.assertEqual(self.watch.names, ["began"])
        self.lose()
        self.assertEnded(Outcome.QUIT)

    def test_timeout(self) -> None:
        """The client is silent for too long."""
        self.converse().clock.advance(61)
        self.lose()
        self.assertEnded(Outcome.TIMEOUT)

    def test_errors(self) -> None:
        """The client sends too many invalid commands."""
        conversation = self.converse(DialogueSettings(serverName="mx.test", maxErrors=1))
        conversation.says(b"a NONSENSE", b"b NONSENSE")
        self.lose()
        self.assertEnded(Outcome.ERRORS)

    def test_dismissed(self) -> None:
        """The gateway stops."""
        self.converse().dismiss()
        self.lose()
        self.assertEnded(Outcome.STOPPED)

    def test_stopped(self) -> None:
        """The gateway stops at once."""
        self.converse().server.stop()
        self.lose()
        self.assertEnded(Outcome.STOPPED)

    def test_expired(self) -> None:
        """The session has lasted as long as it may."""
        conversation = self.converse()
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(6)
        self.lose()
        self.assertEnded(Outcome.EXPIRED)

    def test_relayed(self) -> None:
        """A session ends once, after both of its connections."""
        conversation = self.converse()
        server = conversation.server
        conversation.says(LOGIN)
        relay: Any = next(iter(conversation.factory.connections))
        backend = relay._backend
        self.assertEqual(self.watch.names, ["began", "relaying"])
        server.connectionLost()
        self.assertEqual(self.watch.names[-1], "relaying")
        backend.transport.lose()
        self.assertEnded(Outcome.RELAYED, "relaying")

    def test_relayFails(self) -> None:
        """A relay that cannot start ends as well."""
        begin = Relay.start

        def start(relay: Relay, toClient: bytes, toBackend: bytes) -> None:
            begin(relay, toClient, toBackend)
            raise ZeroDivisionError

        self.patch(Relay, "start", start)
        # A real connection that was aborted takes further calls.
        self.patch(FakeTransport, "_checkState", lambda transport: None)
        conversation = self.converse()
        server = conversation.server
        conversation.says(LOGIN)
        relay: Any = next(iter(conversation.factory.connections))
        backend = relay._backend
        server.connectionLost()
        backend.transport.lose()
        self.assertEnded(Outcome.INTERNAL, "relaying")
        self.assertIn("internal error: client 192.0.2.7:40123, the relay failed", conversation.logged()[-2])

    def test_unwatched(self) -> None:
        """Without a watch, and without a log that shows them, phases are not timed."""
        conversation = Conversation(IMAP4)
        self.assertIsNone(conversation.factory.watch)
        self.assertIsNotNone(self.converse().server.session.readings)


class HeaderTests(WatchedCase):
    """Behind a PROXY header a connection begins once, too."""

    def behind(self) -> Conversation:
        return self.converse(record=POP3, proxyProtocol=True)

    def test_noHeader(self) -> None:
        """The client leaves before the header is complete."""
        self.behind().send(b"PROXY ")
        self.lose()
        self.assertEnded(Outcome.CLIENT_LEFT)

    def test_badHeader(self) -> None:
        """The header is invalid."""
        self.behind().send(b"USER joe\r\n")
        self.lose()
        self.assertEnded(Outcome.BAD_HEADER)

    def test_late(self) -> None:
        """The header does not come."""
        self.behind().clock.advance(61)
        self.lose()
        self.assertEnded(Outcome.TIMEOUT)

    def test_stopped(self) -> None:
        """The gateway stops before the header."""
        self.behind().server.stop()
        self.lose()
        self.assertEnded(Outcome.STOPPED)

    def test_dialogue(self) -> None:
        """The record changes with the header, and the id stays."""
        conversation = self.behind()
        conversation.send(TEXT4 + b"QUIT\r\n")
        self.lose()
        self.assertEnded(Outcome.QUIT)
        first, last = self.watch.sessions
        self.assertIsNot(first, last)

    def test_login(self) -> None:
        """A login behind a header."""
        conversation = self.behind()
        conversation.send(TEXT4 + b"USER joe\r\nPASS sesame\r\n")
        self.assertEqual(self.watch.names, ["began", "relaying"])


class LoginTests(WatchedCase):
    """Each login has one result."""

    def login(self, *answers: Any, connector: FakeConnector | None = None, **others: Any) -> Conversation:
        conversation = self.converse(authenticator=FakeAuthenticator(*answers), connector=connector, **others)
        conversation.clock.advance(1)
        conversation.says(LOGIN)
        return conversation

    def test_accepted(self) -> None:
        """The seconds count from the credentials."""
        conversation = self.login(None)
        conversation.clock.advance(2.5)
        conversation.authenticator.pending[0].callback(ROUTE)
        self.assertEqual(self.watch.valuesOf("relaying"), [(2.5,)])
        self.assertEqual(self.watch.valuesOf("denied"), [])

    def test_denied(self) -> None:
        """A refusal is reported before its delay, and once even if the client leaves meanwhile."""
        denial = Denial(Trouble.DENIED, wait=5.0)
        self.login(denial)
        self.assertEqual(self.watch.valuesOf("denied"), [(denial,)])
        self.lose()
        self.assertEnded(Outcome.CLIENT_LEFT, "denied")

    def test_deniedTwice(self) -> None:
        """Each login counts."""
        denial = Denial(Trouble.DENIED)
        conversation = self.login(denial, denial)
        conversation.says(LOGIN)
        self.assertEqual(self.watch.valuesOf("denied"), [(denial,), (denial,)])

    def test_refused(self) -> None:
        """The backend's own refusal, which ends the connection."""
        refusal = Refusal(b"* NO no\r\n")
        self.login(connector=FakeConnector(refusal))
        self.lose()
        self.assertEqual(self.watch.valuesOf("denied"), [(refusal,)])
        self.assertEnded(Outcome.BACKEND_REFUSED, "denied")

    def test_abandoned(self) -> None:
        """The client leaves while the authenticator works."""
        self.login(None)
        self.lose()
        self.assertEqual(self.watch.valuesOf("denied"), [(None,)])
        self.assertEnded(Outcome.CLIENT_LEFT, "denied")

    def test_abandonedAtBackend(self) -> None:
        """The client leaves while the backend works."""
        self.login(connector=FakeConnector(None))
        self.lose()
        self.assertEqual(self.watch.valuesOf("denied"), [(None,)])

    def test_lateAnswer(self) -> None:
        """An authenticator that cannot be cancelled answers after the end: nothing more is reported than that."""
        conversation = self.login(None)
        conversation.server.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.lose()
        self.assertEqual(self.watch.names.count("denied"), 1)
        self.assertEqual(self.watch.names[-1], "ended")

    def test_authenticatorFails(self) -> None:
        """A defect of the authenticator is a temporary failure."""
        self.login(ValueError("x"))
        ((answer,),) = self.watch.valuesOf("denied")
        self.assertEqual(answer, Denial(Trouble.TEMPORARY))

    def test_connectorFails(self) -> None:
        """A defect of the connector ends the connection."""
        self.login(connector=FakeConnector(ValueError("x")))
        self.lose()
        ((answer,),) = self.watch.valuesOf("denied")
        self.assertEqual(answer, Denial(Trouble.INTERNAL))
        self.assertEnded(Outcome.INTERNAL, "denied")


class HandshakeTests(WatchedCase):
    """Each handshake that has begun is reported once."""

    def failuresOf(self, act: Callable[[Conversation], object], reason: Exception | None = None) -> list[Any]:
        """The failures that are reported when C{act} is done to a connection with TLS, which is then lost."""
        conversation = self.converse(ssl=True)
        # The fake connection does not say whether a byte has arrived: one has.
        act(conversation)
        self.lose(reason)
        self.assertEqual(self.watch.names.count("ended"), 1)
        return [failure for _, failure in self.watch.valuesOf("encrypted")]

    def test_succeeded(self) -> None:
        """Success. The fake connection does not know whether it resumed a session."""
        self.assertEqual(self.failuresOf(lambda conversation: conversation.transport.shakeHands()), [None])
        self.assertEqual(self.watch.valuesOf("encrypted"), [(False, None)])

    def test_lost(self) -> None:
        """The client leaves, or OpenSSL finds an error."""
        for error in (ConnectionLost(), ConnectionDone(), SSL.Error([("SSL routines", "", "no shared cipher")])):
            self.watch = RecordingWatch()
            self.assertEqual(self.failuresOf(lambda conversation: None, error), [error])

    def test_late(self) -> None:
        """The client does not finish it."""
        (failure,) = self.failuresOf(lambda conversation: conversation.clock.advance(61))
        self.assertIsInstance(failure, HandshakeBroken)
        self.assertIs(failure.trouble, Trouble.TIMEOUT)

    def test_stopped(self) -> None:
        """The gateway stops meanwhile."""
        (failure,) = self.failuresOf(lambda conversation: conversation.server.stop())
        self.assertIs(failure.trouble, Trouble.STOPPING)

    def test_later(self) -> None:
        """What happens after it is no failure of it."""
        error = SSL.Error([("SSL routines", "", "sslv3 alert bad certificate")])
        self.assertEqual(self.failuresOf(lambda conversation: conversation.transport.shakeHands(), error), [None])
