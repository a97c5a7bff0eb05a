"""
Tests of L{bench.instructions} and L{bench.stage}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.instructions import counted, rows
from bench.options import REPOSITORY, counting
from bench.processes import BenchmarkError
from bench.stage import KINDS, SIDES, Stage


class StageTests(SynchronousTestCase):
    """L{Stage}."""

    def test_logins(self):
        """All clients hear the same with and without limits and the admin side, and the watch has counted them."""
        for kind in KINDS:
            heard = set()
            for side in SIDES:
                stage = Stage(side, kind)
                heard |= {stage.login() for _ in range(3)}
                watcher, limits = stage.gateway.state.watcher, stage.gateway.state.limits
                self.assertEqual(watcher is not None, side == "all")
                if watcher is not None:
                    self.assertIn([["imap", "plain", "accepted"], 3], watcher.totals()["mailgate_logins"])
                known = limits.defence.numbers()["entries"]["known"]
                self.assertEqual(known, 0 if side == "off" else 3)
                stage.close()
            self.assertEqual(len(heard), 1)


class CountTests(SynchronousTestCase):
    """What is made of counts."""

    def test_counted(self):
        """The number of instructions is read from what Valgrind says; without one the reason is shown."""
        self.assertEqual(counted("==1== Command: x\n==1== \n==1== I   refs:      1,329,978,001\n"), 1329978001)
        self.assertIn("no memory", str(self.assertRaises(BenchmarkError, counted, "==1== no memory\n")))

    def test_rows(self):
        """Each side but the first is compared with the one before it; microseconds are instructions by the rate."""
        found = rows({(kind, side): 1000.0 * (20 + place) for kind in KINDS for place, side in enumerate(SIDES)}, 500)
        self.assertEqual(found[0], ("known, off", "20.0", "-", "40.0", "-"))
        self.assertEqual(found[2], ("known, all", "22.0", "1.000", "44.0", "2.000"))

    def test_options(self):
        """This tree is measured, with a thousand logins; another tree may be measured, too."""
        arguments = counting().parse_args([])
        self.assertEqual((arguments.mailgate, arguments.logins, arguments.before), (REPOSITORY, 1000, None))
        self.assertEqual(counting().parse_args(["--quick", "--before", REPOSITORY]).logins, 100)
