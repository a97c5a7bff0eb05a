"""
The contract of L{mailgate.test.support.transportcontract}, and what it comes to with TLS, connectors and ports, over
Twisted's own transports and over mailgate's lean ones.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import ensureDeferred, maybeDeferred
from twisted.internet.error import (
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NotConnectingError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IListeningPort, ISSLTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.lean.reactor import LeanReactor
from mailgate.test.support import transportcontract as contract
from mailgate.test.support.loopback import speaksIPv6
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor
from mailgate.test.support.transportcontract import CONTENT, MiB, NearFactory, Peer, Source
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.errors import CertificateError
from mailgate.tls.server import ServerTLS

SOME = CONTENT[: 4 * MiB]


class TLSPeer(Peer):
    """The other end, once it speaks TLS: the standard library's."""

    PIECE = 64 * 1024

    async def shakeHands(self) -> None:
        await self._whenReady(self.connection.do_handshake)  # type: ignore[attr-defined]

    def endTLS(self) -> None:
        """Say goodbye, and wait for no answer."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.connection.unwrap()  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Answer a goodbye, if there is still somebody to hear that, and go."""
        with contextlib.suppress(OSError):
            self.endTLS()
        self.connection.close()


class Encrypted(contract.Bench):
    """TLS."""

    def setUp(self) -> None:
        super().setUp()
        self.pair = makePair(self.folder, "loopback")

    def creator(self, server: bool) -> Any:
        """What C{startTLS} wants for either side."""
        if server:
            return ServerTLS(settingsFor(self.pair), "imap")
        return backendTLS("localhost", True, loadTrust(self.pair.certificate))

    def overTLS(self, peer: Peer, server: bool, version: str = "", trusting: bool = True) -> TLSPeer:
        """C{peer}, about to speak TLS, as the C{server} or not."""
        if server:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.pair.certificate, self.pair.key)
        else:
            context = clientContext()
            context.verify_mode = ssl.CERT_NONE if trusting else ssl.CERT_REQUIRED
        if version:
            context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
        wrapped = context.wrap_socket(
            peer.connection, server, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        return TLSPeer(self.turn, self.keep(wrapped))

    async def secure(
        self, version: str = "", halfCloseable: bool = False, **reactions: Callable[[Any], object]
    ) -> tuple[Any, TLSPeer]:
        """Both ends of a connection that have shaken hands, and exchanged a word."""
        near, plain = await self.open(halfCloseable, **reactions)
        near.transport.startTLS(self.creator(self.accepted))
        peer = self.overTLS(plain, not self.accepted, version)
        await peer.shakeHands()
        await self.untilTold(near, "handshake")
        # With TLS 1.3 this is when a client reads its session tickets.
        near.transport.write(b"ready")
        self.assertEqual(await peer.receive(5), b"ready")
        return near, peer

    async def assertEnded(self, near: Any, kind: type[BaseException]) -> None:
        """We have ended C{near}'s connection, by C{kind}."""
        await self.assertLost(near, ConnectionLost if self.masksReasons else kind)

    async def test_versions(self) -> None:
        """Hands are shaken in TLS 1.2 and 1.3, told of once; bytes go both ways, and the transport says what it is."""
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
        """A client has its server's certificate; a server that asks for none has none of its client's."""
        near, _ = await self.secure()
        certificate = near.transport.getPeerCertificate()
        if self.accepted:
            self.assertIsNone(certificate)
        else:
            names = certificate.get_subject().get_components()
            self.assertEqual(names, [(b"CN", b"loopback")])

    async def test_addresses(self) -> None:
        """TLS changes nothing of where the ends are, nor of TCP's options."""
        near, peer = await self.secure()
        names = [IPv4Address("TCP", *each) for each in (peer.connection.getpeername(), peer.connection.getsockname())]
        self.assertEqual([near.transport.getHost(), near.transport.getPeer()], names)
        near.transport.setTcpNoDelay(True)
        self.assertTrue(near.transport.getTcpNoDelay())

    async def test_otherKind(self) -> None:
        """One kind of transport understands the other, megabytes at a time in both directions."""
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
        """With C{normal} false the side that was connected to is TLS's client, and the other its server."""
        near, plain = await self.open()
        near.transport.startTLS(self.creator(not self.accepted), False)
        peer = self.overTLS(plain, self.accepted)
        await self.together(peer.shakeHands(), self.untilTold(near, "handshake"))
        near.transport.write(b"turned")
        self.assertEqual(await peer.receive(6), b"turned")

    async def test_atOnce(self) -> None:
        """TLS may be started as soon as the connection is made, and written to."""

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
        """In the middle of a dialogue all that was written before is sent in the clear, and all after it under TLS."""

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
        """What is written before hands are shaken is sent in order once they are, and delays a C{loseConnection}."""
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
        """Many small writes arrive in order, and a large one behind them."""
        near, peer = await self.secure()
        lines = [b"%d\r\n" % number for number in range(3000)]
        for line in lines:
            near.transport.write(line)
            near.transport.write(b"")
        near.transport.writeSequence([SOME, b"end"])
        expected = b"".join(lines) + SOME + b"end"
        self.assertSame(await peer.receive(len(expected)), expected)

    async def test_bothWays(self) -> None:
        """Megabytes cross each other unharmed."""
        near, peer = await self.secure()
        near.transport.write(SOME)
        _, received = await self.together(peer.send(SOME), peer.receive(len(SOME)))
        self.assertSame(received, SOME)
        await self.until(lambda: len(near.received) >= len(SOME))
        self.assertSame(near.received, SOME)

    async def test_backPressure(self) -> None:
        """A producer is paused when nobody reads and resumed when the buffer has run down, turn about."""
        near, peer = await self.secure()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.stalled(source)
        self.assertEqual(source.calls[-1], "pause")
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(source.calls, (["pause", "resume"] * len(source.calls))[: len(source.calls)])

    async def test_producerBefore(self) -> None:
        """A producer that was registered before TLS was started is one of TLS's then."""
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
        """A pull producer is asked for all of its pieces."""
        near, peer = await self.secure()
        pieces = [SOME[start : start + 200_000] for start in range(0, len(SOME), 200_000)]
        source = contract.Pieces(near.transport, pieces)
        self.assertSame(await peer.receive(len(SOME)), SOME)
        self.assertEqual((source.asked, source.stopped), (len(pieces), 0))

    async def test_closingProducer(self) -> None:
        """C{loseConnection} waits for a producer until it is unregistered."""
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
        """While paused nothing is delivered, though it has arrived; afterwards everything, in order."""
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
        A transport that is paused by what it delivers delivers no more until it is resumed, and then all that has been
        decrypted meanwhile, though nothing more arrives; Twisted's own goes on with what it has decrypted.
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
        """C{loseConnection} sends what is unsent, and TLS's end; a peer that answers that sees the connection done."""
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
        """A connection may be closed behind an answer."""

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
        """TLS's end from the peer is the end, behind its last data, for a protocol that knows no half-close."""
        near, peer = await self.secure()
        await peer.send(b"last words")
        peer.endTLS()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"last words")
        self.assertEqual(await peer.rest(), b"")

    async def test_halfClose(self) -> None:
        """One that does may go on writing; Twisted's own transports know no half-close under TLS."""
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
        C{loseWriteConnection} sends what is unsent and TLS's end, and still reads; with Twisted's own the end comes
        without TLS's, as if it had been cut off.
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
        """An end of file without TLS's own is a connection lost, not done, to a protocol of either sort."""
        for halfCloseable in (False, True):
            near, peer = await self.secure(halfCloseable=halfCloseable)
            await peer.send(b"cut o")
            peer.end()
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.received, b"cut o")
            self.assertEqual(near.told, ["made", "handshake", "data", "lost"])

    async def test_reset(self) -> None:
        """So is a peer's reset."""
        near, peer = await self.secure()
        peer.reset()
        await self.assertLost(near, ConnectionLost)

    async def test_abort(self) -> None:
        """C{abortConnection} drops what is unsent, and is not told inside the call; the peer meets no end of TLS."""
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
        """After it nothing is delivered, but for what Twisted's own has decrypted already."""
        near, peer = await self.secure(data=lambda near: near.transport.abortConnection())
        await peer.send(SOME[:200_000])
        await self.assertEnded(near, ConnectionAborted)
        if self.keepsDecrypted:
            self.assertEqual(near.deliveries, 1)
        self.assertLess(len(near.received), 200_000)

    async def test_error(self) -> None:
        """An exception in C{dataReceived} is logged once and costs that connection, and no other."""
        other, otherPeer = await self.secure()
        near, peer = await self.secure(data=lambda near: 1 // 0)
        await peer.send(b"x")
        await self.assertEnded(near, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await otherPeer.send(b"still here")
        await self.until(lambda: other.received == b"still here")

    async def test_afterTheEnd(self) -> None:
        """Whatever a protocol still asks of a transport that is lost is harmless."""
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
        """A certificate that the client does not trust ends the connection at both sides, in an error of TLS's."""
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
        """So does a peer that does not speak TLS at all."""
        near, peer = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        await peer.send(b"GET / HTTP/1.0\r\n\r\n")
        await self.assertLost(near, SSL.Error)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_forged(self) -> None:
        """And one that sends, later, what was not encrypted by the one with whom hands were shaken."""
        near, peer = await self.secure()
        os.write(peer.connection.fileno(), b"\x17\x03\x03\x00\x40" + bytes(64))
        await self.assertLost(near, SSL.Error)
        self.assertEqual(near.told, ["made", "handshake", "lost"])

    async def test_lostInHandshake(self) -> None:
        """A peer that leaves before hands are shaken, in whatever way, is a connection lost."""
        for leave in (Peer.end, Peer.reset):
            near, peer = await self.open()
            near.transport.startTLS(self.creator(self.accepted))
            near.transport.write(b"unsent")
            await self.turns()
            leave(peer)
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.told, ["made", "lost"])

    async def test_closedInHandshake(self) -> None:
        """C{loseConnection} with nothing to send does not wait for the peer to shake hands."""
        near, _ = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        near.transport.loseConnection()
        self.assertEqual(near.told, ["made"])
        await self.assertEnded(near, ConnectionAborted)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_abortedInHandshake(self) -> None:
        """Nor does C{abortConnection}, whatever there is to send."""
        near, _ = await self.open()
        near.transport.startTLS(self.creator(self.accepted))
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        await self.assertEnded(near, ConnectionAborted)
        self.assertEqual(near.told, ["made", "lost"])

    async def test_closedByHandshake(self) -> None:
        """A protocol may close as soon as hands are shaken."""
        near, plain = await self.open(handshake=lambda near: near.transport.loseConnection())
        near.transport.startTLS(self.creator(self.accepted))
        peer = self.overTLS(plain, not self.accepted)
        await peer.shakeHands()
        self.assertEqual(await peer.rest(), b"")
        peer.leave()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.told, ["made", "handshake", "lost"])


