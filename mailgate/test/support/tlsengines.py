"""
Engines under test, and pyOpenSSL's end of their connections, in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from mailgate.tls.engine import TLSEngine
from mailgate.tls.fastengine import FastBinding, FastEngine

__all__ = ["FAST", "FORGED", "Peer", "carry", "introduce", "readAll"]

FORGED = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record of data that no key has made."""

FAST = partial(FastEngine, binding=FastBinding(lib, ffi))


class Peer:
    """pyOpenSSL's end of a connection, in memory."""

    def __init__(self, connection: SSL.Connection) -> None:
        self.tls = connection
        self.handshaken = False

    def handshake(self) -> None:
        try:
            self.tls.do_handshake()
        except SSL.WantReadError:
            return
        self.handshaken = True

    def feed(self, data: Any) -> None:
        if data:
            self.tls.bio_write(bytes(data))

    def output(self) -> bytes:
        return self._all(self.tls.bio_read)

    def read(self) -> bytes:
        """Return all data that has arrived."""
        return self._all(self.tls.recv)

    def sealed(self, data: bytes) -> bytes:
        """Return C{data} encrypted."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.tls.send(rest) :]
        return self.output()

    def _all(self, receive: Callable[[int], bytes]) -> bytes:
        pieces = []
        try:
            while True:
                pieces.append(receive(65536))
        except SSL.WantReadError:
            return b"".join(pieces)


def carry(source: Any, target: Any) -> int:
    """Move the output of C{source} to C{target}, and return its length."""
    data = bytes(source.output())
    target.feed(data)
    return len(data)


def introduce(engine: TLSEngine, peer: Peer) -> None:
    """Perform the handshake, and deliver the session tickets."""
    for _ in range(4):
        for one, other in ((peer, engine), (engine, peer)):
            one.handshake()
            carry(one, other)
    assert engine.handshaken and peer.handshaken
    assert engine.read() is None and peer.read() == b""


def readAll(engine: TLSEngine) -> bytes:
    """Return all data that C{engine} has."""
    pieces = []
    while (data := engine.read()) is not None:
        assert len(data) > 0
        pieces.append(bytes(data))
    return b"".join(pieces)
