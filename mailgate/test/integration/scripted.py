# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
An authentication service and backends that reply as a conversation describes, and record every byte that they receive.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO

from mailgate.test.integration.daemon import freePort

__all__ = ["ACCEPT", "BEGUN", "PATIENCE", "SILENCE", "Replies", "ScriptedAuth", "ScriptedBackend", "TLSBackend"]

PATIENCE = 10.0
"""Seconds to wait for a peer that should close the connection."""

ACCEPT = "Auth-Status: OK\nAuth-Server: 127.0.0.1\nAuth-Port: <PORT>"
"""The usual reply; C{<PORT>} becomes the port of the backend, C{<NOBODY>} a closed port."""

SILENCE = "…"
"""An empty reply: the connection stays open until the peer closes it."""

Replies = Mapping[str, str]


class _Listening:
    """
    Listens on C{port} of 127.0.0.1, and serves each client in its own thread. C{heard} has what clients sent since
    L{rewind}, one after the other.

    @param host: another address to listen on.
    @param port: the port; 0 takes a free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.port = port or freePort()
        self.heard: list[bytearray] = []
        self._open: list[tuple[threading.Thread, socket.socket]] = []
        self._listening = socket.create_server((host, self.port), backlog=512)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                thread = threading.Thread(target=self._attend, args=(connection,), daemon=True)
                self._open.append((thread, connection))
                thread.start()

    def _attend(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            self.converse(connection, stream)

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        """Talk to a client until one side closes."""
        raise NotImplementedError

    def rewind(self) -> None:
        """Start a new conversation."""
        self.heard = []

    def settle(self) -> None:
        """
        Wait until all clients have left.

        @raise AssertionError: one has not left.
        """
        for thread, _ in self._open:
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"a connection to port {self.port} is left open"
        self._open.clear()

    def stop(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hangUp()

    def hangUp(self) -> None:
        """Close all connections."""
        for _, connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()


class ScriptedAuth(_Listening):
    """
    Replies to the requests of a conversation with its C{answers}, the last of which is repeated. C{ports} replace the
    words in the answers.

    An answer is the header lines. One that begins with C{HTTP/} has a status line of its own. An empty one closes the
    connection. After L{SILENCE} the connection stays open.
    """

    ports: Mapping[str, int] = {}

    def script(self, answers: Sequence[str]) -> None:
        """Start a new conversation, which does not use the connections of the last one."""
        self.hangUp()
        self.rewind()
        self._answers = list(answers)

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        while head := self._head(stream):
            self.heard.append(bytearray(head))
            answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
            if answer == SILENCE:
                stream.read()
            if answer in ("", SILENCE):
                return
            connection.sendall(self._reply(answer))
            if b" HTTP/1.0\r\n" in head:
                return

    def _head(self, stream: BinaryIO) -> bytes:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = stream.readline()
            if not line:
                return b""
            head += line
        return head

    def _reply(self, answer: str) -> bytes:
        if not answer.startswith("HTTP/"):
            answer = "HTTP/1.1 200 OK\n" + answer
        for word, port in self.ports.items():
            answer = answer.replace(f"<{word}>", str(port))
        # nginx stops reading at the blank line; a client that keeps the connection needs to know that no body follows.
        return (answer + "\nContent-Length: 0\n\n").replace("\n", "\r\n").encode("latin-1")


_LITERAL = re.compile(rb"\{(\d+)\}\r?\n\Z")

_SIEVE = '"IMPLEMENTATION" "backend"\n"SIEVE" "fileinto"\n"SASL" "PLAIN"\n"VERSION" "1.0"\n{}OK "backend {}"'

_REPLIES: Mapping[str, Replies] = {
    "imap": {
        "GREETING": "* OK backend ready",
        "LITERAL": "+ go ahead",
        "LOGIN": "TAG OK logged in",
        "": "TAG OK backend",
    },
    "pop3": {"GREETING": "+OK backend ready", "PASS": "+OK logged in", "": "+OK backend"},
    "sieve": {
        "GREETING": _SIEVE.format('"STARTTLS"\n', "ready"),
        "SECURED": _SIEVE.format("", "secured"),
        "AUTHENTICATE": 'OK "logged in"',
        "": 'OK "backend"',
    },
    "smtp": {
        "GREETING": "220 backend ESMTP",
        "EHLO": "250-backend\n250-XCLIENT NAME ADDR LOGIN\n250 AUTH PLAIN LOGIN",
        "XCLIENT": "220 backend ESMTP again",
        "AUTH": "235 2.7.0 backend knows you",
        "DATA": "354 go ahead",
        "STARTTLS": "220 2.0.0 begin",
        "": "250 2.0.0 backend",
    },
}
"""The replies of backends to each command; that of the empty name is for all others."""


class ScriptedBackend(_Listening):
    """
    A backend that speaks C{protocol}. L{script} sets replies that differ from the usual ones, by command, or by its
    whole line in capitals. An empty reply closes the connection. In IMAP's replies C{TAG} is the tag, and C{LITERAL}
    replies to a literal.
    """

    def __init__(self, protocol: str, host: str = "127.0.0.1", port: int = 0) -> None:
        self._protocol = protocol
        self.script({})
        super().__init__(host, port)

    def script(self, replies: Replies) -> None:
        """Start a new conversation."""
        self.rewind()
        self.reply(replies)

    def reply(self, replies: Replies) -> None:
        """Reply so from now on, in the conversations that exist as well."""
        self._replies = {**_REPLIES[self._protocol], **replies}

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        heard = bytearray()
        self.heard.append(heard)
        with suppress(_Closed):
            self._say(connection, stream, "GREETING")
            while line := self._hear(heard, stream.readline()):
                if line.startswith(b"PROXY "):
                    continue
                tag, word = self._wordsOf(line)
                while literal := _LITERAL.search(line):
                    self._say(connection, stream, "LITERAL", tag)
                    self._hear(heard, stream.read(int(literal[1])))
                    line = self._hear(heard, stream.readline())
                self._say(connection, stream, word, tag)
                if word in ("QUIT", "LOGOUT"):
                    return
                connection, stream = self._goneOn(connection, stream, word)

    def _goneOn(self, connection: socket.socket, stream: BinaryIO, word: str) -> tuple[socket.socket, BinaryIO]:
        """What the conversation goes on over, once the command C{word} has been answered."""
        return connection, stream

    def _wordsOf(self, line: bytes) -> tuple[str, str]:
        """The tag of a command, and its word."""
        whole = line.decode("latin-1").strip().upper()
        if self._protocol != "imap":
            return "", whole if whole in self._replies else whole.partition(" ")[0]
        tag, word, *_ = [*line.decode("latin-1").split(), "", ""]
        return tag, word.upper()

    def _hear(self, heard: bytearray, data: bytes) -> bytes:
        heard += data
        return data

    def _say(self, connection: socket.socket, stream: BinaryIO, word: str, tag: str = "") -> None:
        reply = self._replies.get(word, self._replies[""])
        if reply == SILENCE:
            stream.read()
        if reply in ("", SILENCE):
            raise _Closed
        connection.sendall((reply.replace("TAG", tag) + "\n").replace("\n", "\r\n").encode("latin-1"))


class _Closed(Exception):
    """The backend sends nothing more."""


BEGUN = b"(TLS)\r\n"
"""What separates clear text from what came over TLS."""

_BEGINNINGS = {
    "imap": ("STARTTLS", "TAG OK"),
    "pop3": ("STLS", "+OK"),
    "smtp": ("STARTTLS", "220"),
    "sieve": ("STARTTLS", "OK"),
}
"""The command that begins TLS, and a part of the reply that accepts it."""


class TLSBackend(ScriptedBackend):
    """
    A backend that speaks TLS: from the first byte on if it C{isImplicit}, otherwise after its reply to STARTTLS. If
    C{TLS} is among the replies of the script there is no handshake: for L{SILENCE} the backend sends nothing more, for
    an empty reply it closes the connection. In C{heard} L{BEGUN} separates the clear text from what came over TLS.

    @param context: the server's TLS context.
    @param isImplicit: whether it speaks TLS from the first byte on.
    @ivar resumed: for each handshake whether it resumed an earlier session.
    """

    def __init__(self, protocol: str, context: ssl.SSLContext, isImplicit: bool = False) -> None:
        self._context = context
        self._isImplicit = isImplicit
        self.resumed: list[bool] = []
        super().__init__(protocol)

    def rewind(self) -> None:
        super().rewind()
        self.resumed = []

    def converse(self, connection: socket.socket, stream: BinaryIO) -> None:
        if self._isImplicit:
            with suppress(_Closed):
                connection, stream = self._wrapped(connection)
                with connection, stream:
                    super().converse(connection, stream)
        else:
            super().converse(connection, stream)

    def _goneOn(self, connection: socket.socket, stream: BinaryIO, word: str) -> tuple[socket.socket, BinaryIO]:
        command, agreeing = _BEGINNINGS[self._protocol]
        isBegun = word == command and agreeing in self._replies.get(word, self._replies[""])
        if not isBegun:
            return connection, stream
        self.heard[-1] += BEGUN
        wrapped = self._wrapped(connection)
        if "SECURED" in self._replies:
            # ManageSieve's list comes again (RFC 5804, section 2.2).
            self._say(*wrapped, "SECURED")
        return wrapped

    def _wrapped(self, connection: socket.socket) -> tuple[socket.socket, BinaryIO]:
        if "TLS" in self._replies:
            if self._replies["TLS"] == SILENCE:
                connection.makefile("rb").read()
            raise _Closed
        # Without it the greeting waits until the client has acknowledged the tickets.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self._context.wrap_socket(connection, server_side=True)
        self.resumed.append(bool(wrapped.session_reused))
        return wrapped, wrapped.makefile("rb")
