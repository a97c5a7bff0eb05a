# -*- test-case-name: mailgate.test.relay.test_pipes -*-
"""Pipes for C{splice}, which moves bytes between two sockets without copying them."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress

from attrs import frozen

from mailgate.lean.descriptors import mostDescriptors

__all__ = ["Pipe", "PipePool"]

PIPE_SIZE = 1048576
"""
The size of a pipe in bytes: the most that an unprivileged process may set. With 64 KiB a transfer takes 1.5 times as
long.
"""

MOST_PIPES = 48
"""
The most pipes in use and kept together. Linux grants an unprivileged user 64 MiB of large pipes; other processes get
the rest.
"""

MOST_KEPT = 16
"""
The most idle pipes that are kept. A session needs a pipe only while bytes move or are stuck, so few sessions need one
at once.
"""


SHARE = 16
"""The pool makes at most one pipe for each C{SHARE} descriptors that the process may have. A pipe takes two."""

SPARED = 128
"""The pool does not use the last C{SPARED} descriptors, or the last quarter if there are few."""


@frozen
class Pipe:
    """
    A pipe for C{splice}.

    @ivar output: the descriptor to read from.
    @ivar input: the descriptor to write to.
    @ivar size: its capacity in bytes.
    """

    output: int
    input: int
    size: int


def _splices() -> bool:
    """Whether the system can splice from a socket into a pipe. Not every system that looks like Linux can."""
    if not hasattr(os, "splice"):
        return False
    with ExitStack() as closing:
        try:
            near, far = map(closing.enter_context, socket.socketpair())
            output, input = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            closing.callback(os.close, output)
            closing.callback(os.close, input)
            far.send(b"x")
            return os.splice(near.fileno(), input, 1) == 1
        except OSError:
            return False


class PipePool:
    """Makes pipes within limits, and keeps some for reuse."""

    def __init__(self) -> None:
        self._kept: list[Pipe] = []
        self._count = 0
        self._splices = _splices()

    def take(self) -> Pipe | None:
        """An empty pipe, or L{None} if the limit is reached. The caller then copies the bytes."""
        if self._kept:
            return self._kept.pop()
        if self._count >= MOST_PIPES or not self._splices:
            return None
        descriptors = mostDescriptors()
        if self._count >= descriptors // SHARE:
            return None
        try:
            output, input = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        # The system assigns the lowest free number, so a high number means that few are free.
        if max(output, input) >= descriptors - min(SPARED, descriptors // 4):
            os.close(output)
            os.close(input)
            return None
        self._count += 1
        with suppress(OSError):
            fcntl.fcntl(input, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        return Pipe(output, input, fcntl.fcntl(input, fcntl.F_GETPIPE_SZ))

    def give(self, pipe: Pipe) -> None:
        """Take back C{pipe}, which is empty, for reuse."""
        if len(self._kept) < MOST_KEPT:
            self._kept.append(pipe)
        else:
            self.drop(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Close C{pipe}, which may contain bytes and must not be reused."""
        self._count -= 1
        os.close(pipe.output)
        os.close(pipe.input)

    def close(self) -> None:
        """Close all idle pipes."""
        while self._kept:
            self.drop(self._kept.pop())
