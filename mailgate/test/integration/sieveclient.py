# -*- test-case-name: mailgate.test.integration.test_sieve -*-
"""
A ManageSieve client (RFC 5804) that sends exactly the given bytes.
"""

from __future__ import annotations

import base64
import re
import socket
import ssl

from mailgate.test.integration.site import Address

__all__ = ["SieveClient", "plain"]

_PATIENCE = 30
_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_LAST = re.compile(rb"(?:OK|NO|BYE)\b")


def plain(user: str, password: str, authzid: str = "") -> bytes:
    """The message of SASL PLAIN, in base64."""
    return base64.b64encode(f"{authzid}\0{user}\0{password}".encode())


class SieveClient:
    """
    A connection, after the greeting.

    @ivar greeting: the greeting.
    @ivar secured: the capabilities that came after STARTTLS, if the address has it.
    """

    def __init__(self, address: Address, source: str = "") -> None:
        """
        @param address: the server. With TLS its certificate is verified.
        @param source: the address of the client; any if empty.
        """
        self._address = address
        place = (source, 0) if source else None
        self.socket: socket.socket = socket.create_connection(("127.0.0.1", address.port), _PATIENCE, place)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.tls == "implicit":
            self._wrap()
        self._stream = self.socket.makefile("rb")
        self.greeting = self.reply()
        self.secured = self.startTLS() if address.tls == "starttls" else b""

    def _wrap(self) -> None:
        context = ssl.create_default_context(cafile=self._address.authority)
        self.socket = context.wrap_socket(self.socket, server_hostname=self._address.host)

    def startTLS(self, behind: bytes = b"") -> bytes:
        """Send STARTTLS with C{behind} in the same segment, start TLS, and return what the server sends then."""
        reply = self.ask(b"STARTTLS\r\n" + behind)
        assert reply.startswith(b"OK"), reply
        self._wrap()
        self._stream = self.socket.makefile("rb")
        return self.reply()

    def line(self) -> bytes:
        """The next line, with the literal that it ends with and what follows; empty at the end of the connection."""
        line = self._stream.readline()
        while literal := _LITERAL.search(line):
            line += self._stream.read(int(literal[1])) + self._stream.readline()
        return line

    def reply(self) -> bytes:
        """Everything up to the line with OK, NO or BYE; what has arrived at the end of the connection."""
        found = line = self.line()
        while line and not _LAST.match(line):
            line = self.line()
            found += line
        return found

    def send(self, data: bytes) -> None:
        """Send it in one write."""
        self.socket.sendall(data)

    def ask(self, data: bytes) -> bytes:
        """Send it, and return the reply."""
        self.send(data)
        return self.reply()

    def login(self, user: str, password: str, authzid: str = "") -> bytes:
        """Log in with PLAIN and an initial response; return the reply."""
        return self.ask(b'AUTHENTICATE "PLAIN" "' + plain(user, password, authzid) + b'"\r\n')

    def noop(self) -> None:
        """Send NOOP, and await OK."""
        reply = self.ask(b"NOOP\r\n")
        assert reply.startswith(b"OK"), reply

    def rest(self) -> bytes:
        """Everything up to the end of the connection, of any kind."""
        try:
            return self._stream.read()
        except ConnectionResetError:
            return b""

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        self.socket.close()
