"""
Tests for L{mailgate.relay.pipes}, with the system's own pipes.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.relay import pipes
from mailgate.relay.pipes import MOST_KEPT, MOST_PIPES, PIPE_SIZE, SPARED, Pipe, PipePool

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
"""As on a system that has no C{splice}."""

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
"""As somebody who may not have any number of large pipes."""


class PipePoolTests(SynchronousTestCase):
    """Pipes that are taken and given back."""

    if not hasattr(os, "splice"):
        skip = "there is no splice"

    def setUp(self) -> None:
        # What other tests have left to the collector must not be closed in the middle of this one.
        gc.collect()
        self.before = self.descriptors()
        self.pool = PipePool()
        self.taken: list[Pipe] = []
        self.addCleanup(self.assertNoneLeft)

    def assertNoneLeft(self) -> None:
        """Once all are given back and the pool is closed there are as many descriptors as before."""
        for pipe in self.taken:
            self.pool.drop(pipe)
        self.pool.close()
        self.assertEqual(self.descriptors(), self.before)

    def descriptors(self) -> int:
        """How many this process has."""
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
        """What is put into a pipe comes out of it; neither end waits for the other, nor is left to a child."""
        pipe = self.take()
        self.assertRaises(BlockingIOError, os.read, pipe.output, 1)
        self.assertEqual(os.write(pipe.input, bytes(PIPE_SIZE + 1)), pipe.size)
        self.assertRaises(BlockingIOError, os.write, pipe.input, b"x")
        self.assertEqual(len(os.read(pipe.output, PIPE_SIZE)), pipe.size)
        self.assertFalse(os.get_inheritable(pipe.input) or os.get_inheritable(pipe.output))

    def test_size(self) -> None:
        """A pipe is as large as it says."""
        pipe = self.take()
        self.assertEqual(fcntl.fcntl(pipe.output, fcntl.F_GETPIPE_SZ), pipe.size)

    def test_kept(self) -> None:
        """One that is given back is taken again, and no other is made."""
        pipe = self.take()
        count = self.descriptors()
        self.give(pipe)
        self.assertEqual(self.take(), pipe)
        self.assertEqual(self.descriptors(), count)

    def test_different(self) -> None:
        """Nobody is given what another has."""
        pipes = [self.take() for _ in range(10)]
        for pipe in pipes[::2]:
            self.give(pipe)
        for _ in range(10):
            self.take()
        ends = [end for pipe in self.taken for end in (pipe.input, pipe.output)]
        self.assertEqual(len(ends), 30)
        self.assertEqual(len(set(ends)), 30)

    def test_dropped(self) -> None:
        """One that is dropped is closed, and nobody is given what was in it."""
        pipe = self.take()
        os.write(pipe.input, b"somebody's mail")
        count = self.descriptors()
        self.drop(pipe)
        self.assertEqual(self.descriptors(), count - 2)
        self.assertRaises(BlockingIOError, os.read, self.take().output, 1)

    def test_most(self) -> None:
        """There are so many and no more, until one comes back, in whatever way."""
        for _ in range(MOST_PIPES):
            self.take()
        self.assertIsNone(self.pool.take())
        self.assertEqual(self.descriptors(), self.before + 2 * MOST_PIPES)
        for comeBack in (self.give, self.drop):
            comeBack(self.taken[0])
            self.take()
            self.assertIsNone(self.pool.take())

    def test_mostKept(self) -> None:
        """Of those that are given back few are kept open."""
        pipes = [self.take() for _ in range(MOST_PIPES)]
        for pipe in pipes:
            self.give(pipe)
        self.assertEqual(self.descriptors(), self.before + 2 * MOST_KEPT)
        for _ in range(MOST_PIPES):
            self.take()
        self.assertIsNone(self.pool.take())

    def test_close(self) -> None:
        """When the pool is closed none is kept; those in use stay, and more can be had."""
        self.give(self.take())
        used = self.take()
        other = self.take()
        self.give(other)
        self.pool.close()
        self.assertEqual(self.descriptors(), self.before + 2)
        self.assertEqual(os.write(used.input, b"x"), 1)
        self.take()

    def test_refused(self) -> None:
        """Where the system knows C{splice} and does not do it, there are none."""

        def refuse(*arguments: object, **others: object) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

        self.patch(os, "splice", refuse)
        self.assertIs(PipePool().take(), None)

    def test_noDescriptor(self) -> None:
        """Where the system has no descriptors left there is no pipe; there is one again when it has."""
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
        """Have the system allow C{count} descriptors, as far as the pool knows."""
        self.patch(pipes, "mostDescriptors", lambda: count)

    def test_fewDescriptors(self) -> None:
        """Where there are few descriptors there are few pipes: what connections need is not theirs."""
        self.patch(pipes, "SPARED", 0)
        for descriptors, most in ((200, 12), (256, 16), (700, 43), (65536, MOST_PIPES)):
            self.limit(descriptors)
            while (pipe := self.pool.take()) is not None:
                self.taken.append(pipe)
            self.assertEqual(len(self.taken), most)

    def test_spared(self) -> None:
        """The last descriptors are left to connections, though this pool has made no pipe."""
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
        """The ends of a new pipe, as if these numbers were the lowest that are free."""
        ends = os.pipe()
        for end, number in zip(ends, (output, input), strict=True):
            os.dup2(end, number)
            os.close(end)
        return output, input


class ElsewhereTests(SynchronousTestCase):
    """Systems that give less."""

    def run_(self, script: str) -> str:
        """What C{script} prints in a process of its own, where it complains of nothing."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode()

    def test_small(self) -> None:
        """Where pipes may not be made larger they are used as they are."""
        if not hasattr(os, "splice"):
            raise self.skipTest("there is no splice")
        with open("/proc/sys/fs/pipe-user-pages-soft") as file:
            if not 0 < int(file.read()) * 4096 < PIPE_SIZE * MOST_PIPES * 2:
                raise self.skipTest("an unprivileged user may have as large pipes as he likes")
        self.assertEqual(self.run_(SMALL), "True True True\n")

    def test_none(self) -> None:
        """Without C{splice}, and all that Python has beside it on Linux alone, there are no pipes, and that is all."""
        self.assertEqual(self.run_(LACKING), "None\n")
