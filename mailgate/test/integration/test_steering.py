"""
C{mailgate backend} with a running gateway: orders hold in all processes, and over reloads, upgrades and the death of
processes.
"""

from __future__ import annotations

import json
import os
import signal

from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED
from mailgate.test.integration.daemon import freePort, waitUntil
from mailgate.test.integration.groupsite import namedBackend
from mailgate.test.integration.procfs import children, runs
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.test_commands import CommandsTestCase
from mailgate.test.integration.upgrading import WORKERS

LOGINS = 8
"""So many that both servers get some of them, unless an order keeps them away."""


class SteeringTestCase(CommandsTestCase):
    """A gateway before a group of two servers."""

    def setUp(self):
        super().setUp()
        self.ports = {("imap", "plain"): freePort()}
        self.servers = {name: namedBackend(name) for name in "AB"}
        for server in self.servers.values():
            self.addCleanup(server.stop)

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        lines = "".join(f"    {self.at(name)}\n" for name in self.servers)
        return (
            f"[mailgate]\nerror_log = gateway.log info\npid = {self.pidFile}\n{self.processes}{process}\n"
            f"[mail]\nserver_name = mx.test\n{mail}\n[upstream store]\nserver =\n{lines}{more}"
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{self.ports['imap', 'plain']}\nproxy_pass = store\n"
        )

    def at(self, name: str) -> str:
        """The address of a server."""
        return f"127.0.0.1:{self.servers[name].port}"

    def backend(self, word: str, *arguments: str) -> tuple[int, str, str]:
        """Run C{mailgate backend WORD}."""
        return self.bare("backend", word, "--config", os.path.join(self.folder, "gateway.ini"), *arguments)

    def rows(self) -> dict[str, dict[str, object]]:
        """The servers that C{mailgate backend list} shows, by address."""
        status, said, errors = self.backend("list", "--json")
        # After an upgrade a note names the old process while it runs.
        notes = [line for line in errors.splitlines() if "still serves sessions from before the upgrade" not in line]
        self.assertEqual((status, notes), (0, []))
        return {row["address"]: row for row in json.loads(said)}

    def login(self) -> tuple[str, RawClient]:
        """Log in; the name of the server, and the client."""
        client = self.client("imap")
        return client.login("alice", "wonderland").decode().strip().removeprefix("OK this is "), client

    def names(self) -> str:
        """The servers of logins that end at once."""
        found = set()
        for _ in range(LOGINS):
            name, client = self.login()
            found.add(name)
            client.close()
        return "".join(sorted(found))

    def drained(self, name: str = "A") -> None:
        """Let C{name} drain."""
        status, said, errors = self.backend("drain", self.at(name))
        self.assertEqual((status, errors), (0, ""))
        self.assertRegex(said, rf"^{self.at(name)} \(store\): drain; \d+ sessions? continues?\n$")


