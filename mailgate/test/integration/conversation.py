# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
What clients, backends and the authentication service say to a proxy, written down; and what they hear.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from mailgate.test.integration.scripted import ACCEPT, PATIENCE, Replies

__all__ = ["NOOP", "TLS", "Conversation", "Listener", "Raw", "Transcript", "b64", "talk"]


@frozen
class Raw:
    """Bytes that a client sends, if any, and how many replies it then waits for."""

    data: str
    replies: int = 1


@frozen
class _TLS:
    """The client goes over to TLS."""


TLS = _TLS()

Step = str | Raw | _TLS
"""What a client does. A string is a line, to which the line end is added, and which one reply is awaited to."""


@frozen
class Conversation:
    """
    One connection of a client to the server called C{server}. First the greeting is read, then C{steps} are gone; at
    last NOOP shows whether anybody is there, and who. C{auth} are the answers of the authentication service, and
    C{backend} what the backend says otherwise than usual (L{mailgate.test.integration.scripted}).

    What is in C{first} the client says before all else, TLS and the greeting too; C{certificate} is what the client
    shows there, one of L{mailgate.test.integration.sides.CERTIFICATES}.
    """

    name: str
    server: str
    steps: tuple[Step, ...]
    auth: tuple[str, ...] = (ACCEPT,)
    backend: Replies = field(factory=dict)
    first: str = ""
    certificate: str = ""


@frozen
class Transcript:
    """
    What there is to compare of a conversation: what the client sent and got, what the authentication service was asked,
    what the backend was sent; a line each, in which everything that is not printable ASCII is escaped.
    """

    client: str
    auth: str
    backend: str


def lines(data: bytes, prefix: str) -> list[str]:
    """C{data} as a L{Transcript} shows it."""
    *ended, rest = data.split(b"\n")
    whole = [*(part + b"\n" for part in ended), *filter(None, [rest])]
    return [prefix + part.decode("latin-1").encode("unicode_escape").decode("ascii") for part in whole]


class Normal:
    """
    Makes what two proxies have said alike where it has to differ: ports, and the challenges of digest methods, which
    are numbered instead.
    """

    def __init__(self, ports: Mapping[int, str]) -> None:
        self._ports = {str(port).encode(): name.encode() for port, name in ports.items()}
        self._salts: dict[bytes, bytes] = {}

    def __call__(self, data: bytes) -> bytes:
        data = re.sub(rb"(?m)^((?:\+|334) )([A-Za-z0-9+/]{24,}=*)(?=\r\n)", self._challenge, data)
        data = re.sub(rb"<[0-9]+\.[0-9]+@", self._salt, data)
        return re.sub(rb"\b[0-9]{4,5}\b", lambda number: self._ports.get(number[0], number[0]), data)

    def _challenge(self, match: re.Match[bytes]) -> bytes:
        try:
            challenge = base64.b64decode(match[2], validate=True)
        except binascii.Error:
            return match[0]
        return match[1] + b"base64 of " + challenge

    def _salt(self, match: re.Match[bytes]) -> bytes:
        return self._salts.setdefault(match[0], b"<SALT%d@" % (len(self._salts) + 1))


_FINAL = {
    "imap": re.compile(rb"(?!\* )|\* BAD"),
    "pop3": re.compile(rb""),
    "smtp": re.compile(rb"[0-9]{3} "),
}
"""How the last line of a reply begins."""

_LISTS = (b"+OK Capability list follows", b"+OK methods supported")
"""How POP3's replies begin that a line with nothing but a dot ends."""

NOOP = {"imap": "zz NOOP", "pop3": "NOOP", "smtp": "NOOP"}
"""The command that asks whether anybody is there."""


class Listener:
    """A client connected to C{port}, which sends what it is told, and writes down what it hears in C{said}."""

    def __init__(self, protocol: str, port: int, trust: ssl.SSLContext) -> None:
        self._protocol = protocol
        self._trust = trust
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.port: int = self._socket.getsockname()[1]
        self._stream = self._socket.makefile("rb")
        self._closed = False
        self._listing = False
        self.said: list[tuple[str, bytes]] = []

    def begin(self, first: str, withTLS: bool) -> None:
        """Say C{first}, begin TLS if that is what the server expects, and read the greeting."""
        if first:
            self._send(first.encode("latin-1"))
        if withTLS:
            self._shakeHands()
        if not self._closed:
            self._hear(line=self._protocol != "smtp")

    def follow(self, steps: Iterable[Step]) -> None:
        """Go through C{steps}."""
        for step in steps:
            if step is TLS:
                self._shakeHands()
            elif isinstance(step, str):
                self._exchange(step + "\r\n", 1)
            elif isinstance(step, Raw):
                self._exchange(step.data, step.replies)

    def finish(self) -> None:
        """See whether anybody is there; then have the other side close."""
        self._exchange(NOOP[self._protocol] + "\r\n", 1)
        # Not the socket's own method: that would end TLS, too, and with it what could still be heard.
        with socket.socket(fileno=socket.dup(self._socket.fileno())) as below:
            _shutdown(below)
        if not self._closed:
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
            # A reset is an end, too.
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
            self._socket = self._trust.wrap_socket(self._socket, server_hostname="localhost")
        except OSError as error:
            self._end(f"no TLS: {type(error).__name__}")
            return
        self._stream = self._socket.makefile("rb")
        self.said.append(("[TLS]", b""))

    def _end(self, how: str) -> None:
        self._closed = True
        self.said.append((f"[{how}]", b""))

    def _hear(self, *, line: bool = False) -> None:
        """Write down a reply with all its lines, or just the next C{line}; or that there is none."""
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
        """Whether C{line} is the last of a reply."""
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


def talk(name: str, server: str, *steps: Step, auth: str | tuple[str, ...] = ACCEPT, **rest: Any) -> Conversation:
    """A L{Conversation}, shorter to write."""
    return Conversation(name, server, steps, (auth,) if isinstance(auth, str) else auth, **rest)


def b64(text: str) -> str:
    """C{text} in base64."""
    return base64.b64encode(text.encode("latin-1")).decode("ascii")
