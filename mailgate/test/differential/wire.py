# -*- test-case-name: mailgate.test.differential -*-
"""
A non-blocking connection whose bytes and end are recorded.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["PROXY_V2", "Record", "Wire"]

READ_AT_ONCE = 262144

SHOWN = 400
"""Longer data is recorded by its beginning, its length and its hash."""

_PORT = re.compile(r"(?<!\d)\d{5}(?!\d)")
"""Ports that the system chooses have five digits."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")

_BEARER_PORT = re.compile(rb"\x01port=(\d{5})\x01")

_CHECKSUM = re.compile(rb"(\x03\0\x04)....", re.DOTALL)

PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"


class Record:
    """
    What happens in one step of a conversation.

    @ivar names: the names of ports.
    """

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self._step: dict[str, list[str | bytearray]] = {}

    def data(self, wire: str, data: bytes) -> None:
        """
        Record data.

        @param wire: the name of the receiver.
        @param data: the bytes.
        """
        events = self._step.setdefault(wire, [])
        if not events or isinstance(events[-1], str):
            events.append(bytearray())
        last = events[-1]
        assert isinstance(last, bytearray)
        last += data

    def event(self, wire: str, text: str) -> None:
        """
        Record something else.

        @param wire: the name of the receiver.
        @param text: what happens.
        """
        self._step.setdefault(wire, []).append(text)

    def take(self) -> dict[str, list[str]]:
        """Return what has happened since the last call, by wire. Data begins with C{>}, other events with C{!}."""
        step, self._step = self._step, {}
        return {wire: [self._shown(wire, event) for event in step[wire]] for wire in sorted(step)}

    def named(self, text: str) -> str:
        """
        Return a text with names in place of ports.

        @param text: the text.
        """
        return _PORT.sub(self._portName, text)

    def _portName(self, found: re.Match[str]) -> str:
        name = self.names.get(int(found[0]))
        return found[0] if name is None else f"<{name}>"

    def _shown(self, wire: str, event: str | bytearray) -> str:
        if isinstance(event, str):
            return "!" + self.named(event)
        data = bytes(event)
        if data.startswith(PROXY_V2) and len(data) >= 28:
            data = self._proxyHeader(data)
        if (hello := data.find(b"\x16\x03\x01")) >= 0:
            # The peer does not speak TLS.
            data = data[:hello] + b"<TLS ClientHello>"
        text = self.named(_BASE64.sub(self._decoded, data).decode("latin-1"))
        if len(text) <= SHOWN:
            return ">" + text
        digest = hashlib.sha256(text.encode("latin-1")).hexdigest()[:16]
        return f">{text[: SHOWN // 4]}<{len(text)} bytes, sha256 {digest}>"

    def _decoded(self, found: re.Match[bytes]) -> bytes:
        """Return base64 that has a port in the clear."""
        try:
            clear = base64.b64decode(found[0], validate=True)
        except ValueError:
            return found[0]
        port = _BEARER_PORT.search(clear)
        return b"base64(%b)" % clear if port and int(port[1]) in self.names else found[0]

    def _proxyHeader(self, data: bytes) -> bytes:
        end = 16 + int.from_bytes(data[14:16], "big")
        place = {0x11: 24, 0x21: 48}.get(data[13], 12)
        ports = struct.unpack("!HH", data[place : place + 4]) if place > 12 else ()
        names = b"".join(b"<%b>" % self.names.get(port, str(port)).encode() for port in ports)
        # The checksum covers the ports.
        further = _CHECKSUM.sub(b"\\1<checksum>", data[place + 4 : end], count=1)
        return data[:place] + names + further + data[end:]


