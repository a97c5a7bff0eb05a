"""
Tests for the command C{mailgate import-nginx} and its document.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.config import load
from mailgate.nginx.conf import Refused
from mailgate.nginx.importer import DIFFERENCES, pathsFor
from mailgate.nginx.mapping import NGINX_DEFAULTS, Mapping
from mailgate.test.cli.test_main import ConsoleCase
from mailgate.test.support.documents import MISSING, document
from mailgate.test.support.nowhere import NOWHERE


class CommandTests(ConsoleCase):
    """C{mailgate import-nginx}."""

    def test_good(self):
        """The ini file goes to standard output, remarks to standard error, and the exit status is 0."""
        path = self.write("events { }\nworker_priority 4;\nmail { auth_http a; server { listen 143; } }")
        self.assertEqual(self.run_("import-nginx", "-p", "/srv/nginx", path), 0)
        ini = self.write(self.stdout.getvalue())
        self.assertEqual([server.name for server in load(ini).servers], ["imap"])
        self.assertIn("error_log = /srv/nginx/logs/error.log error\n", self.stdout.getvalue())
        told, last = self.stderr.getvalue().splitlines()
        self.assertEqual(told, f"{path}:2: worker_priority: not carried over: set Nice= in the systemd unit")
        self.assertIn("mailgate check --config", last)

    def test_refused(self):
        """Without an ini file standard output is empty, and the exit status is that of a bad configuration."""
        path = self.write("worker_processes auto\nmail { }")
        self.assertEqual(self.run_("import-nginx", path), 78)
        self.assertEqual(self.stdout.getvalue(), "")
        self.assertEqual(self.stderr.getvalue(), f'{path}:1: directive "worker_processes" is not terminated by ";"\n')

    def test_missing(self):
        """A missing file is a bad configuration."""
        self.assertEqual(self.run_("import-nginx", f"{NOWHERE}/nginx.conf"), 78)
        self.assertEqual(self.stderr.getvalue(), f"{NOWHERE}/nginx.conf: cannot be read: No such file or directory\n")

    def test_notInstalled(self):
        """If crossplane is missing, one line says how to install it."""
        with patch.dict(sys.modules, {"crossplane": None}):
            del sys.modules["mailgate.nginx.conf"]
            self.assertEqual(self.run_("import-nginx", self.write("")), 69)
        (line,) = self.stderr.getvalue().splitlines()
        self.assertIn("pip install 'mailgate[nginx]'", line)

    def test_otherModule(self):
        """If another module is missing, there is no advice to install crossplane."""
        with patch.dict(sys.modules, {"mailgate.nginx.importer": None}):
            self.assertRaises(ModuleNotFoundError, self.run_, "import-nginx", self.write(""))

    def test_lazy(self):
        """The other commands and the gateway do not need crossplane."""
        program = "import sys, mailgate.cli.main, mailgate.tap; sys.exit('crossplane' in sys.modules)"
        root = os.path.dirname(os.path.dirname(mailgate.__file__))
        finished = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": root}, check=False)
        self.assertEqual(finished.returncode, 0)

    def test_help(self):
        """Its help describes the output, the exit statuses, and the next step."""
        self.assertEqual(self.run_("import-nginx", "--help"), 0)
        told = " ".join(self.stdout.getvalue().split())
        for text in (
            "standard output",
            "standard error",
            "/etc/nginx/nginx.conf",
            "exit status: 0 a gateway.ini was written",
            "78",
            "69",
            "check",
        ):
            self.assertIn(text, told)


class DocumentTests(SynchronousTestCase):
    """docs/nginx.rst."""

    skip = MISSING

    def setUp(self):
        self.text = document("docs", "nginx.rst")

    def test_defaults(self):
        """It explains each default of nginx that the import writes, and no other."""
        explained = re.findall(r"^``(\w+ = [\w ]+)``$", self.text, re.MULTILINE)
        wanted = [f"{default.name} = {default.value}".replace("\n", " ") for default in NGINX_DEFAULTS]
        self.assertEqual(explained, wanted)

    def test_differences(self):
        """It lists the differences that the head of every imported file lists."""
        told = self.text.partition("What is not written")[2].partition("~\n\n")[2].partition("\nValues\n")[0]
        for difference in DIFFERENCES:
            self.assertIn(f"``{difference.partition(':')[0]}``", told)

    def test_options(self):
        """It explains each exit status, and where relative paths start."""
        for text in ("\n0\n ", "\n78\n ", "\n69\n ", "``/usr/share/nginx``", "``/var/log/nginx/error.log``"):
            self.assertIn(text, self.text)


class MappingTests(SynchronousTestCase):
    """Tests for L{Mapping}."""

    def test_refused(self):
        """No statements make no sections."""
        self.assertRaises(Refused, Mapping, "x", (), pathsFor("x"))
