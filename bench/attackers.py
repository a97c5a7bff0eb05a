# -*- test-case-name: bench.test.test_attackers -*-
"""
Clients that guess passwords as fast as they get replies, and connect again when they are disconnected. They run in a
process of their own, so that they do not delay the clients that are measured::

    python -m bench.attackers DESCRIPTOR HOST PORT SOURCE CONNECTIONS PIPELINED

C{DESCRIPTOR} is a socket; every message to it gets the current L{Counts}. C{SOURCE} is the address from which all
connections come. C{PIPELINED} is the number of guesses that are sent at once.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from attrs import asdict, define, frozen

from bench.load import BIND_ADDRESS_NO_PORT
from bench.processes import BenchmarkError, Child, Children

__all__ = ["Attack", "Counts", "attack", "main"]

_SILENCE = 10
"""Seconds in which the attackers must return their counts."""

_AT_ONCE = 65536


@define
class Counts:
    """
    The counts of the attackers.

    @ivar judged: guesses that got a refusal of a wrong password.
    @ivar turnedAway: guesses that got a temporary failure.
    @ivar ended: connections that the gateway closed.
    @ivar endedAnswers: replies to guesses on these connections.
    @ivar most: the most replies to guesses on one connection.
    """

    judged: int = 0
    turnedAway: int = 0
    ended: int = 0
    endedAnswers: int = 0
    most: int = 0


@frozen
class Attack:
    """Running attackers."""

    child: Child
    control: socket.socket

    def counts(self) -> Counts:
        """
        The current counts.

        @raise BenchmarkError: the attackers have exited.
        """
        try:
            self.control.send(b"?")
            answer = self.control.recv(_AT_ONCE)
        except OSError:
            answer = b""
        if not answer:
            self.child.check()
            raise BenchmarkError(f"the attackers do not answer; they said: {self.child.said()}")
        return Counts(**json.loads(answer))


@contextmanager
def attack(
    children: Children, address: tuple[str, int], source: str, connections: int, pipelined: int = 1
) -> Iterator[Attack]:
    """Let that many connections from C{source} guess at C{address} until the block ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.settimeout(_SILENCE)
        with theirs:
            arguments = (theirs.fileno(), *address, source, connections, pipelined)
            child = children.startModule("bench.attackers", *map(str, arguments), descriptors=[theirs.fileno()])
        try:
            yield Attack(child, ours)
        finally:
            children.stop(child)


class _Guesser:
    __slots__ = ("answered", "greeted", "owed", "pending", "socket")

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.pending = b""
        self.greeted = False
        self.owed = 0
        self.answered = 0


class _Attackers:
    def __init__(self, control: socket.socket, address: tuple[str, int], source: str, pipelined: int) -> None:
        self._control = control
        self._address = address
        self._source = source
        self._pipelined = pipelined
        self._poll = select.epoll()
        self._poll.register(control.fileno(), select.EPOLLIN)
        self._guessers: dict[int, _Guesser] = {}
        self._counts = Counts()
        self._guesses = 0

    def run(self, connections: int) -> None:
        """Guess until the other end of the control socket is closed."""
        for _ in range(connections):
            self._connect()
        while True:
            for fd, _ in self._poll.poll():
                guesser = self._guessers.get(fd)
                if guesser is not None:
                    self._hear(guesser)
                elif not self._control.recv(_AT_ONCE):
                    return
                else:
                    self._control.send(json.dumps(asdict(self._counts)).encode("ascii"))

    def _connect(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        connection.bind((self._source, 0))
        code = connection.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            raise BenchmarkError(f"no connection to port {self._address[1]}: {os.strerror(code)}")
        self._guessers[connection.fileno()] = _Guesser(connection)
        # The server sends first: data or an error shows that the connection is established or has failed.
        self._poll.register(connection.fileno(), select.EPOLLIN)

    def _hear(self, guesser: _Guesser) -> None:
        try:
            data = guesser.socket.recv(_AT_ONCE)
        except BlockingIOError:
            return
        except (ConnectionError, TimeoutError):
            data = b""
        if data:
            self._take(guesser, data)
            return
        self._counts.ended += 1
        self._counts.endedAnswers += guesser.answered
        del self._guessers[guesser.socket.fileno()]
        guesser.socket.close()
        self._connect()

    def _take(self, guesser: _Guesser, data: bytes) -> None:
        *lines, guesser.pending = (guesser.pending + data).split(b"\r\n")
        for line in lines:
            if line.startswith(b"a "):
                self._count(guesser, line)
            elif line.startswith(b"* OK"):
                guesser.greeted = True
        if guesser.greeted and not guesser.owed:
            self._guess(guesser)

    def _count(self, guesser: _Guesser, answer: bytes) -> None:
        guesser.owed -= 1
        if answer.startswith(b"a BAD"):
            return  # this is not a guess: the gateway is about to close, because there were too many
        if not answer.startswith(b"a NO"):
            raise BenchmarkError(f"a guess is answered with {answer[:200]!r}")
        if b"[AUTHENTICATIONFAILED]" in answer:
            self._counts.judged += 1
        else:
            self._counts.turnedAway += 1
        guesser.answered += 1
        self._counts.most = max(self._counts.most, guesser.answered)

    def _guess(self, guesser: _Guesser) -> None:
        first, self._guesses = self._guesses, self._guesses + self._pipelined
        guesses = b"".join(b"a LOGIN nobody x%d\r\n" % number for number in range(first, self._guesses))
        try:
            # All of the last guesses have got replies, so there is room for these.
            sent = guesser.socket.send(guesses)
        except ConnectionError:
            return  # the end of the connection follows
        if sent != len(guesses):
            raise BenchmarkError(f"{sent} of {len(guesses)} bytes of guesses were taken")
        guesser.owed = self._pipelined


def main(descriptor: int, host: str, port: int, source: str, connections: int, pipelined: int) -> None:
    """Guess until the other end of the socket C{descriptor} is closed."""
    control = socket.socket(fileno=descriptor)
    _Attackers(control, (host, port), source, pipelined).run(connections)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], *map(int, sys.argv[5:7]))
