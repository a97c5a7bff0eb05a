"""The contract of transports under TLS, for both kinds of transport."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import TestCase

from mailgate.test.support.contractkinds import OverLean, OverTwisted, Verifying
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor
from mailgate.test.support.transportbench import Accepted, Bench, Connected
from mailgate.test.support.transportends import CONTENT, MiB, NearFactory, Peer, Pieces, Source
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.server import ServerTLS

SOME = CONTENT[: 4 * MiB]


class TLSPeer(Peer):
    """The other end, with the standard library's TLS."""

    PIECE = 64 * 1024

    async def shakeHands(self) -> None:
        await self._whenReady(self.connection.do_handshake)  # type: ignore[attr-defined]

    async def _read(self, most: int) -> bool:
        try:
            return await super()._read(most)
        except ssl.SSLError as error:
            # Python before 3.11.4 raises the base class for it.
            if error.reason == "UNEXPECTED_EOF_WHILE_READING":
                raise ssl.SSLEOFError(*error.args) from error
            raise

    def endTLS(self) -> None:
        """Send close_notify, and wait for no answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.connection.unwrap()  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Answer a close_notify if the connection is still open, and close."""
        with contextlib.suppress(OSError):
            self.endTLS()
        self.connection.close()


class Encrypted(Bench):
    """TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = makePair(self.folder, "loopback")

    def creator(self, server: bool) -> Any:
        """What C{startTLS} takes for each side."""
        if server:
            return ServerTLS(settingsFor(self.pair), "imap")
        return backendTLS("localhost", True, loadTrust(self.pair.certificate))

    def overTLS(self, peer: Peer, server: bool, version: str = "", trusting: bool = True) -> TLSPeer:
        """C{peer} with TLS, as the server if C{server}."""
        if server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.pair.certificate, self.pair.key)
        else:
            context = clientContext()
            context.verify_mode = ssl.CERT_NONE if trusting else ssl.CERT_REQUIRED
        # Python before 3.11.4 sets this option: an end of file without close_notify is then a proper end.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        if version:
            context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        wrapped = context.wrap_socket(
            peer.connection, server, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        return TLSPeer(self.turn, self.keep(wrapped))

    async def secure(
        self, version: str = "", halfCloseable: bool = False, **reactions: Callable[[Any], object]
    ) -> tuple[Any, TLSPeer]:
        """Both ends of a connection after the handshake and some data."""
        near, plain = await self.open(halfCloseable, **reactions)
        near.transport.startTLS(self.creator(self.accepted))
        peer = self.overTLS(plain, not self.accepted, version)
        await peer.shakeHands()
        await self.untilTold(near, "handshake")
        # With TLS 1.3 the client reads its session tickets now.
        near.transport.write(b"ready")
        self.assertEqual(await peer.receive(5), b"ready")
        return near, peer

    async def assertEnded(self, near: Any, kind: type[BaseException]) -> None:
        """C{near}'s connection was ended by us, as C{kind}."""
        await self.assertLost(near, ConnectionLost if self.masksReasons else kind)

    async def test_versions(self) -> None:
        """
        Handshakes with TLS 1.2 and 1.3 succeed and are reported once. Data pass both ways, and the transport provides
        ISSLTransport.
        """
        for version, name in (("TLSv1_2", "TLSv1.2"), ("TLSv1_3", "TLSv1.3")):
            near, peer = await self.secure(version)
            self.assertTrue(ISSLTransport.providedBy(near.transport))
            handle = near.transport.getHandle()
            self.assertIsInstance(handle, SSL.Connection)
            self.assertEqual(handle.get_protocol_version_name(), name)
            await peer.send(b"NOOP\r\n")
            await self.untilTold(near, "data")
            self.assertEqual(near.received, b"NOOP\r\n")
            self.assertEqual(near.told, ["made", "handshake", "data"])

    async def test_certificate(self) -> None:
        """A client has the server's certificate. A server that requests none has no client certificate."""
        near, _ = await self.secure()
        certificate = near.transport.getPeerCertificate()
        if self.accepted:
            self.assertIsNone(certificate)
        else:
            names = certificate.get_subject().get_components()
            self.assertEqual(names, [(b"CN", b"loopback")])

    async def test_addresses(self) -> None:
        """TLS changes neither the addresses nor the TCP options."""
        near, peer = await self.secure()
        names = [IPv4Address("TCP", *each) for each in (peer.connection.getpeername(), peer.connection.getsockname())]
        self.assertEqual([near.transport.getHost(), near.transport.getPeer()], names)
        near.transport.setTcpNoDelay(True)
        self.assertTrue(near.transport.getTcpNoDelay())

    async def test_otherKind(self) -> None:
        """Both kinds of transport understand each other, with megabytes in both directions."""
        near, far = self.makeNear(), self.makeNear()
        accepting, connecting = (self.reactor, self.clock) if self.accepted else (self.clock, self.reactor)
        ends = [near, far] if self.accepted else [far, near]
        bound = self.bind()
        self.ports.append(accepting.adoptStreamPort(bound.fileno(), self.family, NearFactory(lambda: ends[0])))
        connecting.connectTCP(*bound.getsockname(), NearFactory(lambda: ends[1]), 20)
        await self.until(lambda: near.told and far.told)
        for end, server in ((near, self.accepted), (far, not self.accepted)):
            end.transport.startTLS(self.creator(server))
            end.transport.write(SOME)
        await self.until(lambda: len(near.received) == len(far.received) == len(SOME))
        self.assertSame(near.received, SOME)
        self.assertSame(far.received, SOME)
        near.transport.loseConnection()
        for end in (near, far):
            await self.assertLost(end, ConnectionDone)
            self.assertEqual(end.told, ["made", "handshake", "data", "lost"])

    async def test_reversed(self) -> None:
        """With C{normal} false the side that accepted is TLS's client, and the other its server."""
        near, plain = await self.open()
        near.transport.startTLS(self.creator(not self.accepted), False)
        peer = self.overTLS(plain, self.accepted)
        await self.together(peer.shakeHands(), self.untilTold(near, "handshake"))
        near.transport.write(b"turned")
        self.assertEqual(await peer.receive(6), b"turned")

    async def test_atOnce(self) -> None:
        """TLS may be started, and written to, as soon as the connection is made."""

        def start(near: Any) -> None:
            near.transport.startTLS(self.creator(self.accepted))
            near.transport.write(b"* OK ready\r\n")

        _, plain = await self.open(made=start, handshake=lambda near: near.transport.write(b"secured"))
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        received = await peer.receive(19)
        self.assertEqual(sorted([received[:7], received[-7:]])[1], b"secured")
        self.assertIn(b"* OK ready\r\n", received)

    async def test_upgrade(self) -> None:
        """
        In a dialogue, everything written before startTLS is sent in plain text, and everything after it encrypted.
        """

        def answer(near: Any) -> None:
            if near.received == b"STARTTLS\r\n":
                near.transport.write(CONTENT)
                near.transport.write(b"220 go ahead\r\n")
                near.transport.startTLS(self.creator(self.accepted))
                near.transport.write(b"250 over TLS\r\n")

        near, plain = await self.open(data=answer)
        await plain.send(b"STARTTLS\r\n")
        self.assertSame(await plain.receive(len(CONTENT)), CONTENT)
        self.assertEqual(await plain.receive(14), b"220 go ahead\r\n")
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        await peer.send(b"QUIT\r\n")
        self.assertEqual(await peer.receive(14), b"250 over TLS\r\n")
        await self.until(lambda: near.received == b"STARTTLS\r\nQUIT\r\n")
        self.assertEqual(near.told, ["made", "data", "handshake", "data"])

    async def test_early(self) -> None:
        """Data written before the end of the handshake are sent in order after it, and delay C{loseConnection}."""
        near, plain = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        near.transport.write(SOME)
        near.transport.writeSequence([b"last ", b"words"])
        near.transport.loseConnection()
        await self.turns()
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        self.assertSame(await peer.rest(), SOME + b"last words")
        peer.leave()
        await self.assertLost(near, ConnectionDone)

    async def test_order(self) -> None:
        """Many small writes and a large one arrive in order."""
        near, peer = await self.secure()
        lines = [b"%d\r\n" % number for number in range(3000)]
        for line in lines:
            near.transport.write(line)
            near.transport.write(b"")
        near.transport.writeSequence([SOME, b"end"])
        expected = b"".join(lines) + SOME + b"end"
        self.assertSame(await peer.receive(len(expected)), expected)

    async def test_bothWays(self) -> None:
        """Megabytes in both directions at the same time arrive unchanged."""
        near, peer = await self.secure()
        near.transport.write(SOME)
        _, received = await self.together(peer.send(SOME), peer.receive(len(SOME)))
        self.assertSame(received, SOME)
        await self.until(lambda: len(near.received) >= len(SOME))
        self.assertSame(near.received, SOME)

    async def test_backPressure(self) -> None:
        """
        A producer is paused when the peer does not read, and resumed when the buffer is nearly empty, alternately.
        """
        near, peer = await self.secure()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.stalled(source)
        self.assertEqual(source.calls[-1], "pause")
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(source.calls, (["pause", "resume"] * len(source.calls))[: len(source.calls)])

    async def test_producerBefore(self) -> None:
        """A producer that was registered before startTLS becomes TLS's."""
        near, plain = await self.open()
        source = Source(near.transport, CONTENT)
        near.transport.startTLS(self.creator(self.accepted))
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        await self.untilTold(near, "handshake")
        if source.calls[-1:] != ["resume"]:
            source.produce()
        await self.stalled(source)
        self.assertEqual(source.calls[-1], "pause")
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)

    async def test_pull(self) -> None:
        """A pull producer writes all its pieces."""
        near, peer = await self.secure()
        pieces = [SOME[start : start + 200_000] for start in range(0, len(SOME), 200_000)]
        source = Pieces(near.transport, pieces)
        self.assertSame(await peer.receive(len(SOME)), SOME)
        self.assertEqual((source.asked, source.stopped), (len(pieces), 0))

    async def test_closingProducer(self) -> None:
        """C{loseConnection} waits until the producer is unregistered."""
        near, peer = await self.secure()
        source = Source(near.transport, CONTENT)
        near.transport.loseConnection()
        await self.turns()
        self.assertNotIn("lost", near.told)
        source.produce()
        self.assertSame(await peer.rest(), CONTENT)
        peer.leave()
        await self.assertLost(near, ConnectionDone)

    async def test_paused(self) -> None:
        """While paused nothing is delivered. Afterwards everything is, in order."""
        near, peer = await self.secure()
        near.transport.pauseProducing()
        await peer.send(CONTENT[:1000])
        await self.turns()
        await peer.send(CONTENT[1000:100_000])
        await self.turns()
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        self.assertEqual(near.deliveries, 0)
        await self.until(lambda: len(near.received) >= 100_000)
        self.assertSame(near.received, CONTENT[:100_000])

    async def test_pausedInDelivery(self) -> None:
        """
        A transport that is paused in dataReceived delivers nothing until it is resumed. Then it delivers all decrypted
        data, even if nothing more arrives. Twisted's own transports deliver what they have decrypted.
        """
        near, peer = await self.secure(data=lambda near: near.transport.pauseProducing())
        sending = ensureDeferred(peer.send(SOME))
        expected = 0
        while len(near.received) < len(SOME):
            expected += 1
            await self.until(lambda least: near.deliveries >= least, expected)
            for _ in range(3):
                await self.turn()
            if self.keepsDecrypted:
                self.assertEqual(near.deliveries, expected)
            expected = near.deliveries
            near.transport.resumeProducing()
        await sending
        self.assertSame(near.received, SOME)
        self.assertGreater(expected, 10)

    async def test_closing(self) -> None:
        """C{loseConnection} sends what is buffered and a close_notify. A peer that answers it sees ConnectionDone."""
        near, peer = await self.secure()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        near.transport.loseConnection()
        near.transport.write(b"too late")
        await self.turns()
        self.assertNotIn("lost", near.told)
        self.assertSame(await peer.rest(), CONTENT)
        peer.leave()
        await self.assertLost(near, ConnectionDone)

    async def test_closingInAnswer(self) -> None:
        """A connection may be closed right after an answer."""

        def leave(near: Any) -> None:
            near.transport.write(b"221 bye\r\n")
            near.transport.loseConnection()
            self.assertNotIn("lost", near.told)

        near, peer = await self.secure(data=leave)
        await peer.send(b"QUIT\r\n")
        self.assertEqual(await peer.rest(), b"221 bye\r\n")
        peer.leave()
        await self.assertLost(near, ConnectionDone)

    async def test_peerEnds(self) -> None:
        """
        The peer's close_notify ends the connection after its last data, if the protocol does not handle half-closes.
        """
        near, peer = await self.secure()
        await peer.send(b"last words")
        peer.endTLS()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"last words")
        self.assertEqual(await peer.rest(), b"")

    async def test_halfClose(self) -> None:
        """A protocol that handles them may go on writing. Twisted's own transports have no half-close under TLS."""
        near, peer = await self.secure(halfCloseable=True)
        await peer.send(b"LOGOUT\r\n")
        peer.endTLS()
        if not self.halfClosesTLS:
            await self.assertLost(near, ConnectionDone)
            self.assertEqual(near.told, ["made", "handshake", "data", "lost"])
            return
        await self.untilTold(near, "ended")
        await self.turns()
        self.assertEqual(near.told, ["made", "handshake", "data", "ended"])
        near.transport.write(SOME)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), SOME)
        await self.assertLost(near, ConnectionDone)

    async def test_writeEnd(self) -> None:
        """
        C{loseWriteConnection} sends what is buffered and a close_notify, and reads on. Twisted's own transports send no
        close_notify, so the data look truncated.
        """
        near, peer = await self.secure(halfCloseable=True)
        near.transport.write(SOME)
        near.transport.loseWriteConnection()
        if not self.halfClosesTLS:
            with self.assertRaises(ssl.SSLEOFError):
                await peer.rest()
            near.transport.abortConnection()
            return
        self.assertSame(await peer.rest(), SOME)
        near.transport.write(b"too late")
        await peer.send(b"answer")
        await self.until(lambda: near.received == b"answer")
        self.assertEqual(near.told, ["made", "handshake", "writeEnded", "data"])
        peer.endTLS()
        await self.untilTold(near, "ended")

    async def test_truncated(self) -> None:
        """An end of file without close_notify is ConnectionLost, not ConnectionDone, for both kinds of protocols."""
        for halfCloseable in (False, True):
            near, peer = await self.secure(halfCloseable=halfCloseable)
            await peer.send(b"cut o")
            peer.end()
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.received, b"cut o")
            self.assertEqual(near.told, ["made", "handshake", "data", "lost"])

    async def test_reset(self) -> None:
        """So is a reset by the peer."""
        near, peer = await self.secure()
        peer.reset()
        await self.assertLost(near, ConnectionLost)

    async def test_abort(self) -> None:
        """
        C{abortConnection} drops what is buffered, and reports the end after the call. The peer receives no
        close_notify.
        """
        near, peer = await self.secure()
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        near.transport.abortConnection()
        self.assertNotIn("lost", near.told)
        await self.assertEnded(near, ConnectionAborted)
        with self.assertRaises((ConnectionResetError, ssl.SSLEOFError)):
            await peer.rest()
        self.assertLess(len(peer.received), len(CONTENT))

    async def test_abortInDelivery(self) -> None:
        """Nothing is delivered after it, except for what Twisted's own transports have decrypted."""
        near, peer = await self.secure(data=lambda near: near.transport.abortConnection())
        await peer.send(SOME[:200_000])
        await self.assertEnded(near, ConnectionAborted)
        if self.keepsDecrypted:
            self.assertEqual(near.deliveries, 1)
        self.assertLess(len(near.received), 200_000)

    async def test_error(self) -> None:
        """An exception in C{dataReceived} is logged once, and closes only that connection."""
        other, otherPeer = await self.secure()
        near, peer = await self.secure(data=lambda near: 1 // 0)
        await peer.send(b"x")
        await self.assertEnded(near, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await otherPeer.send(b"still here")
        await self.until(lambda: other.received == b"still here")

    async def test_afterTheEnd(self) -> None:
        """All methods of a lost transport are harmless."""
        near, peer = await self.secure()
        peer.endTLS()
        await self.assertLost(near, ConnectionDone)
        transport = near.transport
        transport.write(b"x")
        transport.writeSequence([b"x", b"y"])
        transport.pauseProducing()
        transport.resumeProducing()
        transport.loseConnection()
        transport.abortConnection()
        await self.turns()
        self.assertEqual(near.told, ["made", "handshake", "lost"])

    async def test_untrusted(self) -> None:
        """A certificate that the client does not trust ends the connection on both sides with an SSL error."""
        near, plain = await self.open()
        creator = self.creator(self.accepted)
        self.pair = makePair(self.folder, "other")
        near.transport.startTLS(creator)
        near.transport.write(b"secret")
        peer = self.overTLS(plain, not self.accepted, trusting=False)
        with self.assertRaises(ssl.SSLError):
            await peer.shakeHands()
            await peer.rest()
        peer.connection.close()
        await self.assertLost(near, SSL.Error)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_garbage(self) -> None:
        """So does a peer that does not speak TLS."""
        near, peer = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        await peer.send(b"GET / HTTP/1.0\r\n\r\n")
        await self.assertLost(near, SSL.Error)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_forged(self) -> None:
        """So does a forged record after the handshake."""
        near, peer = await self.secure()
        os.write(peer.connection.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        await self.assertLost(near, SSL.Error)
        self.assertEqual(near.told, ["made", "handshake", "lost"])

    async def test_lostInHandshake(self) -> None:
        """If the peer closes during the handshake, in any way, the connection is lost."""
        for leave in (Peer.end, Peer.reset):
            near, peer = await self.open()
            near.transport.startTLS(self.creator(self.accepted))
            near.transport.write(b"unsent")
            await self.turns()
            leave(peer)
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.told, ["made", "lost"])

    async def test_closedInHandshake(self) -> None:
        """C{loseConnection} without buffered data does not wait for the handshake."""
        near, _ = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        near.transport.loseConnection()
        self.assertEqual(near.told, ["made"])
        await self.assertEnded(near, ConnectionAborted)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_abortedInHandshake(self) -> None:
        """C{abortConnection} does not wait for it either, whatever is buffered."""
        near, _ = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        await self.assertEnded(near, ConnectionAborted)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_closedByHandshake(self) -> None:
        """A protocol may close at the end of the handshake."""
        near, plain = await self.open(handshake=lambda near: near.transport.loseConnection())
        near.transport.startTLS(self.creator(self.accepted))
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        self.assertEqual(await peer.rest(), b"")
        peer.leave()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.told, ["made", "handshake", "lost"])


class TwistedTLSAcceptedTests(OverTwisted, Accepted, Encrypted, TestCase):
    """Twisted's own transports, accepted, under TLS."""


class TwistedTLSConnectedTests(OverTwisted, Connected, Encrypted, Verifying, TestCase):
    """Twisted's own transports, connected, under TLS."""


class LeanTLSAcceptedTests(OverLean, Accepted, Encrypted, TestCase):
    """Lean transports, accepted, under TLS."""


class LeanTLSConnectedTests(OverLean, Connected, Encrypted, Verifying, TestCase):
    """Lean transports, connected, under TLS."""
