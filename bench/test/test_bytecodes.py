"""
Tests of L{bench.bytecodes} and L{bench.traced}.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from bench.bytecodes import KINDS, Counts, TracedMailgate, added, addresses, table
from bench.options import REPOSITORY, TRACED, tracing
from bench.proxies import Site, Variant
from bench.traced import SIGNAL, Counted


def _loop(times: int) -> int:
    total = 0
    for each in range(times):
        total += each
    return total


class CountedTests(SynchronousTestCase):
    """L{Counted}."""

    def rows(self, times: int) -> dict[str, tuple[int, int]]:
        """Count L{_loop}."""
        counted = Counted()
        counted.begin()
        _loop(times)
        counted.end()
        _loop(times)
        return {name: (bytecodes, calls) for name, bytecodes, calls in counted.rows(REPOSITORY)}

    def test_exact(self):
        """Each bytecode of a function counts once, each call is one, and what follows the end is not in it."""
        few, many, again = self.rows(10), self.rows(30), self.rows(10)
        name = "bench/test/test_bytecodes.py _loop"
        self.assertEqual(few, again)
        self.assertEqual(few[name][1], 1)
        self.assertGreaterEqual(many[name][0] - few[name][0], 20 * 3)
        self.assertEqual((many[name][0] - few[name][0]) % 20, 0)

    def test_between(self):
        """The program runs twistd in the current folder, and writes counts at the second signal."""
        path = os.path.join(self.mktemp(), "counts")
        os.mkdir(os.path.dirname(path))
        program = (
            "import json, os, sys; sys.path.insert(0, 'bench'); from traced import main, SIGNAL; main(sys.argv[1])\n"
            "def work(): return 1\n"
            "work(); os.kill(os.getpid(), SIGNAL); work(); os.kill(os.getpid(), SIGNAL); work()"
        )
        subprocess.run([sys.executable, "-c", program, os.path.abspath(path)], check=True, timeout=60, cwd=REPOSITORY)
        with open(path, encoding="utf-8") as stream:
            rows = {name: calls for name, _, calls in json.load(stream)}
        self.assertEqual(rows["<string> work"], 1)

    def test_free(self):
        """The signal is none that the programs use."""
        self.assertNotIn(SIGNAL, {signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT, signal.SIGTERM})


class ReportTests(SynchronousTestCase):
    """What is made of counts."""

    def test_table(self):
        """A kind is compared with the one that it names, if that was counted."""
        found = {"asked": Counts({"f": (20.0, 2.0)}), "limits": Counts({"f": (21.0, 2.0), "g": (4.0, 1.0)})}
        lines = table("here", found).splitlines()
        self.assertEqual(lines[3].split()[-4:], ["20.0", "2.000", "-", "-"])
        self.assertEqual(lines[4].split()[-4:], ["25.0", "3.000", "5.000", "1.000"])
        self.assertEqual(table("here", {"limits": found["limits"]}).splitlines()[3].split()[-2:], ["-", "-"])

    def test_added(self):
        """The functions that execute most come first; of a kind that is compared, those that it adds."""
        asked, limits = Counts({"f": (20.0, 2.0)}), Counts({"f": (21.0, 2.0), "g": (4.0, 1.0)})
        self.assertEqual(added(asked, None, 5).splitlines()[3].split(), ["f", "20.0", "2.00"])
        self.assertEqual(added(limits, asked, 1).splitlines()[3].split(), ["g", "4.0", "1.00"])

    def test_kinds(self):
        """Each kind has a word on the command line, and compares itself with a kind before it."""
        self.assertEqual(tuple(KINDS), TRACED)
        for place, kind in enumerate(KINDS.values()):
            self.assertTrue(not kind.since or kind.since in list(KINDS)[:place], kind.title)

    def test_addresses(self):
        """Newcomers come from many networks of this machine."""
        some = list(islice(addresses(), 1000))
        self.assertEqual(len({address.rpartition(".")[0] for address in some}), 1000)
        self.assertTrue(all(address.startswith("127.") for address in some))

    def test_command(self):
        """The gateway is started by the program that counts."""
        site = Site("/run", 1, 2, "cert", "key", "both", 100)
        folder = self.mktemp()
        os.mkdir(folder)
        ((python, program, path, *arguments),) = TracedMailgate(REPOSITORY, Variant(), "/x").commands(
            folder, site, 3, 4
        )
        self.assertEqual((python, path), (sys.executable, "/x"))
        self.assertEqual(os.path.basename(program), "traced.py")
        self.assertEqual(arguments[:3], ["-n", "--pidfile=", "mailgate"])

    def test_options(self):
        """This tree is counted; another tree may be counted, too."""
        arguments = tracing().parse_args([])
        self.assertEqual((arguments.mailgate, arguments.logins, arguments.before), (REPOSITORY, 640, None))
        self.assertEqual((arguments.only, arguments.functions), (list(TRACED), 0))
        self.assertEqual(tracing().parse_args(["--quick", "--before", REPOSITORY]).logins, 100)
