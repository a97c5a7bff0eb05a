"""
Tests of which TLS engine is chosen.
"""

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
