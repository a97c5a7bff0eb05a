"""Tests for L{mailgate.frontend.kicking}, with fakes, with both kinds of relay, and with dialogues."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.kicking import GRACE, WORK, Kicks
from mailgate.login import Denial, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.session import Outcome, Phase
from mailgate.test.relay import test_parted as parted
from mailgate.test.relay import test_portable as portable
from mailgate.test.support.processes import Factory, Processes
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, RelayCase, Relayed
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeConnector

REASON = "by uid 0"


class KicksTests(SynchronousTestCase):
    """L{Kicks}."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa")
        self.clock, self.kicks = self.processes.clock, self.processes.kicks
        self.factory = self.processes.factory("aaaaa")

    def targets(self, count: int, **values: Any) -> list[Any]:
        """Connections."""
        return [(self.factory, self.processes.session(**values)) for _ in range(count)]

    def left(self) -> int:
        """The number of connections."""
        return len(self.factory.connections)

    def test_nothing(self) -> None:
        """Without sessions there is nothing to wait for."""
        self.kicks.end([], REASON, 5.0)
        self.kicks.endLater([], REASON, lambda target: True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_work(self) -> None:
        """Others are served between the ends of many sessions."""
        for target in self.targets(1000):
            connection = target[1]
            dismiss = connection.dismiss

            def slowly(*arguments: Any, dismiss: Any = dismiss) -> None:
                self.clock.rightNow += 0.0002
                dismiss(*arguments)

            connection.dismiss = slowly
        self.kicks.end([(self.factory, each) for each in self.factory.connections], REASON)
        go, turns = self.kicks._go, []

        def timed(each: Any) -> None:
            before = self.clock.seconds()
            go(each)
            turns.append(self.clock.seconds() - before)

        self.patch(self.kicks, "_go", timed)
        self.clock.advance(0)
        self.assertEqual(self.left(), 0)
        self.assertLess(max(turns), WORK + 0.003)
        self.assertGreater(len(turns), 30)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shuffled(self) -> None:
        """The order is random."""
        orders: list[Any] = []
        kicks = Kicks(self.clock, lambda targets: orders.append(list(targets)))
        targets = self.targets(3)
        kicks.end(targets, REASON)
        self.assertEqual(orders, [targets])

    def test_moved(self) -> None:
        """A connection ends also if another object has it by then; one that has ended is left alone."""
        targets = self.targets(3, phase=Phase.COMMAND)
        self.kicks.end(targets, REASON, 10.0)
        relays = [target[1].becomes() for target in targets[:2]]
        targets[2][1].end()
        self.clock.pump([0.5] * 21)
        self.assertEqual([relay.session.outcome for relay in relays], [Outcome.KICKED] * 2)
        self.assertEqual(targets[2][1].session.outcome, Outcome.QUIT)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_trouble(self) -> None:
        """A connection that cannot be closed does not keep others from their end."""
        targets = self.targets(3, isSlow=True)
        broken = targets[1][1]

        def fail(*arguments: Any) -> None:
            raise RuntimeError("it cannot be closed")

        broken.dismiss = broken.stop = fail
        self.kicks.end(targets, REASON)
        self.clock.pump([0, GRACE])
        self.assertEqual(self.factory.failures, ["closing a connection failed"] * 2)
        self.assertEqual(self.factory.connections, {broken})

    def test_stopped(self) -> None:
        """When a gateway has stopped, nothing waits for its sessions; those of other gateways still end."""
        targets = self.targets(5)
        self.processes.drains("aaaaa")
        other = self.processes.session()
        targets = [*targets, (self.processes.factory("aaaaa"), other)]
        self.kicks.end(targets, REASON, 10.0)
        self.kicks.endLater(targets[:5], REASON, lambda target: False)
        self.kicks.forget([self.factory])
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 11)
        self.assertIs(other.session.outcome, Outcome.KICKED)
        self.assertEqual(self.left(), 5)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class PortableTests(SynchronousTestCase):
    """The end of portable relays, those included whose clients wait after the end of their backend."""

    def parted(self) -> portable.Relayed:
        """A session whose client waits after the end of its backend."""
        relayed = portable.Relayed()
        relayed.session.place = parted.crowded()
        relayed.backend.protocol.dataReceived(b"* 3 EXISTS\r\n")
        relayed.backend.lose()
        self.assertTrue(relayed.relay.isParted)
        return relayed

    def kick(self, relayed: portable.Relayed) -> None:
        """End the session."""
        factory = Factory(relayed.clock)
        factory.connections.add(relayed.relay)
        relayed.relay.terms.done = factory.connections.discard
        Kicks(relayed.clock).end([(factory, relayed.relay)], REASON)
        relayed.clock.advance(0)

    def test_kick(self) -> None:
        """Both sides are closed, and nothing is written."""
        for tls, backendTLS in COMBINATIONS:
            relayed = portable.Relayed(tls=tls, backendTLS=backendTLS)
            self.kick(relayed)
            self.assertEqual((relayed.client.value(), relayed.backend.value()), (b"", b""))
            self.assertTrue(relayed.client.disconnecting and relayed.backend.disconnecting)
            relayed.client.lose()
            relayed.backend.lose()
            self.assertEqual((relayed.session.outcome, relayed.session.reason), (Outcome.KICKED, REASON))
            relayed.clock.advance(GRACE)
            self.assertFalse(relayed.client.aborted or relayed.backend.aborted)
            self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def test_kickStalled(self) -> None:
        """A side that does not close is reset."""
        relayed = portable.Relayed()
        self.kick(relayed)
        relayed.backend.lose()
        relayed.clock.advance(GRACE)
        self.assertTrue(relayed.client.aborted)
        self.assertIs(relayed.session.outcome, Outcome.KICKED)

    def test_kickHalfClosed(self) -> None:
        """A session with one side that has ended can go on for long, and is kicked like others."""
        relayed = portable.Relayed()
        relayed.client.protocol.readConnectionLost()
        self.assertIs(relayed.session.outcome, Outcome.RELAYED)
        self.kick(relayed)
        self.assertTrue(relayed.client.disconnecting and relayed.backend.disconnecting)
        self.assertEqual((relayed.session.outcome, relayed.session.reason), (Outcome.KICKED, REASON))

    def test_kickClosing(self) -> None:
        """A session that both sides end already keeps its outcome."""
        relayed = portable.Relayed()
        relayed.relay.close()
        self.kick(relayed)
        self.assertIs(relayed.session.outcome, Outcome.RELAYED)

    def test_kickParted(self) -> None:
        """A client that waits after its backend has closed is let go at once."""
        relayed = self.parted()
        self.kick(relayed)
        self.assertEqual(relayed.client.value(), b"* 3 EXISTS\r\n")
        self.assertTrue(relayed.client.disconnecting)
        self.assertFalse(relayed.relay.isParted)
        relayed.client.lose()
        self.assertIs(relayed.session.outcome, Outcome.KICKED)

    def test_traffic(self) -> None:
        """The bytes and the silence of a relay can be read while it goes on, and its bytes after its end."""
        relayed = portable.Relayed()
        relayed.client.protocol.dataReceived(b"a NOOP\r\n")
        relayed.backend.protocol.dataReceived(b"a OK\r\n")
        relayed.clock.advance(7)
        self.assertEqual((relayed.relay.traffic, relayed.relay.idle()), ((8, 6), 7.0))
        relayed.client.lose()
        relayed.backend.lose()
        self.assertEqual(relayed.relay.traffic, (8, 6))


