"""Tests for L{mailgate.tls.binding}. C{mailgate.test.integration.test_scram} has a client with another library."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.certificates import Authority
from mailgate.tls.binding import bindingOf, hasBinding


class BindingTests(SynchronousTestCase):
    """Channel bindings of connections in memory."""

    def connected(self, version: int, options: int = 0) -> tuple[SSL.Connection, SSL.Connection]:
        """Shake hands; return both ends, the server's first."""
        folder = self.mktemp()
        os.mkdir(folder)
        certificate, keyFile = Authority(folder, "authority").issue("gate")
        here = SSL.Context(SSL.TLS_METHOD)
        here.use_certificate(certificate)
        here.use_privatekey_file(keyFile)
        here.set_max_proto_version(version)
        here.set_options(options)
        ends = SSL.Connection(here, None), SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        ends[0].set_accept_state()
        ends[1].set_connect_state()
        for _ in range(4):
            for one, other in (ends[::-1], ends):
                self.step(one, other)
        return ends

    def step(self, one: Any, other: Any) -> None:
        """Let one end go on with the handshake, and pass on what it sends."""
        with contextlib.suppress(SSL.WantReadError):
            one.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            other.bio_write(one.bio_read(65536))

    def has(self, end: SSL.Connection) -> bool:
        return hasBinding(end.get_protocol_version_name(), end)

    def test_same(self) -> None:
        """Both ends know the same bytes; another connection has others."""
        server, client = self.connected(SSL.TLS1_3_VERSION)
        self.assertTrue(self.has(server))
        self.assertEqual((bindingOf(server), len(bindingOf(server))), (bindingOf(client), 32))
        self.assertNotEqual(bindingOf(self.connected(SSL.TLS1_3_VERSION)[0]), bindingOf(server))

    def test_extendedSecret(self) -> None:
        """TLS 1.2 has one only with the extended master secret."""
        server, client = self.connected(SSL.TLS1_2_VERSION)
        self.assertTrue(self.has(server))
        self.assertEqual(bindingOf(server), bindingOf(client))
        # SSL_OP_NO_EXTENDED_MASTER_SECRET of openssl/ssl.h.
        server, _ = self.connected(SSL.TLS1_2_VERSION, 1)
        self.assertFalse(self.has(server))

    def test_others(self) -> None:
        """Older protocols have none, and neither has a connection that is not known."""
        server, _ = self.connected(SSL.TLS1_3_VERSION)
        self.assertFalse(hasBinding("TLSv1.1", server))
        self.assertFalse(hasBinding("TLSv1.2", object()))
        self.assertFalse(hasBinding("TLSv1.3", None))
