# -*- test-case-name: mailgate.test.differential -*-
"""
An authentication service and backends that answer as a script says.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Mapping

from mailgate.test.differential.script import CLOSE, RESET, SILENCE, Backend
from mailgate.test.differential.wire import PROXY_V2, Record, Wire

__all__ = ["BackendPeer", "Peer", "ServicePeer"]


class Peer:
    """
    Listens on a free port of 127.0.0.1, and answers the connections. The pieces of an answer are sent one by one.

    @param name: the name of the peer in the record.
    @param record: what the peer receives is recorded there.
    @param isDown: whether connections are refused.
    @ivar wires: the connections.
    """

    def __init__(self, name: str, record: Record, isDown: bool = False) -> None:
        self.name = name
        self.record = record
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.setblocking(False)
        if not isDown:
            self._listening.listen(64)
        self._isDown = isDown
        self.port: int = self._listening.getsockname()[1]
        record.names[self.port] = name
        self.wires: list[Wire] = []
        self._queues: list[list[str]] = []

    def accept(self) -> bool:
        """Accept what connects. Return whether anything did."""
        if self._isDown:
            return False
        accepted = False
        while True:
            try:
                connection, (_, source) = self._listening.accept()
            except BlockingIOError:
                return accepted
            accepted = True
            number = len(self.wires)
            name = f"{self.name}.{number + 1}"
            # Some messages to a peer have the gateway's own address. The system may give its port to a client as well,
            # which has the name then: its address is in more texts.
            self.record.names.setdefault(source, f"source of {name}")
            self.record.event(name, "connected")
            self._queues.append([])
            self.wires.append(Wire(connection, name, self.record, self.handler(number)))
            self.connected(number)

    def handler(self, number: int) -> Callable[[bytes], None]:
        """
        Return what is called with the data of a connection, and with nothing at its end.

        @param number: the number of the connection, from 0.
        """
        raise NotImplementedError

    def connected(self, number: int) -> None:
        """
        A connection begins.

        @param number: its number, from 0.
        """

    def say(self, number: int, pieces: list[str]) -> None:
        """
        Send an answer.

        @param number: the number of the connection.
        @param pieces: the pieces.
        """
        self._queues[number] += pieces

    def ended(self, number: int) -> None:
        """
        The gateway has closed a connection: close it, after the pieces that are still to be sent.

        @param number: the number of the connection.
        """
        self._queues[number] = [CLOSE]

    def speak(self) -> bool:
        """Send the next piece of each answer. Return whether there was any."""
        spoke = False
        for number, queue in enumerate(self._queues):
            if queue:
                spoke = True
                self._send(number, queue.pop(0))
        return spoke

    def _send(self, number: int, piece: str) -> None:
        wire = self.wires[number]
        if piece == CLOSE:
            wire.close()
        elif piece == RESET:
            wire.reset()
        elif piece == SILENCE:
            self.silence(number)
        else:
            wire.send(self.filled(piece))

    def silence(self, number: int) -> None:
        """
        Answer nothing more.

        @param number: the number of the connection.
        """

    def filled(self, text: str) -> bytes:
        """
        Return the bytes of a text, with ports in place of their names.

        @param text: the text.
        """
        for port, name in self.record.names.items():
            text = text.replace(f"<{name}>", str(port))
        return text.encode("latin-1")

    def stop(self) -> None:
        """Close everything."""
        self._listening.close()
        for wire in self.wires:
            wire.close()


class ServicePeer(Peer):
    """
    The authentication service.

    @param record: as for L{Peer}.
    @param answers: the answers, the last of which is repeated. Without any it is down.
    """

    def __init__(self, record: Record, answers: list[list[str]]) -> None:
        super().__init__("service", record, isDown=not answers)
        self._answers = list(answers)

    def handler(self, number: int) -> Callable[[bytes], None]:
        buffer = bytearray()

        def received(data: bytes) -> None:
            if not data:
                self.ended(number)
            buffer.extend(data)
            while (end := buffer.find(b"\r\n\r\n")) >= 0:
                del buffer[: end + 4]
                self.say(number, self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])

        return received


_LITERAL = re.compile(rb"\{(\d+)(\+?)\}\r?\n\Z")

_STARTTLS = {"imap": "STARTTLS", "pop3": "STLS", "smtp": "STARTTLS"}

_USUAL: Mapping[str, dict[str, list[str]]] = {
    "imap": {
        "GREETING": ["* OK backend ready\r\n"],
        "LITERAL": ["+ go ahead\r\n"],
        "LOGIN": ["TAG OK logged in\r\n"],
        "CAPABILITY": ["* CAPABILITY IMAP4rev1 IDLE AUTH=PLAIN\r\nTAG OK done\r\n"],
        "LOGOUT": ["* BYE see you\r\nTAG OK bye\r\n", CLOSE],
        "": ["TAG OK backend\r\n"],
    },
    "pop3": {
        "GREETING": ["+OK backend ready\r\n"],
        "PASS": ["+OK logged in\r\n"],
        "CAPA": ["+OK list\r\nUSER\r\nTOP\r\n.\r\n"],
        "QUIT": ["+OK bye\r\n", CLOSE],
        "": ["+OK backend\r\n"],
    },
    "smtp": {
        "GREETING": ["220 backend ESMTP\r\n"],
        "EHLO": ["250-backend\r\n250-XCLIENT NAME ADDR LOGIN\r\n250 AUTH PLAIN LOGIN\r\n"],
        "XCLIENT": ["220 backend ESMTP again\r\n"],
        "AUTH": ["235 2.7.0 backend knows you\r\n"],
        "DATA": ["354 go ahead\r\n"],
        "STARTTLS": ["220 2.0.0 begin\r\n"],
        "QUIT": ["221 bye\r\n", CLOSE],
        "": ["250 2.0.0 backend\r\n"],
    },
}


class BackendPeer(Peer):
    """
    A backend.

    @param name: as for L{Peer}.
    @param record: as for L{Peer}.
    @param protocol: its protocol.
    @param script: what it answers.
    @param context: its TLS context.
    """

    def __init__(
        self, name: str, record: Record, protocol: str, script: Backend, context: ssl.SSLContext | None
    ) -> None:
        super().__init__(name, record, script.isDown)
        self._protocol = protocol
        self._script = script
        self._context = context
        self._replies = {**_USUAL[protocol], **script.replies}
        self._muted: set[int] = set()

    def connected(self, number: int) -> None:
        if self._script.tls == "on":
            self._wrap(number)
        self.say(number, self._replies["GREETING"])

    def _wrap(self, number: int) -> None:
        assert self._context is not None
        self.wires[number].startTLS(self._context, True)

    def silence(self, number: int) -> None:
        self._muted.add(number)

    def handler(self, number: int) -> Callable[[bytes], None]:
        state = _Reading()

        def received(data: bytes) -> None:
            if not data:
                self.ended(number)
            elif number not in self._muted:
                for word, tag in state.commands(data):
                    self._reply(number, word, tag)

        return received

    def _reply(self, number: int, whole: str, tag: str) -> None:
        word = whole
        if whole not in self._replies:
            words = whole.split(" ")
            word = (words[1] if len(words) > 1 else "") if self._protocol == "imap" else words[0]
            if whole == "LITERAL":
                word = ""
        reply = self._replies.get(word, self._replies[""])
        self.say(number, [piece.replace("TAG", tag) for piece in reply])
        if self._script.tls == "starttls" and word == _STARTTLS[self._protocol]:
            self._queues[number].append("<tls>")

    def _send(self, number: int, piece: str) -> None:
        if piece == "<tls>":
            self._wrap(number)
        else:
            super()._send(number, piece)
            if self._queues[number][:1] == ["<tls>"]:
                # Before the handshake comes.
                self._send(number, self._queues[number].pop(0))


class _Reading:
    """Finds commands in a stream."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        self._command = b""

    def commands(self, data: bytes) -> list[tuple[str, str]]:
        """
        Return the commands that C{data} completes, in capitals, and their tags. C{LITERAL} is the command for a
        literal that waits for an answer.
        """
        self._buffer += data
        found: list[tuple[str, str]] = []
        if self._buffer.startswith(PROXY_V2) and len(self._buffer) >= 16:
            self._skip = 16 + int.from_bytes(self._buffer[14:16], "big")
        while self._buffer:
            taken = min(self._skip, len(self._buffer))
            del self._buffer[:taken]
            self._skip -= taken
            end = self._buffer.find(b"\n")
            if self._skip or end < 0:
                break
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            if not self._command and line.startswith(b"PROXY "):
                continue
            self._command = self._command or line
            tag = self._command.partition(b" ")[0].decode("latin-1").strip()
            if literal := _LITERAL.search(line):
                self._skip = int(literal[1])
                if not literal[2]:
                    found.append(("LITERAL", tag))
                continue
            found.append((self._command.decode("latin-1").strip().upper(), tag))
            self._command = b""
        return found
