"""
Tests for C{etc/Dockerfile}, C{etc/compose.yaml}, C{etc/mailgate.service}, C{etc/logrotate} and C{etc/pools.ini}. They
do not build a container.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from configparser import ConfigParser

import yaml
from twisted.trial.unittest import SynchronousTestCase

import mailgate
from mailgate.cli.main import main
from mailgate.config import parse
from mailgate.system.exitstatus import BAD_CONFIGURATION, CUT, NOT_RUNNING
from mailgate.tap import Options
from mailgate.test.support.documents import MISSING

ETC = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__))), "etc")
DOCKERFILE = os.path.join(ETC, "Dockerfile")
TWISTD = ["-n", "--pidfile=", "mailgate"]

INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}


def read(name: str) -> str:
    """The text of a file in C{etc/}, without comments, and with continued lines joined."""
    with open(os.path.join(ETC, name), encoding="utf-8") as opened:
        lines = [line for line in opened if not line.startswith("#")]
    return "".join(lines).replace("\\\n", " ")


class DockerfileTests(SynchronousTestCase):
    """C{etc/Dockerfile}."""

    skip = MISSING

    def setUp(self) -> None:
        lines = [line.split(None, 1) for line in read("Dockerfile").splitlines() if line.strip()]
        self.instructions = [(word, rest.strip()) for word, rest in lines]

    def last(self, word: str) -> str:
        return [rest for instruction, rest in self.instructions if instruction == word][-1]

    def test_instructions(self) -> None:
        """It has no other instructions, and begins with FROM."""
        self.assertEqual({word for word, _ in self.instructions} - INSTRUCTIONS, set())
        self.assertEqual(self.instructions[0][0], "FROM")

    def test_command(self) -> None:
        """It runs twistd itself, in the foreground, with options that the plugin accepts."""
        program, *arguments = json.loads(self.last("ENTRYPOINT"))
        self.assertEqual((program, arguments), ("twistd", TWISTD))
        options = Options()
        options.parseOptions(json.loads(self.last("CMD")))
        self.assertEqual(options["config"], "/etc/mailgate/gateway.ini")

    def test_user(self) -> None:
        """
        It does not run as root: the user is a number, because the host may not know names. It needs no port below 1024.
        The stop signal drains.
        """
        uid, gid = self.last("USER").split(":")
        self.assertGreater(int(uid), 0)
        self.assertEqual(uid, gid)
        self.assertIn(f"--uid {uid} ", self.last("RUN"))
        self.assertTrue(all(int(port) > 1023 for port in self.last("EXPOSE").split()))
        self.assertEqual(signal.Signals[self.last("STOPSIGNAL")], signal.SIGQUIT)

    def test_context(self) -> None:
        """The files that the build copies exist, and an installation needs no others."""
        first, *others = read("Dockerfile.dockerignore").split()
        self.assertEqual(first, "*")
        names = [name.removeprefix("!") for name in others]
        root = os.path.dirname(ETC)
        self.assertEqual([name for name in names if not os.path.exists(os.path.join(root, name))], [])
        metadata = ConfigParser()
        metadata.read(os.path.join(root, "setup.cfg"))
        description = metadata["metadata"]["long_description"].removeprefix("file: ")
        packages = {name.split(".")[0] for name in metadata["options.packages.find"]["include"].split()}
        made = {"setup.cfg", "pyproject.toml", metadata["metadata"]["license_files"], description, *packages}
        self.assertEqual(set(names), made)


class ComposeTests(SynchronousTestCase):
    """C{etc/compose.yaml} and the files that it names."""

    skip = MISSING

    def setUp(self) -> None:
        with open(os.path.join(ETC, "compose.yaml"), encoding="utf-8") as opened:
            self.services = yaml.safe_load(opened)["services"]

    def mounted(self, service: str) -> dict[str, str]:
        """What a container sees: the names in C{etc/} by the paths in the container. All is read-only."""
        rows = [each.split(":") for each in self.services[service]["volumes"]]
        self.assertEqual({mode for _, _, mode in rows}, {"ro"})
        return {inside: os.path.normpath(name) for name, inside, _ in rows}

    def test_files(self) -> None:
        """All files exist but the secret, which git ignores. The image is that of C{etc/Dockerfile}."""
        made = "cluster/store.secret"
        with open(os.path.join(os.path.dirname(ETC), ".gitignore"), encoding="utf-8") as opened:
            self.assertIn(f"/etc/{made}\n", opened.read())
        for name, service in self.services.items():
            for file in set(self.mounted(name).values()) - {made}:
                self.assertTrue(os.path.isfile(os.path.join(ETC, file)), file)
            if "build" in service:
                context = os.path.join(ETC, service["build"]["context"])
                self.assertTrue(os.path.samefile(os.path.join(context, service["build"]["dockerfile"]), DOCKERFILE))

    def test_store(self) -> None:
        """The store reads its file, is reached by the gateways under its name, and by nothing else."""
        store = self.services["store"]
        self.assertEqual(store["command"], ["valkey-server", "/etc/valkey.conf"])
        self.assertEqual(self.mounted("store"), {"/etc/valkey.conf": "cluster/valkey.conf"})
        self.assertNotIn("ports", store)
        for name in ("g1", "g2"):
            self.assertIn("store", self.services[name]["depends_on"])
            self.assertIn(store["networks"][0], self.services[name]["networks"])

    def test_gateways(self) -> None:
        """Both differ in their name alone, their configurations are valid, and a host reaches both."""
        texts, ports = [], []
        for name in ("g1", "g2"):
            mounted = self.mounted(name)
            text = read(mounted["/etc/mailgate/gateway.ini"])
            self.assertIn(f"gateway_name = {name}\n", text)
            self.assertIn("store = redis://mailgate@store:6379/0\n", text)
            texts.append(text.replace(name, "NAME"))
            (port,) = self.services[name]["ports"]
            ports.append(port)
            self.assertIn("listen = *:" + port.split(":")[-1] + "\n", text)
            secret = os.path.abspath(self.mktemp())
            with open(secret, "w") as opened:
                opened.write("f00d" * 16)
            os.chmod(secret, 0o600)
            self.assertIn("/etc/mailgate/store.secret", mounted)
            settings = parse(text.replace("/etc/mailgate/store.secret", secret))
            self.assertEqual([str(each) for each in settings.warnings], [])
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(len(set(ports)), 2)


class ServiceTests(SynchronousTestCase):
    """C{etc/mailgate.service}. C{test_systemd} checks it with systemd's own tool."""

    skip = MISSING

    def commands(self, name: str) -> list[list[str]]:
        """The commands of the option C{name}."""
        return [shlex.split(line) for line in re.findall(rf"^{name}=(.*)$", read("mailgate.service"), re.MULTILINE)]

    def test_start(self) -> None:
        """It runs twistd in the foreground, with options that the plugin accepts."""
        ((program, *arguments),) = self.commands("ExecStart")
        self.assertEqual(program, "/opt/mailgate/bin/twistd")
        self.assertEqual(arguments[:3], TWISTD)
        options = Options()
        options.parseOptions(arguments[3:])
        self.assertEqual(options["config"], "/etc/mailgate/gateway.ini")

    def test_reload(self) -> None:
        """The reload uses the pid file, which is in the folder that systemd makes."""
        ((program, *arguments),) = self.commands("ExecReload")
        self.assertEqual((program, arguments[:2]), ("/opt/mailgate/bin/mailgate", ["reload", "--pid"]))
        ((folder,),) = self.commands("RuntimeDirectory")
        self.assertEqual(arguments[2:], [f"/run/{folder}/mailgate.pid"])
        errors = io.StringIO()
        self.patch(sys, "stderr", errors)
        # Not trial's own folder: its path may be too long for the socket beside the pid file.
        folder = tempfile.mkdtemp()
        self.addCleanup(os.rmdir, folder)
        self.assertEqual(main(["reload", "--pid", os.path.join(folder, "x.pid")]), NOT_RUNNING)
        self.assertIn("no gateway is running", errors.getvalue())

    def test_exitStatuses(self) -> None:
        """
        An exit with cut sessions counts as success, also before the process can drain. A bad configuration does not
        cause a restart. Only the main process reports that, so no command may fail before it.
        """
        self.assertEqual(self.commands("SuccessExitStatus"), [[str(CUT), "SIGQUIT"]])
        self.assertEqual(self.commands("RestartPreventExitStatus"), [[str(BAD_CONFIGURATION)]])
        self.assertEqual(self.commands("ExecStartPre") + self.commands("ExecCondition"), [])

    def test_core(self) -> None:
        """Its memory, which contains passwords and keys, is not written to disk."""
        self.assertEqual(self.commands("LimitCORE"), [["0"]])

    def test_signal(self) -> None:
        """The stop signal drains, and only the main process gets it."""
        text = read("mailgate.service")
        self.assertIn("\nKillSignal=SIGQUIT\n", text)
        self.assertIn("\nKillMode=mixed\n", text)


