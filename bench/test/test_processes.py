"""
Tests of L{bench.processes} and L{bench.procfs}, with real processes.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.processes import BenchmarkError, Children
from bench.procfs import Processors, cpu, descendants, memory, processor

_WAIT = "import time; time.sleep(60)"


def _ends(pid):
    """Whether a process ends within some seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


class _ChildrenTests(SynchronousTestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name


class ChildrenTests(_ChildrenTests):
    """L{Children}."""

    def test_ended(self):
        """Processes that still run at the end of the block are ended, also after errors."""
        started = []

        def fail():
            with Children(self.folder) as children:
                started.append(children.start("one", [sys.executable, "-c", _WAIT]))
                raise KeyboardInterrupt

        self.assertRaises(KeyboardInterrupt, fail)
        self.assertFalse(started[0].running)

    def test_group(self):
        """Processes that a process has started end with it."""
        program = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {_WAIT!r}]).pid, flush=True)"
        with Children(self.folder) as children:
            child = children.start("one", [sys.executable, "-c", f"{program}; {_WAIT}"])
            while not (said := _content(child.log)):
                child.check()
        self.assertTrue(_ends(int(said)))

    def test_killed(self):
        """If the benchmark itself is killed, its children end."""
        program = (
            "import os, sys; from bench.processes import Children; children = Children(sys.argv[1]);"
            f"print(children.start('one', [sys.executable, '-c', {_WAIT!r}]).pid, flush=True); os.kill(os.getpid(), 9)"
        )
        command = [sys.executable, "-c", program, self.folder]
        above = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        done = subprocess.run(command, cwd=above, capture_output=True, timeout=20, check=False)
        self.assertEqual(done.returncode, -signal.SIGKILL)
        self.assertTrue(_ends(int(done.stdout)))

    def test_said(self):
        """A process that has exited too early is reported with its status and its output."""
        with Children(self.folder) as children:
            child = children.start("one", [sys.executable, "-c", "print('woe'); raise SystemExit(3)"])
            child.process.wait(20)
            error = self.assertRaises(BenchmarkError, child.check)
        self.assertEqual(str(error), "one has ended (3); it said: woe")


class ProcfsTests(_ChildrenTests):
    """L{cpu}, L{memory} and L{descendants}."""

    def setUp(self):
        super().setUp()
        children = Children(self.folder)
        children.__enter__()
        self.addCleanup(children.__exit__, None, None, None)
        self.children = children

    def start(self, program):
        """A process that has run C{program} and now waits."""
        child = self.children.start("one", [sys.executable, "-c", f"{program}\nprint(flush=True)\n{_WAIT}"])
        while not _content(child.log):
            child.check()
        return child.pid

    def test_burned(self):
        """The time of threads and of child processes is counted, also after they have ended."""
        burn = "import time\ndef burn():\n while time.{0}() < {1}: pass\n"
        thread = burn.format("thread_time", 0.1) + "import threading; t = threading.Thread(target=burn)\n"
        pid = self.start(thread + "t.start(); t.join()")
        self.assertGreaterEqual(cpu([pid]), 0.1)
        child = burn.format("process_time", 0.2) + "import os\nif not os.fork(): burn(); os._exit(0)\nos.wait()"
        self.assertGreaterEqual(cpu([self.start(child)]), 0.18)

    def test_waiting(self):
        """A waiting process uses no CPU, whatever others do."""
        pid = self.start("")
        before = cpu([pid])
        end = time.process_time() + 0.05
        while time.process_time() < end:
            continue
        self.assertLess(cpu([pid]) - before, 0.03)

    def test_descendants(self):
        """Children are found, and their resources are counted."""
        alone = self.start("")
        both = self.start(f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {_WAIT!r}])")
        self.assertEqual(descendants([alone]), [alone])
        found = descendants([both])
        self.assertEqual((found[0], len(found)), (both, 2))
        self.assertGreater(memory([both]), memory(found[1:]))

    def test_memory(self):
        """The memory of a process is measured as Rss and as Pss."""
        small, large = self.start(""), self.start("kept = b'x' * (32 << 20)")
        self.assertLess(abs(memory([large]) - memory([small]) - (32 << 20)), 2 << 20)
        self.assertGreater(memory([large], "Pss"), 32 << 20)

    def test_gone(self):
        """A process that has exited uses nothing."""
        child = self.children.start("one", [sys.executable, "-c", ""])
        child.process.wait(20)
        self.assertEqual((cpu([child.pid]), memory([child.pid])), (0, 0))


class ProcessorTests(SynchronousTestCase):
    """L{processor} and L{Processors}."""

    def described(self, text):
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as stream:
            stream.write(text)
        return processor(path)

    def test_model(self):
        """A name that a hypervisor hides has the numbers of family and model beside it."""
        text = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Some Xeon\nflags\t: hypervisor avx\n\n"
        self.assertEqual(self.described(text * 2), ("Some Xeon (family 6, model 143)", True))

    def test_plain(self):
        """A machine of its own has no hypervisor; another architecture has other fields."""
        self.assertEqual(self.described("model name : Fast\nflags : fpu avx\n"), ("Fast", False))
        self.assertEqual(self.described("Model : Raspberry\n"), ("Raspberry", False))
        self.assertEqual(self.described(""), ("unknown processor", False))

    def test_busy(self):
        """The processors' time grows with what any process does."""
        before = Processors.now()
        end = time.process_time() + 0.1
        while time.process_time() < end:
            continue
        self.assertGreater(Processors.now().busy - before.busy, 0.05)
        self.assertGreaterEqual(Processors.now().stolen, before.stolen)


def _content(path):
    with open(path, encoding="ascii") as stream:
        return stream.read()
