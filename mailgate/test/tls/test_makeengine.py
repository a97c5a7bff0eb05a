"""
Tests for L{mailgate.tls.makeengine}, L{mailgate.tls.engine} and L{mailgate.tls.fastengine}: one contract for both kinds
of engine, with pyOpenSSL or the standard library at the other end; and what makes the choice between them.
"""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
import weakref
from functools import partial
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.ssl import CertificateOptions, KeyPair, PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.tlsengines import FAST, FORGED, Peer, carry, introduce, readAll
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.engine import PeerClosed, PublicEngine, TLSEngine
from mailgate.tls.errors import CertificateError
from mailgate.tls.fastengine import FastBinding, FastEngine
from mailgate.tls.makeengine import chooseKind, fastEngineWorks, makeEngine
from mailgate.tls.server import ServerTLS, describeTLS


class Case(SynchronousTestCase):
    """What tests of engines need: a certificate and the ends of connections."""

    kind: Any = None

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.pair = makePair(folder, "ec")
        self.serverTLS = ServerTLS(settingsFor(self.pair), "imap")
        self.trust = loadTrust(self.pair.certificate)

    def server(self) -> TLSEngine:
        """An engine of the server's side."""
        return makeEngine(self.serverTLS, True, self.kind)

    def client(self, name: str = "localhost", trust: Any = None) -> TLSEngine:
        """An engine of the client's side that verifies its peer."""
        return makeEngine(backendTLS(name, True, trust or self.trust), False, self.kind)

    def clientPeer(self, version: int | None = None) -> Peer:
        """The other end of a server, of that C{version} only if one is given."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version or 0)
        context.set_max_proto_version(version or 0)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        return Peer(connection)

    def serverPeer(self, *versions: str) -> Peer:
        """The other end of a client."""
        settings = settingsFor(self.pair, protocols=versions or ("TLSv1.2", "TLSv1.3"))
        connection = ServerTLS(settings, "imap").serverConnectionForTLS(None)
        connection.set_accept_state()
        return Peer(connection)

    def connected(self, version: int | None = None) -> tuple[TLSEngine, Peer]:
        """A server that has shaken hands, and its peer."""
        engine, peer = self.server(), self.clientPeer(version)
        introduce(engine, peer)
        return engine, peer

    def assertTalks(self, engine: TLSEngine, peer: Peer) -> None:
        """C{engine} and C{peer} understand each other."""
        engine.feed(peer.sealed(b"a001 NOOP\r\n"))
        self.assertEqual(readAll(engine), b"a001 NOOP\r\n")
        engine.write(b"a001 OK\r\n")
        carry(engine, peer)
        self.assertEqual(peer.read(), b"a001 OK\r\n")


class Contract:
    """What holds for each kind of engine; mixed into a L{Case}."""

    def test_server(self):
        """A server shakes hands in TLS 1.2 and TLS 1.3."""
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            engine, peer = self.connected(version)
            self.assertEqual(describeTLS(engine.connection).protocol, name)
            self.assertTalks(engine, peer)

    def test_client(self):
        """A client shakes hands in TLS 1.2 and TLS 1.3, and verifies the server."""
        for version in ("TLSv1.2", "TLSv1.3"):
            engine, peer = self.client(), self.serverPeer(version)
            introduce(engine, peer)
            self.assertEqual(describeTLS(engine.connection).protocol, version)
            self.assertTalks(engine, peer)

    def test_firstWord(self):
        """It is the client that speaks first; a server has nothing to say before."""
        server, client = self.server(), self.client()
        for engine in (server, client):
            self.assertFalse(engine.handshake())
            self.assertFalse(engine.handshaken)
        self.assertEqual(bytes(server.output()), b"")
        self.assertEqual(client.output()[0], 22)
        self.assertEqual(bytes(client.output()), b"")

    def test_resumed(self):
        """A client that comes back resumes its session, by a ticket or a cached session."""
        for version in ("TLSv1_2", "TLSv1_3"):
            context = clientContext(version)
            session, reused = self.visit(context)
            self.assertFalse(reused)
            _, reused = self.visit(context, session)
            self.assertTrue(reused, version)

    def visit(self, context, session=None):
        """One connection of the standard library's client; gives its session, and whether that was resumed."""
        engine = self.server()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, session=session)
        for _ in range(3):
            with contextlib.suppress(ssl.SSLWantReadError):
                client.do_handshake()
            engine.feed(outgoing.read())
            engine.handshake()
            incoming.write(bytes(engine.output()))
        engine.write(b"* OK\r\n")
        incoming.write(bytes(engine.output()))
        self.assertEqual(client.read(100), b"* OK\r\n")
        return client.session, client.session_reused

    def test_byByte(self):
        """Bytes may come one at a time, from the first of the handshake on."""
        engine, peer = self.server(), self.clientPeer()
        for _ in range(3):
            peer.handshake()
            for byte in peer.output():
                engine.feed(bytes([byte]))
                engine.handshake()
            carry(engine, peer)
        self.assertTrue(engine.handshaken)
        received = b""
        for byte in peer.sealed(b"a001 NOOP\r\n"):
            engine.feed(bytes([byte]))
            received += readAll(engine)
        self.assertEqual(received, b"a001 NOOP\r\n")

    def test_splitAnywhere(self):
        """Data mean the same wherever ciphertext is cut, and whether the engine settles in between."""
        engine, peer = self.connected()
        parts = (b"a001 NOOP\r\n", b"", b"a002 LOGOUT\r\n")
        for cut in range(1, 80):
            ciphertext = b"".join(peer.sealed(part) for part in parts)
            engine.feed(ciphertext[:cut])
            received = readAll(engine)
            engine.settle()
            engine.feed(ciphertext[cut:])
            self.assertEqual(received + readAll(engine), b"".join(parts))

    def test_large(self):
        """A mebibyte arrives as it was sent, each way, in each version."""
        data = os.urandom(1 << 20)
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            engine, peer = self.connected(version)
            engine.feed(peer.sealed(data))
            self.assertEqual(readAll(engine), data)
            engine.write(data)
            self.assertGreater(carry(engine, peer), len(data))
            self.assertEqual(bytes(engine.output()), b"")
            self.assertEqual(peer.read(), data)
            engine.settle()
            self.assertTalks(engine, peer)

    def test_piecemeal(self):
        """A mebibyte arrives as it was sent when it comes in pieces that no record ends with."""
        data = os.urandom(1 << 20)
        engine, peer = self.connected()
        ciphertext, received = peer.sealed(data), b""
        for start in range(0, len(ciphertext), 100_003):
            engine.feed(ciphertext[start : start + 100_003])
            received += readAll(engine)
            engine.settle()
        self.assertEqual(received, data)

    def test_manyRecords(self):
        """One read gives what several records hold, but no more than 256 KiB."""
        engine, peer = self.connected()
        engine.feed(b"".join(peer.sealed(b"%d;" % number) for number in range(20)))
        self.assertEqual(bytes(engine.read()), b"".join(b"%d;" % number for number in range(20)))
        self.assertIsNone(engine.read())
        engine.feed(peer.sealed(bytes(300 * 1024)))
        self.assertEqual(len(engine.read()), 256 * 1024)
        self.assertEqual(len(engine.read()), 44 * 1024)
        self.assertIsNone(engine.read())

    def test_buffers(self):
        """Ciphertext and plaintext may be of any kind of bytes, and are done with when the call is."""
        engine, peer = self.connected()
        for kind in (bytes, bytearray, lambda data: memoryview(bytearray(data))):
            engine.feed(kind(peer.sealed(b"in")))
            self.assertEqual(readAll(engine), b"in")
            engine.write(kind(b"out"))
            carry(engine, peer)
            self.assertEqual(peer.read(), b"out")
        ciphertext, plaintext = bytearray(peer.sealed(b"in")), bytearray(b"out")
        engine.feed(ciphertext)
        engine.write(plaintext)
        ciphertext[:], plaintext[:] = bytes(len(ciphertext)), b"!!!"
        carry(engine, peer)
        self.assertEqual((readAll(engine), peer.read()), (b"in", b"out"))

    def test_nothing(self):
        """To feed and to write nothing changes nothing."""
        engine, peer = self.connected()
        engine.feed(b"")
        engine.write(b"")
        self.assertEqual(bytes(engine.output()), b"")
        self.assertIsNone(engine.read())
        self.assertTalks(engine, peer)

    def test_severalWrites(self):
        """What was written in several goes leaves together."""
        engine, peer = self.connected()
        engine.write(b"a")
        engine.write(bytes(300_000))
        engine.write(b"z")
        carry(engine, peer)
        self.assertEqual(bytes(engine.output()), b"")
        self.assertEqual(peer.read(), b"a" + bytes(300_000) + b"z")

    def test_neighbours(self):
        """Engines that share their buffers do not share their bytes."""
        pairs = [self.connected() for _ in range(3)]
        for number, (engine, peer) in enumerate(pairs):
            engine.feed(peer.sealed(b"in %d" % number))
            engine.write(b"out %d" % number)
        for number, (engine, peer) in enumerate(pairs):
            self.assertEqual(readAll(engine), b"in %d" % number)
            carry(engine, peer)
            self.assertEqual(peer.read(), b"out %d" % number)

    def test_peerClosed(self):
        """A close_notify is told after all data before it, and again to whoever asks again."""
        engine, peer = self.connected()
        ciphertext = peer.sealed(b"bye")
        peer.tls.shutdown()
        engine.feed(ciphertext + peer.output())
        self.assertEqual(bytes(engine.read()), b"bye")
        self.assertRaises(PeerClosed, engine.read)
        self.assertRaises(PeerClosed, engine.read)

    def test_answerToClose(self):
        """After the peer's close_notify there may still be an answer, and one's own."""
        engine, peer = self.connected()
        peer.tls.shutdown()
        carry(peer, engine)
        self.assertRaises(PeerClosed, engine.read)
        engine.write(b"bye")
        engine.closeNotify()
        carry(engine, peer)
        self.assertEqual(peer.tls.recv(100), b"bye")
        self.assertRaises(SSL.ZeroReturnError, peer.tls.recv, 100)

    def test_truncated(self):
        """A record that is never completed gives no data, and is no close_notify."""
        engine, peer = self.connected()
        engine.feed(peer.sealed(b"whole") + peer.sealed(b"cut off")[:-1])
        self.assertEqual(bytes(engine.read()), b"whole")
        self.assertIsNone(engine.read())
        self.assertIsNone(engine.read())

    def test_forged(self):
        """A forged record is refused after the data before it, with an alert; nothing that follows is believed."""
        engine, peer = self.connected()
        engine.feed(peer.sealed(b"true") + FORGED + peer.sealed(b"late"))
        self.assertEqual(bytes(engine.read()), b"true")
        error = self.assertRaises(SSL.Error, engine.read)
        self.assertIn("bad record mac", str(error))
        carry(engine, peer)
        self.assertIn("bad record mac", str(self.assertRaises(SSL.Error, peer.read)))
        self.assertRaises(SSL.Error, engine.read)
        engine.feed(b"x")
        self.assertRaises(SSL.Error, engine.read)
        self.assertRaises(SSL.Error, engine.write, b"x")
        engine.closeNotify()
        self.assertEqual(bytes(engine.output()), b"")

    def test_nothingToCollect(self):
        """What goes wrong in an engine leaves no work for the garbage collector."""
        for said, expected in ((FORGED, SSL.Error), (None, PeerClosed)):
            engine, peer = self.connected()
            if said is None:
                peer.tls.shutdown()
            engine.feed(said or peer.output())
            kept = weakref.ref(engine.connection)
            gc.disable()
            self.addCleanup(gc.enable)
            with contextlib.suppress(expected):
                engine.read()
                self.fail("it was not refused")
            del engine
            self.assertIsNone(kept())

    def test_neighbourOfForged(self):
        """What goes wrong in one connection does not touch the next."""
        engine, _ = self.connected()
        other, peer = self.connected()
        engine.feed(FORGED)
        self.assertRaises(SSL.Error, engine.read)
        self.assertRaises(SSL.Error, engine.write, b"x")
        engine.closeNotify()
        other.feed(peer.sealed(b"whole")[:-1])
        self.assertIsNone(other.read())
        self.assertTalks(*self.connected())

    def test_garbage(self):
        """What is no handshake is refused, with an alert where it looks like TLS."""
        engine = self.server()
        engine.feed(b"\x16\x03\x01\x00\x05" + b"hello")
        self.assertRaises(SSL.Error, engine.handshake)
        self.assertFalse(engine.handshaken)
        self.assertEqual(engine.output()[0], 21)

    def test_plaintext(self):
        """A client that speaks HTTP to a server of TLS is refused, and so is one that speaks IMAP."""
        for said, reason in ((b"GET / HTTP/1.0\r\n\r\n", "http request"), (b"a001 CAPABILITY\r\n", "")):
            engine = self.server()
            engine.feed(said)
            error = self.assertRaises(SSL.Error, engine.handshake)
            self.assertIn(reason, str(error))

    def test_noCommonVersion(self):
        """Both sides learn that they have no version in common."""
        engine = makeEngine(ServerTLS(settingsFor(self.pair, protocols=("TLSv1.3",)), "imap"), True, self.kind)
        peer = self.clientPeer(SSL.TLS1_2_VERSION)
        peer.handshake()
        carry(peer, engine)
        error = self.assertRaises(SSL.Error, engine.handshake)
        self.assertEqual(error.args[0][-1][-1], "unsupported protocol")
        carry(engine, peer)
        self.assertRaises(SSL.Error, peer.handshake)

    def test_wrongName(self):
        """A server whose certificate names another host is refused, with the reason that its verifier gave."""
        for version in ("TLSv1.2", "TLSv1.3"):
            engine, peer = self.client("other.example"), self.serverPeer(version)
            self.assertRaises(CertificateError, introduce, engine, peer)
            self.assertFalse(engine.handshaken)
            self.assertEqual(engine.output()[0], 21)

    def test_unknownIssuer(self):
        """A server whose certificate nobody has vouched for is refused."""
        folder = self.mktemp()
        os.mkdir(folder)
        trust = loadTrust(makePair(folder, "other").certificate)
        engine, peer = self.client(trust=trust), self.serverPeer()
        error = self.assertRaises(SSL.Error, introduce, engine, peer)
        self.assertEqual(error.args[0][-1][-1], "certificate verify failed")
        carry(engine, peer)
        self.assertRaises(SSL.Error, peer.handshake)

    def test_closeNotify(self):
        """A close_notify is said once, and the peer may still finish what it says."""
        engine, peer = self.connected()
        engine.closeNotify()
        self.assertGreater(carry(engine, peer), 0)
        engine.closeNotify()
        self.assertEqual(bytes(engine.output()), b"")
        self.assertRaises(SSL.ZeroReturnError, peer.tls.recv, 100)
        engine.feed(peer.sealed(b"last words"))
        engine.closeNotify()
        self.assertEqual(readAll(engine), b"last words")
        self.assertRaises(SSL.Error, engine.write, b"x")

    def test_closeNotifyEarly(self):
        """Before the handshake is complete a close_notify is not said, and disturbs nothing."""
        engine, peer = self.server(), self.clientPeer()
        engine.closeNotify()
        self.assertEqual(bytes(engine.output()), b"")
        peer.handshake()
        carry(peer, engine)
        engine.handshake()
        engine.closeNotify()
        introduce(engine, peer)
        self.assertTalks(engine, peer)
        engine.closeNotify()
        carry(engine, peer)
        self.assertRaises(SSL.ZeroReturnError, peer.tls.recv, 100)

    def test_early(self):
        """Before the handshake is complete nothing can be written or read, nor forgotten: nothing leaves."""
        engine = self.server()
        self.assertRaises(AssertionError, engine.write, b"secret")
        self.assertRaises(AssertionError, engine.read)
        self.assertRaises(AssertionError, engine.forget)
        self.assertEqual(bytes(engine.output()), b"")

    def test_settle(self):
        """An engine may settle at any time: in a handshake, with data unread, with ciphertext unsent."""
        engine, peer = self.server(), self.clientPeer()
        for _ in range(4):
            peer.handshake()
            carry(peer, engine)
            engine.settle()
            engine.handshake()
            engine.settle()
            carry(engine, peer)
            engine.settle()
        data = os.urandom(100_000)
        engine.feed(peer.sealed(data))
        engine.settle()
        engine.write(data)
        engine.settle()
        received = bytes(engine.read())
        engine.settle()
        self.assertEqual(received + readAll(engine), data)
        engine.settle()
        carry(engine, peer)
        engine.settle()
        self.assertEqual(peer.read(), data)
        self.assertTalks(engine, peer)

    def test_forget(self):
        """An engine that has forgotten its connection goes on as before, to the end."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            engine, peer = self.connected(version)
            engine.feed(peer.sealed(b"before"))
            engine.forget()
            self.assertIsNone(engine.connection)
            engine.forget()
            self.assertEqual(readAll(engine), b"before")
            data = os.urandom(100_000)
            engine.write(data)
            carry(engine, peer)
            self.assertEqual(peer.read(), data)
            engine.settle()
            self.assertTalks(engine, peer)
            engine.closeNotify()
            carry(engine, peer)
            self.assertRaises(SSL.ZeroReturnError, peer.tls.recv, 100)
            peer.tls.shutdown()
            carry(peer, engine)
            self.assertRaises(PeerClosed, engine.read)

    def test_forgetWatched(self):
        """A context's info callback still learns of alerts after its connection was forgotten."""
        seen = []
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(self.pair.certificate)
        context.use_privatekey_file(self.pair.key)
        context.set_info_callback(lambda connection, where, code: seen.append((connection, where)))
        engine, peer = makeEngine(OldFactory(context), True, self.kind), self.clientPeer()
        introduce(engine, peer)
        kept = weakref.ref(engine.connection)
        del seen[:]
        engine.forget()
        peer.tls.shutdown()
        carry(peer, engine)
        self.assertRaises(PeerClosed, engine.read)
        self.assertIn((kept(), SSL.SSL_CB_READ_ALERT), seen)

    def test_oldFactory(self):
        """A factory of contexts is taken for either side."""
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_chain_file(self.pair.certificate)
        context.use_privatekey_file(self.pair.key)
        server = makeEngine(OldFactory(context), True, self.kind)
        client = makeEngine(OldFactory(SSL.Context(SSL.TLS_METHOD)), False, self.kind)
        for _ in range(3):
            for one, other in ((client, server), (server, client)):
                one.handshake()
                carry(one, other)
        server.write(b"* OK\r\n")
        carry(server, client)
        self.assertEqual(readAll(client), b"* OK\r\n")

    def test_certificateOptions(self):
        """Twisted's own options are taken, and negotiate an application's protocol."""
        with open(self.pair.certificate, "rb") as certificate, open(self.pair.key, "rb") as key:
            pair = PrivateCertificate.loadPEM(certificate.read() + key.read())
        options = CertificateOptions(
            privateKey=pair.privateKey.original, certificate=pair.original, acceptableProtocols=[b"imap"]
        )
        engine, peer = makeEngine(options, True, self.kind), self.clientPeer()
        peer.tls.set_alpn_protos([b"imap", b"h2"])
        introduce(engine, peer)
        self.assertEqual(engine.connection.get_alpn_proto_negotiated(), b"imap")
        self.assertTalks(engine, peer)

    def test_callbackFails(self):
        """What a callback of the context's raises is raised by the handshake, which fails."""

        def select(connection, offered):
            raise LookupError("no such protocol")

        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(self.pair.certificate)
        context.use_privatekey_file(self.pair.key)
        context.set_alpn_select_callback(select)
        engine, peer = makeEngine(OldFactory(context), True, self.kind), self.clientPeer()
        peer.tls.set_alpn_protos([b"imap"])
        self.assertRaises(LookupError, introduce, engine, peer)
        self.assertFalse(engine.handshaken)


