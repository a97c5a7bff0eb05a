# -*- test-case-name: mailgate.test.integration.test_programs -*-
"""
Tests for L{mailgate.test.integration.programs}: these run everywhere.
"""

from __future__ import annotations

import os
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration import programs
from mailgate.test.integration.programs import PATH, PROGRAMS, Program, missing, programPath, require


def nowhere(name):
    """A machine without any of the programs."""
    return None


def everywhere(name):
    """A machine with all of them."""
    return f"/bin/{name}"


def root():
    """The superuser's id."""
    return 0


def joe():
    """An ordinary user's id."""
    return 1000


class RequireTests(SynchronousTestCase):
    """L{require} skips, fails or does nothing."""

    def test_present(self):
        """If everything is installed nothing happens, required or not."""
        for environ in ({}, {"MAILGATE_INTEGRATION": "required"}):
            self.assertIsNone(require("curl", "postfix", environ=environ, find=everywhere, user=root))

    def test_nothingNeeded(self):
        """A test that needs no program runs everywhere."""
        self.assertIsNone(require(environ={"MAILGATE_INTEGRATION": "required"}, find=nowhere, user=joe))

    def test_skips(self):
        """If a program is missing the test is skipped; the reason has Debian's package."""
        with self.assertRaises(SkipTest) as caught:
            require("mbsync", environ={}, find=nowhere, user=root)
        self.assertIn("isync", str(caught.exception))

    def test_fails(self):
        """With C{MAILGATE_INTEGRATION=required} this is a failure, for the same reason."""
        with self.assertRaises(AssertionError) as caught:
            require("mbsync", environ={"MAILGATE_INTEGRATION": "required"}, find=nowhere, user=root)
        self.assertIn("isync", str(caught.exception))
        self.assertNotIsInstance(caught.exception, SkipTest)

    def test_otherWordSkips(self):
        """Any other value of the variable leaves it skipped."""
        for word in ("", "no", "Required", "1"):
            with self.assertRaises(SkipTest):
                require("curl", environ={"MAILGATE_INTEGRATION": word}, find=nowhere, user=root)

    def test_realEnvironment(self):
        """By default the variable is read from the environment of the process."""
        self.addCleanup(restore, "MAILGATE_INTEGRATION", os.environ.get("MAILGATE_INTEGRATION"))
        os.environ["MAILGATE_INTEGRATION"] = "required"
        with self.assertRaises(AssertionError):
            require("curl", find=nowhere, user=root)


def restore(name, value):
    """Restore the environment variable C{name}."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


class MissingTests(SynchronousTestCase):
    """L{missing} returns one sentence."""

    def test_allNamed(self):
        """It has every missing package, and no other."""
        reason = missing(("curl", "swaks", "mbsync"), lambda name: "/bin/curl" if name == "curl" else None, root)
        self.assertIn("swaks, isync", reason)
        self.assertNotIn("curl", reason)

    def test_rootOnly(self):
        """It says that an ordinary user cannot start Postfix."""
        self.assertEqual(missing(("dovecot", "postfix"), everywhere, joe), "postfix can be started by root only")

    def test_ordinaryUser(self):
        """An ordinary user can run Dovecot and the clients."""
        self.assertIsNone(missing(("dovecot", "curl", "swaks", "mbsync"), everywhere, joe))

    def test_unknown(self):
        """A program that is not in the table is a mistake in the test, not a reason to skip it."""
        self.assertRaises(KeyError, missing, ("exim",), everywhere, root)

    def test_find(self):
        """A program is found by its own name, which may differ from the package's."""
        self.assertEqual({name for name in PROGRAMS if programPath(name) is None}, set(self.absent()))

    def test_module(self):
        """A module of another program is found, although it is not executable."""
        folder = self.mktemp()
        os.makedirs(folder)
        with open(os.path.join(folder, "some.so"), "w") as module:
            os.fchmod(module.fileno(), 0o644)
        self.patch(programs, "PATH", folder)
        self.patch(programs, "PROGRAMS", {"module": Program("some.so", "some", isModule=True)})
        self.assertEqual(programPath("module"), module.name)
        self.patch(programs, "PROGRAMS", {"program": Program("some.so", "some")})
        self.assertIsNone(programPath("program"))

    def absent(self):
        """The names of missing programs, found by walking the folders."""
        for name, program in PROGRAMS.items():
            places = [os.path.join(folder, program.file) for folder in PATH.split(os.pathsep)]
            if not any(os.access(place, program.mode) for place in places):
                yield name
