# -*- test-case-name: bench.test.test_load -*-
"""
The clients: IMAP dialogues as generators, many of which run at a time with one epoll, raw sockets and the ssl module.

A script is a generator that works on one L{Connection}. It yields the epoll events to wait for. It raises
L{BenchmarkError} at the first unexpected reply: a login that fails must not be measured.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from bench.processes import BenchmarkError

__all__ = [
    "BIND_ADDRESS_NO_PORT",
    "Connection",
    "Script",
    "fetch",
    "login",
    "logout",
    "pace",
    "ping",
    "run",
    "tlsContext",
    "visits",
]

T = TypeVar("T")
Script = Generator[int, None, T]

# The number on Linux, which not every Python has: the port is chosen at connect(), so that one can serve several peers.
BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)

_SILENCE = 30
"""Seconds without any event after which a run fails."""

_AT_ONCE = 256 * 1024
_scratch = memoryview(bytearray(_AT_ONCE))


def tlsContext() -> ssl.SSLContext:
    """TLS 1.3 with OpenSSL's defaults. Certificates are not verified: that costs the client, not the proxy."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """
    A client's connection to a proxy. C{session} is the TLS session to resume; without one the handshake is a full one.
    C{source} is the client's address, if that is not the system's choice.

    @raise BenchmarkError: raised by every method if the peer closes, or sends something unexpected.
    """

    __slots__ = ("_context", "_heard", "_session", "_socket", "address")

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
        source: str = "",
    ) -> None:
        self.address = address
        self._context = context
        self._session = session
        self._heard = b""
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            self._socket.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
            self._socket.bind((source, 0))

    def fileno(self) -> int:
        """The number of the socket; -1 after it is closed."""
        return self._socket.fileno()

    @property
    def tls(self) -> ssl.SSLSocket:
        """The socket, if TLS runs over it."""
        assert isinstance(self._socket, ssl.SSLSocket)
        return self._socket

    def open(self) -> Script[None]:
        """Connect, with TLS if configured."""
        code = self._socket.connect_ex(self.address)
        if code == errno.EINPROGRESS:
            yield select.EPOLLOUT
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise BenchmarkError(f"no connection to port {self.address[1]}: {os.strerror(code)}")
        if self._context is not None:
            self._socket = self._context.wrap_socket(self._socket, do_handshake_on_connect=False, session=self._session)
            yield from self._wait(self.tls.do_handshake)
            if self._session is not None and not self.tls.session_reused:
                raise BenchmarkError(f"port {self.address[1]} did not resume a TLS session")

    def _wait(self, attempt: Callable[[], T]) -> Script[T]:
        while True:
            try:
                return attempt()
            except (ssl.SSLWantReadError, BlockingIOError):
                yield select.EPOLLIN
            except ssl.SSLWantWriteError:
                yield select.EPOLLOUT
            except OSError as error:
                raise BenchmarkError(f"port {self.address[1]}, after {self._heard[-200:]!r}: {error}") from error

    def send(self, data: bytes) -> None:
        """Send a command at once. It always fits, because the reply to the previous one has been read."""
        try:
            sent = self._socket.send(data)
        except OSError as error:
            raise BenchmarkError(f"port {self.address[1]} takes nothing: {error}") from error
        if sent != len(data):
            raise BenchmarkError(f"port {self.address[1]} took {sent} of {len(data)} bytes")

    def _more(self) -> Script[None]:
        data = yield from self._wait(lambda: self._socket.recv(4096))
        if not data:
            raise BenchmarkError(f"port {self.address[1]} closed after {self._heard[-200:]!r}")
        self._heard += data

    def line(self) -> Script[bytes]:
        """The next line, without its end."""
        while b"\r\n" not in self._heard:
            yield from self._more()
        line, _, self._heard = self._heard.partition(b"\r\n")
        return line

    def untilTagged(self, tag: bytes) -> Script[None]:
        """Read up to the line that replies to C{tag}, which must be an OK."""
        while True:
            line = yield from self.line()
            if line.startswith(b"* "):
                continue
            if not line.startswith(tag + b" OK"):
                raise BenchmarkError(f"port {self.address[1]} answered {line[:200]!r} to {tag!r}")
            return

    def skip(self, size: int) -> Script[None]:
        """Read C{size} bytes, and discard them."""
        size -= len(self._heard)
        if size < 0:
            self._heard = self._heard[size:]
            return
        self._heard = b""
        while size:
            here = _scratch[: min(size, _AT_ONCE)]
            count = yield from self._wait(lambda here=here: self._socket.recv_into(here))  # type: ignore[misc]
            if not count:
                raise BenchmarkError(f"port {self.address[1]} closed with {size} bytes of a body to come")
            size -= count

    def toEnd(self) -> Script[None]:
        """Read to the end of the stream, where no more data may come, and close."""
        if self._heard or (yield from self._wait(lambda: self._socket.recv(4096))):
            raise BenchmarkError(f"port {self.address[1]} said more than it was asked")
        if isinstance(self._socket, ssl.SSLSocket):
            # This sends close_notify, as mail clients do; the peer need not wait for it.
            with suppress(OSError):
                self._socket.unwrap()
        self.close()

    def close(self) -> None:
        """Close at once."""
        self._socket.close()


def login(connection: Connection, name: str) -> Script[None]:
    """Connect and log in."""
    yield from connection.open()
    greeting = yield from connection.line()
    if not greeting.startswith(b"* OK"):
        raise BenchmarkError(f"port {connection.address[1]} greets with {greeting[:200]!r}")
    connection.send(b"a1 LOGIN %s secret\r\n" % name.encode("ascii"))
    yield from connection.untilTagged(b"a1")


def fetch(connection: Connection, size: int, count: int = 1) -> Script[None]:
    """Fetch a message of C{size} bytes, C{count} times."""
    for _ in range(count):
        connection.send(b"f1 FETCH %d\r\n" % size)
        line = yield from connection.line()
        if line != b"* 1 FETCH (BODY[] {%d}" % size:
            raise BenchmarkError(f"port {connection.address[1]} begins a message with {line[:200]!r}")
        yield from connection.skip(size)
        line = yield from connection.line()
        if line != b")":
            raise BenchmarkError(f"port {connection.address[1]} ends a message with {line[:200]!r}")
        yield from connection.untilTagged(b"f1")


_PING = b"ping" + b"." * 94 + b"\r\n"


def ping(connection: Connection, count: int) -> Script[None]:
    """Send 100 bytes and get them back, C{count} times."""
    for _ in range(count):
        connection.send(_PING)
        line = yield from connection.line()
        if line != _PING[:-2]:
            raise BenchmarkError(f"port {connection.address[1]} answered a ping with {line[:200]!r}")


def logout(connection: Connection) -> Script[None]:
    """Log out, read to the end, and close."""
    connection.send(b"a2 LOGOUT\r\n")
    yield from connection.untilTagged(b"a2")
    yield from connection.toEnd()


def visits(
    connections: Iterable[Connection], users: int, done: Callable[[str], object]
) -> Iterator[tuple[Connection, Script[None]]]:
    """
    Yield a login and logout for each of C{connections}.

    @param users: the number of users, who log in by turns.
    @param done: called with the user's name at the end of each.
    """

    def visit(connection: Connection, name: str) -> Script[None]:
        yield from login(connection, name)
        yield from logout(connection)
        done(name)

    for number, connection in enumerate(connections):
        yield connection, visit(connection, f"user{number % users}")


class _Run:
    def __init__(self, work: Iterator[tuple[Connection, Script[object]]]) -> None:
        self._work = work
        self._poll = select.epoll()
        self._scripts: dict[int, tuple[Connection, Script[object], int]] = {}

    def begin(self) -> bool:
        """Start the next script; return whether there was one."""
        for connection, script in self._work:
            try:
                events = next(script)
            except StopIteration:
                continue
            fd = connection.fileno()
            self._poll.register(fd, events)
            self._scripts[fd] = connection, script, events
            return True
        return False

    def turn(self, until: float | None = None) -> int:
        """
        Wait, continue all scripts that can, and return how many scripts have ended.

        @param until: the time of C{time.perf_counter} at which to return.
        """
        ready = self._poll.poll(_SILENCE if until is None else max(0.0, until - time.perf_counter()), 256)
        if not ready and until is None:
            raise BenchmarkError(f"nothing was heard for {_SILENCE} seconds of {len(self._scripts)} clients")
        return sum(self._advance(fd) for fd, _ in ready)

    def _advance(self, fd: int) -> bool:
        connection, script, before = self._scripts[fd]
        try:
            events = next(script)
        except StopIteration:
            del self._scripts[fd]
            if connection.fileno() != -1:
                self._poll.unregister(fd)
            return True
        if events != before:
            self._poll.modify(fd, events)
            self._scripts[fd] = connection, script, events
        return False

    def close(self) -> None:
        for connection, _, _ in self._scripts.values():
            connection.close()
        self._poll.close()


def run(work: Iterator[tuple[Connection, Script[object]]], concurrency: int) -> float:
    """
    Run all of C{work}, C{concurrency} at a time.

    @return: the time in seconds.
    @raise BenchmarkError: a script failed; the connections of the others are closed.
    """
    current = _Run(work)
    began = time.perf_counter()
    try:
        active = sum(current.begin() for _ in range(concurrency))
        while active:
            for _ in range(current.turn()):
                active -= not current.begin()
    finally:
        current.close()
    return time.perf_counter() - began


def pace(work: Iterator[tuple[Connection, Script[object]]], rate: float) -> float:
    """
    Run all of C{work}, C{rate} scripts a second: each begins at its moment, whatever the state of the others.

    @return: by how many seconds the latest of them began too late, because this process was busy.
    @raise BenchmarkError: a script failed; the connections of the others are closed.
    """
    current = _Run(work)
    began = time.perf_counter()
    begun, active, latest, more = 0, 0, 0.0, True
    try:
        while more or active:
            due = began + begun / rate
            if more and (late := time.perf_counter() - due) >= 0:
                more = current.begin()
                active += more
                begun += 1
                latest = max(latest, late)
            else:
                active -= current.turn(due if more else None)
    finally:
        current.close()
    return latest
