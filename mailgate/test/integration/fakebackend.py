# -*- test-case-name: mailgate.test.integration -*-
"""
A backend that fails at a moment that the tests choose.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from mailgate.test.integration.daemon import freePort

__all__ = ["DROPS_AT_LOGIN", "DROPS_AT_ONCE", "GARBLED", "SILENT", "FakeBackend"]

DROPS_AT_ONCE = ()
"""It closes the connection without a greeting."""

ACCEPTS = {"imap": b"* OK ready\r\n", "pop3": b"+OK ready\r\n", "smtp": b"220 ready ESMTP\r\n"}
"""The greetings of working servers."""

DROPS_AT_LOGIN = {"imap": (ACCEPTS["imap"],), "pop3": (ACCEPTS["pop3"], b"+OK\r\n"), "smtp": (ACCEPTS["smtp"],)}
"""It closes the connection during the login: after the last of these, and one more line of the client."""

SILENT = (b"",)
"""It never sends anything."""

GARBLED = (b"\x00\xff\r\nHTTP/1.1 400 Bad Request\r\n\r\n",)
"""It speaks another protocol."""

_PATIENCE = 10.0


class FakeBackend:
    """
    Listens on C{port} of 127.0.0.1. It sends each of C{says} and reads once after each. Then it closes the connection.
    C{heard} has everything that clients sent.
    """

    def __init__(self, says: Sequence[bytes]) -> None:
        self.says = says
        self.heard = b""
        self.port = freePort()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
                thread.start()
                # Only then: L{stop} joins it, perhaps at this moment.
                self._threads.append(thread)

    def _converse(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            for words in self.says:
                connection.sendall(words)
                self.heard += connection.recv(4096)

    def stop(self) -> None:
        """Close everything."""
        # Only shutdown wakes a thread that waits in accept().
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(_PATIENCE)
