"""Tests for the choice of the TLS engine."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.ssl import KeyPair
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.enginecontract import OldFactory, Private
from mailgate.tls.backend import backendTLS
from mailgate.tls.engine import PublicEngine
from mailgate.tls.fastengine import FastEngine
from mailgate.tls.makeengine import chooseKind, fastEngineWorks, makeEngine


class ChoiceTests(SynchronousTestCase):
    """Which kind of engine is used."""

    def chosen(self, private: Any, cffi: Any = ffi) -> Any:
        """The kind that L{chooseKind} selects with C{private}."""
        return chooseKind(lambda: (private, cffi))

    def assertFast(self, kind: Any) -> None:
        self.assertIs(kind.func, FastEngine)

    def test_works(self):
        """The fast engine works with the installed pyOpenSSL, and is used."""
        self.assertTrue(fastEngineWorks())
        engine = makeEngine(OldFactory(SSL.Context(SSL.TLS_METHOD)), True)
        self.assertIsInstance(engine, FastEngine)

    def test_chosen(self):
        """The fast engine is selected if its test passes."""
        self.assertFast(self.chosen(Private()))

    def test_noModule(self):
        """The public engine is selected if pyOpenSSL's bindings are elsewhere."""

        def private():
            raise ImportError("OpenSSL._util")

        self.assertIs(chooseKind(private), PublicEngine)

    def test_missing(self):
        """The public engine is selected if anything that the fast engine needs is missing."""
        complete = Private()
        self.chosen(complete)
        names = sorted(set(complete.asked))
        self.assertGreater(len(names), 15)
        for name in names:
            self.assertIs(self.chosen(Private(name)), PublicEngine, name)
        self.assertIs(self.chosen(Private(), object()), PublicEngine)

    def test_misbehaving(self):
        """The public engine is selected if a private function misbehaves."""
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
        """The public engine is selected if cffi's buffers have changed."""

        class Other:
            """Makes buffers that are not pointers."""

            NULL, string = ffi.NULL, ffi.string

            def from_buffer(self, data):
                return bytes(data)

        self.assertIs(self.chosen(Private(), Other()), PublicEngine)

    def test_wrongSide(self):
        """A creator for one side is refused for the other, and so is any other object."""
        keyPair = KeyPair.generate(size=2048)
        for factory, server in ((backendTLS("localhost", False, None), True), (object(), True), (keyPair, False)):
            self.assertRaises(TypeError, makeEngine, factory, server)
