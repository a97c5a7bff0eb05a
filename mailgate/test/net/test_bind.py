"""
Tests for L{mailgate.net.bind}.
"""

from __future__ import annotations

import errno
import os
import socket

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress, SocketOptions
from mailgate.net.bind import bind, bindPath, checkAddress


class BindTests(SynchronousTestCase):
    """Tests for L{bind}, with sockets of the system."""

    def bind(self, host: str, port: int = 0, **options: object) -> socket.socket:
        """Return a listening socket, which is closed after the test."""
        bound = bind(ListenAddress(host, port, socket=SocketOptions(**options)))  # type: ignore[arg-type]
        self.addCleanup(bound.close)
        return bound

    def test_plain(self) -> None:
        """Without options it listens, does not block, and has the system's defaults."""
        bound = self.bind("127.0.0.1")
        self.assertTrue(bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        self.assertFalse(bound.getblocking())
        self.assertFalse(bound.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        with socket.create_connection(bound.getsockname()):
            bound.accept()[0].close()

    def test_buffers(self) -> None:
        """Buffers have the configured sizes. Linux doubles them for its own use."""
        bound = self.bind("127.0.0.1", receiveBuffer=32768, sendBuffer=16384)
        self.assertIn(bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), (32768, 65536))
        self.assertIn(bound.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF), (16384, 32768))

    def test_keepalive(self) -> None:
        """Accepted connections inherit the keep-alive of the socket."""
        bound = self.bind("127.0.0.1", keepalive=True, idle=1800, interval=7, probes=3)
        with socket.create_connection(bound.getsockname()):
            accepted = bound.accept()[0]
        self.addCleanup(accepted.close)
        self.assertTrue(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
        given = [accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names]
        self.assertEqual(given, [1800, 7, 3])

    def test_backlog(self) -> None:
        """At most C{backlog} connections wait to be accepted."""
        bound = self.bind("127.0.0.1", backlog=1)
        waiting = []
        for _ in range(8):
            client = socket.socket()
            self.addCleanup(client.close)
            client.setblocking(False)
            waiting.append(client.connect_ex(bound.getsockname()))
        self.assertEqual(set(waiting), {errno.EINPROGRESS})
        accepted = 0
        with self.assertRaises(BlockingIOError):
            for _ in waiting:
                bound.accept()[0].close()
                accepted += 1
        self.assertGreater(accepted, 0)

    def test_multipath(self) -> None:
        """C{multipath} is Multipath TCP, or an error on systems without it."""
        has = hasattr(socket, "IPPROTO_MPTCP")
        try:
            bound = self.bind("127.0.0.1", multipath=True)
        except OSError as error:
            self.assertIn(error.errno, (errno.EPROTONOSUPPORT, errno.ENOPROTOOPT))
        else:
            self.assertEqual((has, bound.proto), (True, 262))

    def test_unix(self) -> None:
        """A unix socket has buffers, and no keep-alive."""
        path = os.path.relpath(self.mktemp())
        bound = self.bind(f"unix:{path}", receiveBuffer=32768, keepalive=True, idle=5)
        self.assertIn(bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), (32768, 65536))
        os.unlink(path)

    def test_nothingLeft(self) -> None:
        """If binding fails, the socket is closed. Otherwise its warning would fail this test."""
        bound = self.bind("127.0.0.1")
        self.assertRaises(OSError, self.bind, *bound.getsockname())


class CheckAddressTests(SynchronousTestCase):
    """Tests for L{checkAddress}."""

    def test_own(self) -> None:
        """Addresses of this host, and wildcards, are accepted, even if other programs listen there."""
        with socket.create_server(("127.0.0.1", 0)):
            for host in ("127.0.0.1", "127.0.0.99", "0.0.0.0"):
                checkAddress(host)

    def test_others(self) -> None:
        """Addresses of other hosts are refused (RFC 5737, RFC 3849)."""
        for host in ("192.0.2.1", "2001:db8::1"):
            self.assertRaises(OSError, checkAddress, host)


class BindPathTests(SynchronousTestCase):
    """Tests for L{bindPath}."""

    def setUp(self) -> None:
        self.path = os.path.relpath(self.mktemp())
        self.addCleanup(os.unlink, self.path)

    def bound(self) -> socket.socket:
        unbound = socket.socket(socket.AF_UNIX)
        self.addCleanup(unbound.close)
        bindPath(unbound, self.path)
        return unbound

    def test_stale(self) -> None:
        """A socket file at which no process listens is replaced."""
        self.bound().close()
        self.bound().listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.path)

    def test_inUse(self) -> None:
        """A socket file at which a process listens stays."""
        self.bound().listen()
        before = os.lstat(self.path)
        error = self.assertRaises(OSError, self.bound)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        self.assertTrue(os.path.samestat(os.lstat(self.path), before))

    def test_noSocket(self) -> None:
        """A file that is not a socket stays, although connecting to it is refused as well."""
        with open(self.path, "w", encoding="ascii") as made:
            made.write("precious")
        self.assertEqual(self.assertRaises(OSError, self.bound).errno, errno.EADDRINUSE)
        with open(self.path, encoding="ascii") as kept:
            self.assertEqual(kept.read(), "precious")
