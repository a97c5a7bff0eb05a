"""Tests for the fast TLS engine: the contract, and its calls of OpenSSL."""

from __future__ import annotations

import gc
import os
import weakref
from functools import partial

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from mailgate.test.support.enginecontract import Case, Contract, OldFactory, Private
from mailgate.test.support.tlsengines import FAST, FORGED, Peer, carry, introduce, readAll
from mailgate.tls.engine import PeerClosed, TLSEngine
from mailgate.tls.fastengine import FastBinding, FastEngine
from mailgate.tls.makeengine import makeEngine


class FastEngineTests(Contract, Case):
    """L{FastEngine}."""

    kind = staticmethod(FAST)

    def watched(self) -> tuple[Private, TLSEngine, Peer]:
        """An engine after the handshake, and its calls of OpenSSL."""
        private = Private()
        self.kind = partial(FastEngine, binding=FastBinding(private, ffi))
        engine, peer = self.connected()
        engine.settle()
        del private.called[:]
        return private, engine, peer

    def test_settleReplaces(self):
        """The memory BIOs are replaced after a large burst in either direction, and not after small ones."""
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
        """Many small pieces without a read in between count as a large burst."""
        private, engine, peer = self.watched()
        for _ in range(50):
            engine.feed(peer.sealed(bytes(100)))
        self.assertEqual(len(readAll(engine)), 5000)
        engine.settle()
        self.assertIn("SSL_set_bio", private.called)

    def test_settleWaits(self):
        """A memory BIO with content is kept, and replaced when it is empty."""
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
        """If OpenSSL is out of memory, an exception is raised."""
        self.assertRaises(MemoryError, FastBinding(Private(BIO_new=lambda method: ffi.NULL), ffi).newBIO)

    def test_onePiece(self):
        """A large piece is encrypted by one call."""
        private, engine, peer = self.watched()
        engine.write(bytes(100_000))
        self.assertEqual(private.called, ["SSL_write"])
        carry(engine, peer)
        self.assertEqual(len(peer.read()), 100_000)

    def test_partialWrite(self):
        """If OpenSSL takes a part of a large piece, the rest follows."""
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
        """Reading again without new input does not call OpenSSL."""
        private, engine, peer = self.watched()
        engine.feed(peer.sealed(b"in"))
        engine.read()
        del private.called[:]
        self.assertIsNone(engine.read())
        self.assertEqual(private.called, [])

    def test_modes(self):
        """Every connection releases its record buffers, whatever its context has set."""
        engine = makeEngine(OldFactory(SSL.Context(SSL.TLS_METHOD)), True, self.kind)
        modes = lib.SSL_set_mode(engine.connection._ssl, 0)
        self.assertTrue(modes & lib.SSL_MODE_RELEASE_BUFFERS)
        self.assertFalse(modes & lib.SSL_MODE_ENABLE_PARTIAL_WRITE)

    def test_strangersErrors(self):
        """Errors that other code left in OpenSSL's queue are not reported for a connection."""
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
        """Errors that other code left in OpenSSL's queue do not affect a handshake."""
        engine = self.server()
        self.leaveError()
        self.assertFalse(engine.handshake())
        self.assertEqual(lib.ERR_peek_error(), 0)

    def leaveError(self):
        """Leave an error in OpenSSL's queue."""
        lib.ERR_put_error(lib.ERR_LIB_EVP, 0, 1, b"", 0)
        self.assertNotEqual(lib.ERR_peek_error(), 0)
        self.addCleanup(lib.ERR_clear_error)

    def test_cleanQueue(self):
        """After every error of an engine, OpenSSL's queue is empty."""
        engine, _ = self.connected()
        engine.feed(FORGED)
        for failing in (engine.read, engine.read, lambda: engine.write(b"x")):
            self.assertRaises(SSL.Error, failing)
            self.assertEqual(lib.ERR_peek_error(), 0)
        engine.closeNotify()
        self.assertEqual(lib.ERR_peek_error(), 0)

    def test_closeNotifyFails(self):
        """If OpenSSL cannot send close_notify, nothing is raised, and its queue is empty."""

        def refuse(ssl):
            self.leaveError()
            return -1

        self.kind = partial(FastEngine, binding=FastBinding(Private(SSL_shutdown=refuse), ffi))
        engine, _ = self.connected()
        engine.closeNotify()
        self.assertEqual(lib.ERR_peek_error(), 0)
        self.assertEqual(bytes(engine.output()), b"")

    def test_forgetFrees(self):
        """A forgotten connection is freed. A reference to it cannot touch freed memory."""
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
        """The callbacks of a context live as long as the connection."""
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
        """A connection that is not forgotten refers to the current memory BIOs."""
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
        """A peer that requests renegotiation receives an alert: no certificate is verified twice."""
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
