# -*- test-case-name: mailgate.test.relay.test_pipes -*-
"""
Pipes for C{splice}, which moves bytes from one socket to another without their being copied.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import ExitStack, suppress

from attrs import frozen

from mailgate.lean.descriptors import mostDescriptors

__all__ = ["Pipe", "PipePool"]

PIPE_SIZE = 1048576
"""Bytes of a pipe: the most that an unprivileged process may ask for. With 64 KiB a GiB took half as long again."""

MOST_PIPES = 48
"""In use and kept together. 64 MiB of an unprivileged user's pipes may be larger than usual; the rest is for others."""

MOST_KEPT = 16
"""Kept for later: a pipe is needed while bytes are on their way, or stuck, and hardly ever by so many at once."""


SHARE = 16
"""A pipe takes two descriptors: of so many that the process may have, one pipe is made."""

SPARED = 128
"""The last of the descriptors, or the last quarter of them where they are few: no pipe takes one of these."""


@frozen
class Pipe:
    """Where bytes are put in and taken out."""

    output: int
    input: int
    size: int


def _splices() -> bool:
    """Whether the system moves bytes from a socket into a pipe: not all that look like Linux do."""
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
    """Pipes, as many as may be."""

    def __init__(self) -> None:
        self._kept: list[Pipe] = []
        self._count = 0
        self._splices = _splices()

    def take(self) -> Pipe | None:
        """An empty pipe, or L{None} where there are none left: then bytes have to be copied."""
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
        # The system gives the lowest number that is free, so it tells how many are in use: of all pools there are.
        if max(output, input) >= descriptors - min(SPARED, descriptors // 4):
            os.close(output)
            os.close(input)
            return None
        self._count += 1
        with suppress(OSError):
            fcntl.fcntl(input, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        return Pipe(output, input, fcntl.fcntl(input, fcntl.F_GETPIPE_SZ))

    def give(self, pipe: Pipe) -> None:
        """Take back C{pipe}, which is empty."""
        if len(self._kept) < MOST_KEPT:
            self._kept.append(pipe)
        else:
            self.drop(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Take back C{pipe}, which is not, and must not be used by anybody else."""
        self._count -= 1
        os.close(pipe.output)
        os.close(pipe.input)

    def close(self) -> None:
        """Keep none."""
        while self._kept:
            self.drop(self._kept.pop())
