# -*- test-case-name: mailgate.test.integration -*-
"""
A client that says exactly what it is told, and to whom one connection is enough for several logins.
"""

from __future__ import annotations

import base64
import socket

from mailgate.test.integration.clients import PATIENCE, context
from mailgate.test.integration.site import Address

__all__ = ["RawClient"]


class RawClient:
    """
    A connection to C{address}, after the greeting, and for SMTP after EHLO; C{greeting} is the former. C{connected} is
    it, where there is one already.
    """

    def __init__(self, address: Address, connected: socket.socket | None = None) -> None:
        self.address = address
        self.socket = connected or socket.create_connection(("127.0.0.1", address.port), PATIENCE)
        if address.tls == "implicit":
            self.wrap()
        else:
            self._lines = self.socket.makefile("rb")
        self.greeting = self.line()
        if address.protocol == "smtp":
            self.ehlo()
        if address.tls == "starttls":
            self.startTLS()

    def wrap(self) -> None:
        """Speak TLS from here on."""
        self.socket = context(self.address).wrap_socket(self.socket, server_hostname=self.address.host)
        self._lines = self.socket.makefile("rb")

    def startTLS(self, behind: bytes = b"") -> None:
        """Ask for TLS, sending C{behind} along in the same segment, and speak it."""
        words = {"imap": b"t STARTTLS\r\n", "pop3": b"STLS\r\n", "smtp": b"STARTTLS\r\n"}
        self.send(words[self.address.protocol] + behind)
        answer = self.line()
        assert answer.startswith((b"t OK", b"+OK", b"220")), answer
        self.wrap()

    def ehlo(self) -> None:
        """Greet, and read what the server can do."""
        self.send(b"EHLO client.example\r\n")
        assert self.reply().startswith(b"250")

    def send(self, data: bytes) -> None:
        """Send it, as one write."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line; nothing at the end of the connection, however it came about."""
        try:
            return self._lines.readline()
        except ConnectionResetError:
            return b""

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return self._lines.read()

    def ended(self) -> bool:
        """Wait for the end of the connection, be it abrupt or not; whether it came before PATIENCE did."""
        try:
            self._lines.read()
        except TimeoutError:
            return False
        except OSError:
            # A reset, or TLS that ends without saying so.
            return True
        return True

    def reply(self, tag: bytes = b"") -> bytes:
        """The line that ends the reply: IMAP's tagged one, the last of SMTP's, POP3's first."""
        while True:
            line = self.line()
            if not line or (line.startswith(tag) and line[3:4] != b"-"):
                return line

    def login(self, user: str, password: str) -> bytes:
        """Try to log in, by LOGIN, USER and PASS, or AUTH PLAIN; gives the answer, without IMAP's tag."""
        if self.address.protocol == "imap":
            self.send(f"L0 LOGIN {user} {password}\r\n".encode())
            return self.reply(b"L0 ")[3:]
        if self.address.protocol == "pop3":
            self.send(f"USER {user}\r\n".encode())
            self.line()
            self.send(f"PASS {password}\r\n".encode())
            return self.line()
        response = base64.b64encode(f"\0{user}\0{password}".encode())
        self.send(b"AUTH PLAIN " + response + b"\r\n")
        return self.reply()

    def noop(self) -> bytes:
        """The answer to NOOP, which shows whether anybody is there; without IMAP's tag."""
        imap = self.address.protocol == "imap"
        self.send(b"N0 NOOP\r\n" if imap else b"NOOP\r\n")
        return self.reply(b"N0 ")[3:] if imap else self.reply()

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self.socket.close()
