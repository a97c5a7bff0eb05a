# -*- test-case-name: bench.test.test_services -*-
"""
The service for auth_http: accepts every login, and names the backends in turns. It runs in a process of its own, so
that its time is not counted with the proxy: C{python -m bench.authservice DESCRIPTOR PORT...}, with a listening socket
and the ports of the backends.

It is as lean as Python allows: one epoll, and sockets by number. It speaks HTTP/1.0 and 1.1, and keeps connections if
the client asks for it (RFC 9112, 9.3). C{GET /asked} returns the number of logins, and of connections.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from collections.abc import Sequence
from itertools import cycle

__all__ = ["main"]

_LONGEST = 16384
"""The limit for a request, in bytes."""


class _Service:
    def __init__(self, listener: socket.socket, backendPorts: Sequence[int]) -> None:
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._pending: dict[int, bytes] = {}
        self._asked = 0
        self._used: set[int] = set()
        self._connections = 0
        headers = b"Content-Length: 0\r\nAuth-Status: OK\r\nAuth-Server: 127.0.0.1\r\nAuth-Port: %d\r\n"
        self._headers = cycle([headers % port for port in backendPorts])

    def run(self) -> None:
        listening = self._listener.fileno()
        while True:
            for fd, _ in self._poll.poll():
                if fd == listening:
                    self._accept()
                else:
                    self._read(fd)

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                fd = connection.detach()
                self._pending[fd] = b""
                self._poll.register(fd, select.EPOLLIN)
        except BlockingIOError:
            return

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _LONGEST)
        except ConnectionError:
            data = b""
        if not data:
            self._close(fd)
            return
        *questions, rest = (self._pending[fd] + data).split(b"\r\n\r\n")
        if len(rest) > _LONGEST:
            self._close(fd)
            return
        self._pending[fd] = rest
        for question in questions:
            if not self._answer(fd, question + b"\r\n"):
                self._close(fd)
                return

    def _answer(self, fd: int, question: bytes) -> bool:
        """Reply to one request; return whether the connection stays."""
        line, _, headers = question.partition(b"\r\n")
        kept = line.endswith(b"HTTP/1.1") and b"\r\nconnection: close\r\n" not in b"\r\n" + headers.lower()
        connection = b"" if kept else b"Connection: close\r\n"
        if line.startswith(b"GET /asked "):
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nAsked: %d\r\nConnections: %d\r\n%s\r\n"
            answer %= self._asked, self._connections, connection
        else:
            self._asked += 1
            if fd not in self._used:
                self._used.add(fd)
                self._connections += 1
            answer = b"HTTP/1.1 200 OK\r\n%s%s\r\n" % (next(self._headers), connection)
        try:
            # A few hundred bytes always fit into an empty buffer.
            os.write(fd, answer)
        except ConnectionError:
            return False
        return kept

    def _close(self, fd: int) -> None:
        del self._pending[fd]
        self._used.discard(fd)
        os.close(fd)


def main(descriptor: int, backendPorts: Sequence[int]) -> None:
    """Serve the listening socket C{descriptor} forever."""
    listener = socket.socket(fileno=descriptor)
    listener.setblocking(False)
    _Service(listener, backendPorts).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(port) for port in sys.argv[2:]])