class Wire:
    """
    One end of a connection.

    @param connection: the connected socket.
    @param name: its name in the record.
    @param record: what it receives is recorded there.
    @param received: called with data.
    @ivar isDeaf: whether it reads nothing.
    @ivar isOpen: whether anything can still be received.
    """

    def __init__(
        self,
        connection: socket.socket,
        name: str,
        record: Record,
        received: Callable[[bytes], object] = lambda data: None,
    ) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self.name = name
        self._record = record
        self._received = received
        self._out = bytearray()
        self._tls: ssl.SSLObject | None = None
        self._isShaking = False
        self._isEnding = False
        self._isGone = False
        self.isDeaf = False
        self.isOpen = True
        self.session: Any = None

    def fileno(self) -> int:
        """The descriptor."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """
        Send data, or later what of it does not fit.

        @param data: the bytes.
        """
        if self._isGone:
            return
        if self._tls is None:
            self._out += data
        elif self._isShaking:
            self._clear += data
        else:
            self._encrypt(data)
        self._flush()

    def _encrypt(self, data: bytes) -> None:
        assert self._tls is not None
        try:
            for start in range(0, len(data), 16384):
                self._tls.write(data[start : start + 16384])
        except ssl.SSLError as error:
            self._record.event(self.name, f"TLS error {error.reason}")
        self._out += self._outgoing.read()

    def startTLS(self, context: ssl.SSLContext, isServer: bool, session: Any = None) -> None:
        """
        Begin a handshake.

        @param context: the context.
        @param isServer: whether this is the server's side.
        @param session: a session to resume.
        """
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if isServer else "localhost"
        self._tls = context.wrap_bio(self._incoming, self._outgoing, isServer, name, session)
        self._isShaking = True
        self._clear = b""
        self._shake()

    def _shake(self) -> None:
        assert self._tls is not None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._isShaking = False
            self._record.event(self.name, f"TLS refused {error.reason}")
        else:
            self._isShaking = False
            resumed = " resumed" if self._tls.session_reused else ""
            self._record.event(self.name, f"TLS {self._tls.version()}{resumed}")
            self._encrypt(self._clear)
        self._out += self._outgoing.read()
        self._flush()

    def _flush(self) -> bool:
        """Return whether anything was sent."""
        before = len(self._out)
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                break
            except OSError:
                self._out.clear()
                break
            del self._out[:sent]
        if self._isEnding and not self._out:
            self._isEnding = False
            self._shut()
        return len(self._out) < before

    def work(self) -> bool:
        """Send and receive what is possible. Return whether anything was."""
        if self._isGone:
            return False
        worked = self._flush() if self._out or self._isEnding else False
        while self.isOpen and not self.isDeaf and not self._isGone:
            try:
                data = self._socket.recv(READ_AT_ONCE)
            except BlockingIOError:
                break
            except OSError as error:
                self._end("reset" if isinstance(error, ConnectionResetError) else f"error {error.errno}")
                return True
            worked = True
            if not data:
                self._end("end")
                break
            if self._tls is None:
                self._take(data)
            else:
                self._decrypt(data)
        return worked

    def _end(self, event: str) -> None:
        self.isOpen = False
        self._record.event(self.name, event)
        self._received(b"")

    def _decrypt(self, data: bytes) -> None:
        assert self._tls is not None
        self._incoming.write(data)
        if self._isShaking:
            self._shake()
            if self._isShaking:
                return
        while True:
            try:
                clear = self._tls.read(READ_AT_ONCE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                clear = b""
            except ssl.SSLError as error:
                self._record.event(self.name, f"TLS error {error.reason}")
                break
            if not clear:
                self._record.event(self.name, "close_notify")
                break
            self._take(clear)
        self.session = self._tls.session
        self._out += self._outgoing.read()
        self._flush()

    def _take(self, data: bytes) -> None:
        self._record.data(self.name, data)
        self._received(data)

    def halfClose(self) -> None:
        """Send nothing more."""
        if not self._isGone:
            self._isEnding = True
            self._flush()

    def _shut(self) -> None:
        if self._tls is not None and not self._isShaking:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
            with suppress(OSError):
                self._socket.send(self._outgoing.read())
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection."""
        if not self._isGone:
            self._flush()
            self._isGone = True
            self.isOpen = False
            self._socket.close()

    def reset(self) -> None:
        """Reset the connection."""
        if not self._isGone:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._out.clear()
            self.close()
