"""Tests for L{mailgate.cli.remote}, with commands that the tests add to the table, and real command sockets."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sys
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from mailgate.cli.main import main
from mailgate.process.answer import Answer
from mailgate.process.commandsocket import CommandSocket
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED
from mailgate.test.integration.daemon import newFolder
from mailgate.test.process.test_commands import Shout, add, shouting

ROW = {
    "group": "store",
    "address": "192.0.2.1:143",
    "server": "",
    "state": "drain",
    "reason": "mailgate backend drain",
    "seconds": 61,
    "sessions": 2,
    "weight": 1,
}


class RemoteTestCase(TestCase):
    """The command line, in a thread, and what it prints."""

    def setUp(self) -> None:
        self.stdout, self.stderr = io.StringIO(), io.StringIO()
        self.patch(sys, "stdout", self.stdout)
        self.patch(sys, "stderr", self.stderr)
        # argparse wraps its lines at the width of the terminal.
        self.patch(os, "environ", {**os.environ, "COLUMNS": "200"})
        self.folder = newFolder("remote")
        self.addCleanup(shutil.rmtree, self.folder)
        self.pidFile = os.path.join(self.folder, "pid")

    def run_(self, *arguments: str) -> int:
        """Run the command; return the status, also of a C{SystemExit}."""
        try:
            return main(arguments)
        except SystemExit as exit:
            return int(exit.code or 0)

    def asked(self, name: str, *arguments: str) -> Deferred[int]:
        return deferToThread(self.run_, name, "--pid", self.pidFile, "--timeout", "20s", *arguments)


class ScratchTests(RemoteTestCase):
    """One entry of the table is enough for a command on the socket and on the command line, with help."""

    def setUp(self) -> None:
        super().setUp()
        self.shouted: list[Shout] = []
        command = shouting(self.shout, tell=lambda pid, answer: f"{answer.cut} times")
        add(self, command)
        self.socket = CommandSocket(self.pidFile, "gateway.ini")
        self.socket.open()
        self.addCleanup(self.socket.close)
        operation: Any = object()
        self.socket.start(operation, reactor)

    def shout(self, operation: Any, arguments: Shout) -> Deferred[Answer]:
        self.shouted.append(arguments)
        return succeed(Answer(True, cut=0) if arguments.times else Answer(False, ("nothing to shout",)))

    async def test_asked(self) -> None:
        """Arguments reach the gateway, and its answer is printed."""
        status = await self.asked("shout", "hello world", "--times", "3", "--loud")
        self.assertEqual((status, self.stdout.getvalue(), self.stderr.getvalue()), (0, "0 times\n", ""))
        self.assertEqual(self.shouted, [Shout("hello world", 3, None, True)])

    async def test_refused(self) -> None:
        """The reasons of a refusal are printed."""
        status = await self.asked("shout", "hello", "--times", "0")
        self.assertEqual((status, self.stdout.getvalue(), self.stderr.getvalue()), (REFUSED, "", "nothing to shout\n"))

    def test_bad(self) -> None:
        """Bad arguments are refused before the command is sent."""
        for arguments, reason in (
            ((), "the following arguments are required: TEXT"),
            (("a", "--times", "often"), "argument --times: invalid int value: 'often'"),
            (("a\x07",), 'shout: "text" must be printable text'),
            (("a", "--now"), "unrecognized arguments: --now"),
        ):
            self.assertEqual(self.run_("shout", "--pid", self.pidFile, *arguments), 2)
            self.assertIn(reason, self.stderr.getvalue())
        self.assertEqual(self.shouted, [])

    def test_help(self) -> None:
        """The help describes the command and its arguments."""
        self.assertEqual(self.run_("--help"), 0)
        self.assertRegex(self.stdout.getvalue(), r"shout +shout something\n")
        self.assertEqual(self.run_("shout", "--help"), 0)
        for part in (
            r"Has the gateway shout\.\n",
            r"TEXT +what to shout\n",
            r"--times TIMES +how often\n",
            r"--pause PAUSE +seconds between two times\n",
            r"--loud +louder than that\n",
            r"--timeout TIME +how long to wait for the answer \(default: 60s\)\n",
            r"exit status:\n  0   done\n",
        ):
            self.assertRegex(self.stdout.getvalue(), part)


class EarlierTests(RemoteTestCase):
    """A gateway of the previous release, which reads bare words and does not name its commands."""

    def setUp(self) -> None:
        super().setUp()
        self.heard = b""
        self.listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.listening.close)
        self.listening.bind(f"{self.pidFile}.sock")
        self.listening.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        self.addCleanup(self.thread.join)

    def serve(self) -> None:
        """One conversation."""
        connection, _ = self.listening.accept()
        with connection, connection.makefile("rwb", 0) as stream:
            stream.write(b'{"mailgate": "0.0.9", "pid": 4711}\n')
            self.heard = stream.readline()
            if self.heard:
                stream.write(json.dumps({"done": True, "reasons": [], "cut": 0, "pid": 4712}).encode() + b"\n")

    def test_upgrade(self) -> None:
        """The command is sent as a bare word, so that an old gateway can be upgraded."""
        self.assertEqual(self.run_("upgrade", "--pid", self.pidFile), 0)
        self.assertEqual(self.heard, b"upgrade\n")
        self.assertTrue(self.stdout.getvalue().startswith("process 4712 has taken over from process 4711"))

    def test_newCommand(self) -> None:
        """A command that the old release lacks is not sent."""
        add(self, shouting(None))
        self.assertEqual(self.run_("shout", "a", "--pid", self.pidFile), REFUSED)
        self.thread.join()
        self.assertEqual(self.heard, b"")
        told = "the running gateway is older and has no command shout: run mailgate upgrade\n"
        self.assertEqual(self.stderr.getvalue(), told)


class BackendTests(RemoteTestCase):
    """C{mailgate backend}, with an operation that answers at once."""

    def setUp(self) -> None:
        super().setUp()
        self.ordered: list[tuple[str, str]] = []
        self.answer = Answer(True, rows=(ROW,))
        self.socket = CommandSocket(self.pidFile, "gateway.ini")
        self.socket.open()
        self.addCleanup(self.socket.close)
        operation: Any = self
        self.socket.start(operation, reactor)

    def listBackends(self) -> Deferred[Answer]:
        return succeed(self.answer)

    def orderBackend(self, word: str, address: str) -> Deferred[Answer]:
        self.ordered.append((word, address))
        return succeed(self.answer)

    def command(self, word: str, *arguments: str) -> Deferred[int]:
        return deferToThread(self.run_, "backend", word, "--pid", self.pidFile, *arguments)

    async def test_list(self) -> None:
        """The table; with C{--json} an array."""
        self.assertEqual(await self.command("list"), 0)
        self.assertIn("store  192.0.2.1:143  drain  1m1s          2  mailgate backend drain\n", self.stdout.getvalue())
        self.stdout.truncate(self.stdout.seek(0))
        self.assertEqual(await self.command("list", "--json"), 0)
        (found,) = json.loads(self.stdout.getvalue())
        self.assertEqual((found["group"], found["state"], found["sessions"]), ("store", "drain", 2))

    async def test_afterUpgrade(self) -> None:
        """While the process from before an upgrade runs, a note says that its sessions are not counted."""
        for pid, note in ((os.getpid(), f"process {os.getpid()} still serves sessions from before"), ("", ""), (0, "")):
            with open(f"{self.pidFile}.oldbin", "w") as file:
                file.write(f"{pid}\n")
            self.stderr.truncate(self.stderr.seek(0))
            self.assertEqual(await self.command("list"), 0)
            self.assertEqual(self.stderr.getvalue()[: len(note) or None], note)

    async def test_orders(self) -> None:
        """Each order is sent with its address, and the answer printed."""
        for word in ("drain", "resume", "down", "up"):
            self.assertEqual(await self.command(word, "192.0.2.1:143"), 0)
        self.assertEqual(self.ordered, [(word, "192.0.2.1:143") for word in ("drain", "resume", "down", "up")])
        self.assertEqual(self.stdout.getvalue(), "192.0.2.1:143 (store): drain; 2 sessions continue\n" * 4)

    async def test_unknown(self) -> None:
        """The status for an address that no server has."""
        self.answer = Answer(False, ("no server has the address a:1",), isUnknown=True)
        self.assertEqual(await self.command("drain", "a:1"), NOTHING_MATCHED)
        self.assertEqual((self.stdout.getvalue(), self.stderr.getvalue()), ("", "no server has the address a:1\n"))

    async def test_incomplete(self) -> None:
        """If a worker has not answered, what is known is printed, and the status is not 0."""
        self.answer = Answer(True, ("worker 7 has not answered within 5 s",), rows=(ROW,))
        self.assertEqual(await self.command("list"), REFUSED)
        self.assertIn("store", self.stdout.getvalue())
        self.assertEqual(self.stderr.getvalue(), "worker 7 has not answered within 5 s\n")

    def test_help(self) -> None:
        """The help of both words."""
        for arguments, part in (((), "COMMAND"), (("drain",), "ADDRESS"), (("list",), "--json")):
            self.assertEqual(self.run_("backend", *arguments, "--help"), 0)
            self.assertIn(part, self.stdout.getvalue())
        self.assertIn("  2   no server has the address\n", self.stdout.getvalue())
        self.assertEqual(self.run_("backend"), 2)
        self.assertEqual(self.run_("backend", "drain", "--pid", self.pidFile), 2)
        self.assertIn("the following arguments are required: ADDRESS", self.stderr.getvalue())
