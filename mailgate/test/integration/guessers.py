# -*- test-case-name: mailgate.test.integration.test_attack -*-
"""
Clients that guess passwords, from addresses of 127.0.0.0/8.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

__all__ = ["LIMITED", "WRONG", "Guessers", "login"]

WRONG = b"NO Invalid login or password"
"""The answer to a wrong password: the words of the authentication service."""

LIMITED = (b"NO [UNAVAILABLE]", b"* BYE [UNAVAILABLE]")
"""The beginnings of what a client hears from a limit, at the login and at the greeting."""

_STOPPING = b"* BYE Gateway is shutting down"

_PATIENCE = 60.0
_PAUSE = 0.05
"""Seconds before an attacker connects again."""


class _Ended(Exception):
    """The connection has ended; its argument is the last line."""


class _Client:
    def __init__(self, port: int, source: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), _PATIENCE, (source, 0))
        self._lines = self._socket.makefile("rb")
        self._number = 0
        self._line(b"* OK")

    def _line(self, start: bytes) -> bytes:
        last = b""
        while line := self._lines.readline():
            last = line.rstrip()
            if last.startswith(start):
                return last
        raise _Ended(last)

    def login(self, user: str, password: str) -> bytes:
        self._number += 1
        tag = b"a%d " % self._number
        self._socket.sendall(tag + f"LOGIN {user} {password}\r\n".encode())
        return self._line(tag)[len(tag) :]

    def hangUp(self) -> None:
        """End the connection, from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def login(port: int, source: str, user: str, password: str) -> tuple[bytes, float]:
    """
    Log in once.

    @param port: the gateway's port of 127.0.0.1.
    @param source: the client's address.
    @param user: the user.
    @param password: the password.
    @return: the answer without its tag, or the last line if the connection ended; and the seconds since it began.
    """
    began = time.monotonic()
    try:
        client = _Client(port, source)
    except _Ended as error:
        return error.args[0], time.monotonic() - began
    try:
        return client.login(user, password), time.monotonic() - began
    except (_Ended, OSError) as error:
        return error.args[0] if isinstance(error, _Ended) else b"", time.monotonic() - began
    finally:
        client.close()


class Guessers:
    """
    Attackers that guess until the end of the C{with} block, as fast as they get answers. They connect again when they
    are disconnected. No guess comes twice.

    @ivar answers: how often they got each answer, without the tag.
    """

    def __init__(self, port: int, sources: Iterable[str], each: int, user: Callable[[int], str]) -> None:
        """
        @param port: the gateway's port of 127.0.0.1.
        @param sources: their addresses.
        @param each: how many connections each address has.
        @param user: returns the user for a guess with that number.
        """
        self.answers: Counter[bytes] = Counter()
        self._port = port
        self._user = user
        self._numbers = itertools.count()
        self._isOver = threading.Event()
        self._clients: set[_Client] = set()
        self._threads = [
            threading.Thread(target=self._guess, args=(source,), daemon=True) for source in sources for _ in range(each)
        ]

    def __enter__(self) -> Guessers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._isOver.set()
        for client in list(self._clients):
            client.hangUp()
        for thread in self._threads:
            thread.join(2 * _PATIENCE)

    def wrong(self) -> int:
        """How often they heard that the password is wrong."""
        return sum(count for answer, count in self.answers.items() if answer.startswith(WRONG))

    def others(self) -> list[bytes]:
        """What they heard beside that, the words of limits, and that the gateway stops."""
        known = (WRONG, _STOPPING, *LIMITED)
        return [answer for answer in self.answers if answer and not answer.startswith(known)]

    def limited(self) -> int:
        """How often they heard the words of a limit at the login."""
        return sum(count for answer, count in self.answers.items() if answer.startswith(LIMITED[0]))

    def _guess(self, source: str) -> None:
        while not self._isOver.is_set():
            try:
                client = _Client(self._port, source)
                self._clients.add(client)
                try:
                    while not self._isOver.is_set():
                        number = next(self._numbers)
                        self.answers[client.login(self._user(number), f"guess{number}")] += 1
                finally:
                    self._clients.discard(client)
                    client.close()
            except _Ended as error:
                self.answers[error.args[0]] += 1
            except OSError:
                # The gateway restarts, or has closed the connection.
                self.answers[b""] += 1
            self._isOver.wait(_PAUSE)
