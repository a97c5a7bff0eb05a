# -*- test-case-name: bench.test.test_services -*-
"""
The IMAP server behind the proxies. It accepts every name and password, and has messages of any size. It runs in a
process of its own, so that its time is not counted with the proxy: C{python -m bench.backend DESCRIPTOR
[CAPABILITIES]}, with a listening socket and the capabilities of the greeting.

It is as lean as Python allows: one epoll, and sockets by number. It knows the commands of proxies before the relay
(CAPABILITY, ID, NOOP, LOGIN with and without literals, AUTHENTICATE PLAIN), LOGOUT, and two commands of its own::

    TAG FETCH SIZE      a body of SIZE bytes, and the tagged OK in a second write, as real servers do
    ping ...            the same line back
"""

from __future__ import annotations

import os
import re
import select
import socket
import sys

__all__ = ["CAPABILITIES", "main"]

CAPABILITIES = b"IMAP4rev1 SASL-IR ID LITERAL+ AUTH=PLAIN"
"""Its default capabilities. With ID a gateway can send the client's address."""

_LITERAL = re.compile(rb"\{(\d{1,6})(\+?)\}\r\n\Z")
_LONGEST = 65536
"""The limit for a command with its literals, in bytes."""

_CHUNK = memoryview(bytes(range(256)) * 4096)
"""The contents of bodies."""


class _Connection:
    __slots__ = ("command", "fd", "literal", "owed", "pending", "tagged")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = b""
        self.command = b""
        self.literal = 0
        self.owed: list[memoryview] = []
        self.tagged = b""


class _Server:
    def __init__(self, listener: socket.socket, capabilities: bytes) -> None:
        self._listener = listener
        self._greeting = b"* OK [CAPABILITY %s] ready\r\n" % capabilities
        self._untagged = {b"CAPABILITY": b"* CAPABILITY %s\r\n" % capabilities, b"ID": b"* ID NIL\r\n"}
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}

    def run(self) -> None:
        listening = self._listener.fileno()
        while True:
            for fd, events in self._poll.poll():
                if fd == listening:
                    self._accept()
                    continue
                try:
                    self._serve(self._connections[fd], events)
                except ConnectionError:
                    self._close(fd)

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                fd = connection.detach()
                self._connections[fd] = _Connection(fd)
                self._poll.register(fd, select.EPOLLIN)
                os.write(fd, self._greeting)
        except (BlockingIOError, ConnectionError):
            return

    def _close(self, fd: int) -> None:
        del self._connections[fd]
        os.close(fd)

    def _serve(self, connection: _Connection, events: int) -> None:
        if connection.owed:
            self._send(connection)
            return
        data = os.read(connection.fd, _LONGEST)
        if not data or len(connection.pending) > _LONGEST:
            self._close(connection.fd)
            return
        connection.pending += data
        while connection.pending and not connection.owed and connection.fd in self._connections:
            if not self._next(connection):
                break
        if connection.command or connection.pending:
            _acknowledge(connection.fd)

    def _next(self, connection: _Connection) -> bool:
        """Take one line or literal from the pending bytes; return whether there was one."""
        pending = connection.pending
        if connection.literal:
            if len(pending) < connection.literal:
                return False
            connection.command += pending[: connection.literal]
            connection.pending = pending[connection.literal :]
            connection.literal = 0
            return True
        end = pending.find(b"\n") + 1
        if not end:
            return False
        connection.command += pending[:end]
        connection.pending = pending[end:]
        literal = _LITERAL.search(connection.command)
        if literal:
            connection.literal = int(literal[1])
            if not literal[2]:
                os.write(connection.fd, b"+ go on\r\n")
        else:
            command, connection.command = connection.command, b""
            self._obey(connection, command)
        return True

    def _obey(self, connection: _Connection, command: bytes) -> None:
        if command.startswith(b"ping"):
            os.write(connection.fd, command)
            return
        tag, verb, *arguments = command.split(None, 2)
        verb = verb.upper()
        if verb == b"FETCH":
            connection.tagged = b"%s OK done\r\n" % tag
            connection.owed = _message(int(arguments[0]))
            self._send(connection)
        elif verb == b"LOGOUT":
            os.write(connection.fd, b"* BYE see you\r\n%s OK done\r\n" % tag)
            self._close(connection.fd)
        else:
            os.write(connection.fd, self._untagged.get(verb, b"") + b"%s OK done\r\n" % tag)

    def _send(self, connection: _Connection) -> None:
        """Send what the socket accepts of a reply, and the rest when it accepts more."""
        try:
            while connection.owed:
                _drop(connection.owed, os.writev(connection.fd, connection.owed))
                if not connection.owed and connection.tagged:
                    connection.owed = [memoryview(connection.tagged)]
                    connection.tagged = b""
        except BlockingIOError:
            self._poll.modify(connection.fd, select.EPOLLIN | select.EPOLLOUT)
        else:
            self._poll.modify(connection.fd, select.EPOLLIN)


def _acknowledge(fd: int) -> None:
    """Like Dovecot: the rest of a command, which may depend on the acknowledgement, must not wait for 40 ms."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    finally:
        connection.detach()


def _message(size: int) -> list[memoryview]:
    """An untagged FETCH response (RFC 3501, 7.4.2) with a body of C{size} bytes."""
    whole, rest = divmod(size, len(_CHUNK))
    body = [_CHUNK] * whole + [_CHUNK[:rest]] * bool(rest)
    return [memoryview(b"* 1 FETCH (BODY[] {%d}\r\n" % size), *body, memoryview(b")\r\n")]


def _drop(parts: list[memoryview], sent: int) -> None:
    """Remove the first C{sent} bytes from C{parts}."""
    while parts and sent >= len(parts[0]):
        sent -= len(parts.pop(0))
    if sent:
        parts[0] = parts[0][sent:]


def main(descriptor: int, capabilities: bytes = CAPABILITIES) -> None:
    """Serve the listening socket C{descriptor} forever."""
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    # Accepted sockets inherit it. Without it the second write of a reply waits for the proxy's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _Server(listener, capabilities).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), *(argument.encode("ascii") for argument in sys.argv[2:3]))
