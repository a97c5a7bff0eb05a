"""
The common behaviour of both TLS engines, as tests, and helpers to observe OpenSSL.
"""

from __future__ import annotations

import contextlib
import gc
import os
import ssl
import weakref
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.tlsengines import FORGED, Peer, carry, introduce, readAll
from mailgate.test.support.tlspair import clientContext, makePair, settingsFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.engine import PeerClosed, TLSEngine
from mailgate.tls.errors import CertificateError
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS, describeTLS

__all__ = ["Case", "Contract", "OldFactory", "Private"]


class Case(SynchronousTestCase):
    """Common code for tests of engines: a certificate and the ends of connections."""

    kind: Any = None

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.pair = makePair(folder, "ec")
        self.serverTLS = ServerTLS(settingsFor(self.pair), "imap")
        self.trust = loadTrust(self.pair.certificate)

    def server(self) -> TLSEngine:
        """Return an engine of a server."""
        return makeEngine(self.serverTLS, True, self.kind)

    def client(self, name: str = "localhost", trust: Any = None) -> TLSEngine:
        """Return an engine of a client that verifies its peer."""
        return makeEngine(backendTLS(name, True, trust or self.trust), False, self.kind)

    def clientPeer(self, version: int | None = None) -> Peer:
        """Return a client for a server under test; only of TLS C{version}, if one is given."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(version or 0)
        context.set_max_proto_version(version or 0)
        connection = SSL.Connection(context, None)
        connection.set_connect_state()
        return Peer(connection)

    def serverPeer(self, *versions: str) -> Peer:
        """Return a server for a client under test."""
        settings = settingsFor(self.pair, protocols=versions or ("TLSv1.2", "TLSv1.3"))
        connection = ServerTLS(settings, "imap").serverConnectionForTLS(None)
        connection.set_accept_state()
        return Peer(connection)

    def connected(self, version: int | None = None) -> tuple[TLSEngine, Peer]:
        """Return a server after the handshake, and its peer."""
        engine, peer = self.server(), self.clientPeer(version)
        introduce(engine, peer)
        return engine, peer

    def assertTalks(self, engine: TLSEngine, peer: Peer) -> None:
        """Check that C{engine} and C{peer} can exchange data."""
        engine.feed(peer.sealed(b"a001 NOOP\r\n"))
        self.assertEqual(readAll(engine), b"a001 NOOP\r\n")
        engine.write(b"a001 OK\r\n")
        carry(engine, peer)
        self.assertEqual(peer.read(), b"a001 OK\r\n")


class Contract:
    """Tests for each kind of engine; mixed into a L{Case}."""

    def test_server(self):
        """A server completes the handshake in TLS 1.2 and TLS 1.3."""
        for version, name in ((SSL.TLS1_2_VERSION, "TLSv1.2"), (SSL.TLS1_3_VERSION, "TLSv1.3")):
            engine, peer = self.connected(version)
            self.assertEqual(describeTLS(engine.connection).protocol, name)
            self.assertTalks(engine, peer)

    def test_client(self):
        """A client completes the handshake in TLS 1.2 and TLS 1.3, and verifies the server."""
        for version in ("TLSv1.2", "TLSv1.3"):
            engine, peer = self.client(), self.serverPeer(version)
            introduce(engine, peer)
            self.assertEqual(describeTLS(engine.connection).protocol, version)
            self.assertTalks(engine, peer)

    def test_firstWord(self):
        """The client sends first; a server sends nothing before."""
        server, client = self.server(), self.client()
        for engine in (server, client):
            self.assertFalse(engine.handshake())
            self.assertFalse(engine.handshaken)
        self.assertEqual(bytes(server.output()), b"")
        self.assertEqual(client.output()[0], 22)
        self.assertEqual(bytes(client.output()), b"")

    def test_resumed(self):
        """A returning client resumes its session, by a ticket or a cached session."""
        for version in ("TLSv1_2", "TLSv1_3"):
            context = clientContext(version)
            session, reused = self.visit(context)
            self.assertFalse(reused)
            _, reused = self.visit(context, session)
            self.assertTrue(reused, version)

    def visit(self, context, session=None):
        """Connect the standard library's client. Return its session, and whether it was resumed."""
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
        """Bytes may arrive one at a time, from the first byte of the handshake on."""
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
        """Data arrive correctly wherever the ciphertext is split, with or without settling in between."""
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
        """A mebibyte arrives correctly in each direction and each version."""
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
        """A mebibyte arrives correctly in pieces that do not end with a record."""
        data = os.urandom(1 << 20)
        engine, peer = self.connected()
        ciphertext, received = peer.sealed(data), b""
        for start in range(0, len(ciphertext), 100_003):
            engine.feed(ciphertext[start : start + 100_003])
            received += readAll(engine)
            engine.settle()
        self.assertEqual(received, data)

    def test_manyRecords(self):
        """One read returns the data of several records, up to 256 KiB."""
        engine, peer = self.connected()
        engine.feed(b"".join(peer.sealed(b"%d;" % number) for number in range(20)))
        self.assertEqual(bytes(engine.read()), b"".join(b"%d;" % number for number in range(20)))
        self.assertIsNone(engine.read())
        engine.feed(peer.sealed(bytes(300 * 1024)))
        self.assertEqual(len(engine.read()), 256 * 1024)
        self.assertEqual(len(engine.read()), 44 * 1024)
        self.assertIsNone(engine.read())

    def test_buffers(self):
        """Ciphertext and plaintext may be any kind of bytes, and may change after the call."""
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
        """Feeding and writing no bytes changes nothing."""
        engine, peer = self.connected()
        engine.feed(b"")
        engine.write(b"")
        self.assertEqual(bytes(engine.output()), b"")
        self.assertIsNone(engine.read())
        self.assertTalks(engine, peer)

    def test_severalWrites(self):
        """Data of several writes are sent together."""
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
        """A close_notify is reported after all data before it, and at each further read."""
        engine, peer = self.connected()
        ciphertext = peer.sealed(b"bye")
        peer.tls.shutdown()
        engine.feed(ciphertext + peer.output())
        self.assertEqual(bytes(engine.read()), b"bye")
        self.assertRaises(PeerClosed, engine.read)
        self.assertRaises(PeerClosed, engine.read)

    def test_answerToClose(self):
        """After the peer's close_notify, an engine can still send data and its own close_notify."""
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
        """An incomplete record yields no data, and is no close_notify."""
        engine, peer = self.connected()
        engine.feed(peer.sealed(b"whole") + peer.sealed(b"cut off")[:-1])
        self.assertEqual(bytes(engine.read()), b"whole")
        self.assertIsNone(engine.read())
        self.assertIsNone(engine.read())

    def test_forged(self):
        """A forged record is rejected with an alert, after the data before it. Nothing after it is accepted."""
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
        """Errors in an engine leave no work for the garbage collector."""
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
        """An error in one connection does not affect another."""
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
        """Bytes that are no handshake are rejected, with an alert if they look like TLS."""
        engine = self.server()
        engine.feed(b"\x16\x03\x01\x00\x05" + b"hello")
        self.assertRaises(SSL.Error, engine.handshake)
        self.assertFalse(engine.handshaken)
        self.assertEqual(engine.output()[0], 21)

    def test_plaintext(self):
        """A TLS server rejects a client that sends HTTP or IMAP in plain text."""
        for said, reason in ((b"GET / HTTP/1.0\r\n\r\n", "http request"), (b"a001 CAPABILITY\r\n", "")):
            engine = self.server()
            engine.feed(said)
            error = self.assertRaises(SSL.Error, engine.handshake)
            self.assertIn(reason, str(error))

    def test_noCommonVersion(self):
        """Both sides learn that they have no common version."""
        engine = makeEngine(ServerTLS(settingsFor(self.pair, protocols=("TLSv1.3",)), "imap"), True, self.kind)
        peer = self.clientPeer(SSL.TLS1_2_VERSION)
        peer.handshake()
        carry(peer, engine)
        error = self.assertRaises(SSL.Error, engine.handshake)
        self.assertEqual(error.args[0][-1][-1], "unsupported protocol")
        carry(engine, peer)
        self.assertRaises(SSL.Error, peer.handshake)

    def test_wrongName(self):
        """A client rejects a certificate with another host name, for the reason that its verifier gave."""
        for version in ("TLSv1.2", "TLSv1.3"):
            engine, peer = self.client("other.example"), self.serverPeer(version)
            self.assertRaises(CertificateError, introduce, engine, peer)
            self.assertFalse(engine.handshaken)
            self.assertEqual(engine.output()[0], 21)

    def test_unknownIssuer(self):
        """A client rejects a certificate of an unknown issuer."""
        folder = self.mktemp()
        os.mkdir(folder)
        trust = loadTrust(makePair(folder, "other").certificate)
        engine, peer = self.client(trust=trust), self.serverPeer()
        error = self.assertRaises(SSL.Error, introduce, engine, peer)
        self.assertEqual(error.args[0][-1][-1], "certificate verify failed")
        carry(engine, peer)
        self.assertRaises(SSL.Error, peer.handshake)

    def test_verifierRaises(self):
        """An exception of the callback that verifies ends the handshake, even if its verdict does not count."""
        for mode in (SSL.VERIFY_PEER, SSL.VERIFY_NONE):
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_verify(mode, lambda *args: 1 // 0)
            engine = makeEngine(OldFactory(context), False, self.kind)
            self.assertRaises(ZeroDivisionError, introduce, engine, self.serverPeer())
            self.assertFalse(engine.handshaken)

    def test_verifierRaisesAtOnce(self):
        """It does so before the handshake goes on: another connection of the context must not get the exception."""
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_verify(SSL.VERIFY_NONE, lambda *args: 1 // 0)
        engine, peer = makeEngine(OldFactory(context), False, self.kind), self.serverPeer()
        self.assertFalse(engine.handshake())
        carry(engine, peer)
        peer.handshake()
        carry(peer, engine)
        self.assertRaises(ZeroDivisionError, engine.handshake)

    def test_firstData(self):
        """Data that arrive with the end of the handshake are read."""
        for said in (b"", b"a001 NOOP\r\n"):
            engine, peer = self.server(), self.clientPeer(SSL.TLS1_3_VERSION)
            for one, other in ((peer, engine), (engine, peer)):
                one.handshake()
                carry(one, other)
            peer.handshake()
            engine.feed(peer.sealed(said))
            self.assertTrue(engine.handshake())
            self.assertEqual(readAll(engine), said)
            self.assertTalks(engine, peer)

    def test_closeNotify(self):
        """A close_notify is sent once, and the peer can still send data."""
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
        """Before the end of the handshake, C{closeNotify} does nothing."""
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
        """Before the end of the handshake, an engine cannot write, read or forget, and sends nothing."""
        engine = self.server()
        self.assertRaises(AssertionError, engine.write, b"secret")
        self.assertRaises(AssertionError, engine.read)
        self.assertRaises(AssertionError, engine.forget)
        self.assertEqual(bytes(engine.output()), b"")

    def test_settle(self):
        """An engine can settle at any time: in the handshake, with unread data, with unsent ciphertext."""
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
        """An engine that has forgotten its connection works as before."""
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
        """A context's info callback still receives alerts after the engine has forgotten its connection."""
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

    def test_forgetVerifier(self):
        """
        A connection's own callback that verifies outlives it: OpenSSL keeps its address as long as the engine lives.
        """

        class Verifier:
            def __call__(self, *args: object) -> bool:
                return True

        verifier = Verifier()
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        connection.set_verify(SSL.VERIFY_PEER, verifier)
        connection.set_connect_state()
        engine, peer = self.kind(connection), self.serverPeer()
        introduce(engine, peer)
        engine.forget()
        kept = weakref.ref(verifier)
        del connection, verifier
        gc.collect()
        self.assertIsNotNone(kept())
        self.assertTalks(engine, peer)
        del engine
        gc.collect()
        self.assertIsNone(kept())

    def test_oldFactory(self):
        """A factory of contexts works for both sides."""
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
        """Twisted's own options work, including the negotiation of an application protocol."""
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
        """The handshake raises an exception of a context's callback, and fails."""

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
    """What C{startTLS} accepted in old versions of Twisted."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def getContext(self) -> SSL.Context:
        return self._context


class Private:
    """
    OpenSSL's functions under pyOpenSSL's private name for them, except for C{replaced} and C{missing} ones. C{asked}
    are the names that were looked up, C{called} those of the functions that were called.
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