class OneProcessTests(SteeringTestCase):
    """A gateway without workers, and what also holds with workers."""

    def test_maintenance(self):
        """A drained server keeps its sessions and gets no new ones, until it is resumed."""
        self.start()
        self.assertEqual(self.names(), "AB")
        sessions = [self.login() for _ in range(LOGINS)]
        count = sum(name == "A" for name, _ in sessions)
        self.assertGreater(count, 0)
        waitUntil(lambda: self.rows()[self.at("A")]["sessions"] == count, "closed sessions have ended")
        status, said, errors = self.backend("drain", self.at("A"))
        self.assertEqual((status, errors), (0, ""))
        what = "session continues" if count == 1 else "sessions continue"
        self.assertEqual(said, f"{self.at('A')} (store): drain; {count} {what}\n")
        self.told(f"backend {self.at('A')}: drain ordered; sessions there: {count}")
        self.assertEqual(self.names(), "B")
        row = self.rows()[self.at("A")]
        self.assertEqual((row["group"], row["state"], row["sessions"]), ("store", "drain", count))
        self.assertEqual(row["reason"], "mailgate backend drain")
        for _, client in sessions:
            client.close()
        waitUntil(lambda: self.rows()[self.at("A")]["sessions"] == 0, "the sessions have ended")
        status, said, _ = self.backend("list")
        header, first, second = said.splitlines()
        self.assertEqual(header.split(), ["GROUP", "ADDRESS", "STATE", "SINCE", "SESSIONS", "REASON"])
        self.assertRegex(first, rf"^store  {self.at('A')} +drain  \d+s +0  mailgate backend drain$")
        self.assertRegex(second, rf"^store  {self.at('B')} +up     - +0$")
        status, said, _ = self.backend("resume", self.at("A"))
        self.assertEqual((status, said), (0, f"{self.at('A')} (store): up; 0 sessions\n"))
        self.assertEqual(self.names(), "AB")
        self.assertEqual(self.gateway.log().count("drain ordered"), 1)
        self.assertNotIn("received command", self.gateway.log())
        self.assertNoTraceback()

    def test_down(self):
        """The states of both orders, and of both that end them."""
        self.start()
        for word, state in (("down", "down"), ("up", "up"), ("drain", "drain"), ("up", "up"), ("down", "down")):
            self.assertTrue(self.backend(word, self.at("B"))[1].startswith(f"{self.at('B')} (store): {state}; 0 "))
            self.assertEqual(self.names(), "AB" if state == "up" else "A")

    def test_close(self):
        """With on_down = close, down ends the sessions at the server, in all processes; drain does not."""
        self.start(self.ini(more="on_down = close\nmax_disconnect_delay = 1s\n"))
        sessions = [self.login() for _ in range(LOGINS)]
        self.drained("A")
        self.assertEqual(self.rows()[self.at("A")]["sessions"], sum(name == "A" for name, _ in sessions))
        self.assertEqual(self.backend("down", self.at("A"))[0], 0)
        waitUntil(lambda: self.rows()[self.at("A")]["sessions"] == 0, "the sessions have ended")
        self.assertEqual(self.rows()[self.at("B")]["sessions"], sum(name == "B" for name, _ in sessions))

    def test_unknown(self):
        """An address that no server has is named, with those that are known, and nothing is done."""
        self.start()
        status, said, errors = self.backend("drain", "192.0.2.1:143")
        self.assertEqual((status, said), (NOTHING_MATCHED, ""))
        self.assertTrue(errors.startswith("no server has the address 192.0.2.1:143; servers: 127.0.0.1:"), errors)
        self.assertNotIn("ordered", self.gateway.log())
        self.assertEqual(self.names(), "AB")

    def test_reload(self):
        """An order holds over a reload. Sessions of the previous configuration are counted."""
        self.start()
        name, client = self.login()
        self.drained(name)
        self.gateway.configure(self.ini(mail="proxy_timeout = 23h"))
        self.reload()
        self.assertNotEqual(self.names(), "AB")
        row = self.rows()[self.at(name)]
        self.assertEqual((row["state"], row["sessions"]), ("drain", 1))
        client.close()
        waitUntil(lambda: self.rows()[self.at(name)]["sessions"] == 0, "the session has ended")

    def test_removed(self):
        """A server that the configuration no longer has is listed while sessions are there."""
        self.start()
        name, client = self.login()
        kept = self.servers
        self.servers = {other: server for other, server in kept.items() if other != name}
        self.gateway.configure(self.ini())
        self.reload()
        self.servers = kept
        row = self.rows()[self.at(name)]
        self.assertEqual((row["sessions"], row["reason"]), (1, "not in the current configuration"))
        client.close()
        waitUntil(lambda: self.at(name) not in self.rows(), "the server is listed no more")

    def test_upgrade(self):
        """An order holds over an upgrade."""
        self.start()
        self.drained()
        self.upgraded()
        # The old process leaves the command socket to the new one.
        waitUntil(lambda: self.rows()[self.at("A")]["state"] == "drain", "the new process has the order")
        self.assertEqual(self.names(), "B")
        self.assertEqual(self.backend("resume", self.at("A"))[0], 0)
        self.assertEqual(self.names(), "AB")

    def test_help(self):
        """Each part of the command has help."""
        for arguments, part in (
            (("--help",), "list backends, or take them out for maintenance"),
            (("backend", "--help"), "send no new sessions to a server"),
            (("backend", "drain", "--help"), "Before maintenance, wait until"),
        ):
            status, said, _ = self.bare(*arguments)
            self.assertEqual(status, 0)
            self.assertIn(part, " ".join(said.split()))
        self.assertEqual(self.bare("backend")[0], 2)


class WorkersTests(OneProcessTests):
    """Several workers."""

    processes = WORKERS

    def workers(self) -> list[int]:
        """The workers of the youngest generation."""
        return children(children(self.running())[-1])

    def test_worker(self):
        """The successors of killed workers have the order from their start."""
        self.start()
        self.drained()
        killed = set(self.workers())
        for worker in killed:
            os.kill(worker, signal.SIGKILL)
        waitUntil(lambda: len(self.workers()) == 2 and not killed & set(self.workers()), "others are forked")
        waitUntil(lambda: self.backend("list")[0] == 0, "they serve")
        self.assertEqual(self.names(), "B")
        self.assertEqual(self.rows()[self.at("A")]["state"], "drain")

    def test_zygote(self):
        """So have the workers of a revived zygote. A worker that lost its zygote cannot be asked; the list says so."""
        self.start()
        name, client = self.login()
        self.drained(name)
        (zygote,) = children(self.running())
        before = self.workers()
        os.kill(zygote, signal.SIGKILL)
        self.told("forked by zygote", 2)
        self.assertNotEqual(self.names(), "AB")
        waitUntil(lambda: sum(map(runs, before)) == 1, "the other worker has exited")
        status, said, errors = self.backend("list")
        self.assertEqual(status, REFUSED)
        self.assertRegex(said, rf"{self.at(name)} +drain ")
        self.assertRegex(errors, r"^worker \d+ has lost its zygote and cannot be asked; ")
        client.close()
        waitUntil(lambda: self.backend("list")[0] == 0, "the worker has exited")

    def test_hangs(self):
        """A worker that does not answer is named, and the others are shown."""
        self.start()
        worker = self.workers()[0]
        os.kill(worker, signal.SIGSTOP)
        self.addCleanup(os.kill, worker, signal.SIGCONT)
        status, said, errors = self.backend("drain", self.at("A"))
        self.assertEqual((status, errors), (REFUSED, f"worker {worker} has not answered within 5 s\n"))
        self.assertIn(f"{self.at('A')} (store): drain; 0 sessions continue", said)
        os.kill(worker, signal.SIGCONT)
        self.assertEqual(self.rows()[self.at("A")]["state"], "drain")
        self.assertEqual(self.names(), "B")
