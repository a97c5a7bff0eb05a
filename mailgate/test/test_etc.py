"""
C{etc/Dockerfile} and C{etc/mailgate.service}: what they run is what there is. No container is built here.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal

from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.console import main
from mailgate.tap import Options

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc")
TWISTD = ["-n", "--pidfile=", "mailgate"]

INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def read(name: str) -> str:
    """The text of that file in C{etc/}, without comments, and with its continued lines whole."""
    with open(os.path.join(ETC, name), encoding="utf-8") as opened:
        lines = [line for line in opened if not line.startswith("#")]
    return "".join(lines).replace("\\\n", " ")


class DockerfileTests(SynchronousTestCase):
    """C{etc/Dockerfile}."""

    def setUp(self) -> None:
        lines = [line.split(None, 1) for line in read("Dockerfile").splitlines() if line.strip()]
        self.instructions = [(word, rest.strip()) for word, rest in lines]

    def last(self, word: str) -> str:
        return [rest for instruction, rest in self.instructions if instruction == word][-1]

    def test_instructions(self) -> None:
        """It has no others, and begins with what it is made from."""
        self.assertEqual({word for word, _ in self.instructions} - INSTRUCTIONS, set())
        self.assertEqual(self.instructions[0][0], "FROM")

    def test_command(self) -> None:
        """It runs twistd itself, in the foreground, with options that the plugin understands."""
        program, *arguments = json.loads(self.last("ENTRYPOINT"))
        self.assertEqual((program, arguments), ("twistd", TWISTD))
        options = Options()
        options.parseOptions(json.loads(self.last("CMD")))
        self.assertEqual(options["config"], "/etc/mailgate/gateway.ini")

    def test_user(self) -> None:
        """It is not root's, needs no port below 1024, and is told to end by a signal that drains."""
        self.assertEqual(self.last("USER"), "mailgate")
        self.assertTrue(all(int(port) > 1023 for port in self.last("EXPOSE").split()))
        self.assertEqual(signal.Signals[self.last("STOPSIGNAL")], signal.SIGQUIT)


class ServiceTests(SynchronousTestCase):
    """C{etc/mailgate.service}; systemd's own tool judges it in C{test_systemd}."""

    def commands(self, name: str) -> list[list[str]]:
        """The programs and arguments of the option C{name}."""
        return [shlex.split(line) for line in re.findall(rf"^{name}=(.*)$", read("mailgate.service"), re.MULTILINE)]

    def test_start(self) -> None:
        """It runs twistd in the foreground, with options that the plugin understands."""
        ((program, *arguments),) = self.commands("ExecStart")
        self.assertEqual(program, "/opt/mailgate/bin/twistd")
        self.assertEqual(arguments[:3], TWISTD)
        options = Options()
        options.parseOptions(arguments[3:])
        self.assertEqual(options["config"], "/etc/mailgate/gateway.ini")

    def test_commands(self) -> None:
        """What else it runs is understood by C{mailgate}: nothing is wrong but that there is no such configuration."""
        for name in ("ExecStartPre", "ExecReload"):
            ((program, *arguments),) = self.commands(name)
            self.assertEqual(program, "/opt/mailgate/bin/mailgate")
            arguments[-1] = "/nowhere/gateway.ini"
            self.assertEqual(main(arguments), 78)

    def test_signal(self) -> None:
        """It is told to end by a signal that drains, and only its main process is."""
        text = read("mailgate.service")
        self.assertIn("\nKillSignal=SIGQUIT\n", text)
        self.assertIn("\nKillMode=mixed\n", text)