class Verifying(contract.Bench):
    """TLS's client."""

    async def test_wrongName(self) -> None:
        """A certificate that is trusted, but somebody else's, is refused by the creator of the connection."""
        near, plain = await self.open()
        creator = backendTLS("other.example.com", True, loadTrust(self.pair.certificate))  # type: ignore[attr-defined]
        near.transport.startTLS(creator)
        near.transport.write(b"secret")
        peer = self.overTLS(plain, True)  # type: ignore[attr-defined]
        with self.assertRaises((ssl.SSLError, ConnectionResetError)):
            await peer.shakeHands()
            await peer.rest()
        self.assertEqual(peer.received, b"")
        await self.assertLost(near, CertificateError)
        self.assertEqual(near.told, ["made", "lost"])


class Connecting(contract.Bench):
    """Connectors."""

    def factory(self, **reactions: Callable[[Any], object]) -> NearFactory:
        return NearFactory(lambda: self.makeNear(False, **reactions))

    async def test_life(self) -> None:
        """The factory is started, told of the attempt, asked once, told of the end after its protocol, and stopped."""
        bound = self.bind()
        factory = self.factory(lost=lambda near: factory.told.append("protocol lost"))
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        self.assertEqual(factory.told, ["start", "connecting"])
        self.assertEqual((factory.addresses, self.nears), ([], []))
        far = await self.accept(bound)
        await self.until(lambda: self.nears and self.nears[0].told)
        destination = IPv4Address("TCP", *bound.getsockname())
        self.assertEqual((factory.addresses, connector.getDestination()), ([destination], destination))
        far.close()
        await self.untilTold(factory, "stop")
        self.assertEqual(factory.told, ["start", "connecting", "protocol lost", "lost", "stop"])
        self.assertIsInstance(factory.reason, ConnectionDone)

    async def assertFails(self, factory: NearFactory, kind: type[Exception]) -> None:
        """C{factory} is told once that there is no connection, and is asked for no protocol."""
        self.assertEqual(factory.told, ["start", "connecting"])
        await self.untilTold(factory, "stop")
        self.assertIsInstance(factory.reason, kind)
        self.assertEqual((factory.told, factory.addresses), (["start", "connecting", "failed", "stop"], []))

    async def test_refused(self) -> None:
        """Where nobody listens the connection fails, refused; not before the connector has been returned."""
        bound = self.bind()
        address = bound.getsockname()
        bound.close()
        factory = self.factory()
        self.reactor.connectTCP(*address, factory, 20)
        await self.assertFails(factory, ConnectionRefusedError)

    async def test_timeout(self) -> None:
        """Where nobody answers it fails after the timeout."""
        factory = self.factory()
        self.reactor.connectTCP(*self.crowded().getsockname(), factory, 0.01)
        await self.assertFails(factory, TimeoutError)

    async def test_stopped(self) -> None:
        """An attempt that is given up fails for that reason, and cannot be given up again."""
        for giveUp in ("stopConnecting", "disconnect"):
            factory = self.factory()
            connector = self.reactor.connectTCP(*self.crowded().getsockname(), factory, 20)
            await self.turns()
            self.assertEqual(factory.told, ["start", "connecting"])
            getattr(connector, giveUp)()
            await self.untilTold(factory, "stop")
            self.assertEqual(factory.told, ["start", "connecting", "failed", "stop"])
            self.assertIsInstance(factory.reason, UserError)
            self.assertRaises(NotConnectingError, connector.stopConnecting)

    async def test_stoppedAtOnce(self) -> None:
        """It may be given up before anything has happened."""
        bound = self.bind()
        factory = self.factory()
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        connector.stopConnecting()
        await self.untilTold(factory, "stop")
        await self.turns()
        self.assertEqual((factory.told, factory.addresses), (["start", "connecting", "failed", "stop"], []))

    async def test_disconnect(self) -> None:
        """Once connected, C{disconnect} closes, and there is no attempt to be given up any more."""
        bound = self.bind()
        factory = self.factory()
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        peer = Peer(self.turn, await self.accept(bound))
        await self.until(lambda: self.nears and self.nears[0].told)
        self.assertRaises(NotConnectingError, connector.stopConnecting)
        self.nears[0].transport.write(b"bye")
        connector.disconnect()
        self.assertEqual(await peer.rest(), b"bye")
        await self.untilTold(factory, "stop")
        self.assertEqual(factory.told, ["start", "connecting", "lost", "stop"])

    async def test_nobody(self) -> None:
        """A factory that makes no protocol has its connection closed."""
        bound = self.bind()
        factory = NearFactory(lambda: None)
        self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        self.assertEqual(await Peer(self.turn, await self.accept(bound)).rest(), b"")
        await self.untilTold(factory, "stop")
        self.assertEqual(len(factory.addresses), 1)

    async def test_source(self) -> None:
        """A connection comes from the address that it is bound to."""
        bound = self.bind()
        self.reactor.connectTCP(*bound.getsockname(), self.factory(), 20, ("127.0.0.2", 0))
        far = await self.accept(bound)
        self.assertEqual(far.getpeername()[0], "127.0.0.2")
        await self.until(lambda: self.nears and self.nears[0].told)
        self.assertEqual(self.nears[0].transport.getHost().host, "127.0.0.2")

    async def test_briefly(self) -> None:
        """What a server says that leaves at once is heard."""
        bound = self.bind()
        self.reactor.connectTCP(*bound.getsockname(), self.factory(), 20)
        far = await self.accept(bound)
        far.send(b"-ERR busy\r\n")
        far.close()
        await self.until(lambda: self.nears)
        await self.assertLost(self.nears[0], ConnectionDone)
        self.assertEqual((self.nears[0].told, self.nears[0].received), (["made", "data", "lost"], b"-ERR busy\r\n"))

    async def test_unix(self) -> None:
        """A unix socket's connector knows where it goes."""
        self.family = socket.AF_UNIX
        bound = self.bind()
        connector = self.reactor.connectUNIX(bound.getsockname(), self.factory(), 20)
        self.assertEqual(connector.getDestination(), UNIXAddress(bound.getsockname()))
        await self.accept(bound)
        await self.until(lambda: self.nears and self.nears[0].told)

    async def test_unixFails(self) -> None:
        """Where there is no unix socket, or nobody listens on it, the connection fails."""
        self.family = socket.AF_UNIX
        bound = self.bind()
        deserted = bound.getsockname()
        bound.close()
        for path, kind in ((os.path.join(self.folder, "none"), ConnectError), (deserted, ConnectionRefusedError)):
            factory = self.factory()
            self.reactor.connectUNIX(path, factory, 20)
            await self.assertFails(factory, kind)

    async def test_interleaved(self) -> None:
        """Attempts that are refused and attempts that are not, all at once, keep to their own."""
        bound, deserted = self.bind(), self.bind()
        nowhere = deserted.getsockname()
        deserted.close()
        factories = [self.factory() for _ in range(40)]
        for number, factory in enumerate(factories):
            self.reactor.connectTCP(*(nowhere if number % 2 else bound.getsockname()), factory, 20)
        fars = [await self.accept(bound) for _ in range(20)]
        for far in fars:
            far.send(b"%d" % far.getpeername()[1])
        await self.until(lambda: sum(bool(near.received) for near in self.nears) == 20)
        for near in self.nears:
            self.assertEqual(near.received, b"%d" % near.transport.getHost().port)
        for number, factory in enumerate(factories):
            self.assertEqual("failed" in factory.told, bool(number % 2))


