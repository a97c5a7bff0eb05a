"""
Tests for L{mailgate.system.privileges}. L{mailgate.test.process.test_surroundings} tests a process that really becomes
another user.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import re
import resource
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import SectionSettings, directives
from mailgate.system.privileges import ProcessSettings, User, becomeUser, gainNothing, limitOpenFiles, raiseOpenFiles


def parse(name: str, value: str) -> Any:
    """Parse C{value} for the directive C{name}."""
    (declared,) = (declared for declared in directives(ProcessSettings) if declared.name == name)
    return declared.parse(value, "/etc/mailgate")


class UserSettingsTests(SynchronousTestCase):
    """The directive C{user}."""

    def setUp(self):
        self.entry = pwd.getpwuid(os.getuid())
        self.group = grp.getgrgid(os.getgid())

    def test_group(self):
        """User and group are looked up by their names."""
        user = parse("user", f"{self.entry.pw_name}  {self.group.gr_name}")
        self.assertEqual(user, User(self.entry.pw_name, os.getuid(), os.getgid()))

    def test_sameName(self):
        """Without a group it is the group with the user's name, as in nginx, and not the user's primary group."""
        entry = self.entry
        self.patch(pwd, "getpwnam", {"joe": entry}.__getitem__)
        self.patch(grp, "getgrnam", {"joe": grp.struct_group(("joe", "x", 4711, []))}.__getitem__)
        self.assertEqual(parse("user", "joe"), User("joe", entry.pw_uid, 4711))

    def test_refused(self):
        """Unknown names are in the message. More than two words are refused."""
        user = self.entry.pw_name
        for value, message in (
            ("", "a value is missing"),
            ("no-such-user", 'this host has no user "no-such-user"'),
            (f"{user} no-such-group", 'this host has no group "no-such-group"'),
            (f"{user} a b", "must be a user, optionally followed by a group"),
            ("a\nb", "must be a single line"),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, parse, "user", value)), message)

    def test_noSuchGroup(self):
        """If there is no group with the user's name, the message asks for a group."""
        self.patch(pwd, "getpwnam", {"joe": self.entry}.__getitem__)
        self.patch(grp, "getgrnam", {}.__getitem__)
        error = self.assertRaises(ValueError, parse, "user", "joe")
        self.assertEqual(str(error), 'this host has no group "joe"; add the name of a group: user = joe GROUP')

    def test_warnings(self):
        """A warning says that the directive has no effect unless the process is root."""
        settings, section = ProcessSettings(User("joe", 1000, 1000)), SectionSettings("mailgate", file="x.ini")
        for uid, expected in (
            (0, []),
            (1000, ["x.ini: [mailgate] user = joe: is ignored: only root can become another user"]),
        ):
            self.patch(os, "geteuid", lambda uid=uid: uid)
            self.assertEqual([str(warning) for warning in settings.warnings(section)], expected)
            self.assertEqual(list(ProcessSettings().warnings(section)), [])


class BecomeUserTests(SynchronousTestCase):
    """Tests for L{becomeUser}."""

    def test_order(self):
        """The groups change first, all of them; then the user changes permanently."""
        calls = []
        for name in ("setgid", "initgroups", "setuid"):
            self.patch(os, name, lambda *arguments, name=name: calls.append((name, *arguments)))
        becomeUser(User("joe", 1000, 2000))
        self.assertEqual(calls, [("setgid", 2000), ("initgroups", "joe", 2000), ("setuid", 1000)])

    def test_gainsNothing(self):
        """
        Afterwards the process cannot gain rights through programs that it starts: the kernel reports so for a process
        that has become another user, and not for root.
        """
        program = "from mailgate.system.privileges import User, becomeUser, gainNothing\nimport os\n"
        program += "if os.getuid(): gainNothing()\n"
        program += "else: becomeUser(User('nobody', {uid}, 65534))\n"
        program += "print(open('/proc/self/status').read())"
        for uid, expected in ((65534, "1"), (0, "0")):
            if uid or os.getuid() == 0:
                told = subprocess.run(
                    [sys.executable, "-c", program.format(uid=uid)],
                    capture_output=True,
                    text=True,
                    check=True,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                ).stdout
                self.assertEqual(re.findall(r"^NoNewPrivs:\s+(\d)", told, re.MULTILINE), [expected])

    def test_elsewhere(self):
        """On systems without this protection nothing happens."""
        self.patch(os, "getuid", lambda: 4711)
        self.patch(ctypes, "CDLL", lambda name: object())
        gainNothing()

        def fail(name: object) -> None:
            raise OSError("there is no library")

        self.patch(ctypes, "CDLL", fail)
        gainNothing()


class OpenFilesTests(SynchronousTestCase):
    """Tests for L{raiseOpenFiles}, L{limitOpenFiles} and C{worker_rlimit_nofile}."""

    def setUp(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        self.hard = limits[1]

    def refuse(self, error):
        """Make the system refuse each limit, as Python reports it."""

        def refuse(which, limits):
            raise error

        return self.patch(resource, "setrlimit", refuse)

    def test_directive(self):
        """The value is a positive number."""
        self.assertEqual(parse("worker_rlimit_nofile", "4096"), 4096)
        for value, message in (
            ("0", "must be at least 64, which leaves room for a few clients"),
            ("63", "must be at least 64"),
            ("-1", "must be a whole number"),
            ("4k", "must be a whole"),
        ):
            self.assertIn(message, str(self.assertRaises(ValueError, parse, "worker_rlimit_nofile", value)))

    def test_raised(self):
        """The soft limit is raised to the hard limit, which does not change."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, self.hard))
        raiseOpenFiles()
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (self.hard, self.hard))

    def test_refused(self):
        """If the system refuses it, the limit stays as it is."""
        for error in (ValueError("not allowed to raise maximum limit"), OSError(1, "Operation not permitted")):
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, self.hard))
            refusal = self.refuse(error)
            raiseOpenFiles()
            refusal.restore()
            self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 64)

    def test_limited(self):
        """Both limits are set."""
        given = []
        self.patch(resource, "setrlimit", lambda which, limits: given.append((which, limits)))
        limitOpenFiles(300)
        self.assertEqual(given, [(resource.RLIMIT_NOFILE, (300, 300))])

    def test_limitRefused(self):
        """The error says why the system refuses the limit, whatever Python makes of it."""
        for error in (ValueError("not allowed to raise maximum limit"), OSError(1, "Operation not permitted")):
            refusal = self.refuse(error)
            told = self.assertRaises(OSError, limitOpenFiles, 300)
            refusal.restore()
            self.assertEqual(str(told), str(error))