class OldFactory:
    """What C{startTLS} took long ago."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


class PublicEngineTests(Contract, Case):
    """L{PublicEngine}."""

    kind = staticmethod(PublicEngine)

    def test_nothingPilesUp(self):
        """A large piece crosses the memory BIOs, which keep the size they once had, in small ones."""
        engine, peer = self.connected()
        engine.write(bytes(100_000))
        self.assertRaises(SSL.WantReadError, engine.connection.bio_read, 1)
        engine.feed(peer.sealed(bytes(100_000)))
        self.assertRaises(SSL.WantReadError, engine.connection.recv, 1)
        self.assertEqual(len(readAll(engine)), 100_000)


class Private:
    """
    OpenSSL's functions by pyOpenSSL's private name for them, but for C{replaced} and those C{missing}; C{asked} has the
    names that were looked up, and C{called} those of functions that were called.
    """

    def __init__(self, *missing: str, **replaced: Any) -> None:
        self._missing = missing
        self._replaced = replaced
        self.asked: list[str] = []
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in self._missing:
            raise AttributeError(name)
        self.asked.append(name)
        found = self._replaced.get(name) or getattr(lib, name)
        if not callable(found):
            return found

        def counted(*args: Any) -> Any:
            self.called.append(name)
            return found(*args)

        return counted


class FastEngineTests(Contract, Case):
    """L{FastEngine}."""

    kind = staticmethod(FAST)

    def watched(self) -> tuple[Private, TLSEngine, Peer]:
        """An engine that has shaken hands and settled, with what it calls of OpenSSL."""
        private = Private()
        self.kind = partial(FastEngine, binding=FastBinding(private, ffi))
        engine, peer = self.connected()
        engine.settle()
        del private.called[:]
        return private, engine, peer

    def test_settleReplaces(self):
        """After a large flight of either direction the memory BIOs are replaced; after small ones they are not."""
        private, engine, peer = self.watched()
        for _ in range(3):
            self.assertTalks(engine, peer)
            engine.settle()
        self.assertNotIn("BIO_new", private.called)
        engine.feed(peer.sealed(bytes(5000)))
        readAll(engine)
        engine.settle()
        engine.settle()
        self.assertEqual(private.called.count("SSL_set_bio"), 1)
        self.assertEqual(private.called.count("BIO_new"), 2)
        engine.write(bytes(5000))
        carry(engine, peer)
        engine.settle()
        self.assertEqual(private.called.count("SSL_set_bio"), 2)

    def test_settleAfterMany(self):
        """Small pieces that were not read in between make a large flight too."""
        private, engine, peer = self.watched()
        for _ in range(50):
            engine.feed(peer.sealed(bytes(100)))
        self.assertEqual(len(readAll(engine)), 5000)
        engine.settle()
        self.assertIn("SSL_set_bio", private.called)

    def test_settleWaits(self):
        """A memory BIO that holds something is kept, and replaced once it does not."""
        private, engine, peer = self.watched()
        engine.feed(peer.sealed(bytes(5000)))
        engine.settle()
        readAll(engine)
        engine.write(bytes(5000))
        engine.settle()
        self.assertNotIn("SSL_set_bio", private.called)
        carry(engine, peer)
        engine.settle()
        self.assertIn("SSL_set_bio", private.called)
        self.assertEqual(len(peer.read()), 5000)

    def test_outOfMemory(self):
        """OpenSSL's being out of memory is an exception, not a crash."""
        self.assertRaises(MemoryError, FastBinding(Private(BIO_new=lambda method: ffi.NULL), ffi).newBIO)

    def test_onePiece(self):
        """A large piece is encrypted by one call."""
        private, engine, peer = self.watched()
        engine.write(bytes(100_000))
        self.assertEqual(private.called, ["SSL_write"])
        carry(engine, peer)
        self.assertEqual(len(peer.read()), 100_000)

    def test_partialWrite(self):
        """Where OpenSSL takes a part of a large piece, the rest follows."""
        private = Private(SSL_clear_mode=lambda ssl, mode: 0)
        self.kind = partial(FastEngine, binding=FastBinding(private, ffi))
        engine, peer = self.connected()
        data = os.urandom(100_000)
        for kind in (bytes, bytearray):
            del private.called[:]
            engine.write(kind(data))
            self.assertGreater(private.called.count("SSL_write"), 1)
            carry(engine, peer)
            self.assertEqual(peer.read(), data)

    def test_readWhenDry(self):
        """To read again what is known to be empty does not ask OpenSSL."""
        private, engine, peer = self.watched()
        engine.feed(peer.sealed(b"in"))
        engine.read()
        del private.called[:]
        self.assertIsNone(engine.read())
        self.assertEqual(private.called, [])

    def test_modes(self):
        """Every connection gives the buffers of its records back, whatever its context says."""
        engine = makeEngine(OldFactory(SSL.Context(SSL.TLS_METHOD)), True, self.kind)
        modes = lib.SSL_set_mode(engine.connection._ssl, 0)
        self.assertTrue(modes & lib.SSL_MODE_RELEASE_BUFFERS)
        self.assertFalse(modes & lib.SSL_MODE_ENABLE_PARTIAL_WRITE)

    def test_strangersErrors(self):
        """Errors that others left in OpenSSL's queue are not taken for errors of a connection."""
        # Before OpenSSL 4 it does so itself.
        private = Private(
            SSL_get_error=lambda *args: lib.SSL_ERROR_SSL if lib.ERR_peek_error() else lib.SSL_get_error(*args)
        )
        self.kind = partial(FastEngine, binding=FastBinding(private, ffi))
        engine, peer = self.connected()
        engine.feed(peer.sealed(b"whole")[:-1])
        self.leaveError()
        self.assertIsNone(engine.read())
        engine, peer = self.connected()
        peer.tls.shutdown()
        carry(peer, engine)
        self.leaveError()
        self.assertRaises(PeerClosed, engine.read)
        self.assertEqual(lib.ERR_peek_error(), 0)

    def test_handshakeAfterStranger(self):
        """A handshake goes on upon an empty queue of errors, whatever others left in it."""
        engine = self.server()
        self.leaveError()
        self.assertFalse(engine.handshake())
        self.assertEqual(lib.ERR_peek_error(), 0)

    def leaveError(self):
        """Do as somebody who fails at something and does not ask why."""
        lib.ERR_put_error(lib.ERR_LIB_EVP, 0, 1, b"", 0)
        self.assertNotEqual(lib.ERR_peek_error(), 0)
        self.addCleanup(lib.ERR_clear_error)

    def test_cleanQueue(self):
        """Whatever goes wrong in an engine, OpenSSL's queue of errors is empty afterwards."""
        engine, _ = self.connected()
        engine.feed(FORGED)
        for failing in (engine.read, engine.read, lambda: engine.write(b"x")):
            self.assertRaises(SSL.Error, failing)
            self.assertEqual(lib.ERR_peek_error(), 0)
        engine.closeNotify()
        self.assertEqual(lib.ERR_peek_error(), 0)

    def test_closeNotifyFails(self):
        """Where OpenSSL cannot say goodbye nothing is raised, and its queue of errors is empty afterwards."""

        def refuse(ssl):
            self.leaveError()
            return -1

        self.kind = partial(FastEngine, binding=FastBinding(Private(SSL_shutdown=refuse), ffi))
        engine, _ = self.connected()
        engine.closeNotify()
        self.assertEqual(lib.ERR_peek_error(), 0)
        self.assertEqual(bytes(engine.output()), b"")

    def test_forgetFrees(self):
        """A forgotten connection is freed, and whoever has kept it cannot touch the memory that was OpenSSL's."""
        engine, peer = self.connected()
        kept = weakref.ref(engine.connection)
        engine.forget()
        self.assertIsNone(kept())
        engine, peer = self.connected()
        connection = engine.connection
        engine.forget()
        engine.write(bytes(5000))
        carry(engine, peer)
        engine.settle()
        self.assertRaises(TypeError, connection.bio_read, 1)
        self.assertRaises(TypeError, connection.bio_write, b"x")
        self.assertRaises(TypeError, connection.bio_shutdown)
        self.assertEqual(len(peer.read()), 5000)

    def test_forgetKeepsContext(self):
        """The callbacks of a context that nobody else has kept are not freed before the connection is."""
        engine, peer = self.server(), self.clientPeer()
        introduce(engine, peer)
        context = weakref.ref(engine.connection.get_context())
        self.serverTLS = None
        engine.forget()
        gc.collect()
        self.assertIsNotNone(context())
        self.assertTalks(engine, peer)
        del engine
        self.assertIsNone(context())

    def test_connectionFollows(self):
        """A connection that is not forgotten knows the memory BIOs that are in use."""
        engine, peer = self.connected()
        engine.feed(peer.sealed(bytes(5000)))
        readAll(engine)
        engine.settle()
        engine.connection.bio_write(peer.sealed(b"in"))
        self.assertEqual(engine.connection.recv(100), b"in")
        engine.connection.send(b"out")
        peer.feed(engine.connection.bio_read(1000))
        self.assertEqual(peer.read(), b"out")

    def test_noRenegotiation(self):
        """A peer that asks for a second handshake gets an alert instead: no certificate is verified twice."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.use_certificate_chain_file(self.pair.certificate)
        context.use_privatekey_file(self.pair.key)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        engine, peer = self.client(), Peer(SSL.Connection(context, None))
        peer.tls.set_accept_state()
        introduce(engine, peer)
        engine.forget()
        peer.tls.renegotiate()
        peer.handshake()
        engine.feed(peer.output())
        self.assertIsNone(engine.read())
        answer = bytes(engine.output())
        self.assertEqual((answer[0], bytes(engine.output())), (21, b""))


class ChoiceTests(SynchronousTestCase):
    """Which kind of engine is used."""

    def chosen(self, private: Any, cffi: Any = ffi) -> Any:
        """The kind that C{private} leads to."""
        return chooseKind(lambda: (private, cffi))

    def assertFast(self, kind: Any) -> None:
        self.assertIs(kind.func, FastEngine)

    def test_works(self):
        """With the pyOpenSSL that is installed the fast engine works, and is what is made."""
        self.assertTrue(fastEngineWorks())
        engine = makeEngine(OldFactory(SSL.Context(SSL.TLS_METHOD)), True)
        self.assertIsInstance(engine, FastEngine)

    def test_chosen(self):
        """The fast engine is chosen where everything is as expected."""
        self.assertFast(self.chosen(Private()))

    def test_noModule(self):
        """Where pyOpenSSL keeps its bindings elsewhere, the public engine is chosen."""

        def private():
            raise ImportError("OpenSSL._util")

        self.assertIs(chooseKind(private), PublicEngine)

    def test_missing(self):
        """Where anything that the fast engine uses is missing, the public engine is chosen."""
        complete = Private()
        self.chosen(complete)
        names = sorted(set(complete.asked))
        self.assertGreater(len(names), 15)
        for name in names:
            self.assertIs(self.chosen(Private(name)), PublicEngine, name)
        self.assertIs(self.chosen(Private(), object()), PublicEngine)

    def test_misbehaving(self):
        """Where a private function does not do what it should, the public engine is chosen."""
        for name, function in (
            ("SSL_read", lambda *args: 0),
            ("SSL_read", lambda ssl, buffer, size: lib.SSL_read(ssl, buffer, min(size, 100)) and 100),
            ("SSL_read", lambda ssl, size: 0),
            ("SSL_write", lambda ssl, data, size: size),
            ("SSL_write", lambda *args: -1),
            ("SSL_shutdown", lambda ssl: 1),
            ("SSL_set_bio", lambda *args: None),
            ("SSL_get_error", lambda *args: lib.SSL_ERROR_WANT_READ),
            ("SSL_get_error", lambda *args: lib.SSL_ERROR_SSL),
            ("BIO_read", lambda *args: -1),
            ("BIO_write", lambda *args: 1),
            ("BIO_new", lambda *args: ffi.NULL),
            ("BIO_get_mem_data", lambda bio: 0),
            ("ERR_get_error", lambda: 0),
            ("ERR_reason_error_string", lambda code: None),
        ):
            self.assertIs(self.chosen(Private(**{name: function})), PublicEngine, name)

    def test_otherCFFI(self):
        """Where cffi's buffers are not what they were, the public engine is chosen."""

        class Other:
            """Makes buffers that are no pointers."""

            NULL, string = ffi.NULL, ffi.string

            def from_buffer(self, data):
                return bytes(data)

        self.assertIs(self.chosen(Private(), Other()), PublicEngine)

    def test_wrongSide(self):
        """What makes connections for one side only is refused for the other, and so is what makes none."""
        keyPair = KeyPair.generate(size=2048)
        for factory, server in ((backendTLS("localhost", False, None), True), (object(), True), (keyPair, False)):
            self.assertRaises(TypeError, makeEngine, factory, server)
