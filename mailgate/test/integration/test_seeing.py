# -*- test-case-name: mailgate.test.integration.test_seeing -*-
"""
C{mailgate sessions}, C{kick}, C{explain}, C{status} and C{stats} with a running gateway, and what C{drain} says.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
from typing import Any

from mailgate.system.exitstatus import NOT_RUNNING, NOTHING_MATCHED
from mailgate.test.integration.daemon import waitUntil
from mailgate.test.integration.gateway import WITH_KEEPER, environment
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.test_commands import MAILGATE, CommandsTestCase
from mailgate.test.integration.upgrading import WORKERS


class SeeingTestCase(CommandsTestCase):
    """What the commands say."""

    def seen(self, name: str, *options: str) -> Any:
        """The JSON that a command prints, whatever its status."""
        _, said, errors = self.command(name, *options, "--json")
        self.assertTrue(said, errors)
        return json.loads(said)

    def sessions(self, *options: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.seen("sessions", *options)["sessions"]
        return found

    def waitForSessions(self, number: int, *options: str) -> list[dict[str, Any]]:
        """Sessions are listed at once; those that end may take a moment."""
        rows: list[dict[str, Any]] = []

        def areListed() -> bool:
            # These rows, not those of a further question: a busy process may answer that too late.
            rows[:] = self.sessions(*options)
            return len(rows) == number

        waitUntil(areListed, f"{number} sessions are listed")
        return rows

    def endLate(self, program: subprocess.Popen[str]) -> None:
        """Kill C{program} if it is there after a minute: reading from it then ends, too."""
        late = threading.Timer(60, program.kill)
        late.daemon = True
        late.start()
        self.addCleanup(late.cancel)

    def failed(self, protocol: str = "imap") -> RawClient:
        """A client whose password was refused."""
        client = self.client(protocol)
        client.login("alice", "wrong")
        return client


class SessionsTests(SeeingTestCase):
    """Lists of sessions, and their ends."""

    def test_list(self):
        """Each session is listed with its user, backend and phase, from both ways to find the gateway."""
        self.start()
        self.loggedIn("imap")
        self.loggedIn("pop3", "implicit")
        self.client("smtp")
        rows = {row["protocol"]: row for row in self.waitForSessions(3)}
        self.assertEqual(sorted(rows), ["imap", "pop3", "smtp"])
        self.assertEqual((rows["imap"]["user"], rows["imap"]["phase"]), ("alice", "relay"))
        self.assertEqual(rows["imap"]["backend"], f"127.0.0.1:{self.sandbox['imap']}")
        self.assertIsNone(rows["imap"]["tls"])
        self.assertTrue(rows["pop3"]["tls"]["version"].startswith("TLS"))
        self.assertEqual((rows["smtp"]["user"], rows["smtp"]["phase"]), ("", "command"))
        status, said, errors = self.bare("sessions", "--pid", self.pidFile, "--user", "AL*")
        self.assertEqual((status, errors), (0, ""))
        self.assertTrue(said.endswith("\n2 sessions of 1 user at 1 gateway\n"), said)
        self.assertIn(rows["imap"]["id"], said)
        self.assertIn(f"session {rows['imap']['id']}", self.gateway.log())
        self.assertNoTraceback()

    def test_filters(self):
        """Filters choose; what nothing matches has its own status."""
        self.start()
        self.loggedIn("imap")
        self.client("pop3")
        self.waitForSessions(2)
        for options, expected in (
            (("--protocol", "imap"), 1),
            (("--phase", "relay"), 1),
            (("--address", "127.0.0.0/8"), 2),
            (("--address", "192.0.2.1"), 0),
            (("--backend", f"127.0.0.1:{self.sandbox['imap']}"), 1),
            (("--older", "1h"), 0),
        ):
            self.waitForSessions(expected, *options)
        self.assertEqual(self.command("sessions", "--user", "bob")[0], NOTHING_MATCHED)

    def test_kick(self):
        """The sessions of a user end at once, and not those of others; the log says why and by order of which user."""
        self.start()
        clients = [self.loggedIn("imap"), self.loggedIn("imap", "implicit"), self.loggedIn("pop3")]
        other = self.client("imap")
        self.waitForSessions(4)
        waitUntil(lambda: self.seen("kick", "ali*", "--dry-run")["ended"] == 3, "all processes answer in time")
        self.waitForSessions(4)
        status, said, errors = self.command("kick", "ali*", "--reason", "password changed")
        self.assertEqual((status, errors), (0, ""))
        self.assertTrue(said.startswith("3 sessions ended"), said)
        for client in clients:
            self.assertTrue(client.ended())
        self.assertIn(b"OK", other.login("alice", "wonderland"))
        # A client may see its end before the log has it.
        waitUntil(lambda: self.gateway.log().count("outcome kicked") == 3, "the log has the three sessions")
        self.assertIn("password changed", self.gateway.log())
        self.assertEqual(self.command("kick", "bob")[0], NOTHING_MATCHED)

    def test_kickNeedsAWord(self):
        """Without a filter nothing ends."""
        self.start()
        client = self.loggedIn("imap")
        for arguments in ((), ("*",)):
            self.assertEqual(self.command("kick", *arguments)[0], 2)
        client.noop()


class WorkersTests(SessionsTests):
    """The same with workers, and what they alone have."""

    processes = WORKERS + WITH_KEEPER

    def test_reload(self):
        """Sessions of workers that drain are listed and end as others."""
        self.start()
        old = self.loggedIn("imap")
        os.kill(self.running(), signal.SIGHUP)
        self.told("the new configuration is active", 1)
        new = self.loggedIn("imap")
        rows = self.waitForSessions(2)
        self.assertEqual(len({row["worker"] for row in rows}), 2)
        waitUntil(lambda: self.seen("sessions")["gateways"][0]["complete"], "all processes answer in time")
        counts: list[int] = []

        def areKicked() -> bool:
            # On a busy machine a process may be late; the answer names it then.
            kicked = self.seen("kick", "alice")
            counts.append(kicked["ended"])
            return not kicked["unanswered"] and not self.sessions()

        waitUntil(areKicked, "the sessions have ended")
        self.assertLessEqual(sum(counts), 2)
        self.assertTrue(old.ended() and new.ended())


class ExplainTests(SeeingTestCase):
    """C{mailgate explain}."""

    processes = WORKERS + WITH_KEEPER

    def test_denied(self):
        """The last login is there with its phase, and the next one is foreseen; no question is sent for that."""
        self.start()
        self.failed()
        waitUntil(lambda: self.seen("explain", "alice")["recent"], "the login is known")
        questions = self.gateway.log().count("login failed")
        status, said, errors = self.command("explain", "alice", "--protocol", "imap", "--address", "127.0.0.1")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn("login of alice from 127.0.0.1 (imap, server imap)\n", said)
        self.assertIn(f"be asked of http://127.0.0.1:{self.sandbox['auth_http']}/auth at once\n", said)
        self.assertRegex(
            said, r"  last       \d\d:\d\d:\d\d denied in phase auth, \d+ ms, imap from 127\.0\.0\.1, session "
        )
        self.assertEqual(self.gateway.log().count("login failed"), questions)

    def test_unknown(self):
        """A user of which nothing is known is explained as well."""
        self.start()
        status, said, _ = self.command("explain", "carol")
        self.assertEqual(status, 0)
        self.assertIn("nothing is known", said)


class StatusTests(SeeingTestCase):
    """C{mailgate status} and C{stats}."""

    def test_good(self):
        """All is well; the numbers are those of the sessions."""
        self.start()
        self.loggedIn("imap")
        self.waitForSessions(1)
        status, said, errors = self.command("status")
        self.assertEqual((status, errors), (0, ""))
        self.assertIn(": good\n", said.partition("\n")[0] + "\n")
        waitUntil(lambda: self.seen("stats")["sessions"]["relayed"] == 1, "the session is counted")
        self.assertEqual(self.seen("stats")["logins"]["accepted"]["total"], 1)

    def test_absent(self):
        """69 without a gateway."""
        self.assertEqual(self.bare("status", "--pid", self.pidFile)[0], NOT_RUNNING)

    def test_degraded(self):
        """An authentication service that refuses connections is a reason."""
        self.sandbox = {**self.sandbox, "auth_http": 1}
        self.start()
        self.client("imap").login("alice", "wonderland")
        waitUntil(lambda: self.command("status")[0] == 1, "the failure is seen")
        self.assertEqual(self.seen("status")["status"], "degraded")

    def test_watch(self):
        """A line each second in a pipe; Ctrl-C ends that with status 0 and without a traceback."""
        self.start()
        command = [*MAILGATE, "stats", "--watch", "--pid", self.pidFile]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as watching:
            self.endLate(watching)
            assert watching.stdout is not None and watching.stderr is not None
            lines = [watching.stdout.readline() for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            self.assertEqual(watching.wait(20), 0)
            self.assertEqual(watching.stderr.read().strip(), "")
        for line in lines:
            self.assertRegex(line, r"^\d{4}-\d\d-\d\dT\S+ sessions 0, relayed 0, ")


class DrainTests(SeeingTestCase):
    """C{mailgate drain}."""

    def test_remaining(self):
        """While it waits it says how many sessions are left."""
        self.start()
        client = self.loggedIn("imap")
        pid = self.running()
        command = [*MAILGATE, "drain", "--pid", self.pidFile]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as draining:
            self.endLate(draining)
            assert draining.stderr is not None
            line = draining.stderr.readline()
            self.leave(client)
            self.assertEqual(draining.wait(30), 0)
        self.assertRegex(line, re.escape(f"1 session left: imap 1; at 127.0.0.1:{self.sandbox['imap']} 1"))
        waitUntil(lambda: self.isGone(pid), "the gateway ends")
