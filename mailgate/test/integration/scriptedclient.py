# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
A client that sends what a conversation describes.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterable

from cryptography.x509.oid import ExtendedKeyUsageOID

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.conversation import NOOP, TLS, Raw, Step
from mailgate.test.integration.scripted import PATIENCE

__all__ = ["KINDS", "ScriptedClient", "contexts"]

KINDS = ("", "good", "strange", "misused", "alpn", "http")
"""
What clients do with TLS: nothing special; show a valid certificate, one of an unknown authority, or one of a server;
name the protocols of mail with ALPN, or another protocol.
"""


def contexts(authority: Authority) -> dict[str, ssl.SSLContext]:
    """The TLS contexts of clients of all L{KINDS}; they trust C{authority}."""
    kinds = {kind: ssl.create_default_context(cafile=authority.path) for kind in KINDS}
    purpose = ExtendedKeyUsageOID.CLIENT_AUTH
    for kind, pair in (
        ("good", authority.sign("good", purpose)),
        ("strange", Authority(authority.folder, "stranger").sign("strange", purpose)),
        ("misused", authority.sign("misused")),
    ):
        kinds[kind].load_cert_chain(pair.certificate, pair.key)
    kinds["alpn"].set_alpn_protocols(["imap", "pop3", "smtp"])
    kinds["http"].set_alpn_protocols(["h2", "http/1.1"])
    return kinds


_FINAL = {
    "imap": re.compile(rb"(?!\* )|\* BAD"),
    "pop3": re.compile(rb""),
    "smtp": re.compile(rb"[0-9]{3} "),
}
"""The beginning of the last line of a reply."""

_LISTS = (b"+OK Capability list follows", b"+OK methods supported")
"""The beginning of POP3's replies that end with a line of a dot."""


class ScriptedClient:
    """
    A client connected to C{address}, a port of 127.0.0.1 or the path of a unix socket. It sends the given bytes, and
    records in C{said} what it receives. C{tls} is its TLS context there; C{port} is its own port, or 0.
    """

    def __init__(self, protocol: str, address: int | str, tls: ssl.SSLContext) -> None:
        self._protocol = protocol
        self._tls = tls
        self._socket = _connect(address)
        self.port: int = 0 if isinstance(address, str) else self._socket.getsockname()[1]
        self._stream = self._socket.makefile("rb")
        self._closed = False
        self._listing = False
        self.said: list[tuple[str, bytes]] = []

    def begin(self, first: str, withTLS: bool) -> None:
        """Send C{first}, start TLS if the server expects it, and read the greeting."""
        if first:
            self._send(first.encode("latin-1"))
        if withTLS:
            self._shakeHands()
        if not self._closed:
            self._hear(line=self._protocol != "smtp")

    def follow(self, steps: Iterable[Step]) -> None:
        """Do C{steps}."""
        for step in steps:
            if step is TLS:
                self._shakeHands()
            elif isinstance(step, str):
                self._exchange(step + "\r\n", 1)
            elif isinstance(step, Raw):
                self._exchange(step.data, step.replies)

    def finish(self) -> None:
        """Send NOOP, then let the other side close."""
        self._exchange(NOOP[self._protocol] + "\r\n", 1)
        if not self._closed:
            # Not the method of the TLS socket, which would end TLS and lose what still arrives.
            with socket.socket(fileno=socket.dup(self._socket.fileno())) as below:
                _shutdown(below)
            self._rest()
        self._stream.close()
        self._socket.close()

    def _rest(self) -> None:
        try:
            if data := self._stream.read():
                self.said.append(("S: ", data))
        except TimeoutError:
            self._end("left open")
        except OSError:
            # A reset counts as an end.
            return

    def _exchange(self, data: str, replies: int) -> None:
        if self._closed:
            return
        if data:
            self._send(data.encode("latin-1"))
        for _ in range(replies):
            if not self._closed:
                self._hear()

    def _send(self, data: bytes) -> None:
        self.said.append(("C: ", data))
        try:
            self._socket.sendall(data)
        except OSError:
            self._end("closed")

    def _shakeHands(self) -> None:
        if self._closed:
            return
        try:
            self._socket = self._tls.wrap_socket(self._socket, server_hostname="localhost")
        except OSError:
            self._end("no TLS")
            return
        self._stream = self._socket.makefile("rb")
        self.said.append(("[TLS]", b""))

    def _end(self, how: str) -> None:
        self._closed = True
        self.said.append((f"[{how}]", b""))

    def _hear(self, *, line: bool = False) -> None:
        """Record a reply with all its lines, or only the next C{line}, or its absence."""
        try:
            while data := self._stream.readline():
                self.said.append(("S: ", data))
                if line or self._isLast(data):
                    return
            self._end("closed")
        except TimeoutError:
            self._end("silence")
        except OSError:
            self._end("closed")

    def _isLast(self, line: bytes) -> bool:
        """Whether C{line} is the last line of a reply."""
        if line.startswith(_LISTS):
            self._listing = True
        if self._listing:
            self._listing = line != b".\r\n"
            return not self._listing
        return _FINAL[self._protocol].match(line) is not None


def _shutdown(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        # It is closed already.
        return


def _connect(address: int | str) -> socket.socket:
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), PATIENCE)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(PATIENCE)
    connection.connect(address)
    return connection
