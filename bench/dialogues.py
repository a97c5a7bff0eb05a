# -*- test-case-name: bench.test.test_dialogues -*-
"""
Logins by other protocols than IMAP: what a client says, and a backend that plays its part. The backend runs in threads
of the benchmark, behind a unix socket: its time is measured by nothing.
"""

from __future__ import annotations

import os
import socketserver
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from attrs import frozen

from bench.load import Connection, Script
from bench.processes import BenchmarkError

__all__ = ["DIALOGUES", "Dialogue", "serving", "visit"]


@frozen
class Dialogue:
    """
    A login and a logout by one protocol.

    @ivar greeting: how the server begins.
    @ivar commands: what the client says, each with the beginning of the last line of the right answer.
    @ivar backend: the backend's greeting.
    @ivar answers: what the backend answers, by the first word of the command.
    """

    greeting: bytes
    commands: Sequence[tuple[bytes, bytes]]
    backend: bytes
    answers: Mapping[bytes, bytes]


_GOODBYES = (b"QUIT",)

DIALOGUES = {
    "pop3": Dialogue(
        b"+OK",
        ((b"USER user0", b"+OK"), (b"PASS secret", b"+OK"), (b"QUIT", b"+OK")),
        b"+OK [XCLIENT] ready\r\n",
        dict.fromkeys((b"XCLIENT", b"USER", b"PASS", b"QUIT"), b"+OK\r\n"),
    ),
    "smtp": Dialogue(
        b"220 ",
        ((b"EHLO client.example", b"250 "), (b"AUTH PLAIN AHVzZXIwAHNlY3JldA==", b"235 "), (b"QUIT", b"221 ")),
        b"220 mx.example ESMTP\r\n",
        {
            b"EHLO": b"250-mx.example\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN\r\n250 AUTH PLAIN\r\n",
            b"XCLIENT": b"220 mx.example ESMTP\r\n",
            b"AUTH": b"235 2.7.0 welcome\r\n",
            b"QUIT": b"221 2.0.0 bye\r\n",
        },
    ),
}
"""The dialogues, by the names of the protocols."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # The connect to a unix socket fails at once where too many wait.
    request_queue_size = 1024


@contextmanager
def serving(dialogue: Dialogue, path: str) -> Iterator[None]:
    """
    Play the backend of C{dialogue} during the block.

    @param path: of its socket, on which it listens.
    """

    class Conversation(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.sendall(dialogue.backend)
            for line in self.rfile:
                word = line.split()[0].upper()
                self.request.sendall(dialogue.answers[word])
                if word in _GOODBYES:
                    break

    with _Server(path, Conversation) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            os.unlink(path)


def visit(connection: Connection, dialogue: Dialogue) -> Script[None]:
    """
    Connect, log in and log out, as the client of C{dialogue}.

    @raise BenchmarkError: the answer to a command is not the right one.
    """
    yield from connection.open()
    yield from _heard(connection, dialogue.greeting)
    for command, answer in dialogue.commands:
        connection.send(command + b"\r\n")
        yield from _heard(connection, answer)
    yield from connection.toEnd()


def _heard(connection: Connection, answer: bytes) -> Script[None]:
    line = yield from connection.line()
    while line[3:4] == b"-" and line[:3] == answer[:3]:
        line = yield from connection.line()
    if not line.startswith(answer):
        raise BenchmarkError(f"port {connection.address[1]} answered {line[:200]!r} in the place of {answer!r}")