class Listening(contract.Bench):
    """Ports."""

    def factory(self, **reactions: Callable[[Any], object]) -> NearFactory:
        return NearFactory(lambda: self.makeNear(False, **reactions))

    def greeting(self) -> NearFactory:
        return self.factory(made=lambda near: near.transport.write(b"+OK\r\n"))

    async def assertGreeted(self, *fars: socket.socket) -> None:
        for far in fars:
            self.assertEqual(await Peer(self.turn, far).receive(5), b"+OK\r\n")

    async def test_life(self) -> None:
        """A port says where it is, starts its factory and stops it; it tells it who comes."""
        factory = self.greeting()
        port, address = self.listen(factory)
        self.assertTrue(IListeningPort.providedBy(port))
        self.assertEqual(port.getHost(), IPv4Address("TCP", *address))
        self.assertEqual(factory.told, ["start"])
        far = self.dial(address)
        await self.assertGreeted(far)
        self.assertEqual(factory.addresses, [IPv4Address("TCP", *far.getsockname())])
        await maybeDeferred(port.stopListening)
        self.assertEqual(factory.told, ["start", "stop"])

    async def test_ipv6(self) -> None:
        """IPv6's addresses are told as such, at either end of a connection."""
        if not speaksIPv6():
            raise self.skipTest("this host has no IPv6")
        self.family = socket.AF_INET6
        factory = self.factory()
        port, address = self.listen(factory)
        self.assertEqual(port.getHost(), IPv6Address("TCP", *address))
        self.reactor.connectTCP("::1", address[1], NearFactory(self.makeNear), 20)
        await self.until(lambda: len(self.nears) == 2 and all(near.told for near in self.nears))
        ends = [(near.transport.getHost(), near.transport.getPeer()) for near in self.nears]
        self.assertEqual(ends[0], ends[1][::-1])
        self.assertEqual(factory.addresses[0].host, "::1")
        self.assertIsInstance(factory.addresses[0], IPv6Address)

    async def test_stop(self) -> None:
        """A port that has been stopped, once or twice, takes nobody; those who are there stay."""
        port, address = self.listen(self.greeting())
        far = self.dial(address)
        await self.assertGreeted(far)
        await maybeDeferred(port.stopListening)
        await maybeDeferred(port.stopListening)
        self.assertNotEqual(self.keep(socket.socket()).connect_ex(address), 0)
        far.send(b"NOOP\r\n")
        await self.until(lambda: self.nears[0].received == b"NOOP\r\n")
        self.assertEqual(self.nears[0].told, ["made", "data"])

    async def test_stopUNIX(self) -> None:
        """The file of a unix socket is removed when its port is stopped."""
        self.family = socket.AF_UNIX
        port, address = self.listen(self.greeting())
        self.assertEqual(port.getHost(), UNIXAddress(address))
        await self.assertGreeted(self.dial(address))
        await maybeDeferred(port.stopListening)
        self.assertFalse(os.path.exists(address))

    async def test_stopBetween(self) -> None:
        """A port may be stopped by the first of those who come together."""
        stopped: list[Any] = []

        def stop(near: Any) -> None:
            if not stopped:
                stopped.append(maybeDeferred(port.stopListening))

        port, address = self.listen(self.factory(made=stop))
        first = self.dial(address)
        for _ in range(4):
            self.dial(address)
        first.send(b"served")
        await self.until(lambda: any(near.received == b"served" for near in self.nears))
        await stopped[0]
        self.assertNotEqual(self.keep(socket.socket()).connect_ex(address), 0)

    async def test_many(self) -> None:
        """Many who come at once are all taken."""
        _, address = self.listen(self.greeting())
        fars = [self.dial(address) for _ in range(100)]
        await self.assertGreeted(*fars)
        self.assertEqual(len(self.nears), 100)

    async def test_nobody(self) -> None:
        """A factory that makes no protocol has the connection closed, and the next is taken."""
        protocols = [None, None]
        factory = NearFactory(lambda: protocols.pop() if protocols else self.makeNear())
        _, address = self.listen(factory)
        for _ in range(2):
            self.assertEqual(await Peer(self.turn, self.dial(address)).rest(), b"")
        self.dial(address)
        await self.until(lambda: self.nears and self.nears[0].told)

    async def test_errors(self) -> None:
        """A factory or a protocol that raises is logged, once, and the next connection is taken."""
        troubles = [KeyError("factory")]

        def make() -> Any:
            if troubles:
                raise troubles.pop()
            return self.makeNear(made=lambda near: 1 // 0 if len(self.nears) == 1 else near.transport.write(b"+OK\r\n"))

        _, address = self.listen(NearFactory(make))
        fars = [self.dial(address) for _ in range(4)]
        await self.assertGreeted(*fars[2:])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_reuse(self) -> None:
        """
        Connections that end others, of whom events have come already, and begin new ones at once, on the descriptors
        that these leave: nobody hears what was meant for another.
        """
        nowhere = self.crowded().getsockname()
        connectors: list[Any] = []

        def heard(near: Any) -> None:
            other = self.nears[self.nears.index(near) - 1]
            if "lost" not in other.told:
                other.transport.abortConnection()
            near.transport.loseConnection()
            if len(self.nears) < 200:
                connectors.append(self.reactor.connectTCP(*nowhere, never, 20))
                self.dial(address).send(b"hello")
                self.dial(address).send(b"hello")

        never = NearFactory(lambda: None)
        _, address = self.listen(self.factory(data=heard))
        for _ in range(20):
            self.dial(address).send(b"hello")
        await self.until(lambda: len(self.nears) >= 200 and all("lost" in near.told for near in self.nears))
        for connector in connectors:
            connector.stopConnecting()
        self.assertEqual(never.addresses, [])
        self.assertEqual({bytes(near.received) for near in self.nears}, {b"", b"hello"})

    async def test_noDescriptorLeft(self) -> None:
        """However a connection ends, its descriptor is closed."""
        if not os.path.isdir("/proc/self/fd"):
            raise self.skipTest("descriptors are counted in /proc")
        # What other tests have left to the collector must not be closed in the middle of this one.
        gc.collect()
        _, address = self.listen(self.greeting())
        counts: list[int] = []
        for end in ("loseConnection", "loseConnection", "abortConnection", "peer", "reset"):
            near, far = None, self.dial(address)
            await self.assertGreeted(far)
            near = self.nears[-1]
            if end == "reset":
                Peer(self.turn, far).reset()
            elif end != "peer":
                getattr(near.transport, end)()
            far.close()
            await self.assertLost(near, Exception)
            await self.turns()
            counts.append(len(os.listdir("/proc/self/fd")))
        self.assertEqual(set(counts), {counts[0]})


class OverTwisted(contract.Bench):
    """Twisted's own transports."""

    repeatsEnd = True
    halfClosesTLS = False
    masksReasons = True
    keepsDecrypted = False

    def makeReactor(self) -> Any:
        return self.clock


class OverLean(contract.Bench):
    """Ours."""

    repeatsEnd = False
    halfClosesTLS = True
    masksReasons = False
    keepsDecrypted = True

    def makeReactor(self) -> Any:
        return LeanReactor(self.clock)


class Plain(contract.Transfer, contract.Pausing, contract.Producing, contract.Closing):
    """Everything that is said in the clear."""


class ScenarioTests(SynchronousTestCase):
    """The scenarios themselves."""

    def test_noneHidden(self) -> None:
        """No topic has a scenario by the name of another's, which would not be run."""
        for topics in (Plain.__bases__, (Encrypted, Verifying)):
            names = [name for topic in topics for name in vars(topic) if name.startswith("test_")]
            self.assertEqual(len(names), len(set(names)))
            self.assertGreater(len(names), 30)


class TwistedAcceptedTests(OverTwisted, contract.Accepted, Plain, TestCase):
    """Twisted's own transports, accepted."""


class TwistedConnectedTests(OverTwisted, contract.Connected, Plain, TestCase):
    """Twisted's own transports, connected."""


class TwistedUNIXAcceptedTests(OverTwisted, contract.Accepted, Plain, TestCase):
    """Twisted's own transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class TwistedUNIXConnectedTests(OverTwisted, contract.Connected, Plain, TestCase):
    """Twisted's own transports, connected to a unix socket."""

    family = socket.AF_UNIX


class TwistedTLSAcceptedTests(OverTwisted, contract.Accepted, Encrypted, TestCase):
    """Twisted's own transports, accepted, under TLS."""


class TwistedTLSConnectedTests(OverTwisted, contract.Connected, Encrypted, Verifying, TestCase):
    """Twisted's own transports, connected, under TLS."""


class TwistedConnectingTests(OverTwisted, Connecting, TestCase):
    """Twisted's own connectors."""


class TwistedListeningTests(OverTwisted, Listening, TestCase):
    """Twisted's own ports."""


class LeanAcceptedTests(OverLean, contract.Accepted, Plain, TestCase):
    """Lean transports, accepted."""


class LeanConnectedTests(OverLean, contract.Connected, Plain, TestCase):
    """Lean transports, connected."""


class LeanUNIXAcceptedTests(OverLean, contract.Accepted, Plain, TestCase):
    """Lean transports, accepted from a unix socket."""

    family = socket.AF_UNIX


class LeanUNIXConnectedTests(OverLean, contract.Connected, Plain, TestCase):
    """Lean transports, connected to a unix socket."""

    family = socket.AF_UNIX


class LeanTLSAcceptedTests(OverLean, contract.Accepted, Encrypted, TestCase):
    """Lean transports, accepted, under TLS."""


class LeanTLSConnectedTests(OverLean, contract.Connected, Encrypted, Verifying, TestCase):
    """Lean transports, connected, under TLS."""


class LeanConnectingTests(OverLean, Connecting, TestCase):
    """Lean connectors."""


class LeanListeningTests(OverLean, Listening, TestCase):
    """Lean ports."""