class StreamTests(RelayCase):
    """The end of relays between raw descriptors."""

    def kick(self, relayed: Relayed) -> None:
        """End the session."""
        clock: Clock = self.turns.clock
        self.factory = Factory(clock)
        self.factory.connections.add(relayed.relay)
        done = relayed.relay.terms.done

        def finished(relay: Any) -> None:
            self.factory.connections.discard(relay)
            done(relay)

        relayed.relay.terms.done = finished
        Kicks(clock).end([(self.factory, relayed.relay)], REASON)
        clock.advance(0)
        self.settle()

    def test_kick(self) -> None:
        """Both sides get what was sent, a close_notify under TLS, and the end of file: no further byte."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.client.send(b"a FETCH\r\n")
            self.assertReceived(relayed.backend, b"a FETCH\r\n")
            relayed.backend.send(b"* 1 FETCH {100}\r\nhalf")
            self.assertReceived(relayed.client, b"* 1 FETCH {100}\r\nhalf")
            self.kick(relayed)
            self.assertFinished(relayed, Outcome.KICKED)
            for peer, heard in ((relayed.client, b"* 1 FETCH {100}\r\nhalf"), (relayed.backend, b"a FETCH\r\n")):
                self.untilOver(peer)
                self.assertEqual(bytes(peer.received), heard)
                self.assertIsNone(peer.error)
                self.assertEqual(peer.saidGoodbye, peer.engine is not None)
            self.assertEqual(relayed.session.reason, REASON)
            self.assertEqual(self.factory.connections, set())
            self.turns.clock.advance(GRACE)

    def test_stalled(self) -> None:
        """A side that takes no bytes, with full buffers, is reset within a second."""
        for combination in COMBINATIONS:
            for relayed, sender, receiver in self.sides(*combination):
                receiver.reading = False
                sender.send(CONTENT)
                self.settle()
                self.assertTrue(relayed.relay.isStuck)
                self.kick(relayed)
                self.assertEqual(relayed.done, 0)
                self.advance(GRACE)
                self.assertFinished(relayed, Outcome.KICKED)

    def test_halfClosed(self) -> None:
        """A session with one side that has ended is kicked like others."""
        relayed = self.relayed()
        relayed.client.say(b"bye")
        self.assertReceived(relayed.backend, b"bye")
        self.settle()
        self.assertEqual((relayed.session.outcome, relayed.done), (Outcome.RELAYED, 0))
        self.kick(relayed)
        self.assertFinished(relayed, Outcome.KICKED)

    def test_parked(self) -> None:
        """A client that waits after its backend has closed is let go at once."""
        for tls in (False, True):
            relayed = self.relayed(tls)
            relayed.session.place = parted.crowded()
            relayed.backend.close()
            self.settle()
            self.assertTrue(relayed.relay.isParted)
            self.kick(relayed)
            self.untilOver(relayed.client)
            self.assertEqual(relayed.client.saidGoodbye, tls)
            self.assertFinished(relayed, Outcome.KICKED)

    def test_traffic(self) -> None:
        """The bytes and the silence of a relay can be read while it goes on."""
        relayed = self.relayed(True, False)
        relayed.client.send(b"a NOOP\r\n")
        self.assertReceived(relayed.backend, b"a NOOP\r\n")
        relayed.backend.send(b"a OK\r\n")
        self.assertReceived(relayed.client, b"a OK\r\n")
        self.turns.clock.advance(7)
        self.assertEqual((relayed.relay.traffic, relayed.relay.idle()), ((8, 6), 7.0))
        self.kick(relayed)
        self.assertFinished(relayed, Outcome.KICKED)
        self.assertEqual(relayed.relay.traffic, (8, 6))


class DialogueTests(SynchronousTestCase):
    """The end of connections before the relay."""

    def kick(self, talk: Conversation) -> None:
        """End the connection."""
        clock = talk.clock
        (connection,) = talk.factory.connections
        Kicks(clock).end([(talk.factory, connection)], REASON)
        clock.advance(0)

    def assertKicked(self, talk: Conversation, goodbye: bytes) -> None:
        """It has said goodbye, and closed."""
        self.assertIn(goodbye, talk.hear())
        self.assertTrue(talk.closed)

    def test_command(self) -> None:
        """A client that has not logged in hears the goodbye of its protocol."""
        for protocol, goodbye in ((IMAP4, b"* BYE Gateway is shut"), (POP3, b""), (SMTP, b"421 4.3.2 ")):
            talk = Conversation(protocol)
            talk.hear()
            self.kick(talk)
            self.assertKicked(talk, goodbye)
            self.assertIs(talk.server.session.outcome, Outcome.KICKED)

    def test_auth(self) -> None:
        """A login under way is cancelled."""
        talk = Conversation(IMAP4, authenticator=FakeAuthenticator(None))
        talk.send(b"a LOGIN joe sesame\r\n")
        self.assertIs(talk.server.session.phase, Phase.AUTH)
        # By this, lists find logins that are stuck.
        self.assertEqual(talk.server.loginBegan, talk.clock.seconds())
        self.kick(talk)
        self.assertKicked(talk, b"* BYE Gateway is shut")
        self.assertEqual(talk.server.session.reached, Phase.AUTH)

    def test_named(self) -> None:
        """A login that turns out to be one of the kicked user does not reach the relay, however fast its backend is."""
        authenticator, connector = FakeAuthenticator(None, None), FakeConnector(None, None)
        talk = Conversation(IMAP4, authenticator=authenticator, connector=connector)
        kicks = Kicks(talk.clock)
        for user in (b"jane", b"joe"):
            talk.send(b"a LOGIN alias sesame\r\n")
            (connection,) = talk.factory.connections
            kicks.endLater([(talk.factory, connection)], REASON, lambda target: target[1].session.user == b"joe")
            authenticator.pending.pop().callback(evolve(ROUTE, user=user))
            # The next turn of the event loop, before it hears the backend.
            talk.clock.advance(0)
            if user == b"jane":
                self.assertIsNone(talk.server.session.outcome)
                connector.pending.pop().callback(Denial(Trouble.DENIED))
        self.assertIs(talk.server.session.outcome, Outcome.KICKED)
        self.assertIs(talk.server.session.reached, Phase.CONNECT)
        self.assertKicked(talk, b"* BYE Gateway is shut")

    def test_connect(self) -> None:
        """So is one whose backend does not answer."""
        talk = Conversation(IMAP4, connector=FakeConnector(None))
        talk.send(b"a LOGIN joe sesame\r\n")
        self.kick(talk)
        self.assertKicked(talk, b"* BYE Gateway is shut")
        self.assertIs(talk.server.session.outcome, Outcome.KICKED)

    def test_stalled(self) -> None:
        """A client that does not close its side is cut off."""
        talk = Conversation(IMAP4)
        self.kick(talk)
        talk.clock.advance(GRACE)
        self.assertTrue(talk.closed)
        self.assertIs(talk.server.session.outcome, Outcome.KICKED)
