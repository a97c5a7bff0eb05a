# -*- test-case-name: mailgate.test.integration -*-
"""
A client that sends exactly the given bytes, and makes several logins on one connection.
"""

from __future__ import annotations

import base64
import socket

from mailgate.test.integration.clients import PATIENCE, context
from mailgate.test.integration.site import Address

__all__ = ["RawClient"]


class RawClient:
    """
    A connection to C{address}, after the greeting, and for SMTP after EHLO. C{greeting} is the greeting. C{connected}
    is an existing connection to use.
    """

    def __init__(self, address: Address, connected: socket.socket | None = None) -> None:
        self.address = address
        self.socket = connected or socket.create_connection(("127.0.0.1", address.port), PATIENCE)
        if address.tls == "implicit":
            self.wrap()
        else:
            self._lines = self.socket.makefile("rb")
        self.greeting = self.reply() if address.protocol == "sieve" else self.line()
        if address.protocol == "smtp":
            self.ehlo()
        if address.tls == "starttls":
            self.startTLS()

    def wrap(self) -> None:
        """Start TLS."""
        self.socket = context(self.address).wrap_socket(self.socket, server_hostname=self.address.host)
        self._lines = self.socket.makefile("rb")

    def startTLS(self, behind: bytes = b"") -> None:
        """Send STARTTLS with C{behind} in the same segment, and start TLS."""
        words = {"imap": b"t STARTTLS\r\n", "pop3": b"STLS\r\n", "smtp": b"STARTTLS\r\n", "sieve": b"STARTTLS\r\n"}
        self.send(words[self.address.protocol] + behind)
        answer = self.line()
        assert answer.startswith((b"t OK", b"+OK", b"220", b"OK")), answer
        self.wrap()
        if self.address.protocol == "sieve":
            # The list of capabilities comes again.
            self.reply()

    def ehlo(self) -> None:
        """Greet, and read the capabilities."""
        self.send(b"EHLO client.example\r\n")
        assert self.reply().startswith(b"250")

    def send(self, data: bytes) -> None:
        """Send it in one write."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line; empty at the end of the connection, of any kind."""
        try:
            return self._lines.readline()
        except ConnectionResetError:
            return b""

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return self._lines.read()

    def ended(self) -> bool:
        """Wait for the end of the connection, of any kind; return whether it came before PATIENCE."""
        try:
            self._lines.read()
        except TimeoutError:
            return False
        except OSError:
            # A reset, or TLS without close_notify.
            return True
        return True

    def reply(self, tag: bytes = b"") -> bytes:
        """The line that ends the reply: IMAP's tagged one, SMTP's last one, POP3's first one, OK, NO or BYE."""
        while True:
            line = self.line()
            if self.address.protocol == "sieve" and line.startswith((b'"', b"{")):
                continue
            if not line or (line.startswith(tag) and line[3:4] != b"-"):
                return line

    def login(self, user: str, password: str) -> bytes:
        """Log in with LOGIN, USER and PASS, or PLAIN; return the reply, without IMAP's tag."""
        if self.address.protocol == "imap":
            self.send(f"L0 LOGIN {user} {password}\r\n".encode())
            return self.reply(b"L0 ")[3:]
        if self.address.protocol == "pop3":
            self.send(f"USER {user}\r\n".encode())
            self.line()
            self.send(f"PASS {password}\r\n".encode())
            return self.line()
        response = base64.b64encode(f"\0{user}\0{password}".encode())
        if self.address.protocol == "sieve":
            self.send(b'AUTHENTICATE "PLAIN" "' + response + b'"\r\n')
        else:
            self.send(b"AUTH PLAIN " + response + b"\r\n")
        return self.reply()

    def noop(self) -> bytes:
        """The reply to NOOP, without IMAP's tag."""
        imap = self.address.protocol == "imap"
        self.send(b"N0 NOOP\r\n" if imap else b"NOOP\r\n")
        return self.reply(b"N0 ")[3:] if imap else self.reply()

    def close(self) -> None:
        """Close the connection."""
        self._lines.close()
        self.socket.close()
