"""Tests for L{mailgate.relay.pipes} with the system's own pipes."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.relay import pipes
from mailgate.relay.pipes import MOST_KEPT, MOST_PIPES, PIPE_SIZE, SPARED, Pipe, PipePool
from mailgate.test.support.descriptors import settleDescriptors

LACKING = """
import fcntl, os
for module, name in ((os, "splice"), (os, "pipe2"), (fcntl, "F_SETPIPE_SZ"), (fcntl, "F_GETPIPE_SZ")):
    if hasattr(module, name):
        delattr(module, name)
from mailgate.relay.pipes import PipePool
pool = PipePool()
print(pool.take())
pool.close()
"""
"""Simulates a system without C{splice}."""

SMALL = """
import os
from mailgate.relay.pipes import MOST_PIPES, PIPE_SIZE, PipePool
if os.getuid() == 0:
    os.setgroups([])
    os.setuid(65534)
pools = [PipePool(), PipePool()]
pipes = [pool.take() for pool in pools for _ in range(MOST_PIPES)]
small = pipes[-1]
print(pipes[0].size == PIPE_SIZE, 0 < small.size < PIPE_SIZE, os.write(small.input, bytes(PIPE_SIZE)) == small.size)
"""
"""Simulates a user who may not have large pipes."""


class PipePoolTests(SynchronousTestCase):
    """Taking and giving back pipes."""

    if not hasattr(os, "splice"):
        skip = "there is no splice"

    def setUp(self) -> None:
        settleDescriptors()
        self.before = self.descriptors()
        self.pool = PipePool()
        self.taken: list[Pipe] = []
        self.addCleanup(self.assertNoneLeft)

    def assertNoneLeft(self) -> None:
        """When all pipes are given back and the pool is closed, all its descriptors are closed."""
        for pipe in self.taken:
            self.pool.drop(pipe)
        self.pool.close()
        self.assertEqual(self.descriptors(), self.before)

    def descriptors(self) -> int:
        """The number of open descriptors of this process."""
        return len(os.listdir("/proc/self/fd"))

    def take(self) -> Pipe:
        pipe = self.pool.take()
        assert pipe is not None
        self.taken.append(pipe)
        return pipe

    def give(self, pipe: Pipe) -> None:
        self.taken.remove(pipe)
        self.pool.give(pipe)

    def drop(self, pipe: Pipe) -> None:
        self.taken.remove(pipe)
        self.pool.drop(pipe)

    def test_pipe(self) -> None:
        """Bytes pass through a pipe. Its ends do not block, and child processes do not inherit them."""
        pipe = self.take()
        self.assertRaises(BlockingIOError, os.read, pipe.output, 1)
        self.assertEqual(os.write(pipe.input, bytes(PIPE_SIZE + 1)), pipe.size)
        self.assertRaises(BlockingIOError, os.write, pipe.input, b"x")
        self.assertEqual(len(os.read(pipe.output, PIPE_SIZE)), pipe.size)
        self.assertFalse(os.get_inheritable(pipe.input) or os.get_inheritable(pipe.output))

    def test_size(self) -> None:
        """A pipe has the size that it reports."""
        pipe = self.take()
        self.assertEqual(fcntl.fcntl(pipe.output, fcntl.F_GETPIPE_SZ), pipe.size)

    def test_kept(self) -> None:
        """A pipe that was given back is reused."""
        pipe = self.take()
        count = self.descriptors()
        self.give(pipe)
        self.assertEqual(self.take(), pipe)
        self.assertEqual(self.descriptors(), count)

    def test_different(self) -> None:
        """Two users get different pipes."""
        pipes = [self.take() for _ in range(10)]
        for pipe in pipes[::2]:
            self.give(pipe)
        for _ in range(10):
            self.take()
        ends = [end for pipe in self.taken for end in (pipe.input, pipe.output)]
        self.assertEqual(len(ends), 30)
        self.assertEqual(len(set(ends)), 30)

    def test_dropped(self) -> None:
        """A dropped pipe is closed, and its content is lost."""
        pipe = self.take()
        os.write(pipe.input, b"somebody's mail")
        count = self.descriptors()
        self.drop(pipe)
        self.assertEqual(self.descriptors(), count - 2)
        self.assertRaises(BlockingIOError, os.read, self.take().output, 1)

    def test_most(self) -> None:
        """The number of pipes is limited, until one is given back or dropped."""
        for _ in range(MOST_PIPES):
            self.take()
        self.assertIsNone(self.pool.take())
        self.assertEqual(self.descriptors(), self.before + 2 * MOST_PIPES)
        for comeBack in (self.give, self.drop):
            comeBack(self.taken[0])
            self.take()
            self.assertIsNone(self.pool.take())

    def test_mostKept(self) -> None:
        """Only a few idle pipes are kept open."""
        pipes = [self.take() for _ in range(MOST_PIPES)]
        for pipe in pipes:
            self.give(pipe)
        self.assertEqual(self.descriptors(), self.before + 2 * MOST_KEPT)
        for _ in range(MOST_PIPES):
            self.take()
        self.assertIsNone(self.pool.take())

    def test_close(self) -> None:
        """Closing the pool closes the idle pipes. Pipes in use stay open, and new ones can be taken."""
        self.give(self.take())
        used = self.take()
        other = self.take()
        self.give(other)
        self.pool.close()
        self.assertEqual(self.descriptors(), self.before + 2)
        self.assertEqual(os.write(used.input, b"x"), 1)
        self.take()

    def test_refused(self) -> None:
        """If the system has C{splice} and refuses it, there are no pipes."""

        def refuse(*arguments: object, **others: object) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        self.patch(os, "splice", refuse)
        self.assertIs(PipePool().take(), None)

    def test_noDescriptor(self) -> None:
        """If the system has no descriptors left, there is no pipe until it has."""
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
        refused = [self.pool.take() for _ in range(MOST_PIPES + 1)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(set(refused), {None})
        self.assertEqual(self.descriptors(), self.before)
        self.take()

    def limit(self, count: int) -> None:
        """Make the pool see a limit of C{count} descriptors."""
        self.patch(pipes, "mostDescriptors", lambda: count)

    def test_fewDescriptors(self) -> None:
        """With few descriptors there are few pipes, so that connections have enough."""
        self.patch(pipes, "SPARED", 0)
        for descriptors, most in ((200, 12), (256, 16), (700, 43), (65536, MOST_PIPES)):
            self.limit(descriptors)
            while (pipe := self.pool.take()) is not None:
                self.taken.append(pipe)
            self.assertEqual(len(self.taken), most)

    def test_spared(self) -> None:
        """The last descriptors are left to connections, even if the pool has made no pipe."""
        for descriptors, spared in ((10000, SPARED), (400, 100)):
            self.patch(pipes, "mostDescriptors", lambda limit=descriptors: limit)
            for highest, makes in ((descriptors - spared - 1, True), (descriptors - spared, False)):
                made = iter(((highest - 1, highest),))
                self.patch(os, "pipe2", lambda flags, made=made: self.movedTo(*next(made)))
                pipe = self.pool.take()
                self.assertEqual(pipe is not None, makes)
                if pipe is not None:
                    self.pool.drop(pipe)

    def movedTo(self, output: int, input: int) -> tuple[int, int]:
        """The ends of a new pipe, as if these were the lowest free numbers."""
        ends = os.pipe()
        for end, number in zip(ends, (output, input), strict=True):
            os.dup2(end, number)
            os.close(end)
        return output, input


class ElsewhereTests(SynchronousTestCase):
    """Systems with less support."""

    def run_(self, script: str) -> str:
        """What C{script} prints in a process of its own, without errors."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode()

    def test_small(self) -> None:
        """Pipes that cannot be enlarged are used as they are."""
        if not hasattr(os, "splice"):
            raise self.skipTest("there is no splice")
        with open("/proc/sys/fs/pipe-user-pages-soft") as file:
            if not 0 < int(file.read()) * 4096 < PIPE_SIZE * MOST_PIPES * 2:
                raise self.skipTest("an unprivileged user may have as large pipes as he likes")
        self.assertEqual(self.run_(SMALL), "True True True\n")

    def test_none(self) -> None:
        """Without C{splice} and the other Linux-only functions there are no pipes, and no errors."""
        self.assertEqual(self.run_(LACKING), "None\n")