class PoolsTests(SynchronousTestCase):
    """C{etc/pools.ini}."""

    skip = MISSING

    def test_check(self) -> None:
        """C{mailgate check} accepts it without a warning."""
        printed, errors = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", printed)
        self.patch(sys, "stderr", errors)
        path = os.path.join(ETC, "pools.ini")
        self.assertEqual(main(["check", "--config", path]), 0, errors.getvalue())
        self.assertEqual(errors.getvalue(), "")
        self.assertTrue(printed.getvalue().endswith(f"{path}: good\n"), printed.getvalue())


class LogrotateTests(SynchronousTestCase):
    """C{etc/logrotate/mailgate}. L{mailgate.test.integration.test_logrotate} runs logrotate."""

    skip = MISSING

    def setUp(self) -> None:
        with open(os.path.join(ETC, "logrotate", "mailgate"), encoding="utf-8") as opened:
            self.text = opened.read()

    def test_directives(self) -> None:
        """It has one section, with directives of logrotate(8), and one script."""
        (section,) = re.findall(r"^(/.+) \{\n(.*)^\}\n", self.text, re.MULTILINE | re.DOTALL)
        self.assertEqual(section[0], "/var/log/mailgate/*.log /var/log/mailgate/*.json")
        outside = re.sub(r"    postrotate\n.*    endscript\n", "", section[1], flags=re.DOTALL)
        words = [line.split()[0] for line in outside.splitlines() if line.strip() and not line.strip().startswith("#")]
        known = {"weekly", "rotate", "missingok", "notifempty", "compress", "delaycompress", "create", "sharedscripts"}
        self.assertEqual(set(words), known)
        self.assertEqual(len(words), len(known))

    def test_script(self) -> None:
        """The script reopens the logs of the processes in both pid files, and is one that a shell can read."""
        (script,) = re.findall(r"    postrotate\n(.*)    endscript\n", self.text, re.DOTALL)
        self.assertIn("kill -USR1", script)
        self.assertIn("/run/mailgate/mailgate.pid.oldbin", script)
        ran = subprocess.run(["sh", "-n"], input=script, check=False, capture_output=True, text=True, timeout=60)
        self.assertEqual((ran.returncode, ran.stderr), (0, ""))
