# -*- test-case-name: mailgate.test.integration -*-
"""
A name server with a zone of the tests, over UDP and TCP.
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.names import dns

__all__ = ["NameServer", "Reply"]


@frozen
class Reply:
    """The reply to a question: a code, and records of the question's name. A C{silent} one is not sent."""

    records: tuple[Any, ...] = ()
    code: int = dns.OK
    silent: bool = False
    truncated: bool = False
    raw: bytes = b""
    ttl: int = 60

    def message(self, question: dns.Message, stream: bool) -> bytes:
        """The reply to C{question}; truncated if C{truncated}, unless this is a C{stream}."""
        if self.raw:
            return struct.pack("!H", question.id) + self.raw
        cut = self.truncated and not stream
        answer = dns.Message(question.id, answer=1, recDes=1, recAv=1, rCode=self.code, trunc=cut, maxSize=0)
        answer.queries = question.queries
        name = question.queries[0].name.name
        if not cut:
            answer.answers = [dns.RRHeader(name, record.TYPE, ttl=self.ttl, payload=record) for record in self.records]
        return answer.toStr()


NOT_FOUND = Reply(code=dns.ENAME)


class NameServer:
    """
    Listens on C{port} of 127.0.0.1 and replies from C{zone}, which has a L{Reply} for each name and type. Other names
    do not exist. C{asked} has all questions.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[bytes, int], Reply] = {}
        self.asked: list[tuple[bytes, int]] = []
        self._streams = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._streams.getsockname()[1]
        self._datagrams = socket.socket(type=socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", self.port))
        for serve in (self._serveDatagrams, self._serveStreams):
            threading.Thread(target=serve, daemon=True).start()

    def point(self, address: str, name: bytes, *back: str, **reply: Any) -> None:
        """C{address} has the name C{name}, which has the addresses C{back}."""
        reverse = ip_address(address).reverse_pointer.encode()
        self.zone[reverse, dns.PTR] = Reply((dns.Record_PTR(name, reply.get("ttl", 60)),), **reply)
        lower = name.lower()
        self.zone[lower, dns.A] = Reply(tuple(dns.Record_A(a) for a in back if ":" not in a), **reply)
        self.zone[lower, dns.AAAA] = Reply(tuple(dns.Record_AAAA(a) for a in back if ":" in a), **reply)

    def reply(self, address: str, **reply: Any) -> None:
        """The question for the name of C{address} gets that L{Reply}."""
        self.zone[ip_address(address).reverse_pointer.encode(), dns.PTR] = Reply(**reply)

    def stop(self) -> None:
        """Stop."""
        for listening in (self._streams, self._datagrams):
            # Closing alone does not wake a thread that waits there.
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def _answer(self, data: bytes, stream: bool) -> bytes:
        question = dns.Message()
        question.fromStr(data)
        asked = question.queries[0]
        key = (asked.name.name.lower(), asked.type)
        self.asked.append(key)
        reply = self.zone.get(key, NOT_FOUND)
        return b"" if reply.silent else reply.message(question, stream)

    def _serveDatagrams(self) -> None:
        with suppress(OSError):
            while True:
                data, sender = self._datagrams.recvfrom(4096)
                answer = self._answer(data, False) if data else b""
                if answer:
                    self._datagrams.sendto(answer, sender)

    def _serveStreams(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._streams.accept()
                with connection:
                    self._serveStream(connection)

    def _serveStream(self, connection: socket.socket) -> None:
        # The peer may leave in the middle of its question.
        with suppress(OSError, EOFError), connection.makefile("rb") as received:
            length = received.read(2)
            if len(length) == 2:
                answer = self._answer(received.read(struct.unpack("!H", length)[0]), True)
                connection.sendall(struct.pack("!H", len(answer)) + answer)
